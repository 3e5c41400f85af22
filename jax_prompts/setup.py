"""Makes a run ready: model, method, optimiser, mesh, shapes and shardings.

Whatever shows a run (`dry_run`), counts it, compiles it (`precompile`) or trains it starts here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Float, Int

from jax_prompts import decoding, optim, partition, sweep
from jax_prompts.base_models.build import Model, make_model, with_adapters
from jax_prompts.base_models.classifier import random_classifier
from jax_prompts.base_models.quantize import KINDS, frozen_shapes
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.data import protocols
from jax_prompts.data.cache_key import check_cache_dir
from jax_prompts.data.layout import text_length
from jax_prompts.data.length_groups import group_count
from jax_prompts.data.prompt_design import check_design
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.data.vocabularies.wordpiece import WordPiece
from jax_prompts.errors import ConfigError
from jax_prompts.models.bert import Bert
from jax_prompts.models.mask_place import with_mask
from jax_prompts.prompts import Method, TaskPrompts, for_model, prompt_kind_of
from jax_prompts.runs import TrainRun
from jax_prompts.tuned import (
    adapter_activation,
    check_beside_prompt,
    constants_of,
    for_task,
    fresh_leaves,
    reads_mask,
)
from jax_prompts.tuned.dept import check_text_length
from jax_prompts.tuned.leaves import by_path, nested
from jax_prompts.watching.profiler import check_window
from jax_prompts.watching.weights_and_biases import check_usable

Tree = Any
Labels = tuple[str, ...]

UNKNOWN_STEPS = 1 << 30  # stands for the steps of a run that counts epochs, until its data are known
MAX_SEED = (1 << 31) - 1
UNKNOWN_CLASSES = 2  # stand for those of a BERT's classifier, until its data are known


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a training run is made of, before weights and data.

    Attributes:
      run: its settings, the method as the model needs it, leaves as the task does.
      method: the prompt method, of each task where these have prompts of their own; None: no prompt is tuned.
      mesh: the devices.
      model: the base model, with the task's classes where it is a BERT.
      labels: the task's class labels, of a mixture those of all its tasks; empty where answers are free text.
      labels_of: these of each task of a mixture.
      steps: of the optimiser.
      optimizer: for so many steps.
      tuned, opt_state, frozen: shape, dtype and sharding of every array; the first two with the members' axis E.
    """

    run: TrainRun
    method: Method | None
    mesh: Mesh
    model: Model
    labels: Labels
    labels_of: dict[str, Labels]
    steps: int
    optimizer: optax.GradientTransformation
    tuned: Tree
    opt_state: Tree
    frozen: Tree

    @property
    def prompt_length(self) -> int:
        """P; 0 without a prompt; one more where a verbaliser brings [MASK]."""
        return prompt_length(self.run)

    @property
    def inputs_length(self) -> int:
        """T, text tokens of a row at most."""
        return text_length(self.run.data, self.prompt_length)

    @property
    def encoder_length(self) -> int:
        """L = P + T."""
        return self.prompt_length + self.inputs_length

    @property
    def targets_length(self) -> int:
        """U, target tokens of a row at most."""
        return self.run.data.task_feature_lengths["targets"]

    @property
    def prompt_tasks(self) -> tuple[str, ...]:
        """The tasks with prompts of their own; empty: one prompt is for all."""
        return self.method.tasks if isinstance(self.method, TaskPrompts) else ()

    @property
    def prompt_ids_TP(self) -> Int[np.ndarray, "T P"]:
        """The virtual tokens of one member's prompt, of each task's or (T = 1) of all tasks, and where a verbaliser
        reads it the place of [MASK]."""
        first, length = self.model.config.vocab_size, 0 if self.method is None else self.method.length
        tasks = len(self.prompt_tasks) or 1
        ids_TP = first + np.arange(tasks * length, dtype=np.int32).reshape(tasks, length)
        return with_mask(ids_TP) if reads_mask(self.run.leaves) else ids_TP

    @functools.cached_property
    def members_E(self) -> list[TrainRun]:
        """Each member as a run by itself."""
        return sweep.of_members(self.run)

    @property
    def seeds_E(self) -> Int[np.ndarray, " E"]:
        """The members' seeds."""
        return np.array([member.training.seed for member in self.members_E])

    @functools.cached_property
    def numbers_E(self) -> dict[str, Float[np.ndarray, " E"]]:
        """The numbers of a step that members differ in."""
        return sweep.numbers_E(self.run)

    def vary(self, numbers: sweep.Numbers) -> dict[str, Any]:
        """`model`, `optimizer` and `z_loss` of a member with these of the `numbers_E`."""
        config, training = self.model.config, self.run.training
        rate = numbers.get("BaseModel.dropout_rate", config.dropout_rate)
        return {
            "model": self.model.clone(config=dataclasses.replace(config, dropout_rate=rate)),
            "optimizer": optim.transformation_of(sweep.with_numbers(self.run.optimizer, numbers), self.steps),
            "z_loss": numbers.get("Training.z_loss", training.z_loss),
        }

    @property
    def groups(self) -> int:
        """Parts of a batch, divided by length."""
        return _groups(self.run, self.mesh)

    @property
    def rows(self) -> int:
        """Examples a step, of all members."""
        return self.run.data.batch_size * self.run.training.members


