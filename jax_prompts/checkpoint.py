"""Checkpoints of what is tuned: parameters, optimiser state, the best so far, step and the run's progress.

`<directory>/<step>/` is an Orbax checkpoint: item `state` holds the arrays under flat names
(`tuned/prompt/down/kernel`, `opt_state/0/count`, `best/prompt`), item `progress` a JSON text with the run's
progress and a table of the arrays (shape, dtype, sha256), itself under a sha256. A checkpoint counts only when
every bit is as it was saved (an array that no process holds whole has Orbax's checks alone). Nothing is pickled,
and saving goes on in the background.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath

from jax_prompts.distributed.processes import barrier, from_primary, primary
from jax_prompts.errors import ConfigError, RunError

# Else epath reads gs:// with TensorFlow wherever that is installed, which training must not import.
os.environ["EPATH_USE_TF"] = "false"

_log = logging.getLogger(__name__)
_LISTED = 20  # differences named in one error message


class Checkpoints:
    """The checkpoints of one run.

    Attributes:
      directory: where they are kept, made if missing; a local or `gs://` path.
      keep: how many of the newest are kept, at least 1; with 2 a damaged one costs no more than one period.

    Raises:
      ConfigError: keep below 1.
      RunError: a directory that cannot be made or read.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int) -> None:
        if keep < 1:
            raise ConfigError(f"Training.keep is {keep}: set it to at least 1")
        path = os.fspath(directory)
        self.directory = epath.Path(path if "://" in path else os.path.abspath(path))
        self._damaged: set[int] = set()
        self._leftovers = True
        self._saving: int | None = None
        logging.getLogger("absl").addFilter(_not_from_orbax)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise RunError(f"{self.directory} cannot hold checkpoints: {_reason(error)}") from error
        if "://" not in path and not self.directory.is_dir():  # a bucket has no empty directories
            raise RunError(f"{self.directory} cannot hold checkpoints: it is not a directory")

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending; one being saved counts once it is complete."""
        return sorted(self._manager.all_steps(read=True))

    def save(self, step: int, tuned: Any, opt_state: Any, best: Any, progress: dict[str, Any]) -> None:
        """Saves in the background, waiting for the save before; does nothing if `step` is saved already.

        The arrays are copied before this returns: the caller may donate them to the next step.

        Args:
          step: optimiser steps done.
          tuned: tree of arrays, of any dtype and sharding.
          opt_state: any optax state.
          best: tree of arrays, of the best so far.
          progress: what else resuming needs, in JSON's own types (lists, not tuples); floats come back exact.

        Raises:
          RunError: this save, or the one before it, failed. Earlier checkpoints are intact.
        """
        self.wait()
        arrays = _flatten(tuned, opt_state, best)
        content = json.dumps({"step": step, "progress": progress, "arrays": _table(arrays, digests=True)})
        item = {"content": content, "sha256": hashlib.sha256(content.encode()).hexdigest()}
        args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(item))
        self._saving = step
        try:
            self._clear()
            if step not in self._manager.all_steps():
                self._manager.save(step, args=args, force=True)
        except Exception as error:
            raise self._failed(error) from error

    def restore_latest(
        self, tuned_like: Any, opt_state_like: Any, best_like: Any
    ) -> tuple[int, Any, Any, Any, dict[str, Any]] | None:
        """The newest whole checkpoint, bit for bit; None where there is no checkpoint.

        A damaged checkpoint is passed over with a warning, and removed by the next save.

        Args:
          tuned_like, opt_state_like, best_like: trees of arrays or ShapeDtypeStructs with the structure, shapes, dtypes
            and shardings wanted; without a sharding, arrays come back on the first device.

        Returns:
          step, tuned, opt_state, best, progress.

        Raises:
          RunError: arrays of other names, shapes or dtypes than wanted, or checkpoints but no whole one.
        """
        self.wait()
        wanted = _flatten(tuned_like, opt_state_like, best_like)
        reasons = []
        # Of process 0: others may see a listing of before.
        for step in reversed(json.loads(from_primary("steps", json.dumps(self.steps())))):
            path = self.directory / str(step)
            try:
                progress, arrays = self._read(step, path, wanted)
            except _Damaged as damage:
                self._damaged.add(step)
                reasons.append(f"{path} is damaged ({damage})")
                _log.warning("%s: trying the checkpoint before it", reasons[-1])
            else:
                return step, *_unflatten(arrays, tuned_like, opt_state_like, best_like), progress
        if reasons:
            self._damaged.clear()
            raise RunError(f"no whole checkpoint: {'; '.join(reasons)}; use a copy, or another MODEL_DIR")
        return None

    def read_tuned(self, step: int) -> dict[str, jax.Array]:
        """What was tuned, as one checkpoint holds it, under flat names (`prompt/down/kernel`), whatever the run.

        Raises:
          RunError: no checkpoint of that step, or a damaged one.
        """
        path = self.directory / str(step)
        try:
            saved = self._content(step)["arrays"]
            return {
                name.removeprefix("tuned/"): _read_array(path, name, _like(entry), entry["sha256"])
                for name, entry in saved.items()
                if name.startswith("tuned/")
            }
        except _Damaged as damage:
            raise RunError(f"{path} cannot be read ({damage}): use another checkpoint") from damage

    def newest_bytes(self) -> int:
        """Bytes on disk of the newest checkpoint."""
        return _bytes(self.directory / str(self.steps()[-1]))

    def wait(self) -> None:
        """Returns when nothing is being saved any more.

        Raises:
          RunError: the last save failed. Earlier checkpoints are intact.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Waits and lets go of threads. Raises as `wait` does."""
        self.wait()
        self._manager.close()

    def _read(self, step: int, path: epath.Path, wanted: dict[str, Any]) -> tuple[Any, dict[str, jax.Array]]:
        content = self._content(step)
        saved = content["arrays"]
        _check_names(path, saved, _table(wanted, digests=False))
        arrays = {name: _read_array(path, name, like, saved[name]["sha256"]) for name, like in wanted.items()}
        return content["progress"], arrays

    def _content(self, step: int) -> dict[str, Any]:
        """The run's progress and the table of arrays."""
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))
            text, sha256 = restored["progress"]["content"], restored["progress"]["sha256"]
        except Exception as error:  # what damaged bytes make Orbax raise is not documented
            raise _Damaged(_reason(error)) from error
        if hashlib.sha256(text.encode()).hexdigest() != sha256:
            raise _Damaged("its progress changed after it was saved")
        content = json.loads(text)
        if content["step"] != step:
            raise _Damaged(f"it was saved as step {content['step']}")
        return content

    def _clear(self) -> None:
        """Removes what killed saves left, and checkpoints found damaged. Only a run that saves does this:
        whoever just reads may be reading beside a run that is saving."""
        if self._damaged or self._leftovers:
            whole = self.steps()
            for path in self.directory.iterdir() if primary() and self.directory.exists() else ():
                # In a bucket, which has no renames, a checkpoint has its name before it is whole.
                left = path.name.isdigit() and int(path.name) not in whole
                if left or ".orbax-checkpoint-tmp" in path.name or path.name in map(str, self._damaged):
                    path.rmtree()
            barrier("checkpoints cleared")
            self._damaged.clear()
            self._leftovers = False
            self._manager.reload()

    def _failed(self, error: Exception) -> RunError:
        self._leftovers = True
        return RunError(
            f"checkpoint {self.directory / str(self._saving)} could not be saved ({_reason(error)}): "
            "free space or repair the disk and start again; earlier checkpoints are intact"
        )


