"""Starts workers of a suite through submitit: as a Slurm job array, or as processes of this host."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError, first_line
from jax_prompts.storage import files
from jax_prompts.storage.remote import is_remote


def launch(launcher: str, jobs: int, model_dir: str, argv: Sequence[str], parameters: dict[str, Any]) -> None:
    """Starts `jobs` workers and waits for them; what they print is in MODEL_DIR/jobs.

    Args:
      launcher: `slurm` or `local`.
      jobs: how many.
      model_dir: of the suite.
      argv: the arguments of a worker's command.
      parameters: of submitit's executor, such as `{"slurm_partition": "gpu", "timeout_min": 600}`.

    Raises:
      ConfigError: submitit is not installed, there is no Slurm here, or a parameter it does not know.
      RunError: workers that could not be started, or failed.
    """
    if is_remote(model_dir):
        raise ConfigError(
            f"--launcher={launcher} keeps what workers print in MODEL_DIR/jobs, and MODEL_DIR {model_dir} is no "
            "directory: start the same command without --launcher wherever one is to work"
        )
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--launcher={launcher} needs submitit; in the checkout: pip install -e '.[slurm]'"
        ) from error
    folder = pathlib.Path(model_dir) / "jobs"
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=launcher)
        executor.update_parameters(**{"name": "t5x_suite", "timeout_min": 24 * 60, **parameters})
    except (RuntimeError, TypeError, ValueError, NameError) as error:
        raise ConfigError(f"--launcher={launcher}: {first_line(error)}") from error
    worker = submitit.helpers.CommandFunction(
        [sys.executable, "-m", "jax_prompts.main", *argv], verbose=False
    )
    try:
        with files.write_errors(folder), executor.batch():  # one array
            started = [executor.submit(worker) for _ in range(jobs)]
    except RunError:
        raise
    except RuntimeError as error:  # submitit's, of what Slurm refuses
        raise RunError(f"--launcher={launcher}: {first_line(error)}") from error
    log(f"{jobs} workers, jobs {', '.join(job.job_id for job in started)}; what they print is in {folder}")
    failed = [
        f"{job.job_id}: {first_line(error)}" for job in started if (error := job.exception()) is not None
    ]
    if failed:
        raise RunError(f"{len(failed)} of {jobs} workers failed: {'; '.join(failed)}; see {folder}")