def set_up(
    run: TrainRun,
    mesh: Mesh,
    *,
    vocabulary: Vocabulary | WordPiece | None = None,
    tasks: Sequence[str] = (),
    labels: Sequence[Labels | None] | None = None,
    steps: int | None = None,
) -> Setup:
    """Makes a run ready, abstractly: reads no weights and no data.

    Args:
      run: its settings.
      mesh: `partition.mesh_of(run.model)`, or one of devices that are not here.
      vocabulary: its [SEP] tells a BERT's segments apart; None: BERT's own.
      tasks: names of those that it trains on; empty: not known, one stands for those with prompts of their own.
      labels: of each of the run's tasks; None: not known, two stand for those of a BERT's classifier.
      steps: of the optimiser; None: those of the settings, or, where these count epochs, `UNKNOWN_STEPS`.

    Raises:
      ConfigError: settings that cannot work.
    """
    _check(run, mesh)
    known = tuple(dict.fromkeys(label for of_task in labels or () for label in of_task or ()))
    classes = UNKNOWN_CLASSES if labels is None and not run.tunes_model else len(known)
    model = make_model(
        run.model,
        prompt_kind=prompt_kind_of(run.method),
        vocabulary=vocabulary,
        classes=classes,
        at_mask=reads_mask(run.leaves),
    )
    model = with_adapters(model, adapter_activation(run.leaves))
    if isinstance(model, Bert):
        leaves = for_task(run.leaves, run.data.task, classes, known, vocabulary if known else None)
        run = dataclasses.replace(run, tuned=leaves or None)
        _check_bert(run, model, labels or ())
    elif run.tunes_model and vocabulary is not None:
        _check_vocabulary(run, model, vocabulary)
    run = dataclasses.replace(run, method=for_model(run.method, model.config.prompt_width))
    tasks = tuple(tasks) or (run.data.task,)
    method = TaskPrompts(run.method, tasks, run.shared_by_tasks) if run.prompt_of_each_task else run.method
    steps = steps or run.training.steps or UNKNOWN_STEPS
    check_window(run.training.profile_steps, steps)
    optimizer = optim.make_optimizer(run.optimizer, steps)
    tuned, frozen = tree_shapes(run, method, model, mesh)
    check_beside_prompt(run.leaves, run.method)
    return Setup(
        run=run,
        method=method,
        mesh=mesh,
        model=model,
        labels=known,
        labels_of=dict(zip(tasks, [each or () for each in labels or [known]], strict=False)),
        steps=steps,
        optimizer=optimizer,
        tuned=tuned,
        opt_state=partition.state_shapes(optimizer, tuned),
        frozen=frozen,
    )


