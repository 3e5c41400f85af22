"""The two trees of a run: what is tuned, and the frozen model that is only read."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jax_prompts import optim, partition
from jax_prompts.base_models.classifier import random_classifier
from jax_prompts.base_models.fingerprint import fingerprint
from jax_prompts.base_models.t5x_slots import with_slots
from jax_prompts.base_models.weights import load_weights
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.display import log
from jax_prompts.prompts import Base, fold, init_members
from jax_prompts.prompts.init import task_words
from jax_prompts.setup import Setup
from jax_prompts.sweep import distinct

Tree = Any


def initial_state(setup: Setup, vocabulary: Vocabulary | WordPiece) -> tuple[Tree, Tree, Tree, str]:
    """`tuned`, the optimiser's state of it, `frozen`, and the fingerprint of the base model's weights.

    The trees lie on the run's mesh, as at its beginning.

    Raises:
      ConfigError: an initialiser that does not fit, or a checkpoint without an optimiser that is to go on.
      RunError: weights or optimiser state that cannot be read, or are not the model's.
    """
    run = setup.run
    weights = load_weights(run.model, setup.model, run.training.seed, setup.mesh)
    tuned, frozen = _initial_trees(setup, weights, vocabulary)
    tuned = jax.device_put(tuned, partition.shardings(setup.tuned))
    init = jax.jit(jax.vmap(setup.optimizer.init), out_shardings=partition.shardings(setup.opt_state))
    opt_state = init(tuned)
    if run.optimizer.restore_state and run.model.checkpoint is not None:
        opt_state = with_slots(opt_state, run.model.checkpoint)
    return tuned, opt_state, frozen, fingerprint(weights)


def _initial_trees(setup: Setup, weights: Tree, vocabulary: Vocabulary | WordPiece) -> tuple[Tree, Tree]:
    """(tuned, frozen): a method's fresh parameters beside the model's, or the model's own in float32 beside none."""
    model, method = setup.model, setup.method
    keys_E = jax.vmap(jax.random.key)(setup.seeds_E)
    head = jax.jit(jax.vmap(lambda key: nn.meta.unbox(random_classifier(model, key))))(keys_E)
    if method is None:
        tuned = jax.tree.map(lambda x: x[None].astype(jnp.float32), weights)
        return {"model": {**head, **tuned}}, {}

    initializers, which_E = distinct([member.initializer for member in setup.members_E])

    @jax.jit
    def fresh(embedding_VD: jax.Array, keys_E: jax.Array) -> Tree:
        labels = setup.labels or task_words(setup.run.data.task)
        base = Base(embedding_VD, vocabulary, labels)
        inits = [
            None if initializer is None else initializer.table_init(base) for initializer in initializers
        ]
        starts = [init_members(method, keys_E, model.config.emb_dim, init) for init in inits]
        return jax.tree.map(lambda *x: jnp.stack([x[which][e] for e, which in enumerate(which_E)]), *starts)

    prompt = fresh(weights["token_embedder"]["embedding"], keys_E)
    return {"prompt": prompt, **({"head": head} if head else {})}, weights


def warn_of_rates(setup: Setup, tuned: Tree) -> None:
    """Logs what is odd about members' rates at the beginning of a run (`optim.rate_warning`), the same once."""
    told = {
        optim.rate_warning(
            member.optimizer, setup.steps, jax.tree.map(lambda x, e=e: x[e], tuned.get("prompt", {}))
        )
        for e, member in enumerate(setup.members_E)
    }
    for warning in sorted(filter(None, told)):
        log(f"warning: {warning}")


def for_evaluation(
    setup: Setup, tuned: Tree, frozen: Tree
) -> tuple[list[Tree], Float[Array, "E P D"] | None]:
    """The model's parameters of each member, and the folded prompts of all on every device.

    Without a method there are no prompts: the one member's parameters are the tuned model's.
    """
    method = setup.method
    if method is None:
        return [jax.tree.map(lambda x: x[0], tuned["model"])], None
    everywhere = partition.replicated(setup.mesh)
    folded = jax.jit(fold, static_argnums=(0, 2), out_shardings=everywhere)
    prompts_EPD = folded(method, tuned["prompt"], setup.model.config.emb_dim)
    heads = [jax.tree.map(lambda x, e=e: x[e], tuned.get("head", {})) for e in range(len(prompts_EPD))]
    return [{**frozen, **head} for head in heads], prompts_EPD
