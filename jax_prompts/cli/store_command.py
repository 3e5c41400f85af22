"""What `t5x store` does and shows: a table on stderr for the reader, the rest for scripts."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from jax_prompts.display import log
from jax_prompts.errors import RunError
from jax_prompts.prompts.store import Entry, PromptStore
from jax_prompts.storage import json_text

WIDE = 1000  # characters: wider than the table


def run(args: argparse.Namespace) -> dict[str, Any]:
    """One action, `args.action`, on `args.store`.

    Raises:
      ConfigError, RunError: as `PromptStore`; and RunError where `verify` finds a prompt that is not whole.
    """
    store = PromptStore(args.store)
    if args.action == "add":
        added = [store.add(name, file, replace=args.replace) for name, file in args.prompt.items()]
        return {"store": store.url, "added": [_row(store, entry) for entry in added]}
    if args.action == "remove":
        for name in args.names:
            store.remove(name)
        return {"store": store.url, "removed": args.names}
    if args.action == "verify":
        return _verify(store)
    conditions = ("task", "model", "metric", "method", "min_score", "fingerprint")
    entries = (
        store.list()
        if args.action == "list"
        else store.find(**{name: getattr(args, name) for name in conditions})
    )
    _show(entries)
    return {"store": store.url, "prompts": [_row(store, entry) for entry in entries]}


def _row(store: PromptStore, entry: Entry) -> dict[str, Any]:
    """An entry as one flat JSON object; `path` is for whatever takes a prompt file."""
    row = dataclasses.asdict(entry)
    metadata = row.pop("metadata")
    return {"path": f"{store.url}/{row.pop('file')}", **row, **metadata}


def _show(entries: Iterable[Entry]) -> None:
    heads = ("name", "task", "base model", "method", "metric", "score", "step", "[P, D]", "added")
    table = Table(*(Column(head, no_wrap=True) for head in heads))
    for entry in entries:
        metadata = entry.metadata
        score = "" if metadata.score is None else f"{metadata.score:.6g}"
        step = "" if metadata.step is None else str(metadata.step)
        table.add_row(
            entry.name, metadata.task, metadata.base_model, metadata.method, metadata.metric, score, step,
            f"{entry.length} x {entry.width}", entry.added,
        )  # fmt: skip
    Console(stderr=True, width=WIDE, highlight=False, markup=False).print(table)


def _verify(store: PromptStore) -> dict[str, Any]:
    found = store.verify()
    for name, wrong in found.damaged.items():
        log(f"damaged {name}: {wrong}")
    for name in found.missing:
        log(f"missing {name}: its file is gone; replace it or remove it")
    for file in found.unknown:
        log(f"unknown {file}: no entry names it; an addition may have been stopped, or be under way")
    result = {"store": store.url, **dataclasses.asdict(found)}
    if bad := [*found.damaged, *found.missing]:
        print(json_text.dumps(result))
        raise RunError(f"{len(bad)} of {len(bad) + len(found.whole)} prompts are not whole: {', '.join(bad)}")
    return result