def tree_shapes(
    run: TrainRun, method: Method | None, model: Model, mesh: Mesh | AbstractMesh
) -> tuple[Tree, Tree]:
    """Shapes, dtypes and shardings of (tuned, frozen); tuned leaves are [E, ...].

    Raises:
      ConfigError: a method, such as one with a network for each position, that would tune more than is frozen.
    """
    members, key = run.training.members, jax.random.key(0)
    weights, head = abstract_weights(model), jax.eval_shape(lambda: random_classifier(model, key))
    if run.tunes_model:
        boxed = {"model": {**head, **weights}}
        return partition.sharded_shapes(boxed, mesh, members=members, dtype=jnp.float32), {}
    leaves = jax.eval_shape(lambda weights: fresh_leaves(run.leaves, by_path(weights), key), weights)
    inside = {**head, **nested(leaves)}
    boxed = {"model": inside} if inside else {}
    if method is not None:
        boxed["prompt"] = jax.eval_shape(lambda: method.init(key, model.config.emb_dim, None)["params"])
        tuned, frozen = (partition.parameter_count(tree) for tree in (boxed["prompt"], weights))
        if tuned > frozen:
            raise ConfigError(
                f"{run.method_name} would tune {tuned:,} parameters, more than the {frozen:,} frozen ones: "
                "make its network smaller or shared, or the prompt shorter"
            )
    kept = partition.sharded_shapes(frozen_shapes(weights, run.model.weight_dtype), mesh)
    constants = partition.sharded_shapes(nested(constants_of(run.leaves)), mesh)
    return partition.sharded_shapes(boxed, mesh, members=members), {**kept, **constants}


def prompt_length(run: TrainRun) -> int:
    """P of a run's method, 0 without one, and one more for [MASK] where a verbaliser reads it."""
    return (0 if run.method is None else run.method.length) + reads_mask(run.leaves)


def _groups(run: TrainRun, mesh: Mesh) -> int:
    data, multiple = run.data, partition.row_parts(mesh) * run.training.microbatches
    return group_count(data.length_groups, data.batch_size, multiple, partition.platform_of(mesh))