class _Damaged(Exception):
    """Why a checkpoint is not what was saved."""


def _not_from_orbax(record: logging.LogRecord) -> bool:
    """Orbax logs a traceback of every error that it also raises; the raised one is reported in one line."""
    return "/orbax/checkpoint/" not in record.pathname


def _bytes(directory: epath.Path) -> int:
    return sum(_bytes(path) if path.is_dir() else path.stat().length for path in directory.iterdir())


def _flatten(tuned: Any, opt_state: Any, best: Any) -> dict[str, Any]:
    trees = {"tuned": tuned, "opt_state": opt_state, "best": best}
    leaves, _ = jax.tree_util.tree_flatten_with_path(trees)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(arrays) != len(leaves):
        raise ValueError("two arrays of a checkpoint have one name")
    return {name: x if hasattr(x, "dtype") else np.asarray(x) for name, x in arrays.items()}


def _unflatten(
    arrays: dict[str, Any], tuned_like: Any, opt_state_like: Any, best_like: Any
) -> tuple[Any, ...]:
    names = _flatten(tuned_like, opt_state_like, best_like)
    structure = jax.tree.structure({"tuned": tuned_like, "opt_state": opt_state_like, "best": best_like})
    tree = jax.tree.unflatten(structure, [arrays[name] for name in names])
    return tree["tuned"], tree["opt_state"], tree["best"]


def _table(arrays: dict[str, Any], digests: bool) -> dict[str, dict[str, Any]]:
    return {
        name: {"shape": list(x.shape), "dtype": str(x.dtype), "sha256": _digest(x) if digests else None}
        for name, x in arrays.items()
    }


def _digest(array: jax.Array | np.ndarray) -> str | None:
    """sha256 of an array's bytes; None where no process holds all of it, which leaves Orbax's own checks."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        if not array.is_fully_replicated:
            return None
        array = array.addressable_data(0)
    host = np.ascontiguousarray(array)
    return hashlib.sha256(host.reshape(-1).view(np.uint8).data).hexdigest()


def _like(entry: dict[str, Any]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(entry["shape"]), entry["dtype"])


def _read_array(path: epath.Path, name: str, like: Any, sha256: str | None) -> jax.Array:
    """One saved array, on the sharding of `like`.

    Arrays are read one after the other and not by Orbax: of its concurrent reads of a damaged file one raises
    and the others write tracebacks on stderr.
    """
    base: Any = f"{path / 'state'}/"
    if "://" not in base:
        base = {"driver": "file", "path": base}
    spec = {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"}}
    try:
        host = tensorstore.open(spec, open=True, read=True).result().read().result()
    except Exception as error:
        raise _Damaged(_reason(error)) from error
    if (host.shape, host.dtype) != (like.shape, like.dtype) or sha256 not in (None, _digest(host)):
        raise _Damaged(f"{name} changed after it was saved")
    sharding = getattr(like, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _check_names(path: epath.Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    ours, theirs = ({f"{name} {x['dtype']}{x['shape']}" for name, x in t.items()} for t in (wanted, saved))
    unequal = sorted(ours ^ theirs, key=lambda text: (text.split()[0], text in ours))
    if unequal:
        listed = ", ".join(("+ " if text in ours else "- ") + text for text in unequal[:_LISTED])
        more = f" and {len(unequal) - _LISTED} more" if len(unequal) > _LISTED else ""
        raise RunError(
            f"{path} does not fit this run (- saved, + wanted): {listed}{more}; "
            "use the configuration it was saved with, or another MODEL_DIR"
        )


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "No space left" in text:
        return "the disk is full"
    return text if len(text) <= 200 else text[:200] + "..."
