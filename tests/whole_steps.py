"""Training steps in one piece, of the settings of `make_step_parts`."""

from jax_prompts.step import make_step_parts, step_of


def make_train_step(*args, **settings):
    """`step(tuned, opt_state, frozen, groups, dropout_key_E, numbers_E) -> (tuned, opt_state, metrics)`."""
    return step_of(make_step_parts(*args, **settings))
