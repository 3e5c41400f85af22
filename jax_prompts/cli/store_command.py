"""`t5x store` and its actions: a table on stderr for the reader, the rest for scripts.

Whatever an action raises is what `PromptStore` raises.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jax_prompts.cli.command import Command, named_files, path
from jax_prompts.errors import ConfigError, RunError

if TYPE_CHECKING:
    from jax_prompts.prompts.store import PromptStore
    from jax_prompts.prompts.store_entry import Entry


def _open(args: argparse.Namespace) -> PromptStore:
    from jax_prompts.prompts.store import PromptStore

    return PromptStore(args.store)


def _list(args: argparse.Namespace) -> dict[str, Any]:
    store = _open(args)
    return _shown(store, store.list())


def _find(args: argparse.Namespace) -> dict[str, Any]:
    conditions = ("task", "model", "metric", "method", "min_score", "fingerprint")
    store = _open(args)
    return _shown(store, store.find(**{name: getattr(args, name) for name in conditions}))


def _add(args: argparse.Namespace) -> dict[str, Any]:
    store = _open(args)
    added: list[dict[str, Any]] = []
    for name, file in args.prompt.items():
        with _told(store, "added", added, [row["name"] for row in added]):
            added.append(_row(store, store.add(name, file, replace=args.replace)))
    return {"store": store.url, "added": added}


def _remove(args: argparse.Namespace) -> dict[str, Any]:
    store = _open(args)
    removed: list[str] = []
    for name in args.names:
        with _told(store, "removed", removed, removed):
            store.remove(name)
        removed.append(name)
    return {"store": store.url, "removed": removed}


@contextlib.contextmanager
def _told(store: PromptStore, what: str, done: list[Any], names: list[str]) -> Iterator[None]:
    """Lets an error say what was done before it; the object is on stdout then, too."""
    from jax_prompts.storage import json_text

    try:
        yield
    except (ConfigError, RunError) as error:
        if not done:
            raise
        print(json_text.report({"store": store.url, what: done}))
        raise type(error)(f"{error} ({what} before it: {', '.join(names)})") from error


def _verify(args: argparse.Namespace) -> dict[str, Any]:
    """What is whole and what is not.

    Raises:
      RunError: also where a prompt is not whole; then the object is on stdout already.
    """
    from jax_prompts.display import log
    from jax_prompts.storage import json_text

    store = _open(args)
    found = store.verify(clean=args.clean)
    for file in found.removed:
        log(f"removed {file}: left by an addition or removal that was stopped")
    for name, wrong in found.damaged.items():
        log(f"damaged {name}: {wrong}")
    for name in found.missing:
        log(f"missing {name}: its file is gone; replace it or remove it")
    for file in found.unknown:
        log(
            f"unknown {file}: no entry names it; an addition was stopped, and --clean removes it, or is under way"
        )
    result = {"store": store.url, **dataclasses.asdict(found)}
    if bad := [*found.damaged, *found.missing]:
        print(json_text.report(result))
        raise RunError(f"{len(bad)} of {len(bad) + len(found.whole)} prompts are not whole: {', '.join(bad)}")
    return result


def _shown(store: PromptStore, entries: Sequence[Entry]) -> dict[str, Any]:
    """The entries as JSON, and a table of them on stderr."""
    from jax_prompts.display import print_table

    heads = ("name", "task", "base model", "method", "metric", "score", "step", "[P, D]", "leaves", "added")
    print_table(heads, [_cells(entry) for entry in entries])
    return {"store": store.url, "prompts": [_row(store, entry) for entry in entries]}


def _cells(entry: Entry) -> tuple[str, ...]:
    metadata = entry.metadata
    score = "" if metadata.score is None else f"{metadata.score:.6g}"
    step = "" if metadata.step is None else str(metadata.step)
    return (
        entry.name, metadata.task, metadata.base_model, metadata.method, metadata.metric, score, step,
        f"{entry.length} x {entry.width}" if entry.length else "", f"{entry.leaves:,}" if entry.leaves else "",
        entry.added,
    )  # fmt: skip


def _row(store: PromptStore, entry: Entry) -> dict[str, Any]:
    """An entry as one flat JSON object; `path` is for whatever takes a prompt file."""
    row = dataclasses.asdict(entry)
    metadata = row.pop("metadata")
    return {"path": f"{store.url}/{row.pop('file')}", **row, **metadata}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "store", type=path, metavar="STORE", help="a folder, or a URL such as gs://bucket/prompts"
    )


def _find_arguments(parser: argparse.ArgumentParser) -> None:
    _arguments(parser)
    add = parser.add_argument
    add("--task", default="*", metavar="TEXT")
    add("--model", default="*", metavar="TEXT", help="the base model's size, or its full name")
    add("--metric", default="*", metavar="TEXT", help="the metric that chose the prompt")
    add("--method", default="*", metavar="TEXT")
    add("--fingerprint", default="*", metavar="TEXT", help="of the base model's weights")
    add("--min_score", type=float, metavar="NUMBER")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    _arguments(parser)
    parser.add_argument("prompt", nargs="+", metavar="NAME=FILE", help="a prompt file or its URL")
    parser.add_argument("--replace", action="store_true", help="in place of a prompt of that name")


def _add_check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    args.prompt = named_files(args.prompt, parser)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    _arguments(parser)
    help = "remove what additions that were stopped have left; of those under way nothing"
    parser.add_argument("--clean", action="store_true", help=help)


def _remove_arguments(parser: argparse.ArgumentParser) -> None:
    _arguments(parser)
    parser.add_argument("names", nargs="+", metavar="NAME")


STORE = Command(
    "store",
    "keep prompts: list, find, add, remove, verify",
    actions=(
        Command("list", "every prompt", _list, _arguments),
        Command(
            "find",
            "prompts that meet every condition, the highest score first; texts may hold * and ?",
            _find,
            _find_arguments,
        ),
        Command("add", "store copies of prompt files", _add, _add_arguments, _add_check),
        Command("remove", "take prompts out", _remove, _remove_arguments),
        Command(
            "verify",
            "read every file and compare it with its entry; status 1 if any is not as it was added",
            _verify,
            _verify_arguments,
        ),
    ),
)
