"""Parts of the settings of runs (`runs.py`): one frozen dataclass per concern, filled by gin, free of heavy imports.

Every option of the command line is a field here. `cli/gin_settings.py` lets gin fill these classes; every other
module receives them as plain values.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from jax_prompts.errors import ConfigError, nearest
from jax_prompts.storage.home import expand_fields

MOST_RESAMPLES = 1_000_000  # a value of each is kept


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """The frozen model.

    Attributes:
      size: a name in `models/sizes.py`; None: as the checkpoint says.
      checkpoint: a model directory (native format, T5X or Hugging Face), `gs://` path, `hf://ORGANISATION/NAME`,
        `asset:micro`, or None for random weights (drawn from the run's seed; for tests and benchmarks).
      vocabulary: path of a SentencePiece model file or tokenizer.json, `gs://` path, `asset:micro` or `bytes`
        (ByT5's); None: the file beside the checkpoint.
      dropout_rate: dropout inside the frozen model while tuning (T5X: 0.1).
      activation_dtype: `float32` or `bfloat16`; norms, softmax statistics, logits and losses stay float32.
      weight_dtype: dtype in which frozen weights are kept; `int8` and `int4` quantise kernels of layers, and keep the
        rest in bfloat16 (`base_models/quantize.py`).
      scan_layers: compile one layer and scan over it instead of unrolling.
      remat: what of a layer is kept for the backward pass: `none` (recompute nothing), `minimal` (keep products
        with weights) or `full` (keep a layer's input alone); values and gradients are the same.
      partitions: devices along the mesh axes `data`, `fsdp` and `model` (`partition.py`).
    """

    size: str | None
    checkpoint: str | None
    vocabulary: str | None
    dropout_rate: float = 0.1
    activation_dtype: Literal["float32", "bfloat16"] = "float32"
    weight_dtype: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    scan_layers: bool = False
    remat: Literal["none", "minimal", "full"] = "none"
    partitions: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        expand_fields(self, "checkpoint", "vocabulary")

    @property
    def name(self) -> str:
        return self.size or str(self.checkpoint)


@dataclasses.dataclass(frozen=True)
class OwnTask:
    """A task made of the user's own files, named by MIXTURE_OR_TASK_NAME.

    Files are `.jsonl` (one object a line), `.csv`, `.tsv` or `.parquet`, each with named columns; paths are relative to
    DATA_DIR, or to the working directory where that is not set. `hf://datasets/ORGANISATION/NAME[@REVISION]/PATH` is a
    file of the Hugging Face hub.

    Attributes:
      train: file that trains; None where there is none.
      validation: file that chooses the prompt; None where there is none.
      test: file of split `test`, for EVAL_SPLIT or a protocol that asks for it; None where there is none.
      inputs: the text the model reads; `{column}` stands for the column's text, `{{` for a brace.
      target: the text it should answer, or what `labels` translates.
      labels: word of each label, `{'0': 'negative', '1': 'positive'}`, no two the same; None: answers are free text.
      answers: column with a list of all answers that are right, for metrics of lists; its first is the target.
      metrics: of classes `accuracy`, `f1_with_invalid`, `mean_multiclass_f1`, `matthews`; of numbers `pearson`,
        `spearman`; of free text `accuracy`, `normalized_match`, and of lists of answers `squad`; of both `exact_match`,
        `rouge1`, `rouge2`, `rougeL`, `rougeLsum`, `bleu`, `chrf`.
      tsv_quotes: whether cells of a `.tsv` may be quoted, as those of a `.csv`: `"She said ""no""."`; None: yes where
        every cell that begins with a quote ends with one.
      id: column that tells rows apart; it must not repeat, and stands beside predictions.
    """

    train: str | None = None
    validation: str | None = None
    test: str | None = None
    inputs: str = "{text}"
    target: str = "{label}"
    labels: dict[str, str] | None = None
    answers: str | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    tsv_quotes: bool | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        expand_fields(self, "train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class PromptDesign:
    """Text in front of every text that the model reads: prompt design, as Brown et al. 2020 have it.

    Attributes:
      demonstrations: training examples, with their answers, in front of each text; 0: none.
      instruction: text in front of all; None: none.
      seed: of the draw of demonstrations, whatever the seed of the run.
      balanced: as many demonstrations of each class as of any other, or one more; of a task without classes any.
      fixed: True: the same demonstrations for all texts; False: each text has a draw of its own.
      template: how an answer follows its text; a text that waits for its answer ends where `{targets}` begins.
      separator: what stands between instruction, demonstrations and text; T5's vocabulary reads line feeds as a space.
    """

    demonstrations: int = 0
    instruction: str | None = None
    seed: int = 0
    balanced: bool = True
    fixed: bool = False
    template: str = "{inputs} {targets}"
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        # What has another type is left to the check of types.
        for name, value in (("DEMONSTRATIONS", self.demonstrations), ("DEMONSTRATIONS_SEED", self.seed)):
            if isinstance(value, int) and value < 0:
                raise ConfigError(f"{name} is {value}; it must be at least 0")
        parts = re.split(r"(\{inputs\}|\{targets\})", str(self.template))
        if parts[1::2] != ["{inputs}", "{targets}"]:
            raise ConfigError(
                f"PromptDesign.template is {self.template!r}: set it to text with {{inputs}} and then {{targets}}, "
                "such as '{inputs} answer: {targets}'"
            )

    @property
    def around(self) -> tuple[str, str, str]:
        """The template's text before, between and behind `{inputs}` and `{targets}`."""
        before, behind_inputs = self.template.split("{inputs}")
        between, behind = behind_inputs.split("{targets}")
        return before, between, behind

    @property
    def changes_text(self) -> bool:
        """Whether texts read otherwise than the task makes them."""
        before, between, _ = self.around
        return bool(self.demonstrations or self.instruction or before or between.rstrip())


@dataclasses.dataclass(frozen=True)
class Data:
    """Text of a run, and how it is cut into batches.

    Attributes:
      task: name of a SeqIO task or mixture.
      task_module: module whose import registers the tasks.
      task_feature_lengths: `{"inputs": T, "targets": U}` in tokens, end of sentence included.
      batch_size: rows a step, for each member.
      data_dir: directory with the official files, here or in a bucket; None reads TFDS.
      tfds_data_dir: where TFDS keeps its data.
      cache_dir: where token caches are kept, here or in a bucket; None: `$JAX_PROMPTS_CACHE`, else
        `~/.cache/jax_prompts`.
      train_split: split that trains with `dev_as_test`; TFDS slices allowed (`train[:2470]`).
      eval_split: split that is evaluated with `dev_as_test`; slices allowed.
      protocol: which examples train, choose and test: `dev_as_test`, `ept_b1` or `attempt_half`
        (`data/protocols.py`).
      few_shot: train on so many examples in all; None: on all there are.
      few_shot_per_class: train on so many examples of each class, or all of a class that has fewer, and on so many in
        all of a task without classes; None: on all there are.
      subset_seed: of the random halves of `ept_b1` and of few-shot subsets, whatever the seed of the run.
      eval_batch_size: rows decoded at once.
      length_groups: parts of a batch, divided by length, each padded to one of a few lengths, their gradients added up:
        how many, or lengths in tokens to pad to; None: as many, and such lengths, as cost least; 1: batches are not
        divided. The same step but for dropout's draws.
      prompt_inside_length: True counts the prompt within `inputs` (Residual Prompt Tuning); False adds it (Lester).
      own_task: what `task` is, where it is made of the user's own files.
      skip_bad_lines: leave out and list lines of data files that cannot be used, instead of stopping at the first.
      verbalizer: label of the task -> word that the model writes in its place, all labels; None: the labels.
      sentinel: targets begin with `<extra_id_0>`, as those of span corruption do; answers are scored without it.
      prompt_design: what stands in front of every text.
      rank_classification: score every label too, and report `rank/...` beside the metrics of generated answers.
      bootstrap: resamples behind a 95 % interval of every metric; 0: no intervals.
    """

    task: str
    task_module: str
    task_feature_lengths: dict[str, int]
    batch_size: int
    data_dir: str | None = None
    tfds_data_dir: str | None = None
    cache_dir: str | None = None
    train_split: str = "train"
    eval_split: str = "validation"
    protocol: str = "dev_as_test"
    few_shot: int | None = None
    few_shot_per_class: int | None = None
    subset_seed: int = 42
    eval_batch_size: int = 32
    length_groups: int | tuple[int, ...] | None = None
    prompt_inside_length: bool = False
    own_task: OwnTask | None = None
    skip_bad_lines: bool = False
    verbalizer: dict[str, str] | None = None
    sentinel: bool = False
    prompt_design: PromptDesign = PromptDesign()
    rank_classification: bool = False
    bootstrap: int = 0

    def __post_init__(self) -> None:
        # What is no number is left to the check of types.
        if isinstance(self.bootstrap, int) and not 0 <= self.bootstrap <= MOST_RESAMPLES:
            raise ConfigError(f"BOOTSTRAP is {self.bootstrap}: set it from 0 to {MOST_RESAMPLES:,}")
        expand_fields(self, "data_dir", "tfds_data_dir", "cache_dir")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Optimiser, rates and schedule of the tuned parameters. Settings an optimiser does not know are refused.

    Attributes:
      name: `adafactor` or `adamw`.
      learning_rate: peak rate.
      schedule: `constant`, `linear` (to 0 at the last step) or `rsqrt` (inverse square root).
      warmup_steps: linear warm-up from 0; for `rsqrt` also its time constant, as in T5X.
      warmup_fraction: the same as a share of all steps, for runs that count epochs; one of the two.
      weight_decay: AdamW: decoupled, times the rate. Adafactor: T5X's, not times the rate.
      beta1: AdamW's decay of the first moment.
      beta2: AdamW's decay of the second moment.
      epsilon: what AdamW adds to the root of the second moment.
      decay_rate: Adafactor's second-moment exponent: beta2_t = 1 - (t + 1)^-decay_rate.
      step_offset: the step at which Adafactor's t starts; 1,100,000 continues an LM-adapted T5.1.1 as T5X does.
      restore_state: whether Adafactor goes on with the second moments and the step of INITIAL_CHECKPOINT_PATH, a T5X
        checkpoint, when the whole model is tuned; rates are this run's own.
      factored: whether Adafactor may factor second moments of parameters with two long sides.
      min_dim_size_to_factor: how long a side has to be for that, in numbers.
      multiply_by_parameter_scale: Adafactor's relative step sizes.
      clipping_threshold: Adafactor's limit on the update's RMS; None for no limit.
      gradient_clip_norm: limit on each member's global gradient norm; None for no limit.
      network_learning_rate: peak rate of a method's parameters other than its table; None: `learning_rate`.
      network_weight_decay: decay of a method's parameters other than its table; None: `weight_decay`.
    """

    name: Literal["adafactor", "adamw"]
    learning_rate: float
    schedule: Literal["constant", "linear", "rsqrt"] = "constant"
    warmup_steps: int = 0
    warmup_fraction: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay_rate: float = 0.8
    step_offset: int = 0
    restore_state: bool = False
    factored: bool = True
    min_dim_size_to_factor: int = 128
    multiply_by_parameter_scale: bool = False
    clipping_threshold: float | None = 1.0
    gradient_clip_norm: float | None = None
    network_learning_rate: float | None = None
    network_weight_decay: float | None = None


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Generation of answers.

    Attributes:
      name: `greedy`, `sample` or `beam`.
      temperature: divides the logits, for `sample`; 0 takes the likeliest token.
      top_k: draw from so many likeliest tokens, for `sample`; 0: from all.
      top_p: draw from the likeliest tokens that make up this probability, for `sample`; 0.0: from all.
      num_decodes: beams of a row, for `beam`.
      alpha: brevity penalty ((5 + length) / 6)^alpha, for `beam`.
    """

    name: Literal["greedy", "sample", "beam"] = "greedy"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    num_decodes: int = 1
    alpha: float = 0.6

    def __post_init__(self) -> None:
        known = ("greedy", "sample", "beam")
        if self.name not in known:
            names = nearest(str(self.name), known)
            raise ConfigError(f"Decoding.name = {self.name!r} is unknown; use {names}")


@dataclasses.dataclass(frozen=True)
class Training:
    """One training run.

    Attributes:
      steps: optimiser steps; None: as many as `epochs` need.
      epochs: passes over the training split, where `steps` is None.
      eval_period: steps between evaluations; the last step is always evaluated. None: once an epoch.
      checkpoint_period: steps between checkpoints; None: every evaluation.
      keep: checkpoints kept.
      log_period: steps between lines of metrics/train.jsonl.
      patience: stop after this many evaluations without a better metric; None never stops early.
      microbatches: parts of a batch taken one after the other, their gradients added up, to save memory;
        but for dropout's draws the same step.
      members: prompts trained side by side, with seeds `seed`, `seed + 1`, ...
      seed: of initial values, dropout and batch order.
      z_loss: weight of log(Z)^2 (T5X: 1e-4).
      loss_normalization: `sum` over target tokens (T5X) or `mean`.
      metric: validation metric that chooses the best prompt; None: mean of the task's metrics (of generated answers).
      wandb: whether Weights & Biases shows the run, too.
      profile_steps: first and last step that JAX's profiler traces, counted from 1; None: none.
    """

    steps: int | None
    eval_period: int | None
    checkpoint_period: int | None = None
    epochs: float | None = None
    keep: int = 2
    log_period: int = 50
    patience: int | None = None
    microbatches: int = 1
    members: int = 1
    seed: int = 0
    z_loss: float = 1e-4
    loss_normalization: Literal["sum", "mean"] = "sum"
    metric: str | None = None
    wandb: bool = False
    profile_steps: tuple[int, ...] | None = None

    def in_steps(self, examples: int, batch_size: int) -> tuple[int, int]:
        """(steps, evaluation period); an epoch of `examples` takes steps enough for all of them.

        Raises:
          ConfigError: more steps than can be counted.
        """
        epoch = -(-examples // batch_size)
        steps = max(1, round((self.epochs or 0) * epoch)) if self.steps is None else self.steps
        if steps >= 1 << 31:
            raise ConfigError(f"TRAIN_EPOCHS = {self.epochs} are {steps:.3g} steps: set it to fewer")
        return steps, epoch if self.eval_period is None else self.eval_period
