"""Reads what a prompt file holds of the inside of a model, and checks that the model takes it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jax_prompts.base_models.build import Model, with_adapters
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.errors import ConfigError
from jax_prompts.models.answers import CLASSIFIER, VERBALIZER, answer_of, inside_model
from jax_prompts.models.bert import Bert
from jax_prompts.models.row_prompts import ATTENTION, ROUTER
from jax_prompts.models.tuned_leaves import ACTIVATIONS
from jax_prompts.prompts.prompt_file import PromptMetadata, check_fits, load_file
from jax_prompts.storage.files import PathOrUrl
from jax_prompts.tuned.fits import misfits
from jax_prompts.tuned.leaves import Leaves, Weights, by_path

Tree = Any
_SHOWN = 10  # of what does not fit


def load_tuned(
    model: Model, path: PathOrUrl, labels: Sequence[str] | None = None, **base: Any
) -> tuple[Float[np.ndarray, "P D"], Leaves, PromptMetadata]:
    """A prompt file for a model: prompt, leaves by path, metadata; of a BERT with what it answers these labels with.

    Args:
      model: the base model.
      path: of the file.
      labels: of the task; None: those that the file names.
      base: `prompt_width` and the fingerprints that `load_prompt` compares.

    Raises:
      ConfigError: as `load_prompt`; leaves that the model has no place for (+), or lacks others beside (-); other
        prompts that do not go with the file's own; of a BERT, neither classifier nor verbaliser, or one for other
        labels.
      RunError: the file cannot be read.
    """
    prompt_PD, leaves, metadata = load_file(path)
    check_fits(path, prompt_PD, metadata, **base)
    check_leaves(str(path), model, leaves, metadata, prompt_PD)
    if isinstance(model, Bert) and labels is not None and metadata.labels != tuple(labels):
        ours, theirs = ", ".join(labels) or "none", ", ".join(metadata.labels) or "none"
        raise ConfigError(
            f"{path} was tuned for the labels {theirs}, and the task has {ours}: use its own task"
        )
    return prompt_PD, leaves, metadata


def check_leaves(
    name: str,
    model: Model,
    leaves: Mapping[str, Any],
    metadata: PromptMetadata,
    prompt_PD: Float[np.ndarray, "P D"],
) -> None:
    """Raises ConfigError unless a model takes these leaves beside the prompt, as `load_tuned` says.

    Args:
      name: what is read.
    """
    answer = answer_of(leaves)
    if isinstance(model, Bert):
        if answer is None:
            raise ConfigError(
                f"{name} holds no classifier, and a BERT answers with one: use a prompt tuned on BERT"
            )
        D, C = model.config.emb_dim, len(metadata.labels)
        shapes = {f"{answer}/kernel": (D, C), f"{answer}/bias": (C,)}
        needed = set(shapes) if answer == CLASSIFIER else {f"{answer}/kernel"}
        if missing := sorted(needed - leaves.keys()):
            raise ConfigError(f"{name} holds {answer} without {missing[0]}: use the whole file")
        for path in leaves.keys() - inside_model(leaves).keys():
            if (shape := shapes.get(path)) is None:
                raise ConfigError(f"{name} holds {path}, which no BERT answers with: use another file")
            if np.shape(leaves[path]) != shape:
                raise ConfigError(
                    f"{name} holds {path} {np.shape(leaves[path])}, and {C} labels of this BERT make it {shape}: use "
                    "the base model it was tuned with"
                )
    elif answer is not None:
        raise ConfigError(
            f"{name} holds a BERT's {answer}, and this model is a T5: use the BERT it was tuned with"
        )
    if inside := inside_model(leaves):
        check_in_weights(name, inside, _shapes(model), metadata)
    if problem := _beside_prompt(inside, metadata, prompt_PD):
        raise ConfigError(f"{name} has {problem}: use another file")


@functools.lru_cache(maxsize=8)
def _shapes(model: Model) -> Weights:
    """Shapes of a model's weights by path, traced once: an engine checks prompts with every call."""
    return by_path(abstract_weights(model))


def check_in_weights(
    name: str, leaves: Mapping[str, Any], weights: Weights, metadata: PromptMetadata
) -> None:
    """Raises ConfigError unless a model of weights with these shapes takes these leaves, all inside of it."""
    if wrong := list(misfits(leaves, weights)):
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


def _beside_prompt(
    leaves: Mapping[str, Any], metadata: PromptMetadata, prompt_PD: Float[np.ndarray, "P D"]
) -> str | None:
    """What is wrong with other prompts beside the tuned one, of which a row's own is made."""
    others = [leaves[path] for path in (f"{ROUTER}/prompt", f"{ATTENTION}/sources") if path in leaves]
    if not others:
        return None
    if metadata.prompt_kind != "input":
        return f"a prompt of kind {metadata.prompt_kind!r} and others of embeddings"
    for others_SPD in others:
        if others_SPD.ndim != 3 or others_SPD.shape[1] != len(prompt_PD):
            return f"a prompt of {len(prompt_PD)} tokens and beside it {[*others_SPD.shape]} of others"
    if f"{ROUTER}/kernel" in leaves and leaves[f"{ROUTER}/kernel"].shape[1] != 1 + len(others[0]):
        return f"a router of {leaves[f'{ROUTER}/kernel'].shape[1]} prompts and {1 + len(others[0])} prompts"
    return None


def model_of(model: Model, leaves: Iterable[str], metadata: PromptMetadata) -> Model:
    """The model as a prompt needs it: of its kind, with its adapters, and read at [MASK] by a verbaliser.

    Args:
      model: the base model.
      leaves: paths of what was tuned inside it.
      metadata: of the prompt.
    """
    model = with_adapters(model.clone(prompt_kind=metadata.prompt_kind), metadata.adapter_activation)
    return model.clone(at_mask=answer_of(leaves) == VERBALIZER) if isinstance(model, Bert) else model
