"""T5X's words for settings that have other names here: what means the same is taken, of the rest is said what does it.

Macros are taken from gin files and flags, fields of T5X's classes (`utils.DatasetConfig.split`) from flags alone: a gin
file that binds T5X's classes imports T5X.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jax_prompts.cli.checkpoint_path import meaning_of_checkpoint
from jax_prompts.cli.macros import read_macros
from jax_prompts.errors import ConfigError

Settings = dict[str, Any]  # by name, as gin has them
_NOTHING_SET = object()

_SHARED = {
    "CHECKPOINT_PATH": "INITIAL_CHECKPOINT_PATH",  # or PROMPT_FILES: `meaning_of_checkpoint`
    "RestoreCheckpointConfig.path": "INITIAL_CHECKPOINT_PATH",
    "RestoreCheckpointConfig.dtype": "WEIGHT_DTYPE",
    "PROMPT_FILE": "PROMPT_FILES",
    "MIXTURE_OR_TASK_SPLIT": "EVAL_SPLIT",
    "DatasetConfig.split": "EVAL_SPLIT",
    "DatasetConfig.batch_size": "EVAL_BATCH_SIZE",
    "DatasetConfig.mixture_or_task_name": "MIXTURE_OR_TASK_NAME",
    "DatasetConfig.module": "MIXTURE_OR_TASK_MODULE",
    "DatasetConfig.task_feature_lengths": "TASK_FEATURE_LENGTHS",
    "PjitPartitioner.num_partitions": "PARTITIONS",
}
SAME: dict[str, dict[str, str]] = {
    "eval": {**_SHARED, "EVAL_OUTPUT_DIR": "MODEL_DIR", "evaluate.output_dir": "MODEL_DIR"},
    "infer": {
        **_SHARED,
        "infer.output_dir": "INFER_OUTPUT_DIR",
        "infer.mode": "InferTaskRun.mode",
        "infer.num_shards": "InferTaskRun.num_shards",
        "infer.shard_id": "InferTaskRun.shard_id",
        "infer.checkpoint_period": "InferTaskRun.checkpoint_period",
    },
}
SAME["cache"] = SAME["eval"]
# What has to have this value, for nothing else is done here, and why.
_FIXED: dict[str, tuple[Any, str]] = {
    "USE_CACHED_TASKS": (False, "SeqIO's caches are not read: tokens are made once, and kept in CACHE_DIR"),
    "DatasetConfig.use_cached": (False, "SeqIO's caches are not read: tokens are made once, in CACHE_DIR"),
    "DatasetConfig.shuffle": (False, "examples are answered in their order"),
    "DatasetConfig.pack": (False, "rows are grouped by length in its place, by LENGTH_GROUPS"),
    "RestoreCheckpointConfig.mode": ("specific", "a checkpoint is named, and no folder of several"),
    "infer.merge_chunked_results": (True, "a shard is one file"),
    "infer.checkpoint_ds_iter": (True, "an inference that was stopped goes on"),
}
_BY_LENGTH = "examples are grouped by length: LENGTH_GROUPS"
_PLACE = "the base model and the prompt are files of their own: INITIAL_CHECKPOINT_PATH and PROMPT_FILES"
_ELSEWHERE: dict[str, str] = {  # word -> what does it here
    "CHECKPOINT_PATH": "INITIAL_CHECKPOINT_PATH names the base model",
    "EVAL_OUTPUT_DIR": "MODEL_DIR says where a run writes",
    "EVAL_STEPS": "all of EVAL_SPLIT is evaluated, every EVAL_PERIOD steps",
    "TRAIN_STEPS_RELATIVE": "TRAIN_STEPS counts from the start of the run",
    "EVALUATOR_NUM_EXAMPLES": "EVAL_SPLIT takes slices, 'validation[:100]'",
    "EVALUATOR_USE_MEMORY_CACHE": "nothing has to: leave it out",
    "JSON_WRITE_N_RESULTS": "all predictions are written: leave it out",
    "USE_HARDWARE_RNG": "JAX's flags do: leave it out",
    "LOSS_NORMALIZING_FACTOR": "LOSS_NORMALIZATION says 'sum' or 'mean'",
    "TF_EXAMPLE_FILE_PATHS": "t5x infer --input reads lines, and OWN_TASK a table",
    "MODEL_OUTPUT_DIR": "t5x export takes prompts out",
    "DatasetConfig.split": "TRAIN_SPLIT and EVAL_SPLIT",
    "DatasetConfig.batch_size": "BATCH_SIZE and EVAL_BATCH_SIZE",
    "DatasetConfig.seed": "RANDOM_SEED",
    "DatasetConfig.pack": _BY_LENGTH,
    "DatasetConfig.use_custom_packing_ops": _BY_LENGTH,
    "RestoreCheckpointConfig.path": "INITIAL_CHECKPOINT_PATH names the base model",
    "RestoreCheckpointConfig.dtype": "WEIGHT_DTYPE",
    "RestoreCheckpointConfig.fallback_to_scratch": _PLACE,
    "RestoreCheckpointConfig.assignment_map": _PLACE,
    "RestoreCheckpointConfig.is_tensorflow": "t5x convert reads T5X's and Hugging Face's checkpoints",
    "SaveCheckpointConfig.period": "CHECKPOINT_PERIOD",
    "SaveCheckpointConfig.keep": "Training.keep",
    "Trainer.num_microbatches": "MICROBATCHES",
    "PjitPartitioner.num_partitions": "PARTITIONS = {'data': -1, 'model': N}",
    "PjitPartitioner.model_parallel_submesh": "PARTITIONS",
    "PjitPartitioner.logical_axis_rules": "PARTITIONS",
    "create_learning_rate_scheduler.base_learning_rate": "LEARNING_RATE",
    "create_learning_rate_scheduler.factors": "Optimizer.schedule",
    "create_learning_rate_scheduler.warmup_steps": "Optimizer.warmup_steps",
    "train.random_seed": "RANDOM_SEED",
    "train.eval_period": "EVAL_PERIOD",
    "train.total_steps": "TRAIN_STEPS",
    "train.model_dir": "MODEL_DIR",
    "evaluate.fallback_init_rng": "PROMPT_FILES names what is not in the checkpoint",
    "infer.fallback_init_rng": "PROMPT_FILES names what is not in the checkpoint",
    "infer.file_extension": "shards are JSON lines",
    "Evaluator.num_examples": "EVAL_SPLIT takes slices, 'validation[:100]'",
    "Evaluator.use_memory_cache": "nothing has to: leave it out",
    "Evaluator.logger_cls": "metrics are in eval.json, and of training in TensorBoard",
    "EncoderDecoderModel.decode_fn": "Decoding.name",
    "EncoderDecoderModel.default_decoder_params": "Decoding",
    "EncoderDecoderModel.z_loss": "Training.z_loss",
    "beam_search.num_decodes": "Decoding.num_decodes",
    "beam_search.alpha": "Decoding.alpha",
    "temperature_sample.temperature": "Decoding.temperature",
    "temperature_sample.topk": "Decoding.top_k",
    "temperature_sample.topp": "Decoding.top_p",
}
_CLASSES = {
    word.partition(".")[0] for word in (*_ELSEWHERE, *_FIXED, *SAME["eval"], *SAME["infer"]) if "." in word
}


def macros_for(command: str) -> set[str]:
    """T5X's macros that a command takes, whatever becomes of them."""
    return {word for word in (*SAME.get(command, ()), *_FIXED) if "." not in word}


