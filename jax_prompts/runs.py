"""Settings of whole runs, of the parts in `config.py`: what each command is given."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from jax_prompts.config import BaseModel, Data, Decoding, Optimizer, Training
from jax_prompts.errors import ConfigError
from jax_prompts.storage.home import expand_fields

if TYPE_CHECKING:
    from jax_prompts.prompts import Initializer, Method
    from jax_prompts.sweep import Variant
    from jax_prompts.tuned import TunedLeaves

MOST_SHARDS = 99_999  # whose numbers have five digits, as T5X names them


@dataclasses.dataclass(frozen=True)
class TrainRun:
    """`t5x train`: a prompt, leaves inside the model, or both (or, with neither, the whole model) tuned on one task or
    mixture.

    Attributes:
      model_dir: directory, or `gs://` folder, in which the run leaves everything; made where it is not there.
      model: the frozen model.
      data: text and batches.
      optimizer: how tuned parameters move.
      training: steps, evaluations, members, seed.
      method: a prompt method; None: no prompt.
      tuned: kinds of leaves that are tuned inside the model (`tuned/`), one or several; None: none.
      initializer: where the prompt's table starts; None: as the method's paper says.
      prompt_of_each_task: whether each task of a mixture has a prompt of its own (`prompts/task_prompts.py`).
      shared_by_tasks: parameters of the method that these have in common.
      decoding: how answers are generated for validation.
      sweep: values of settings by name, of which every combination is a member, or the settings of each member, by
        name (`sweep.py`); None: members differ in their seeds.
      variants: the members of a sweep, as `cli/gin_settings.py` makes them of it; `training.members` is their number.
    """

    model_dir: str
    model: BaseModel
    data: Data
    optimizer: Optimizer
    training: Training
    method: Method | None = None
    tuned: TunedLeaves | tuple[TunedLeaves, ...] | None = None
    initializer: Initializer | None = None
    prompt_of_each_task: bool = False
    shared_by_tasks: tuple[str, ...] = ()
    decoding: Decoding = dataclasses.field(default_factory=Decoding)
    sweep: dict[str, Any] | tuple[dict[str, Any], ...] | None = None
    variants: tuple[Variant, ...] = ()

    def __post_init__(self) -> None:
        expand_fields(self, "model_dir")

    @property
    def leaves(self) -> tuple[TunedLeaves, ...]:
        """The kinds of leaves that are tuned inside the model."""
        if isinstance(self.tuned, tuple | list):
            return tuple(self.tuned)
        return () if self.tuned is None else (self.tuned,)

    @property
    def tunes_model(self) -> bool:
        """Whether the whole model is tuned."""
        return self.method is None and not self.leaves

    @property
    def method_name(self) -> str:
        """What is tuned, by class names: `Residual`, `PromptTuning + LoRA`; `ModelTuning` of the whole model."""
        tuned = [*(() if self.method is None else (self.method,)), *self.leaves]
        return " + ".join(type(each).__name__ for each in tuned) or "ModelTuning"

    @property
    def tunes_nothing(self) -> bool:
        """Whether it only scores the bare model, as a row of a suite may."""
        return self.tunes_model and self.training.steps == 0


@dataclasses.dataclass(frozen=True)
class EvalRun:
    """`t5x eval`: prompt files scored on tasks or mixtures, each alone and all of one as an ensemble.

    Attributes:
      output_dir: directory for eval.json and predictions; None: none are written.
      model: the frozen model.
      data: text and batches.
      prompt_files: paths, URLs or patterns of paths; none: the bare model. Or these by the name of a task or mixture,
        each of which is scored in the place of `data.task`.
      role: which examples: `train`, `validation` or, where the protocol has some, `test`.
      decoding: how answers are generated.
    """

    output_dir: str | None
    model: BaseModel
    data: Data
    prompt_files: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    role: Literal["train", "validation", "test"] = "validation"
    decoding: Decoding = dataclasses.field(default_factory=Decoding)

    def __post_init__(self) -> None:
        expand_fields(self, "output_dir")
        if self.prompt_files == {}:
            raise ConfigError("PROMPT_FILES is {}: name tasks, and prompt files of each")

    @property
    def files_by_task(self) -> dict[str, tuple[str, ...]]:
        """`prompt_files` by the task or mixture that they are scored on."""
        return (
            self.prompt_files if isinstance(self.prompt_files, dict) else {self.data.task: self.prompt_files}
        )


@dataclasses.dataclass(frozen=True)
class InferRun:
    """`t5x infer`: named prompts answer lines of text.

    Attributes:
      model: the frozen model.
      task_feature_lengths: `{"inputs": T, "targets": U}` in tokens, end of sentence included.
      batch_size: lines answered at once.
      decoding: how answers are generated.
      prompt_files: paths, URLs or patterns of prompts that flags have not named; each goes by its path.
    """

    model: BaseModel
    task_feature_lengths: dict[str, int]
    batch_size: int = 32
    decoding: Decoding = dataclasses.field(default_factory=Decoding)
    prompt_files: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class InferTaskRun:
    """`t5x infer` without `--input`: prompts answer a split of a task or mixture (`Data.eval_split`), in shards.

    Attributes:
      output_dir: directory or URL of a folder for the shards.
      model: the frozen model.
      data: text and batches.
      prompt_files: paths, URLs or patterns of prompts that flags have not named; none: the bare model.
      decoding: how answers are generated.
      mode: `predict` writes answers, `score` the log-probability of the targets.
      num_shards: files that the examples of each task are divided into.
      shard_id: which of these is made, from 0; None: all, by all processes.
      checkpoint_period: batches that are written at once, and lost at most when a run is stopped.
    """

    output_dir: str
    model: BaseModel
    data: Data
    prompt_files: tuple[str, ...] = ()
    decoding: Decoding = dataclasses.field(default_factory=Decoding)
    mode: Literal["predict", "score"] = "predict"
    num_shards: int = 1
    shard_id: int | None = None
    checkpoint_period: int = 100

    def __post_init__(self) -> None:
        expand_fields(self, "output_dir")
        for name, least in (("num_shards", 1), ("shard_id", 0), ("checkpoint_period", 1)):
            value = getattr(self, name)
            if isinstance(value, int) and value < least:  # what is no number is left to the check of types
                raise ConfigError(f"InferTaskRun.{name} is {value}: set it to at least {least}")
        if isinstance(self.num_shards, int) and self.num_shards > MOST_SHARDS:
            raise ConfigError(
                f"InferTaskRun.num_shards is {self.num_shards}: a shard's name has five digits, so set it to at most "
                f"{MOST_SHARDS}"
            )
        if (
            isinstance(self.shard_id, int)
            and isinstance(self.num_shards, int)
            and self.shard_id >= self.num_shards
        ):
            raise ConfigError(
                f"InferTaskRun.shard_id is {self.shard_id}, and num_shards {self.num_shards}: shards are numbered "
                f"0 to {self.num_shards - 1}"
            )


@dataclasses.dataclass(frozen=True)
class Suite:
    """`t5x suite`: a table of runs, a row for each model, setting and method, a column for each task.

    What belongs to a model, a setting, a method or a task is a tuple of gin files and of `{"NAME": value}`; a cell
    reads the files of its model, setting, method and task, the suite's own file, and then the values in this order.
    A label `""` is left out of the row's.
    Values that refer to something are texts: `{"INITIALIZER": "@Uniform()"}`.

    Attributes:
      model_dir: directory of the suite; each cell has one of its own below.
      tasks: by column; a task's name, or a tuple as above.
      methods: by row.
      models: by row.
      settings: by row: lengths, few-shot sizes, whatever else tells rows apart.
      seeds: of the runs behind every cell; its mean and deviation are over these.
      seeded: the settings that a seed sets.
      search: values of settings, of which the combination with the best validation score is shown.
      search_by: what that score is of: `suite`, the mean over a row's columns, or `task`, each column for itself.
      metrics: what columns show: a metric, or of a mixture (task, metric); without one (None), the mean of the metrics.
      averages: columns that are averages of others, and of which.
      published: `{row: {column: number or (number, deviation)}}`; rows that no method makes are shown, too.
      source: of the published numbers.
      members: cells that share a step, at most.
      budget: `{'steps': N}`, of all runs together, or `{'minutes': N}`, of one worker: rows and searched settings are
        chosen from within it by successive halving (`suites/halving.py`); empty: all of them are run to the end.
      eta: of so many options one goes on.
    """

    model_dir: str
    tasks: dict[str, Any]
    methods: dict[Any, Any]
    models: dict[Any, Any] = dataclasses.field(default_factory=lambda: {"": ()})
    settings: dict[Any, Any] = dataclasses.field(default_factory=lambda: {"": ()})
    seeds: tuple[int, ...] = (0,)
    seeded: tuple[str, ...] = ("RANDOM_SEED",)
    search: dict[str, Any] = dataclasses.field(default_factory=dict)
    search_by: Literal["suite", "task"] = "suite"
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    averages: dict[str, Any] = dataclasses.field(default_factory=dict)
    published: dict[str, Any] = dataclasses.field(default_factory=dict)
    source: str | None = None
    members: int = 16
    budget: dict[str, Any] = dataclasses.field(default_factory=dict)
    eta: int = 3

    def __post_init__(self) -> None:
        expand_fields(self, "model_dir")
