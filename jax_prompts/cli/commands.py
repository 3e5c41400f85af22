"""Every command of `t5x`, in the order of `t5x --help`."""

from __future__ import annotations

from jax_prompts.cli.command import Command
from jax_prompts.cli.compare_command import COMPARE
from jax_prompts.cli.precompile_command import PRECOMPILE
from jax_prompts.cli.report_command import REPORT
from jax_prompts.cli.run_commands import CACHE, EVAL, INFER, PRETRAIN, TRAIN
from jax_prompts.cli.store_command import STORE
from jax_prompts.cli.study_command import STUDY
from jax_prompts.cli.suite_command import SUITE
from jax_prompts.cli.tasks_command import TASKS
from jax_prompts.cli.transfer_commands import CONVERT, EXPORT, INSPECT

COMMANDS: tuple[Command, ...] = (
    TRAIN, PRETRAIN, EVAL, INFER, SUITE, COMPARE, REPORT, STUDY,
    CACHE, PRECOMPILE, CONVERT, EXPORT, INSPECT, STORE, TASKS,
)  # fmt: skip
