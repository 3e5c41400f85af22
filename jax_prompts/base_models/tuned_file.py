"""Reads what a prompt file holds of the inside of a model, and checks that the model takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jax_prompts.base_models.build import Model, with_adapters
from jax_prompts.base_models.classifier import ANSWERS, answer_of
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.errors import ConfigError
from jax_prompts.models.bert import VERBALIZER, Bert
from jax_prompts.models.tuned_leaves import ACTIVATIONS
from jax_prompts.prompts.prompt_file import PromptMetadata, load_leaves
from jax_prompts.storage.files import PathOrUrl
from jax_prompts.tuned.leaves import Leaves, by_path, misfits

Tree = Any
_SHOWN = 10  # of what does not fit


def load_leaves_of(model: Model, path: PathOrUrl, labels: Sequence[str] | None = None) -> Leaves:
    """The leaves of a prompt file, by path, for a model; of a BERT with what it answers these labels with.

    Args:
      model: the base model.
      path: of the file.
      labels: of the task; None: those that the file names.

    Raises:
      ConfigError: leaves that the model has no place for (+), or lacks others beside (-); of a BERT, neither classifier
        nor verbaliser, or one for other labels.
      RunError: the file cannot be read.
    """
    leaves, metadata = load_leaves(path)
    check_leaves(str(path), model, leaves, metadata)
    if isinstance(model, Bert) and labels is not None and metadata.labels != tuple(labels):
        ours, theirs = ", ".join(labels) or "none", ", ".join(metadata.labels) or "none"
        raise ConfigError(
            f"{path} was tuned for the labels {theirs}, and the task has {ours}: use its own task"
        )
    return dict(leaves)


def check_leaves(name: str, model: Model, leaves: Mapping[str, Any], metadata: PromptMetadata) -> None:
    """Raises ConfigError unless a model takes these leaves, as `load_leaves_of` says; `name` tells what is read."""
    answer = answer_of(leaves)
    if isinstance(model, Bert):
        if answer is None:
            raise ConfigError(
                f"{name} holds no classifier, and a BERT answers with one: use a prompt tuned on BERT"
            )
        D, C = model.config.emb_dim, len(metadata.labels)
        for path, shape in ((f"{answer}/kernel", (D, C)), (f"{answer}/bias", (C,))):
            if path in leaves and np.shape(leaves[path]) != shape:
                raise ConfigError(
                    f"{name} holds {path} {np.shape(leaves[path])}, and {C} labels of this BERT make it {shape}: use "
                    "the base model it was tuned with"
                )
    elif answer is not None:
        raise ConfigError(
            f"{name} holds a BERT's {answer}, and this model is a T5: use the BERT it was tuned with"
        )
    inside = {path: leaf for path, leaf in leaves.items() if path.partition("/")[0] not in ANSWERS}
    if not inside:
        return
    if wrong := list(misfits(inside, by_path(abstract_weights(model)))):
        listing = " ".join([*wrong[:_SHOWN], *(["..."] if len(wrong) > _SHOWN else [])])
        origin = f" ({metadata.base_model})" if metadata.base_model else ""
        raise ConfigError(
            f"{name} does not fit the model ({len(wrong)} leaves, - the model's, + the file's): {listing}: use the "
            f"base model it was tuned with{origin}"
        )
    if metadata.adapter_activation and metadata.adapter_activation not in ACTIVATIONS:
        raise ConfigError(
            f"{name} has adapters with the activation {metadata.adapter_activation!r}, which is none of "
            f"{', '.join(ACTIVATIONS)}: use another file"
        )


def model_of(model: Model, leaves: Iterable[str], metadata: PromptMetadata) -> Model:
    """The model as a prompt needs it: of its kind, with its adapters, and read at [MASK] by a verbaliser.

    Args:
      model: the base model.
      leaves: paths of what was tuned inside it.
      metadata: of the prompt.
    """
    model = with_adapters(model.clone(prompt_kind=metadata.prompt_kind), metadata.adapter_activation)
    return model.clone(at_mask=answer_of(leaves) == VERBALIZER) if isinstance(model, Bert) else model
