"""Reads what a prompt file holds of the inside of a model, and checks that the model takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jax_prompts.base_models.build import Model
from jax_prompts.base_models.classifier import CLASSIFIER
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.errors import ConfigError
from jax_prompts.models.bert import Bert
from jax_prompts.models.tuned_leaves import ACTIVATIONS
from jax_prompts.prompts.prompt_file import PromptMetadata, load_leaves
from jax_prompts.storage.files import PathOrUrl
from jax_prompts.tuned.leaves import Leaves, Weights, by_path, misfits

Tree = Any
_SHOWN = 10  # of what does not fit


def load_leaves_of(model: Model, path: PathOrUrl, labels: Sequence[str] | None = None) -> Leaves:
    """The leaves of a prompt file, by path, for a model; of a BERT with its classifier for these labels.

    Args:
      model: the base model.
      path: of the file.
      labels: of the task; None: those that the file names.

    Raises:
      ConfigError: leaves that the model has no place for (+), or lacks others beside (-); of a BERT, no classifier, or
        one for other labels.
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
    if isinstance(model, Bert) and not any(path.startswith(f"{CLASSIFIER}/") for path in leaves):
        raise ConfigError(
            f"{name} holds no classifier, and a BERT answers with one: use a prompt tuned on BERT"
        )
    inside = {path: leaf for path, leaf in leaves.items() if not path.startswith(f"{CLASSIFIER}/")}
    if CLASSIFIER in {path.partition("/")[0] for path in leaves} and not isinstance(model, Bert):
        raise ConfigError(
            f"{name} holds a BERT's classifier, and this model is a T5: use the BERT it was tuned with"
        )
    if inside:
        check_in_weights(name, inside, by_path(abstract_weights(model)), metadata)


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
