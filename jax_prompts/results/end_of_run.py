"""The end of `t5x train`: its best prompts beside what their scores have to beat, and what to do with them."""

from __future__ import annotations

import glob
import math
import pathlib
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jax_prompts.results.endings import MOST, Cells, Ending, command, cut_lines, few, more_row, number_text
from jax_prompts.storage import json_text
from jax_prompts.storage.remote import is_remote

Summary = dict[str, Any]
_COLUMNS = ("", "score", "deviation", "before tuning", "majority class", "on test examples", "best step")
_PARTS = ("summary.json", "metrics", "predictions", "tensorboard")
_SHOWN_FILES = 3
_MOST_DETAILS = 30


def end_of_run(summary: Summary, model_dir: str) -> Ending:
    """What a finished run is worth: a row for the run, its members or the settings of its sweep, the best of them.

    Args:
      summary: of summary.json.
      model_dir: MODEL_DIR.
    """
    members = summary["members"]
    every = {**summary, "members": range(len(members))}
    if "sweep" in summary:
        rows = [_group_row(summary, group, _settings_of(group)) for group in _best_first(summary, "sweep")]
        sections = [[*rows[:MOST], *more_row(len(rows) - MOST, "settings", _COLUMNS)]]
    elif len(members) > 1:
        rows = [_member_row(member) for member in _best_first(summary, "members")]
        overall = _group_row(summary, every, f"mean of {len(members)} prompts")
        sections = [[overall], [*rows[:MOST], *more_row(len(rows) - MOST, "prompts", _COLUMNS)]]
    else:
        sections = [[_group_row(summary, every, pathlib.Path(members[0]["file"]).name)]]
    sections[0][0][3:5] = [number_text(summary["untuned_metric"]), _known(summary["majority_metric"])]

    cuts = [line for role, cut in summary.get("cut", {}).items() for line in cut_lines(cut, role)]
    tuned = [member["file"] for member in _best_first(summary, "members") if member["best_step"] is not None]
    more = [f"{len(tuned) - _SHOWN_FILES} more prompts"] if len(tuned) > _SHOWN_FILES else []
    return Ending(
        title=f"{summary['task']}: {summary['metric']}",
        columns=_COLUMNS,
        sections=[*sections, _details(summary)],
        lines=[*_failures(members), *few(cuts)],
        directory=model_dir,
        written=[*(pathlib.Path(file).name for file in tuned[:_SHOWN_FILES]), *more, *_PARTS],
        commands=_commands(summary, model_dir, tuned),
    )


def _group_row(summary: Summary, group: Mapping[str, Any], label: str) -> Cells:
    """A row for members that differ in their seeds alone."""
    members = [summary["members"][member] for member in group["members"]]
    tested = [member["test_metric"] for member in members if member.get("test_metric") is not None]
    several = len(members) > 1
    return [
        label,
        number_text(group["best_metric"]),
        number_text(group["best_metric_deviation"]) if several else "",
        "",
        "",
        number_text(statistics.fmean(tested)) if tested else "",
        "" if several else _known_step(members[0]),
    ]


def _member_row(member: Mapping[str, Any]) -> Cells:
    label = f"{pathlib.Path(member['file']).name}, seed {member['seed']}"
    score, test = number_text(member["best_metric"]), _known(member.get("test_metric"))
    return [label, score, "", "", "", test, _known_step(member)]


def _settings_of(group: Mapping[str, Any]) -> str:
    settings = [f"{name} {value}" for name, value in group["settings"].items()]
    seeds = [f"{len(group['members'])} seeds"] if len(group["members"]) > 1 else []
    return ", ".join([*settings, *seeds]) or "1 seed"


def _details(summary: Summary) -> list[Cells]:
    """A row for each metric of each task, of the best prompt, where there are several."""
    best = min(range(len(summary["members"])), key=_order(summary, summary["members"]))

    def of_best(name: str) -> dict[str, Any]:
        found = summary.get(name) or {}
        return (found[best] if isinstance(found, list) else found) or {}

    metrics, about, tests = map(of_best, ("metrics", "about_scores", "test_metrics"))
    rows: list[Cells] = []
    for task, values in metrics.items():
        for name, value in values.items():
            baseline = about.get(task, {}).get("majority_baseline", {}).get(name.rpartition("/")[2])
            test = _known(tests.get(task, {}).get(name))
            rows.append([f"{task} {name}", number_text(value), "", "", _known(baseline), test, ""])
    if len(rows) == 1:
        return []
    return [*rows[:_MOST_DETAILS], *more_row(len(rows) - _MOST_DETAILS, "metrics", _COLUMNS)]


def _best_first(summary: Summary, name: str) -> list[Any]:
    found = summary[name]
    return [found[place] for place in sorted(range(len(found)), key=_order(summary, found))]


def _order(summary: Summary, scored: Sequence[Mapping[str, Any]]) -> Any:
    """A key that puts the best first, and what has no score last."""
    sign = 1 if summary["metric"] == "loss" else -1

    def key(place: int) -> float:
        score = scored[place]["best_metric"]
        return math.inf if score is None or math.isnan(score) else sign * score

    return key


def _failures(members: Sequence[Mapping[str, Any]]) -> list[str]:
    reasons = [member["failed"] for member in members if "failed" in member]
    if not reasons:
        return []
    return [f"{len(reasons)} of {len(members)} members failed: {'; '.join(dict.fromkeys(reasons))}"]


def _known(value: float | None) -> str:
    return "" if value is None else number_text(value)


def _known_step(member: Mapping[str, Any]) -> str:
    return "-" if member["best_step"] is None else str(member["best_step"])


def _commands(summary: Summary, model_dir: str, tuned: Sequence[str]) -> list[str]:
    """Asking the best prompt, or the tuned model; the ensemble of seeds; the report."""
    report = command("t5x", "report", model_dir, "--output=report.html")
    if is_remote(model_dir):  # gin files are read on this machine
        return [report]
    directory, best = pathlib.Path(model_dir), pathlib.Path(tuned[0])
    config = f"--gin_file={directory / 'config.gin'}"
    text = "'a text'"
    if best.suffix == ".safetensors":
        asked = [f"--prompt={summary['task']}={best}"]
    elif best.name == "model":
        asked = [f"--gin.INITIAL_CHECKPOINT_PATH={best}"]
    else:  # a prompt of each task
        files = sorted(best.glob("*.safetensors"))
        asked = [f"--prompt={file.stem}={file}" for file in files]
        text = shlex.quote(json_text.dumps({"prompt": files[0].stem, "text": "a text"}))
    infer = command(
        "t5x", "infer", config, "--gin_file=gin_configs/runs/infer.gin", *asked, "--input=-", "--output=-"
    )
    commands = [f"echo {text} | {infer}"]
    if len(tuned) > 1 and best.suffix == ".safetensors" and "sweep" not in summary:
        seeds = (f"{glob.escape(str(directory))}/prompt-*.safetensors",)
        ensemble = [f"--gin.PROMPT_FILES={seeds}", f"--gin.MODEL_DIR={directory}-ensemble"]
        commands.append(command("t5x", "eval", config, "--gin_file=gin_configs/runs/eval.gin", *ensemble))
    return [*commands, report]
