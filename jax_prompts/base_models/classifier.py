"""A BERT's classifier: tuned with a prompt, and kept in the prompt's file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import jax

from jax_prompts.base_models.build import Model
from jax_prompts.errors import ConfigError
from jax_prompts.models.bert import Bert
from jax_prompts.prompts.prompt_file import load_head
from jax_prompts.storage.files import PathOrUrl

Tree = Any
CLASSIFIER = "classifier"  # the module's name in the model


def random_classifier(model: Model, key: jax.Array) -> Tree:
    """Initial parameters `{"classifier": ...}`, boxed with their logical axes; empty for a model without one."""
    if not (isinstance(model, Bert) and model.classes):
        return {}
    return {CLASSIFIER: model.init(key, method="initialize")["params"][CLASSIFIER]}


def load_classifier(model: Model, path: PathOrUrl, labels: Sequence[str]) -> Tree:
    """Reads the parameters `{"classifier": ...}` of a prompt file for a BERT with these labels; for a T5, empty.

    Raises:
      ConfigError: the file has no classifier, or one for other labels.
      RunError: it cannot be read.
    """
    if not isinstance(model, Bert):
        return {}
    arrays, metadata = load_head(path)
    head = flax.traverse_util.unflatten_dict(arrays, sep="/")
    if CLASSIFIER not in head:
        raise ConfigError(
            f"{path} holds no classifier, and a BERT answers with one: use a prompt tuned on BERT"
        )
    if metadata.labels != tuple(labels):
        ours, theirs = ", ".join(labels) or "none", ", ".join(metadata.labels) or "none"
        raise ConfigError(
            f"{path} was tuned for the labels {theirs}, and the task has {ours}: use its own task"
        )
    return head
