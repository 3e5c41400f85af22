"""A BERT's classifier: tuned with a prompt, and kept in the prompt's file."""

from __future__ import annotations

from typing import Any

import jax

from jax_prompts.base_models.build import Model
from jax_prompts.models.bert import Bert

Tree = Any
CLASSIFIER = "classifier"  # the module's name in the model


def random_classifier(model: Model, key: jax.Array) -> Tree:
    """Initial parameters `{"classifier": ...}`, boxed with their logical axes; empty for a model without one."""
    if not (isinstance(model, Bert) and model.classes):
        return {}
    return {CLASSIFIER: model.init(key, method="initialize")["params"][CLASSIFIER]}
