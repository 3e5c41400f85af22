"""The pure computations of a run: the loss and one training step.

Two trees: `tuned` is all that is differentiated, optimised and saved; `frozen` only takes part in the
forward pass. Both kinds of run share this file and differ in the split alone:

- prompt tuning: `tuned = {"prompt": the method's parameters}`, `frozen = the model's parameters`; on a BERT
  `tuned` also has `"head"`, its classifier;
- model tuning and pre-training: `tuned = {"model": the model's parameters}`, `frozen = {}`.

Every leaf of `tuned` and of the optimiser's state, and every batch array, has a leading members axis E.
The step of one member is `vmap`ped over it, so E members are exactly E separate runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jax_prompts import losses, partition
from jax_prompts.base_models.build import Model
from jax_prompts.cpu import compiler_options
from jax_prompts.prompts import Method
from jax_prompts.prompts.geometry import mean_norm, mean_similarity
from jax_prompts.setup import Setup
from jax_prompts.sweep import NONE, Numbers

Tree = Any
Batch = dict[str, Array]
Metrics = dict[str, Array]


def assemble(
    model: Model, method: Method | None, tuned: Tree, frozen: Tree
) -> tuple[Tree, Float[Array, "P D"] | None]:
    """The model's parameters and one member's prompt, from that member's two trees."""
    if method is None:
        return tuned["model"], None
    return {**frozen, **tuned.get("head", {})}, method.apply(
        {"params": tuned["prompt"]}, model.config.emb_dim
    )


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
    return {
        "loss_sum": jnp.sum(loss_B),
        "tokens": jnp.sum(weights_BU.astype(jnp.float32)),
        "correct": jnp.sum(correct_B),
    }


def make_train_step(
    model: Model,
    method: Method | None,
    optimizer: optax.GradientTransformation,
    *,
    z_loss: float,
    normalization: str,
    microbatches: int = 1,
    vary: Callable[[Numbers], dict[str, Any]] | None = None,
) -> Callable:
    """`step(tuned, opt_state, frozen, batch, dropout_key_E, numbers_E=NONE) -> (tuned, opt_state, metrics)`.

    The loss is T5X's, the sum over target tokens of cross-entropy + z_loss * log(Z)^2, or its mean over
    target tokens when `normalization` is `mean`. Metrics, one number a member [E]: `loss_sum` and `correct`
    over `tokens` target tokens, the `gradient_norm` of the tuned tree (free here: no other exists), and of a
    prompt, before the step, `prompt_norm` and `prompt_similarity` (`prompts/geometry.py`).

    With `microbatches` the rows of a batch are taken in so many parts, one after the other, and the gradients
    added up: the same step, but for the order of additions and for dropout, which draws for each part.

    Where members have settings of their own, `vary` takes one member's `numbers_E` to `model`, `optimizer` and `z_loss`
    of that member.
    """

    def member_step(
        tuned: Tree, opt_state: Tree, frozen: Tree, batch: Batch, dropout_key: Array, numbers: Numbers
    ) -> tuple[Tree, Tree, Metrics]:
        own = (
            vary(numbers) if vary is not None else {"model": model, "optimizer": optimizer, "z_loss": z_loss}
        )
        gradient, metrics = _gradient_and_metrics(
            own["model"], method, own["z_loss"], normalization, microbatches
        )(tuned, frozen, batch, dropout_key)
        updates, opt_state = own["optimizer"].update(gradient, opt_state, tuned)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        return optax.apply_updates(tuned, updates), opt_state, metrics

    members_step = jax.vmap(member_step, in_axes=(0, 0, None, 0, 0, 0), axis_name="members")

    def train_step(
        tuned: Tree,
        opt_state: Tree,
        frozen: Tree,
        batch: Batch,
        dropout_key_E: Array,
        numbers_E: Numbers = NONE,
    ) -> tuple[Tree, Tree, Metrics]:
        return members_step(tuned, opt_state, frozen, batch, dropout_key_E, numbers_E)

    return train_step


def _gradient_and_metrics(
    model: Model,
    method: Method | None,
    z_loss: Float[Array, ""] | float,
    normalization: str,
    microbatches: int,
) -> Callable:
    """`(tuned, frozen, batch, dropout_key) -> (gradient, metrics)` of one member."""

    def loss(
        tuned: Tree, frozen: Tree, batch: Batch, dropout_key: Array, tokens: Array
    ) -> tuple[Float[Array, ""], tuple[Metrics, Metrics]]:
        """The loss, sums to be added up over microbatches, and what is the same in all of them."""
        params, prompt_PD = assemble(model, method, tuned, frozen)
        members = jax.lax.axis_size("members")
        sums = loss_sums(model, params, prompt_PD, batch, dropout_key, z_loss, members)
        scale = 1.0 if normalization == "sum" else 1.0 / jnp.maximum(tokens, 1.0)
        geometry = {}
        if prompt_PD is not None:
            geometry = {"prompt_norm": mean_norm(prompt_PD), "prompt_similarity": mean_similarity(prompt_PD)}
        return sums["loss_sum"] * scale, (sums, geometry)

    def gradient_and_metrics(
        tuned: Tree, frozen: Tree, batch: Batch, dropout_key: Array
    ) -> tuple[Tree, Metrics]:
        # Of the whole batch, so that parts of it add up to its mean.
        tokens = jnp.sum(batch["decoder_loss_weights"].astype(jnp.float32))
        gradient_of = jax.grad(loss, has_aux=True)
        if microbatches == 1:
            gradient, (sums, geometry) = gradient_of(tuned, frozen, batch, dropout_key, tokens)
            return gradient, sums | geometry

        def add(total: Tree, number: Array) -> tuple[Tree, Metrics]:
            part = jax.tree.map(lambda x: x[:, number], parts)
            key = jax.random.fold_in(dropout_key, number)
            gradient, (sums, geometry) = gradient_of(tuned, frozen, part, key, tokens)
            return jax.tree.map(jnp.add, total, (gradient, sums)), geometry

        # Every n-th row, so that a device's rows are parts of every microbatch.
        parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]), batch)
        sums = dict.fromkeys(("loss_sum", "tokens", "correct"), jnp.zeros(()))
        zeros = jax.tree.map(jnp.zeros_like, tuned), sums
        (gradient, sums), geometry = jax.lax.scan(add, zeros, jnp.arange(microbatches))
        return gradient, sums | jax.tree.map(lambda x: x[0], geometry)

    return gradient_and_metrics


def jit_train_step(setup: Setup) -> Callable:
    """The compiled step of a run, which returns the tuned tree and the optimiser's state where they lay."""
    settings = setup.run.training
    step = make_train_step(
        setup.model,
        setup.method,
        setup.optimizer,
        z_loss=settings.z_loss,
        normalization=settings.loss_normalization,
        microbatches=settings.microbatches,
        vary=setup.vary if setup.numbers_E else None,
    )
    shardings = partition.shardings((setup.tuned, setup.opt_state))
    return jax.jit(
        partition.on(setup.mesh, step),
        donate_argnums=(0, 1),
        out_shardings=(*shardings, partition.replicated(setup.mesh)),
        compiler_options=compiler_options(setup.mesh),
    )


def dropout_keys(seeds_E: Int[np.ndarray, " E"], step: int) -> Array:
    """The members' dropout keys [E] of one step: a function of (seed, step), so that a resumed run repeats them."""
    return _dropout_keys(seeds_E, step)


_dropout_keys = jax.jit(
    jax.vmap(lambda seed, step: jax.random.fold_in(jax.random.key(seed), step), in_axes=(0, None))
)
