"""The two trees of a run, and whether its settings can work: shared by a run and its dry run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jax_prompts import decoding, optim, partition
from jax_prompts.base_models.build import Model
from jax_prompts.base_models.weights import HEAD, abstract_weights, random_head
from jax_prompts.config import TrainRun
from jax_prompts.data import protocols
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import text_length
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.distributed.global_arrays import gathered
from jax_prompts.errors import ConfigError
from jax_prompts.models.bert import Bert
from jax_prompts.prompts import Base, Method, fold, init_members, load_head

Tree = Any

UNKNOWN_STEPS = 1 << 30  # stands for the steps of a run that counts epochs, until its data are known


def check(run: TrainRun, mesh: jax.sharding.Mesh) -> None:
    """Raises ConfigError for settings that no data or model could make work."""
    settings = run.training
    if settings.steps is None and settings.epochs is None:
        raise ConfigError("neither TRAIN_STEPS nor TRAIN_EPOCHS is set; set one")
    if settings.epochs is not None and not settings.epochs > 0:
        raise ConfigError(f"TRAIN_EPOCHS is {settings.epochs}; it must be above 0")
    optim.make_optimizer(run.optimizer, settings.steps or UNKNOWN_STEPS)
    for name, value in (
        ("TRAIN_STEPS", settings.steps),
        ("EVAL_PERIOD", settings.eval_period),
        ("MICROBATCHES", settings.microbatches),
        ("MEMBERS", settings.members),
        ("CHECKPOINT_PERIOD", settings.checkpoint_period),
        ("PATIENCE", settings.patience),
        ("Training.log_period", settings.log_period),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    if run.method is None and settings.members != 1:
        raise ConfigError(
            f"MEMBERS is {settings.members}; only prompts can be tuned side by side, not the model"
        )
    if run.method is None and (
        run.optimizer.network_learning_rate is not None or run.optimizer.network_weight_decay is not None
    ):
        raise ConfigError(
            "Optimizer.network_learning_rate and network_weight_decay belong to a prompt; set PROMPT"
        )
    if run.method is None and run.initializer is not None:
        raise ConfigError("an initialiser is set without a prompt method; set PROMPT")
    text_length(run.data, length_of(run.method))
    protocols.check(run.data)
    decoding.check(run.decoding)
    partition.check_batch("BATCH_SIZE", run.data.batch_size, mesh, settings.microbatches)
    partition.check_batch("EVAL_BATCH_SIZE", run.data.eval_batch_size, mesh)


def check_vocabulary(run: TrainRun, model: Model, vocabulary: Vocabulary | WordPiece) -> None:
    """Raises ConfigError where a T5 would be made for a vocabulary of another size, with 128 or more idle rows."""
    rows = model.config.vocab_size
    if run.model.checkpoint is None and not isinstance(model, Bert) and rows - vocabulary.size >= 128:
        raise ConfigError(
            f"VOCABULARY {run.model.vocabulary} has {vocabulary.size} ids and {run.model.name} {rows} embedding rows: "
            "set VOCABULARY or MODEL_SIZE to what fits the other"
        )


def check_model(run: TrainRun, model: Model, caches: Sequence[TokenCache] = ()) -> None:
    """Raises ConfigError where a BERT has too few positions for a row, or one classifier for unlike tasks."""
    if isinstance(model, Bert):
        if len({cache.labels for cache in caches}) > 1:
            raise ConfigError(
                f"{run.data.task} mixes tasks with other labels, and a BERT has one classifier: choose one task"
            )
        length = text_length(run.data, length_of(run.method)) + length_of(run.method)
        if length > model.config.max_length:
            raise ConfigError(
                f"TASK_FEATURE_LENGTHS inputs and the prompt are {length} tokens, and {run.model.name} has "
                f"{model.config.max_length} positions: lower inputs, or set PROMPT_INSIDE_LENGTH = True"
            )


def assert_same_data(run: TrainRun, before: dict[str, list[Any]], now: dict[str, list[Any]]) -> None:
    """Raises ConfigError where a run would go on with other data than it began with.

    Both are (rate, SHA-256 of all tokens) by task.
    """
    for task in sorted(before.keys() | now.keys()):
        if list(before.get(task, ())) != list(now.get(task, ())):
            raise ConfigError(
                f"MODEL_DIR {run.model_dir} holds a run that began with other data of {task}: bring the files and "
                "the vocabulary back, or choose another MODEL_DIR"
            )


def sharded_trees(run: TrainRun, model: Model, mesh: jax.sharding.Mesh) -> tuple[Tree, Tree]:
    """(tuned, frozen) as `split` makes them, as shapes, dtypes and shardings alone.

    Raises:
      ConfigError: a method, such as one with a network for each position, that would tune more than is frozen.
    """
    members, method, key = run.training.members, run.method, jax.random.key(0)
    weights, head = abstract_weights(model), jax.eval_shape(lambda: random_head(model, key))
    if method is None:
        return {
            "model": partition.sharded_shapes({**head, **weights}, mesh, members=members, dtype=jnp.float32)
        }, {}
    prompt = jax.eval_shape(lambda: method.init(key, model.config.emb_dim, None)["params"])
    tuned, frozen = parameter_count(prompt), parameter_count(weights)
    if tuned > frozen:
        raise ConfigError(
            f"{type(method).__name__} would tune {tuned:,} parameters, more than the {frozen:,} frozen ones: "
            "make its network smaller or shared, or the prompt shorter"
        )
    boxed = {"prompt": prompt, **({"head": head} if head else {})}
    frozen_dtype = jnp.dtype(run.model.weight_dtype)
    return partition.sharded_shapes(boxed, mesh, members=members), partition.sharded_shapes(
        weights, mesh, dtype=frozen_dtype
    )


def split(
    run: TrainRun,
    model: Model,
    weights: Tree,
    vocabulary: Vocabulary | WordPiece | None,
    labels: tuple[str, ...],
    seeds_E: np.ndarray,
) -> tuple[Tree, Tree]:
    """(tuned, frozen): a method's fresh parameters beside the model's, or the model's own in float32 beside none."""
    method = run.method
    keys_E = jax.vmap(jax.random.key)(seeds_E)
    head = jax.jit(jax.vmap(lambda key: nn.meta.unbox(random_head(model, key))))(keys_E)
    if method is None:
        tuned = jax.tree.map(lambda x: x[None].astype(jnp.float32), weights)
        return {"model": {**head, **tuned}}, {}

    @jax.jit
    def fresh(embedding_VD: jax.Array, keys_E: jax.Array) -> Tree:
        base = Base(embedding_VD, vocabulary, labels)
        start = None if run.initializer is None else run.initializer.table_init(base)
        return init_members(method, keys_E, model.config.emb_dim, start)

    prompt = fresh(weights["token_embedder"]["embedding"], keys_E)
    return {"prompt": prompt, **({"head": head} if head else {})}, weights


def assemble(
    method: Method | None, tuned: Tree, frozen: Tree, width: int
) -> tuple[list[Tree], jax.Array | None]:
    """The model's parameters of each member, and the folded prompts of all, on every device, for scoring."""
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


def length_of(method: Method | None) -> int:
    return 0 if method is None else method.length


def parameter_count(tree: Tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def byte_count(tree: Tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
