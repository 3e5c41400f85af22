"""Pictures of what `t5x study` wrote: a section for each file."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax_prompts.errors import ConfigError, RunError, printable
from jax_prompts.report import limits
from jax_prompts.report.parts import Figure, Section, Table
from jax_prompts.report.series import short_names
from jax_prompts.report.study_charts import convergence, copies, norms, parameters, rank, similarity, transfer
from jax_prompts.report.study_tables import convergence_table, neighbours_tables, norms_table, rank_table
from jax_prompts.results.find import STUDY, read_json

Study = Mapping[str, Any]
Part = Figure | Table

TITLES = {
    "neighbours": "Nearest neighbours",
    "similarity": "Similarity",
    "transfer": "Transfer",
    "copies": "Copies of one position",
    "rank": "Rank",
    "norms": "Norms",
    "convergence": "Convergence",
    "parameters": "Parameters",
}
_DRAW: dict[str, Callable[[Study, str], list[Part]]] = {
    "neighbours": lambda study, _: [*neighbours_tables(study)],
    "similarity": lambda study, id: [*similarity(study, id)],
    "transfer": lambda study, id: [*transfer(study, id)],
    "copies": lambda study, id: [*copies(study, id)],
    "rank": lambda study, id: [*rank(study, id), rank_table(study)],
    "norms": lambda study, id: [*norms(study, id), norms_table(study)],
    "convergence": lambda study, id: [*convergence(study, id), convergence_table(study)],
    "parameters": lambda study, id: [*parameters(study, id)],
}


def sections(files: Sequence[pathlib.Path], problems: list[str]) -> list[Section]:
    """A section for each study; of those that cannot be read, or are of another kind, `problems` says so."""
    found = []
    names = short_names([str(file) for file in files])
    for number, (file, name) in enumerate(list(zip(files, names, strict=True))[: limits.STUDIES]):
        try:
            found.append(section(read_json(file), name, f"study-{number}"))
        except (RunError, ConfigError) as error:
            problems.append(printable(str(error)))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            problems.append(
                printable(f"{file} is no study that this version can draw: make it again with t5x study")
            )
    if len(files) > limits.STUDIES:
        problems.append(f"{limits.STUDIES} of {len(files)} studies are drawn.")
    return found


def section(study: Study, name: str, id: str) -> Section:
    """The pictures of one study.

    Raises:
      KeyError, TypeError, ValueError, IndexError, AttributeError: it is none of `TITLES`, or damaged.
    """
    kind = study[STUDY]
    return Section(id, f"{TITLES[kind]}: {name}", _DRAW[kind](study, f"{kind}-{id.rpartition('-')[2]}"))
