"""The pure computations of a run: the loss and one training step.

Two trees: `tuned` is all that is differentiated, optimised and saved; `frozen` only takes part in the
forward pass. Both kinds of run share this file and differ in the split alone:

- prompts and leaves: `tuned = {"prompt": the method's parameters, "model": leaves inside the model}`, `frozen = the
  model's parameters`; a BERT's classifier is such a leaf;
- model tuning and pre-training: `tuned = {"model": the model's parameters}`, `frozen = {}`.

Every leaf of `tuned` and of the optimiser's state, and every batch array, has a leading members axis E.
The step of one member is `vmap`ped over it, so E members are exactly E separate runs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jax_prompts import losses
from jax_prompts.base_models.build import Model
from jax_prompts.prompts import Method
from jax_prompts.prompts.geometry import mean_norm, mean_similarity
from jax_prompts.setup import Setup
from jax_prompts.sweep import NONE, Numbers
from jax_prompts.tuned import TunedLeaves, fold_leaves
from jax_prompts.tuned.leaves import flat, lay_in

Tree = Any
Batch = dict[str, Array]
Metrics = dict[str, Array]


def assemble(
    model: Model,
    method: Method | None,
    tuned: Tree,
    frozen: Tree,
    kinds: Sequence[TunedLeaves] = (),
    *,
    training: bool = False,
) -> tuple[Tree, Float[Array, "P D"] | None]:
    """The model's parameters and one member's prompt (None without one), from that member's two trees.

    `kinds` are those of the leaves inside the model; with `training` they have their dropout.
    """
    leaves = fold_leaves(kinds, flat(tuned.get("model", {})), training=training)
    prompt_PD = None
    if method is not None:
        prompt_PD = method.apply({"params": tuned["prompt"]}, model.config.emb_dim)
    return lay_in(frozen, leaves), prompt_PD


def loss_sums(
    model: Model,
    params: Tree,
    prompts_QD: Float[Array, "Q D"] | None,
    batch: Batch,
    dropout_key: Array | None = None,
    z_loss: Float[Array, ""] | float = 0.0,
    members: int = 1,
) -> Metrics:
    """`loss_sum` (nats) and `correct` over the `tokens` target tokens of a batch; no key, no dropout.

    And of its `rows`, how many are `answered`: those of which every target token is the likeliest.

    `members` is how many such batches `vmap` takes at once, which `losses.token_sums` has to know.
    """
    apply = functools.partial(model.apply, {"params": params})
    hidden_BUD = apply(
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
        prompts_QD,
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
        method="hidden",
    )
    targets_BU, weights_BU = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
    logits_fn = functools.partial(apply, method="logits")
    loss_B, correct_B = losses.token_sums(logits_fn, hidden_BUD, targets_BU, weights_BU, z_loss, members)
    tokens_B = jnp.sum(weights_BU.astype(jnp.float32), axis=1)
    return {
        "loss_sum": jnp.sum(loss_B),
        "tokens": jnp.sum(tokens_B),
        "correct": jnp.sum(correct_B),
        "rows": jnp.sum(tokens_B > 0, dtype=jnp.float32),
        "answered": jnp.sum((correct_B == tokens_B) & (tokens_B > 0), dtype=jnp.float32),
    }


Sums = dict[str, Array]
_SUMS = ("loss_sum", "tokens", "correct", "rows", "answered")


@dataclasses.dataclass(frozen=True)
class StepParts:
    """One training step, in parts that are computed one after the other; every leaf of trees has the members' axis E.

    Attributes:
      begin: `(tuned) -> (gradient, sums)`, all zero.
      add: `(so_far, tuned, frozen, batch, dropout_key_E, numbers_E) -> so_far`, with the gradient of the summed loss
        of a group of rows.
      update: `(so_far, tuned, opt_state, numbers_E) -> (tuned, opt_state, metrics)`.
    """

    begin: Callable[[Tree], tuple[Tree, Sums]]
    add: Callable[..., tuple[Tree, Sums]]
    update: Callable[..., tuple[Tree, Tree, Metrics]]


def make_step_parts(
    model: Model,
    method: Method | None,
    optimizer: optax.GradientTransformation,
    *,
    z_loss: float,
    normalization: str,
    microbatches: int = 1,
    vary: Callable[[Numbers], dict[str, Any]] | None = None,
    kinds: Sequence[TunedLeaves] = (),
) -> StepParts:
    """The parts of a step, for rows of one batch in one group or in several.

    The loss is T5X's, the sum over target tokens of cross-entropy + z_loss * log(Z)^2, or its mean over
    target tokens when `normalization` is `mean`. Metrics, one number a member [E]: `loss_sum` and `correct`
    over `tokens` target tokens, `answered` of `rows`, the `gradient_norm` of the tuned tree (free here: no other
    exists), and of a prompt, before the step, `prompt_norm` and `prompt_similarity` (`prompts/geometry.py`).

    With `microbatches` the rows of a group are taken in so many parts, one after the other, and the gradients
    added up. Groups and microbatches make the same step, but for the order of additions and for dropout, which
    draws for each.

    Where members have settings of their own, `vary` takes one member's `numbers_E` to `model`, `optimizer` and `z_loss`
    of that member. `kinds` are those of the leaves that are tuned inside the model.
    """

    def own(numbers: Numbers) -> dict[str, Any]:
        if vary is not None:
            return vary(numbers)
        return {"model": model, "optimizer": optimizer, "z_loss": z_loss}

    def begin(tuned: Tree) -> tuple[Tree, Sums]:
        return jax.tree.map(jnp.zeros_like, tuned), dict.fromkeys(_SUMS, jnp.zeros(()))

    def add(
        so_far: tuple[Tree, Sums],
        tuned: Tree,
        frozen: Tree,
        batch: Batch,
        dropout_key: Array,
        numbers: Numbers,
    ) -> tuple[Tree, Sums]:
        settings = own(numbers)

        def loss(tuned: Tree, batch: Batch, key: Array) -> tuple[Float[Array, ""], Sums]:
            params, prompt_PD = assemble(model, method, tuned, frozen, kinds, training=True)
            members = jax.lax.axis_size("members")
            sums = loss_sums(settings["model"], params, prompt_PD, batch, key, settings["z_loss"], members)
            return sums["loss_sum"], sums

        def with_part(so_far: tuple[Tree, Sums], batch: Batch, key: Array) -> tuple[Tree, Sums]:
            return jax.tree.map(jnp.add, so_far, jax.grad(loss, has_aux=True)(tuned, batch, key))

        if microbatches == 1:
            return with_part(so_far, batch, dropout_key)
        # Every n-th row, so that a device's rows are parts of every microbatch.
        parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
        keys = jax.vmap(lambda number: jax.random.fold_in(dropout_key, number))(jnp.arange(microbatches))
        return jax.lax.scan(lambda total, part: (with_part(total, *part), None), so_far, (parts, keys))[0]

    def update(
        so_far: tuple[Tree, Sums], tuned: Tree, opt_state: Tree, numbers: Numbers
    ) -> tuple[Tree, Tree, Metrics]:
        gradient, sums = so_far
        if normalization == "mean":
            scale = 1.0 / jnp.maximum(sums["tokens"], 1.0)
            gradient = jax.tree.map(lambda x: x * scale, gradient)
        metrics = {**sums, "gradient_norm": optax.tree.norm(gradient)}
        if method is not None:
            prompt_PD = method.apply({"params": tuned["prompt"]}, model.config.emb_dim)
            metrics |= {"prompt_norm": mean_norm(prompt_PD), "prompt_similarity": mean_similarity(prompt_PD)}
        updates, opt_state = own(numbers)["optimizer"].update(gradient, opt_state, tuned)
        return optax.apply_updates(tuned, updates), opt_state, metrics

    return StepParts(
        jax.vmap(begin),
        jax.vmap(add, in_axes=(0, 0, None, 0, 0, 0), axis_name="members"),
        jax.vmap(update),
    )


def step_of(parts: StepParts) -> Callable:
    """`step(tuned, opt_state, frozen, groups, dropout_key_E, numbers_E=NONE) -> (tuned, opt_state, metrics)`, whole."""

    def train_step(
        tuned: Tree,
        opt_state: Tree,
        frozen: Tree,
        groups: Sequence[Batch],
        dropout_key_E: Array,
        numbers_E: Numbers = NONE,
    ) -> tuple[Tree, Tree, Metrics]:
        so_far = parts.begin(tuned)
        for number, batch in enumerate(groups):
            keys_E = group_keys(dropout_key_E, number, len(groups))
            so_far = parts.add(so_far, tuned, frozen, batch, keys_E, numbers_E)
        return parts.update(so_far, tuned, opt_state, numbers_E)

    return train_step


def group_keys(dropout_key_E: Array, number: int | Array, groups: int) -> Array:
    """The members' dropout keys for one of the groups of a batch."""
    if groups == 1:
        return dropout_key_E
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(dropout_key_E, number)


def parts_of(setup: Setup) -> StepParts:
    """The parts of a run's step."""
    settings = setup.run.training
    return make_step_parts(
        setup.model,
        setup.method,
        setup.optimizer,
        z_loss=settings.z_loss,
        normalization=settings.loss_normalization,
        microbatches=settings.microbatches,
        vary=setup.vary if setup.numbers_E else None,
        kinds=setup.run.leaves,
    )


def dropout_keys(seeds_E: Int[np.ndarray, " E"], step: int) -> Array:
    """The members' dropout keys [E] of one step: a function of (seed, step), so that a resumed run repeats them."""
    return _dropout_keys(seeds_E, step)


_dropout_keys = jax.jit(
    jax.vmap(lambda seed, step: jax.random.fold_in(jax.random.key(seed), step), in_axes=(0, None))
)