def _check(run: TrainRun, mesh: Mesh) -> None:
    """Raises ConfigError for settings that no data or model could make work."""
    sweep.check(run)
    for variant in run.variants:
        _check(variant.run, mesh)
    settings = run.training
    if settings.steps is None and settings.epochs is None:
        raise ConfigError("neither TRAIN_STEPS nor TRAIN_EPOCHS is set; set one")
    if settings.epochs is not None and not settings.epochs > 0:
        raise ConfigError(f"TRAIN_EPOCHS is {settings.epochs}; it must be above 0")
    if not 0 <= run.model.dropout_rate < 1:
        raise ConfigError(f"DROPOUT_RATE is {run.model.dropout_rate}: set it to at least 0 and below 1")
    if run.tunes_model and run.model.weight_dtype in KINDS:
        raise ConfigError(
            f"WEIGHT_DTYPE is {run.model.weight_dtype!r}, which is of frozen weights, and the whole model is tuned: "
            "set it to 'float32' or 'bfloat16'"
        )
    last_seed = settings.seed + max(settings.members, 1) - 1
    if settings.seed < 0 or last_seed > MAX_SEED:
        raise ConfigError(
            f"RANDOM_SEED is {settings.seed}: set it, and that of the last member, from 0 to {MAX_SEED:,}"
        )
    if settings.z_loss < 0:
        raise ConfigError(f"Training.z_loss is {settings.z_loss}: set it to at least 0")
    optim.make_optimizer(run.optimizer, settings.steps or UNKNOWN_STEPS)
    for name, value in (
        ("TRAIN_STEPS", settings.steps),
        ("EVAL_PERIOD", settings.eval_period),
        ("MICROBATCHES", settings.microbatches),
        ("MEMBERS", settings.members),
        ("CHECKPOINT_PERIOD", settings.checkpoint_period),
        ("PATIENCE", settings.patience),
        ("Training.log_period", settings.log_period),
        ("Training.keep", settings.keep),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    if run.tunes_model and settings.members != 1:
        raise ConfigError(
            f"MEMBERS is {settings.members}; only prompts and leaves can be tuned side by side, not the model"
        )
    if run.tunes_model and (
        run.optimizer.network_learning_rate is not None or run.optimizer.network_weight_decay is not None
    ):
        raise ConfigError(
            "Optimizer.network_learning_rate and network_weight_decay belong to a prompt or leaves; set PROMPT or TUNED"
        )
    if run.tuned is not None and not run.leaves:
        raise ConfigError("TUNED is empty: name leaves, such as @LoRA(), or set it to None")
    if run.method is None and run.initializer is not None:
        raise ConfigError("an initialiser is set without a prompt method; set PROMPT")
    if run.prompt_of_each_task and run.method is None:
        raise ConfigError("PROMPT_OF_EACH_TASK is True without a prompt method: set PROMPT")
    if run.shared_by_tasks and not run.prompt_of_each_task:
        raise ConfigError(
            f"SHARED_BY_TASKS is {run.shared_by_tasks!r}, and tasks have one prompt: set PROMPT_OF_EACH_TASK = True"
        )
    if run.optimizer.restore_state:
        _check_restoring(run)
    if settings.wandb:
        check_usable()
    check_text_length(run.leaves, text_length(run.data, prompt_length(run)))
    protocols.check(run.data)
    check_design(run.data, bert=False)
    check_cache_dir(run.data.cache_dir)
    decoding.check(run.decoding)
    partition.check_batch("BATCH_SIZE", run.data.batch_size, mesh, settings.microbatches)
    _groups(run, mesh)
    partition.check_batch("EVAL_BATCH_SIZE", run.data.eval_batch_size, mesh)


def _check_restoring(run: TrainRun) -> None:
    """Raises ConfigError where an optimiser cannot go on from that of the base model's checkpoint."""
    wrong = {
        "the whole model is tuned: set PROMPT = None and TUNED = None, or": not run.tunes_model,
        "a checkpoint is read: set INITIAL_CHECKPOINT_PATH, or": run.model.checkpoint is None,
        "the checkpoint says its step: set Optimizer.step_offset = 0, or": run.optimizer.step_offset != 0,
        "layers are single, as those of T5X are: set SCAN_LAYERS = False, or": run.model.scan_layers,
    }
    for words, is_wrong in wrong.items():
        if is_wrong:
            raise ConfigError(
                f"Optimizer.restore_state means something where {words} leave Optimizer.restore_state out"
            )


def _check_bert(run: TrainRun, model: Bert, labels: Sequence[Labels | None]) -> None:
    """Raises ConfigError where a BERT has too few positions for a row, or one classifier for unlike tasks."""
    if len(set(labels)) > 1:
        raise ConfigError(
            f"{run.data.task} mixes tasks with other labels, and a BERT has one classifier: choose one task"
        )
    check_design(run.data, bert=True)
    length = text_length(run.data, prompt_length(run)) + prompt_length(run)
    if length > model.config.max_length:
        raise ConfigError(
            f"TASK_FEATURE_LENGTHS inputs and the prompt are {length} tokens, and {run.model.name} has "
            f"{model.config.max_length} positions: lower inputs, or set PROMPT_INSIDE_LENGTH = True"
        )


def _check_vocabulary(run: TrainRun, model: Model, vocabulary: Vocabulary | WordPiece) -> None:
    """Raises ConfigError where a T5 would be made for a vocabulary of another size, with 128 or more idle rows."""
    rows = model.config.vocab_size
    if run.model.checkpoint is None and rows - vocabulary.size >= 128:
        raise ConfigError(
            f"VOCABULARY {run.model.vocabulary} has {vocabulary.size} ids and {run.model.name} {rows} embedding rows: "
            "set VOCABULARY or MODEL_SIZE to what fits the other"
        )
