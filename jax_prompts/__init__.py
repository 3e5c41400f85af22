"""Soft prompts for frozen T5 and BERT models in JAX. Python in five lines: `load_model` (`inference/api.py`)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax_prompts.inference.api import (
        ConfigError,
        Decoding,
        Engine,
        Prompt,
        PromptStore,
        RunError,
        load_model,
    )
    from jax_prompts.report.notebook import Run

__version__ = "0.1.0"
__all__ = ["ConfigError", "Decoding", "Engine", "Prompt", "PromptStore", "Run", "RunError", "load_model"]


def __getattr__(name: str) -> Any:
    """Names of the interface; JAX is imported with the first of them, not with the package."""
    if name == "Run":
        from jax_prompts.report.notebook import Run

        return Run
    if name in __all__:
        from jax_prompts.inference import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
