"""What studies show on the terminal: their JSON as short tables on stderr."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from jax_prompts.display import log, print_table
from jax_prompts.studies.base_vocabulary import MARK

Study = dict[str, Any]
MOST_ROWS = 20  # of positions, members or pairs; the JSON has all
_BEST = 3  # sources in a weighted mean
_Rows = Sequence[Sequence[str]]


def show(study: Study) -> None:
    """Prints a study."""
    _TABLES[study["study"]](study)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _print(columns: Sequence[str], rows: _Rows, title: str | None = None, words: int = 1) -> None:
    """A table of at most `MOST_ROWS` rows, its columns but for the first `words` to the right."""
    print_table(columns, rows[:MOST_ROWS], title=title, right=columns[words:])
    if len(rows) > MOST_ROWS:
        log(f"... and {len(rows) - MOST_ROWS} more rows in the JSON object")


def _neighbours(study: Study) -> None:
    for prompt in study["prompts"]:
        rows = [
            (str(each["position"]), _number(each["norm"], 1), "  ".join(map(_neighbour, each["neighbours"])))
            for each in prompt["positions"]
        ]
        _print(("position", "norm", "nearest pieces"), rows, prompt["name"], words=3)
        for label in prompt["labels"]:
            log(
                f"label {label['label']}: first piece near positions {label['first_piece_at']}, {_best(label)}"
            )
    heads = (
        "prompt",
        "best cosine",
        "of random",
        "distinct nearest",
        "of random",
        "clustered",
        "of random",
        "near duplicates",
        "typical",
    )
    rows = []
    for prompt in study["prompts"]:
        pairs = [
            (_of(prompt, key), _of(prompt["random"], key))
            for key in ("mean_best_cosine", "distinct_nearest", "clustered_positions")
        ]
        duplicates = sum(map(len, prompt["near_duplicates"]))
        cells = [cell for pair in pairs for cell in pair]
        rows.append((prompt["name"], *cells, str(duplicates), _of(prompt, "typical_share")))
    _print(heads, rows)


def _neighbour(row: dict[str, Any]) -> str:
    return f"{row['piece'].replace(MARK, '_')} {row['cosine']:.2f}"


def _best(label: dict[str, Any]) -> str:
    if label["best_position"] is None:
        return "no pieces"
    return f"as a whole {label['mean_at']}; nearest {label['best_position']} ({label['best_cosine']:.2f})"


def _of(row: dict[str, Any], key: str) -> str:
    return str(row[key]) if isinstance(row[key], int) else _number(row[key])


def _similarity(study: Study) -> None:
    prompts = study["prompts"]
    rows = [(each["name"], str(each["length"]), _number(each["mean_off_diagonal"])) for each in prompts]
    _print(("prompt", "length", "mean cosine of positions"), rows)
    if len(prompts) > 1:
        names = [each["name"] for each in prompts[:MOST_ROWS]]
        matrix = zip(names, study["between"]["mean_vectors"], strict=False)
        _print(
            ("cosine of mean vectors", *names),
            [(name, *map(_number, row[:MOST_ROWS])) for name, row in matrix],
        )
    if ranking := study.get("ranking"):
        _ranking(study["target"], ranking)


def _ranking(target: Study, ranking: Sequence[Study]) -> None:
    rows = [
        (each["name"], each["task"], _number(each["mean_vectors"]), _number(each["mean_of_pairs"]))
        for each in ranking
    ]
    _print(("source", "task", "mean vectors", "mean of pairs"), rows, f"most like {target['name']}", words=2)
    log(
        f"start from the first: --gin.INITIALIZER='@FromFile()' --gin.FromFile.path={shlex.quote(ranking[0]['file'])}"
    )
    best = [each for each in ranking[:_BEST] if each["mean_vectors"] > 0]
    if len(best) > 1 and len({each["length"] for each in best}) == 1:
        paths = shlex.quote(repr(tuple(each["file"] for each in best)))
        weights = shlex.quote(repr(tuple(each["mean_vectors"] for each in best)))
        log(
            f"or the weighted mean of {len(best)}: --gin.INITIALIZER='@FromFiles()' --gin.FromFiles.paths={paths} "
            f"--gin.FromFiles.weights={weights}"
        )


def _transfer(study: Study) -> None:
    tasks = study["tasks"]
    for what, digits in (("scores", 2), ("ratios", 3)):
        rows = [
            (prompt["name"], *(_number(task[what][number], digits) if task[what] else "" for task in tasks))
            for number, prompt in enumerate(study["prompts"])
        ]
        _print((what, *(task["task"] for task in tasks)), rows)


def _copies(study: Study) -> None:
    heads = ("position", *(f"{length} x" for length in study["copies"]))
    rows = [
        (str(position), *(_number(scores[number], 1) for scores in study["scores"]))
        for number, position in enumerate(study["positions"])
    ]
    title = f"{study['prompt']['name']} on {study['task']}: whole {_number(study['whole'], 1)}"
    _print(heads, rows, title, words=0)


def _rank(study: Study) -> None:
    heads = ("prompt", "[P, D]", "rank", "entropy rank", "stable rank", "largest", "smallest")
    rows = []
    for each in study["prompts"]:
        ranks = (_number(each["entropy_rank"], 2), _number(each["stable_rank"], 2))
        ends = (_number(each["singular_values"][0]), _number(each["singular_values"][-1]))
        rows.append((each["name"], f"{each['length']} x {each['width']}", str(each["rank"]), *ranks, *ends))
    _print(heads, rows, words=2)
    _training(study, ("rank", "entropy_rank", "positive_diagonal", "negative_diagonal"))


def _norms(study: Study) -> None:
    rows = [
        (each["name"], *(_number(each[key]) for key in ("mean", "min", "max"))) for each in study["prompts"]
    ]
    if (vocabulary := study["vocabulary"]) is not None:
        rows.append(
            (f"rows of {vocabulary['model']}", *(_number(vocabulary[key]) for key in ("mean", "min", "max")))
        )
    _print(("norm of", "mean", "least", "largest"), rows)
    _training(study, ("norm", "similarity"))


def _training(study: Study, names: Sequence[str]) -> None:
    """Where curves of runs begin and end."""
    rows = []
    for run in study["training"]:
        for own in run["members"]:
            ends = (f"{_end(own, key, 0)} to {_end(own, key, -1)}" if key in own else "" for key in names)
            rows.append((run["name"], str(own["member"]), f"{own['step'][0]} to {own['step'][-1]}", *ends))
    if rows:
        _print(("run", "member", "steps", *(name.replace("_", " ") for name in names)), rows)


def _end(curves: dict[str, Any], name: str, end: int) -> str:
    known = [value for value in curves[name] if value is not None]
    return _number(known[end], 0 if isinstance(known[end], int) else 3) if known else "?"


def _convergence(study: Study) -> None:
    heads = (
        "run",
        "member",
        "best",
        "last step",
        "steps to own best",
        "to mean best",
        "tuning s",
        "finished",
    )
    rows = [
        (
            row["run"],
            str(row["member"]),
            _number(row["best"], 2),
            _number(row["last_step"], 0),
            _number(row["own"]["step"], 0),
            _number(row["configuration"]["step"], 0),
            _number(row["own"]["tuning_seconds"], 1),
            "yes" if row["finished"] else "not yet",
        )
        for row in study["members"]
    ]
    _print(heads, rows, f"within {study['within_percent']:g} % of the best")
    rows = [
        (str(row["number"]), str(row["members"]), *(_mean(row[mark][key]) for mark, key in _SPREADS))
        for row in study["configurations"]
    ]
    _print(("settings", "members", "steps to own best", "to mean best", "tuning s", "wall s"), rows)


_SPREADS = (
    ("own", "step"), ("configuration", "step"), ("own", "tuning_seconds"), ("own", "wall_seconds"),
)  # fmt: skip


def _mean(spread: dict[str, Any]) -> str:
    deviation = "" if spread["deviation"] is None else f" ± {_number(spread['deviation'], 1)}"
    return f"{_number(spread['mean'], 1)}{deviation}"


def _parameters(study: Study) -> None:
    models = study["models"]
    sizes = ("model", *(_short(model["parameters"]) for model in models))
    for length in study["lengths"]:
        percents = [
            {row["method"]: row["percent"] for row in model["methods"] if row["length"] in (None, length)}
            for model in models
        ]
        rows = [
            sizes,
            *(
                (name, *(f"{of[name]:.2g} %" if of[name] < 100 else "100 %" for of in percents))
                for name in percents[0]
            ),
        ]
        _print((f"{length} tokens", *(model["model"].removeprefix("t5_") for model in models)), rows)


def _short(count: int) -> str:
    """A number of parameters, in millions."""
    return f"{count / 1e6:,.0f} M"


_TABLES = {
    "neighbours": _neighbours,
    "similarity": _similarity,
    "transfer": _transfer,
    "copies": _copies,
    "rank": _rank,
    "norms": _norms,
    "convergence": _convergence,
    "parameters": _parameters,
}