def of_flags(command: str, bindings: Sequence[str]) -> list[str]:
    """`NAME=VALUE`s of flags with our words in the place of T5X's; macros stay beside them, for what refers to them.

    Raises:
      ConfigError: a word for which there is none here, with what does it; two words for one setting that say
        different things.
      RunError: CHECKPOINT_PATH cannot be read.
    """
    made: list[str] = []
    said: dict[str, tuple[str, Any]] = {}  # what a setting was told by which word
    for binding in bindings:
        name, _, text = binding.partition("=")
        word, value = _word(name), _value(text)
        if (ours := _meant(command, word, value)) is not None:
            made += [binding] * ("." not in name)
            made += [f"{setting}={_text(of)}" for setting, of in ours.items()]
        elif word in _ELSEWHERE and word not in _FIXED and "." in word:
            raise ConfigError(
                f"--gin.{name} is a word of T5X's, which does not count here: {_ELSEWHERE[word]}"
            )
        elif word not in _FIXED or "." not in word:
            made.append(binding)
        for setting, of in ({_macro(name): value} if ours is None else ours).items():
            other, told = said.setdefault(setting, (name, of))
            if _word(other) != word and told != of:
                raise _conflict(setting, {other: told, name: of})
            said[setting] = name, of
    return made


def of_file(command: str, file: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Settings:
    """Our settings by name for T5X's macros that a gin file has set, which it was given `before` and `after` of.

    Raises:
      ConfigError, RunError: as `of_flags`.
    """
    theirs = [name for name in sorted(macros_for(command)) if name in after]
    if not theirs:
        return {}
    changed = {
        name: value for name, value in after.items() if repr(before.get(name, _NOTHING_SET)) != repr(value)
    }
    made: Settings = {}
    said: dict[str, str] = {}
    for name in filter(changed.__contains__, theirs):
        for setting, value in (_meant(command, name, changed[name]) or {}).items():
            told = changed.get(setting, made.get(setting, value))
            if repr(told) != repr(value):
                raise ConfigError(
                    f"{file}: {_conflict(setting, {said.get(setting, setting): told, name: value})}"
                )
            made[setting], said[setting] = value, name
    return made


def check_known(names: Iterable[str]) -> None:
    """Raises ConfigError for a macro of T5X's among names that nothing here knows, which says what does it."""
    for name in sorted(names):
        if name in _ELSEWHERE:
            raise _elsewhere(name)


def said_of_class(name: str) -> str | None:
    """What to say of a class of T5X's, or a function, that a gin file binds; None of what T5X does not have."""
    if (own := name.rpartition(".")[2]) not in _CLASSES:
        return None
    same = {
        word: ours for words in SAME.values() for word, ours in words.items() if word.startswith(f"{own}.")
    }
    words = {**{word: of for word, of in _ELSEWHERE.items() if word.startswith(f"{own}.")}, **same}
    meant = "; ".join(f"{word.rpartition('.')[2]}: {ours}" for word, ours in list(words.items())[:6])
    return f"{name} is T5X's, which is not known here; its fields are {meant or 'not settings here'}"


def _word(name: str) -> str:
    """T5X's word of a binding's name: a macro, or the last two of `module.Class.field`."""
    parts = name.rpartition("/")[2].split(".")
    return ".".join(parts[-2:]) if len(parts) > 1 and parts[-2] in _CLASSES else name


def _meant(command: str, word: str, value: Any) -> Settings | None:
    """Our settings in the place of one of T5X's; empty where there is nothing to say, None of other words."""
    if word in _FIXED:
        needed, reason = _FIXED[word]
        if value != needed:
            raise ConfigError(f"{word} is {value!r}, and nothing but {needed!r} is done here: {reason}")
        return {}
    if (setting := SAME.get(command, {}).get(word)) is None:
        return None
    if setting == "INITIAL_CHECKPOINT_PATH" and isinstance(value, str) and value[:1] not in ("%", "@", ""):
        return dict([meaning_of_checkpoint(word, value)])
    if setting == "PARTITIONS" and isinstance(value, int):
        return {setting: {"data": -1, "model": value}}
    if setting == "PROMPT_FILES" and isinstance(value, str):
        return {setting: (value,)}
    return {setting: value}


def _elsewhere(word: str) -> ConfigError:
    return ConfigError(f"{word} is a word of T5X's that says nothing to this command: {_ELSEWHERE[word]}")


def _macro(name: str) -> str:
    """The macro that a field takes its value from, where there is one."""
    return _macros_of_fields().get(name, name)


@functools.cache
def _macros_of_fields() -> dict[str, str]:
    return {field: macro.name for macro in read_macros() for field in macro.fields}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _text(value: Any) -> str:
    """A value as a flag has it: what refers to something is no text in quotes."""
    return value if isinstance(value, str) and value[:1] in ("%", "@") else repr(value)


def _conflict(setting: str, told: Mapping[str, Any]) -> ConfigError:
    both = " and ".join(
        f"{name} ({setting} = {value!r})" if name != setting else f"{name} = {value!r}"
        for name, value in told.items()
    )
    return ConfigError(f"{both} say different things: leave one out")
