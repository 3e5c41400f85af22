"""The cells of a suite: ordinary runs, and which of them can share a step."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax_prompts import sweep
from jax_prompts.errors import ConfigError, nearest
from jax_prompts.run_folder import check_kind
from jax_prompts.runs import Suite, TrainRun
from jax_prompts.storage import places
from jax_prompts.storage.remote import is_remote

MakeRun = Callable[[Sequence[str], Sequence[str]], tuple[TrainRun, str]]
Values = dict[str, Any]

_AXES = ("models", "settings", "methods", "tasks")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a table.

    Attributes:
      row, column: where in the table it stands.
      searched: its values of the settings that are searched over.
      seed: its seed.
      name: of its directory.
      files, bindings: gin files and `NAME=VALUE`s that describe the run.
      run: the run.
      config_text: all its settings.
    """

    row: str
    column: str
    searched: Values
    seed: int
    name: str
    files: tuple[str, ...]
    bindings: tuple[str, ...]
    run: TrainRun
    config_text: str

    @property
    def address(self) -> str:
        """Its MODEL_DIR."""
        return self.run.model_dir

    @property
    def settings(self) -> Values:
        """What sets it apart from other cells of its column."""
        return {"row": self.row, **self.searched, "RANDOM_SEED": self.seed}

    def command(self) -> list[str]:
        """The command that runs this cell alone."""
        name, own = ("eval", ["gin_configs/runs/eval.gin"]) if self.run.tunes_nothing else ("train", [])
        files = [f"--gin_file={file}" for file in (*self.files, *own)]
        return ["t5x", name, *files, *(f"--gin.{binding}" for binding in self.bindings)]


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that share a step; a cell that shares with none is a group of its own.

    Attributes:
      name: the same for the same cells.
      cells: of one column.
    """

    name: str
    cells: tuple[Cell, ...]


def cells_of(suite: Suite, files: Sequence[str], bindings: Sequence[str], make_run: MakeRun) -> list[Cell]:
    """Every cell of a suite, row by row.

    Args:
      suite: the suite.
      files: its gin files.
      bindings: `NAME=VALUE`s that win over whatever the suite says.
      make_run: the run, and the text of its settings, of gin files and bindings.

    Raises:
      ConfigError: a suite that makes no sense, or a cell whose settings do not.
    """
    check(suite)
    if is_remote(suite.model_dir):
        check_kind(suite.model_dir)
    combinations = sweep.combinations(suite.search, "Suite.search") if suite.search else [{}]
    for number, combination in enumerate(combinations):
        if combination in combinations[:number]:
            raise ConfigError(f"Suite.search has {combination} twice: leave one out")
    cells: list[Cell] = []
    taken: set[str] = set()
    for labels in itertools.product(*(getattr(suite, axis) for axis in _AXES)):
        row, column = ", ".join(filter(None, labels[:-1])), labels[-1]
        parts = [_parts(suite, axis, label) for axis, label in zip(_AXES, labels, strict=True)]
        own_files = tuple(itertools.chain(*(part_files for part_files, _ in parts), files))
        values: Values = {}
        for _, part_values in parts:
            values |= part_values
        for searched, seed in itertools.product(combinations, suite.seeds):
            name = _name(row, column, searched, seed, taken)
            address = {"MODEL_DIR": places.below(suite.model_dir, f"cells/{name}")}
            all_values = {**values, **searched, **dict.fromkeys(suite.seeded, seed)}
            own_bindings = (*_bindings(all_values), *_of_cells(bindings), *_bindings(address))
            try:
                run, text = make_run(own_files, own_bindings)
            except ConfigError as error:
                raise ConfigError(f"cell {name}: {error}") from error
            if run.sweep is not None:
                raise ConfigError(f"cell {name}: SWEEP is set; a suite has Suite.search in its place")
            if run.training.members != 1:
                raise ConfigError(
                    f"cell {name}: MEMBERS is {run.training.members}; a suite has Suite.seeds in its place"
                )
            cells.append(Cell(row, column, searched, seed, name, own_files, own_bindings, run, text))
    return cells


def groups_of(cells: Sequence[Cell], most: int) -> list[Group]:
    """The cells, in groups of at most `most` that can share a step."""
    groups: list[list[Cell]] = []
    open_groups: dict[str, list[list[Cell]]] = {}
    for cell in cells:
        for group in open_groups.setdefault(cell.column, []):
            if len(group) < most and _can_share(group[0], cell):
                group.append(cell)
                break
        else:
            groups.append([cell])
            open_groups[cell.column].append(groups[-1])
    return [Group(_group_name(group), tuple(group)) for group in groups]


def _can_share(a: Cell, b: Cell) -> bool:
    data = a.run.data
    apart = data.protocol == "dev_as_test" and not data.prompt_design.demonstrations
    return (
        not a.run.tunes_model
        and not sweep.separate(a.run, b.run)
        and (apart or data == b.run.data)  # else who trains decides what all are chosen by
    )


def check(suite: Suite) -> None:
    """Raises ConfigError for rows, columns, averages or published numbers that make no sense together."""
    for axis in _AXES:
        if not getattr(suite, axis):
            raise ConfigError(f"Suite.{axis} is empty: name one at least")
    for name in ("seeds", "seeded"):
        values = getattr(suite, name)
        if not values or len(set(values)) < len(values):
            raise ConfigError(f"Suite.{name} is {values!r}: name each once, and one at least")
    if suite.eta < 2:
        raise ConfigError(f"Suite.eta is {suite.eta}: one of so many goes on; set it to at least 2")
    amounts = [suite.budget.get(unit, 0) for unit in ("steps", "minutes")]
    if suite.budget and (len(suite.budget) > 1 or not any(_is_number(x) and x > 0 for x in amounts)):
        raise ConfigError(
            f"Suite.budget is {suite.budget!r}: set it to {{'steps': N}}, of all runs, or {{'minutes': N}}, above 0"
        )
    if suite.members < 1:
        raise ConfigError(f"Suite.members is {suite.members}: set it to at least 1")
    known = [*suite.tasks]
    for average, columns in suite.averages.items():
        if average in suite.tasks:
            raise ConfigError(
                f"Suite.averages has {average!r}, which is a task: give one of them another name"
            )
        if not isinstance(columns, tuple | list) or not columns:
            raise ConfigError(
                f"Suite.averages {average!r} is {columns!r}: set it to its columns, such as ('RTE', 'CB')"
            )
        _check_known(f"Suite.averages {average!r}", columns, known)
    _check_known("Suite.metrics", suite.metrics, known)
    if suite.published and not suite.source:
        raise ConfigError("Suite.published has no source: set Suite.source to the paper and the table")
    for row, numbers in suite.published.items():
        if not isinstance(numbers, dict):
            raise ConfigError(f"Suite.published {row!r} is {numbers!r}: set it to a number for each column")
        _check_known(f"Suite.published {row!r}", numbers, [*known, *suite.averages])
        for column, value in numbers.items():
            parts = value if isinstance(value, tuple | list) else (value,)
            if not 1 <= len(parts) <= 2 or not all(map(_is_number, parts)):
                raise ConfigError(
                    f"Suite.published {row!r} {column!r} is {value!r}: set it to a number, or (number, deviation)"
                )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_known(what: str, names: Any, known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{what} names {name!r}, which is no column; did you mean {nearest(str(name), known)}?"
            )


def _parts(suite: Suite, axis: str, label: str) -> tuple[list[str], Values]:
    """Gin files and values of one part of a cell."""
    given = getattr(suite, axis)[label]
    if axis == "tasks" and isinstance(given, str):
        given = ({"MIXTURE_OR_TASK_NAME": given},)
    files: list[str] = []
    values: Values = {}
    for part in given if isinstance(given, tuple | list) else (given,):
        if isinstance(part, str):
            files.append(part)
        elif isinstance(part, dict):
            values |= part
        else:
            raise ConfigError(
                f"Suite.{axis} {label!r} has {part!r}, which is neither a gin file nor values, {{'NAME': value}}"
            )
    return files, values


def _bindings(values: Values) -> Iterator[str]:
    for name, value in values.items():
        yield f"{name}={value if isinstance(value, str) and not _is_literal(value) else repr(value)}"


def _is_literal(text: str) -> bool:
    """Whether a text would be read as something else than itself."""
    try:
        ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _of_cells(bindings: Sequence[str]) -> Iterator[str]:
    """Without what is the suite's own."""
    for binding in bindings:
        name = binding.partition("=")[0]
        if name != "MODEL_DIR" and not name.startswith("Suite."):
            yield binding


def _name(row: str, column: str, searched: Values, seed: int, taken: set[str]) -> str:
    found = [f"{name.rpartition('.')[2]}={value}" for name, value in searched.items()]
    words = [_slug(row), _slug(column), *map(_value_slug, found), f"seed{seed}"]
    name = ".".join(filter(None, words))[:150]
    if name in taken:
        name = f"{name}.{hashlib.sha256(repr((row, column, searched, seed)).encode()).hexdigest()[:8]}"
    taken.add(name)
    return name


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9+-]+", "_", text.lower()).strip("_")


def _value_slug(text: str) -> str:
    return re.sub(r"[^a-z0-9=.+-]+", "_", text.lower()).strip("_.")


def _group_name(cells: Sequence[Cell]) -> str:
    if len(cells) == 1:
        return cells[0].name
    members = hashlib.sha256("\n".join(cell.name for cell in cells).encode()).hexdigest()[:8]
    return f"{_slug(cells[0].row)}.{_slug(cells[0].column)}"[:150] + f".{members}"
