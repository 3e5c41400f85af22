"""The two trees of a run: what is tuned, and the frozen model that is only read."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts import optim, partition
from jax_prompts.base_models.classifier import random_classifier
from jax_prompts.base_models.t5x_slots import with_slots
from jax_prompts.base_models.weights import load_weights, with_axes
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.display import log
from jax_prompts.prompts import Base, Initializer, Method, TaskPrompts, fold, init_members
from jax_prompts.prompts.init import task_words
from jax_prompts.prompts.layers import TableInit, TableInits
from jax_prompts.setup import Labels, Setup
from jax_prompts.sweep import distinct
from jax_prompts.tuned import TunedLeaves, check_files, constants_of, fold_leaves, init_leaves
from jax_prompts.tuned.leaves import flat, lay_in, nested

Tree = Any


def initial_state(setup: Setup, vocabulary: Vocabulary | WordPiece) -> tuple[Tree, Tree, Tree, str]:
    """`tuned`, the optimiser's state of it, `frozen`, and the fingerprint of the base model's weights.

    The trees lie on the run's mesh, as at its beginning.

    Raises:
      ConfigError: an initialiser or source prompts that do not fit, or a checkpoint without an optimiser that is to go
        on.
      RunError: weights or optimiser state that cannot be read, or are not the model's.
    """
    run = setup.run
    weights, weights_fingerprint = load_weights(run.model, setup.model, run.training.seed, setup.mesh)
    check_files(run.leaves, weights_fingerprint)
    tuned, frozen = _initial_trees(setup, weights, vocabulary)
    tuned = jax.device_put(tuned, partition.shardings(setup.tuned))
    init = jax.jit(jax.vmap(setup.optimizer.init), out_shardings=partition.shardings(setup.opt_state))
    opt_state = init(tuned)
    if run.optimizer.restore_state and run.model.checkpoint is not None:
        opt_state = with_slots(opt_state, run.model.checkpoint)
    return tuned, opt_state, frozen, weights_fingerprint


def _initial_trees(setup: Setup, weights: Tree, vocabulary: Vocabulary | WordPiece) -> tuple[Tree, Tree]:
    """(tuned, frozen): what is fresh beside the model's parameters, or these themselves in float32 beside none."""
    model, run = setup.model, setup.run
    keys_E = jax.vmap(jax.random.key)(setup.seeds_E)
    head = jax.jit(jax.vmap(lambda key: nn.meta.unbox(random_classifier(model, key))))(keys_E)
    if run.tunes_model:
        tuned = jax.tree.map(lambda x: x[None].astype(jnp.float32), weights)
        return {"model": {**head, **tuned}}, {}

    leaves = head
    if run.leaves:
        fresh = jax.jit(lambda weights: init_leaves(run.leaves, with_axes(model, weights), keys_E))
        leaves = {**head, **fresh(weights)}
    tuned = {"model": leaves} if leaves else {}
    if setup.method is not None:
        tuned["prompt"] = _fresh_prompts(setup, weights, vocabulary, keys_E)
    constants = nested(nn.meta.unbox(constants_of(run.leaves)))
    places = {name: partition.shardings(setup.frozen[name]) for name in constants}
    return tuned, {**weights, **jax.device_put(constants, places)}


def _fresh_prompts(
    setup: Setup, weights: Tree, vocabulary: Vocabulary | WordPiece, keys_E: jax.Array
) -> Tree:
    method, width = setup.method, setup.model.config.emb_dim
    assert method is not None
    initializers, which_E = distinct([member.initializer for member in setup.members_E])

    @jax.jit
    def fresh(embedding_VD: jax.Array, keys_E: jax.Array) -> Tree:
        inits = [_start(setup, initializer, embedding_VD, vocabulary) for initializer in initializers]
        starts = [init_members(method, keys_E, width, init) for init in inits]
        return jax.tree.map(lambda *x: jnp.stack([x[which][e] for e, which in enumerate(which_E)]), *starts)

    return fresh(weights["token_embedder"]["embedding"], keys_E)


def _start(
    setup: Setup, initializer: Initializer | None, embedding_VD: jax.Array, vocabulary: Vocabulary | WordPiece
) -> TableInits:
    """Where a prompt's table starts, or that of each task."""
    if initializer is None:
        return None

    def of_task(task: str, labels: Labels) -> TableInit:
        return initializer.table_init(Base(embedding_VD, vocabulary, labels or task_words(task)))

    if isinstance(setup.method, TaskPrompts):
        return [of_task(task, setup.labels_of[task]) for task in setup.method.tasks]
    return of_task(setup.run.data.task, setup.labels)


def warn_of_rates(setup: Setup, tuned: Tree) -> None:
    """Logs what is odd about members' rates at the beginning of a run, the same once."""
    params_E = tuned.get("prompt", {})
    if isinstance(setup.method, TaskPrompts):
        params_E = {**params_E["own"], **params_E["shared"]}
    told = {
        warning
        for e, member in enumerate(setup.members_E)
        for warning in (
            optim.rate_warning(member.optimizer, setup.steps, of_member(params_E, e)),
            optim.unused_warning(member.optimizer, tuned),
        )
    }
    for warning in sorted(filter(None, told)):
        log(f"warning: {warning}")


def fold_tuned(setup: Setup, tuned: Tree) -> Tree:
    """What members' files hold of what they tuned: `{"prompt": [E, P, D], "model": leaves}`, one or both, everywhere.

    Prompts of T tasks stand one behind the other, [E, T*P, D]. Of a tuned model it is `{"model": its parameters}`, as
    they lie.
    """
    run = setup.run
    if run.tunes_model:
        return tuned
    folded = jax.jit(_folded, static_argnums=(0, 1, 2), out_shardings=partition.replicated(setup.mesh))
    return folded(setup.method, run.leaves, setup.model.config.emb_dim, tuned)


def _folded(method: Method | None, kinds: tuple[TunedLeaves, ...], width: int, tuned: Tree) -> Tree:
    folded = {}
    if method is not None:
        folded["prompt"] = fold(method, tuned["prompt"], width)
    if "model" in tuned:
        leaves = jax.vmap(lambda leaves: fold_leaves(kinds, flat(leaves), training=False))(tuned["model"])
        folded["model"] = nested(leaves)
    return folded


def for_evaluation(folded: Tree, frozen: Tree) -> tuple[list[Tree], Float[Array, "E P D"] | None]:
    """The model's parameters of each member, and the prompts of all (None without), of what `fold_tuned` gave.

    Members without leaves have the same parameters.
    """
    members = jax.tree.leaves(folded)[0].shape[0]
    leaves_E = [flat(of_member(folded.get("model", {}), member)) for member in range(members)]
    return [lay_in(frozen, leaves) for leaves in leaves_E], folded.get("prompt")


def of_member(tree_E: Tree, member: int) -> Tree:
    """One member's part of a tree of arrays [E, ...]."""
    return jax.tree.map(lambda x: x[member], tree_E)
