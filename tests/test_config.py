"""What dataclasses of settings compute by themselves."""

import pytest

from jax_prompts.config import Training


@pytest.mark.parametrize(
    ("settings", "steps", "eval_period"),
    [
        (Training(steps=70, eval_period=20), 70, 20),
        (Training(steps=70, eval_period=20, epochs=3), 70, 20),
        (Training(steps=None, eval_period=None, epochs=15), 15 * 32, 32),
        (Training(steps=None, eval_period=10, epochs=0.5), 16, 10),
        (Training(steps=None, eval_period=None, epochs=0.001), 1, 32),
    ],
)
def test_epochs_in_steps(settings, steps, eval_period):
    """250 examples in batches of 8 are 32 steps."""
    assert settings.in_steps(250, 8) == (steps, eval_period)
