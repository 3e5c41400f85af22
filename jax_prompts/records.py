"""Files that a run leaves in MODEL_DIR: its configuration, metrics, predictions and summary.

Metrics are JSON lines, appended; a resumed run first drops the lines past its checkpoint, so that the
file of a run stopped at any moment ends as that of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from jax_prompts.distributed.processes import by_primary, from_primary
from jax_prompts.errors import ConfigError, Preempted, RunError, system_reason
from jax_prompts.run_folder import RunFolder
from jax_prompts.runs import TrainRun
from jax_prompts.storage import files, json_text
from jax_prompts.storage.directories import make_directory
from jax_prompts.watching import hparams
from jax_prompts.watching.tensorboard import TensorBoard
from jax_prompts.watching.weights_and_biases import WeightsAndBiases

if TYPE_CHECKING:
    from jax_prompts.scoring.task_evaluator import Scores

MAX_BYTES = 2**30  # a summary has some kB, a million lines of metrics a few hundred MB
_SUMMARY = {"task": str, "metric": str, "members": list, "last_step": int}
_MEMBER = {"seed": int, "best_metric": int | float | None, "best_step": int | None, "file": str}
_SEEN_SECONDS = 90  # network file systems show others' files after up to a minute


class Records:
    """The files of one run, which of several processes the primary one writes. Use as a context manager."""

    def __init__(self, folder: RunFolder, config_text: str | None, *, numbered: bool = False) -> None:
        """Opens MODEL_DIR (`model_dir.py` has checked it), making it for a new run.

        Args:
          folder: where the run works in it.
          config_text: the configuration to keep; None: none is kept.
          numbered: whether lines and predictions say which member's they are.

        Raises:
          ConfigError: it is another directory for process 0.
          RunError: it cannot be written.
        """
        self.directory, self._folder = folder.path, folder
        self._numbered = numbered
        self._settings_E: list[hparams.Settings] = []
        self._watching: list[TensorBoard | WeightsAndBiases] = []
        self._open(config_text)
        if config_text is not None and folder.url is None:
            _check_shared(self.directory / "config.gin")

    @by_primary
    def _open(self, config_text: str | None) -> None:
        with writing(self.directory):
            make_directory(self.directory)
            (self.directory / "metrics").mkdir(exist_ok=True)
            (self.directory / "predictions").mkdir(exist_ok=True)
            if config_text is not None:
                files.write(self.directory / "config.gin", config_text)
                self._folder.publish()

    @by_primary
    def truncate(self, step: int) -> None:
        """Drops what was recorded after `step`, then continues from it."""
        with writing(self.directory):
            for file in (self.directory / "metrics").glob("*.jsonl"):
                kept = [line for recorded, line in _complete_lines(file) if recorded <= step]
                files.write(file, "".join(kept))

    @by_primary
    def watch(self, step: int, run: TrainRun, steps: int) -> None:
        """Shows what is recorded after `step` in TensorBoard, and at Weights & Biases where the run asks for it.

        Args:
          step: from which the run goes on.
          run: the run.
          steps: of the optimiser.
        """
        self._settings_E = hparams.of_members(run, steps)
        with writing(self.directory):
            self._watching = [TensorBoard(self.directory, step + 1)]
        if run.training.wandb:
            self._watching.append(WeightsAndBiases(self.directory, hparams.whole(run)))

    @by_primary
    def scalars(self, name: str, step: int, values: dict[str, Any]) -> None:
        """Appends one line to metrics/NAME.jsonl, and shows its numbers to those who watch."""
        with writing(self.directory), (self.directory / "metrics" / f"{name}.jsonl").open("a") as file:
            file.write(json_text.dumps({"step": step, **values}) + "\n")
        words = [str(values[key]) for key in ("task", "member") if key in values]
        numbers = {
            "/".join([name, *words, key]): float(value)
            for key, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and key != "member"
        }
        for watching in self._watching:
            watching.scalars(step, numbers)

    def evaluation(self, step: int, split: str, results: dict[int, dict[str, Scores]]) -> None:
        """Appends members' metrics and losses on every task to metrics/eval.jsonl, and writes their predictions.

        Args:
          step: of the run.
          split: name of the examples.
          results: scores by task, by member.
        """
        for member, tasks in results.items():
            for task, scores in tasks.items():
                more = {"about_scores": scores.context, "intervals": scores.intervals}
                more = {name: values for name, values in more.items() if values}
                where = {"task": task, "split": split} | ({"member": member} if self._numbered else {})
                where |= {} if scores.chooses else {"chooses": False}
                self.scalars("eval", step, {**where, **scores.metrics, **scores.losses, **more})
        self.member_predictions(step, results)

    def prompts(self, step: int, described: dict[int, dict[str, float]]) -> None:
        """Appends what is said of members' prompts to metrics/prompt.jsonl."""
        for member, values in described.items():
            self.scalars("prompt", step, {**({"member": member} if self._numbered else {}), **values})

    def member_predictions(self, name: int | str, results: dict[int, dict[str, Scores]]) -> None:
        """Writes predictions/TASK-NAME.jsonl for every task that has some, a member's rows after another's."""
        for task in next(iter(results.values())):
            rows = [
                {"member": member, **row} if self._numbered else row
                for member, tasks in results.items()
                for row in tasks[task].predictions
            ]
            if rows:
                self.predictions(task, name, rows)

    @by_primary
    def predictions(self, task: str, name: int | str, rows: Iterable[dict[str, Any]]) -> None:
        """Writes predictions/TASK-NAME.jsonl."""
        text = "".join(json_text.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with writing(self.directory):
            files.write(self.directory / "predictions" / f"{task}-{name}.jsonl", text)

    @by_primary
    def write(self, name: str, report: dict[str, Any], *, indent: int | None = 2) -> None:
        """Writes a JSON file, such as the summary.json of a finished run."""
        with writing(self.directory):
            files.write(self.directory / name, json_text.dumps(report, indent=indent) + "\n")

    @by_primary
    def finish(self, summary: dict[str, Any]) -> None:
        """Shows what the run came to, and writes summary.json, which makes it a finished one."""
        sessions = hparams.sessions(self._settings_E, summary)
        for watching in self._watching:
            with writing(self.directory):
                watching.finish(sessions, summary)
        self.write("summary.json", summary)
        self._folder.publish()

    def summary(self) -> dict[str, Any] | None:
        """What summary.json holds; None before the run has finished."""
        return read_summary(self.directory / "summary.json")

    def renamed(self, summary: dict[str, Any], best_files: Sequence[pathlib.Path]) -> dict[str, Any]:
        """The summary of a finished run with the paths that its members' files have now; summary.json has them, too.

        Raises:
          RunError: it is of another number of members.
        """
        if len(summary["members"]) != len(best_files):
            raise _damaged(self.directory / "summary.json")
        members = zip(summary["members"], map(self._folder.address_of, best_files), strict=True)
        here = {**summary, "members": [{**member, "file": file} for member, file in members]}
        if here != summary:
            self.write("summary.json", here)
            self.flush()
        return here

    @by_primary
    def unfinish(self) -> None:
        """Removes the summary of a run that goes on."""
        with writing(self.directory):
            (self.directory / "summary.json").unlink(missing_ok=True)
            self._folder.publish()

    @by_primary
    def flush(self) -> None:
        """Brings to disk, and to a bucket, what an ended process would lose."""
        for watching in self._watching:
            watching.flush()
        self._folder.publish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for watching in self._watching:
            watching.close(failed=error is not None and not issubclass(error, Preempted))


def _check_shared(config: pathlib.Path) -> None:
    """Raises ConfigError on a process that does not see the file that process 0 has just written."""

    def seconds() -> str:  # which is what every file system tells of a time
        return str(int(config.stat().st_mtime)) if config.exists() else ""

    written = from_primary("config.gin", seconds())
    late = time.monotonic() + _SEEN_SECONDS
    while not written or seconds() != written:
        if time.monotonic() > late:
            raise ConfigError(
                f"MODEL_DIR {config.parent} is another one for process 0: "
                "set it to a directory on a file system that all processes share"
            )
        time.sleep(0.1)


def check(directory: pathlib.Path) -> None:
    """Raises RunError for a summary.json, or a line of metrics, that no run has written; it says which."""
    read_summary(directory / "summary.json")
    for file in sorted((directory / "metrics").glob("*.jsonl")):
        list(_complete_lines(file))


def read_summary(file: pathlib.Path) -> dict[str, Any] | None:
    """The summary.json of a finished run; None where there is none. Raises RunError for a damaged one."""
    try:
        content = read_file(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return summary_of(content, str(file))


def summary_of(content: bytes, file: str) -> dict[str, Any]:
    """What a summary.json with this content holds. Raises RunError, which names the file, for a damaged one."""
    try:
        summary = json_text.loads(content.decode())
        if (
            _has(summary, _SUMMARY)
            and summary["members"]
            and all(_has(m, _MEMBER) for m in summary["members"])
        ):
            return summary
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise _damaged(file)


def _has(values: dict[str, Any], kinds: dict[str, Any]) -> bool:
    """Whether values are of these kinds, and whole numbers of a size that anything counts."""
    return all(
        isinstance(values[name], kind) and (not isinstance(values[name], int) or abs(values[name]) < 2**63)
        for name, kind in kinds.items()
    )


def _damaged(file: pathlib.Path | str) -> RunError:
    return RunError(f"{file} is damaged: remove it, and start the run's command again, which writes it")


def read_file(file: pathlib.Path) -> bytes:
    """The content of a file of a run.

    Raises:
      FileNotFoundError, NotADirectoryError: there is none.
      RunError: it cannot be read, is no file, or is too large for one.
    """
    try:
        return files.read(file, MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise RunError(
            f"{file} cannot be read ({system_reason(error)}): move it away, or choose another MODEL_DIR"
        ) from error


def _complete_lines(file: pathlib.Path) -> Iterator[tuple[int, str]]:
    """(step, line) of the lines that were written whole: a killed run may leave half of a last one."""
    for number, line in enumerate(read_file(file).split(b"\n")[:-1], 1):
        try:
            text = line.decode()
            step = json_text.loads(text)["step"]
            if not isinstance(step, int):
                raise ValueError("no step")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunError(
                f"{file} line {number} is no record of a run: remove that line, or the file, and start again"
            ) from error
        yield step, f"{text}\n"


@contextlib.contextmanager
def writing(directory: pathlib.Path) -> Iterator[None]:
    """Turns an OSError inside the block into a RunError which says that the directory cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise RunError(f"MODEL_DIR {directory} cannot be written: {system_reason(error)}") from error
