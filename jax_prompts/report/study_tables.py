"""Tables of studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jax_prompts.report import limits
from jax_prompts.report.parts import Table
from jax_prompts.report.series import is_number
from jax_prompts.report.tables import NONE

Study = Mapping[str, Any]


def neighbours_tables(study: Study) -> Iterator[Table]:
    """How near vocabulary rows are beside those of random vectors; where labels are; each position's neighbours."""
    heads = {
        "mean_best_cosine": "best cosine",
        "distinct_nearest": "distinct nearest",
        "clustered_positions": "clustered positions",
        "typical_share": "typical of the task",
    }
    columns = [
        "prompt",
        *(name for head in heads.values() for name in (head, "of random")),
        "near duplicates",
    ]
    # Heads have to differ, so each random one says beside which it stands.
    columns = [f"{columns[n - 1]}, random" if head == "of random" else head for n, head in enumerate(columns)]
    rows, labels = [], []
    for prompt in study["prompts"][: limits.ROWS]:
        cells = [shown(of[key]) for key in heads for of in (prompt, prompt["random"])]
        rows.append([prompt["name"], *cells, shown(sum(map(len, prompt["near_duplicates"])))])
        labels += [
            [prompt["name"], label["label"], _positions(label["first_piece_at"]), _positions(label["mean_at"]),
             shown(label["best_position"]), shown(label["best_cosine"])]
            for label in prompt["labels"]
        ]  # fmt: skip
    caption = (
        "Nearest rows of the vocabulary by cosine. Random vectors of the same norms stand beside: a prompt that means "
        "words is nearer than they are."
    )
    yield Table("In short", caption, columns, rows, columns[1:])
    if labels:
        heads_of_labels = (
            "prompt",
            "label",
            "first piece near",
            "as a whole near",
            "best position",
            "cosine",
        )
        caption = "Positions among whose nearest rows a class label is."
        yield Table("Labels", caption, heads_of_labels, labels[: limits.ROWS], heads_of_labels[4:])
    for prompt in study["prompts"][: limits.HEAT_MAPS]:
        lines = [
            [str(each["position"]), shown(each["norm"]), " · ".join(map(_neighbour, each["neighbours"]))]
            for each in prompt["positions"][: limits.ROWS]
        ]
        yield Table(
            prompt["name"],
            "Nearest pieces of each position, with cosines; _ is a space.",
            ("position", "norm", "nearest pieces"),
            lines,
            ("norm",),
        )


def _neighbour(near: Mapping[str, Any]) -> str:
    return f"{near['piece'].replace('▁', '_')} {near['cosine']:.2f}"


def _positions(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or NONE


def rank_table(study: Study) -> Table:
    """Ranks of each prompt."""
    columns = ("prompt", "length", "width", "rank", "entropy rank", "stable rank")
    rows = [
        [
            each["name"],
            *(shown(each[key]) for key in ("length", "width", "rank", "entropy_rank", "stable_rank")),
        ]
        for each in study["prompts"][: limits.ROWS]
    ]
    caption = "Entropy rank: the exponential of the entropy of the normalised singular values."
    return Table("Ranks", caption, columns, rows, columns[1:])


def norms_table(study: Study) -> Table:
    """Norms of each prompt's rows, beside the vocabulary's."""
    keys = ("mean", "min", "max")
    columns = ("rows of", "mean", "least", "largest")
    rows = [[each["name"], *(shown(each[key]) for key in keys)] for each in study["prompts"][: limits.ROWS]]
    if study["vocabulary"]:
        rows.append(
            [
                f"vocabulary of {study['vocabulary']['model']}",
                *(shown(study["vocabulary"][key]) for key in keys),
            ]
        )
    return Table("Norms of rows", "Euclidean norms.", columns, rows, columns[1:])


def convergence_table(study: Study) -> Table:
    """When each member came near its best."""
    columns = (
        "run",
        "member",
        "settings",
        "best",
        "steps",
        "seconds of tuning",
        "steps to the mean best",
        "finished",
    )
    rows = [
        [
            each["run"],
            str(each["member"]),
            str(each["settings"]),
            shown(each["best"]),
            shown(each["own"]["step"]),
            shown(each["own"]["tuning_seconds"]),
            shown(each["configuration"]["step"]),
            "yes" if each["finished"] else "not yet",
        ]
        for each in study["members"][: limits.ROWS]
    ]
    caption = (
        f"Steps and seconds until the score is within {study['within_percent']:g} % of the member's own best, and of "
        "the mean best of all with the same settings."
    )
    return Table("Members", caption, columns, rows, columns[3:7])


def shown(value: Any) -> str:
    """A number in a table: whole ones as they are, others with three decimals."""
    if not is_number(value):
        return NONE
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"
