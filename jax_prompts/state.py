"""The two trees of a run: what is tuned, and the frozen model that is only read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jax_prompts import partition
from jax_prompts.base_models.build import Model
from jax_prompts.base_models.fingerprint import fingerprint
from jax_prompts.base_models.weights import HEAD, load_weights, random_head
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.distributed.global_arrays import gathered
from jax_prompts.errors import ConfigError
from jax_prompts.models.bert import Bert
from jax_prompts.prompts import Base, Method, fold, init_members, load_head
from jax_prompts.setup import Setup

Tree = Any


def initial_state(setup: Setup, vocabulary: Vocabulary | WordPiece) -> tuple[Tree, Tree, Tree, str]:
    """The trees of a run at its beginning, on its mesh: `tuned`, the optimiser's state of it, and `frozen`.

    The fourth is the fingerprint of the base model's weights.

    Raises:
      ConfigError: an initialiser that does not fit.
      RunError: weights that cannot be read, or are not the model's.
    """
    run = setup.run
    weights = load_weights(run.model, setup.model, run.training.seed, setup.mesh)
    tuned, frozen = split(setup, weights, vocabulary)
    tuned = jax.device_put(tuned, partition.shardings(setup.tuned))
    init = jax.jit(jax.vmap(setup.optimizer.init), out_shardings=partition.shardings(setup.opt_state))
    return tuned, init(tuned), frozen, fingerprint(weights)


def split(setup: Setup, weights: Tree, vocabulary: Vocabulary | WordPiece | None) -> tuple[Tree, Tree]:
    """(tuned, frozen): a method's fresh parameters beside the model's, or the model's own in float32 beside none."""
    run, model, method = setup.run, setup.model, setup.method
    keys_E = jax.vmap(jax.random.key)(setup.seeds_E)
    head = jax.jit(jax.vmap(lambda key: nn.meta.unbox(random_head(model, key))))(keys_E)
    if method is None:
        tuned = jax.tree.map(lambda x: x[None].astype(jnp.float32), weights)
        return {"model": {**head, **tuned}}, {}

    @jax.jit
    def fresh(embedding_VD: jax.Array, keys_E: jax.Array) -> Tree:
        base = Base(embedding_VD, vocabulary, setup.labels)
        start = None if run.initializer is None else run.initializer.table_init(base)
        return init_members(method, keys_E, model.config.emb_dim, start)

    prompt = fresh(weights["token_embedder"]["embedding"], keys_E)
    return {"prompt": prompt, **({"head": head} if head else {})}, weights


def for_evaluation(
    method: Method | None, tuned: Tree, frozen: Tree, width: int
) -> tuple[list[Tree], Float[Array, "E P D"] | None]:
    """The model's parameters of each member, and the folded prompts of all, on every device.

    Args:
      method: None: the whole model is tuned, and there are no prompts.
      tuned, frozen: the trees.
      width: D.
    """
    if method is None:
        return [jax.tree.map(lambda x: x[0], tuned["model"])], None
    everywhere = partition.replicated(jax.tree.leaves(tuned)[0].sharding.mesh)
    folded = jax.jit(fold, static_argnums=(0, 2), out_shardings=everywhere)
    prompts_EPD = folded(method, tuned["prompt"], width)
    heads = [jax.tree.map(lambda x, e=e: x[e], tuned.get("head", {})) for e in range(len(prompts_EPD))]
    return [{**frozen, **head} for head in heads], prompts_EPD


def head_arrays(tuned: Tree, member: int) -> dict[str, np.ndarray]:
    """One member's classifier, if there is one, as the arrays of its prompt file; `head_tree` is the way back."""
    flat = flax.traverse_util.flatten_dict(tuned.get("head", {}), sep="/")
    return {name: gathered(array[member]) for name, array in flat.items()}


def head_tree(arrays: dict[str, np.ndarray]) -> Tree:
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def checked_head(model: Model, path: str | os.PathLike[str], labels: Sequence[str]) -> Tree:
    """A prompt file's classifier for a BERT with these labels; of a T5, which needs none, an empty tree.

    Raises:
      ConfigError: the file has no classifier, or one for other labels.
      RunError: it cannot be read.
    """
    if not isinstance(model, Bert):
        return {}
    arrays, metadata = load_head(path)
    head = head_tree(arrays)
    if HEAD not in head:
        raise ConfigError(
            f"{path} holds no classifier, and a BERT answers with one: use a prompt tuned on BERT"
        )
    if metadata.labels != tuple(labels):
        ours, theirs = ", ".join(labels) or "none", ", ".join(metadata.labels) or "none"
        raise ConfigError(
            f"{path} was tuned for the labels {theirs}, and the task has {ours}: use its own task"
        )
    return head
