"""What a BERT answers with: a classifier or a verbaliser, tuned with a prompt and kept in the prompt's file."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import jax

from jax_prompts.base_models.build import Model
from jax_prompts.base_models.open import open_model
from jax_prompts.config import BaseModel
from jax_prompts.errors import ConfigError
from jax_prompts.models.answers import CLASSIFIER, VERBALIZER, answer_of
from jax_prompts.models.bert import Bert

Tree = Any
_MASKED_LM = "mlm_bias"


def random_classifier(model: Model, key: jax.Array) -> Tree:
    """Initial parameters `{"classifier": ...}`, boxed with their logical axes; empty for a model without one."""
    if not (isinstance(model, Bert) and model.classes) or model.at_mask:
        return {}
    return {CLASSIFIER: model.init(key, method="initialize")["params"][CLASSIFIER]}


def with_masked_lm(model: Model, base: BaseModel) -> Model:
    """The model whose weights serve every prompt: a BERT with its masked-LM head, where the checkpoint has one."""
    if isinstance(model, Bert) and (
        base.checkpoint is None or _MASKED_LM in open_model(base.checkpoint).arrays
    ):
        return model.clone(classes=0)
    return model


def check_masked_lm(name: str, leaves: Iterable[str], weights: Collection[str]) -> None:
    """Raises ConfigError where a prompt's verbaliser meets weights without a masked-LM head.

    Args:
      name: what to call the prompt.
      leaves: its leaves' paths.
      weights: names of what was loaded.
    """
    if answer_of(leaves) == VERBALIZER and _MASKED_LM not in weights:
        raise ConfigError(
            f"{name} needs a BERT's masked-LM head, which INITIAL_CHECKPOINT_PATH has not: use the checkpoint it was "
            "tuned with"
        )
