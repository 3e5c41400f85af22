"""Token caches with a prompt design: an instruction and demonstrations in front of every text.

Such a cache is made of another one, which has the texts alone, and of the examples that train; it lies beside them.
TensorFlow is not needed. A text is never cut for the sake of demonstrations: where not all have room, those farthest
from it are left out.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from jax_prompts.config import Data, PromptDesign
from jax_prompts.data.cache import TokenCache, Unusable
from jax_prompts.data.cache_bucket import bring, new_cache
from jax_prompts.data.cache_key import digest, keyed_directory
from jax_prompts.data.demonstrations import Demonstration, Pool, check, drawn, pool_of
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.display import log
from jax_prompts.errors import ConfigError, RunError

_FORMAT = 2  # raise it when a change here or in demonstrations.py makes other texts or other tokens
_ROWS = 1024  # in memory at once
_NO_ANSWER = "<unk>"  # the target of an example whose answer is not public, in T5's form


def check_design(data: Data, *, bert: bool) -> None:
    """Raises ConfigError for settings that no data could make work."""
    if not data.prompt_design.changes_text:
        return
    if bert:
        raise ConfigError(
            "DEMONSTRATIONS, INSTRUCTION or PromptDesign.template is set, and a BERT reads two segments and answers "
            "with a class that it has to learn: leave them out, or choose a T5"
        )
    if data.prompt_inside_length:
        raise ConfigError(
            "PROMPT_INSIDE_LENGTH is True, and a tuned prompt would cut texts behind DEMONSTRATIONS and INSTRUCTION: "
            "set it to False"
        )


def source_of(task: str, training: Sequence[tuple[float, TokenCache]]) -> TokenCache:
    """The cache whose examples are shown to a task: its own or, of a mixture, that of the only task that trains.

    Raises:
      ConfigError: the task has no training examples, and several others of its mixture have.
    """
    caches = [cache for _, cache in training]
    own = [cache for cache in caches if cache.task == task] or caches
    if len(own) != 1:
        raise ConfigError(
            f"{task} has no training examples that could be shown as DEMONSTRATIONS, and its mixture trains on "
            f"{len(own)} tasks: choose a task that trains, or a mixture in which one does"
        )
    return own[0]


def designed(
    cache: TokenCache, training: Sequence[tuple[float, TokenCache]], data: Data, vocabulary: Vocabulary
) -> TokenCache:
    """The cache with the prompt design in front of its texts; it is made where it is missing.

    Args:
      cache: of texts alone.
      training: what trains, with rates, texts alone; used where the design asks for demonstrations.
      data: names the design and the room for it.
      vocabulary: of the caches.

    Raises:
      ConfigError: too few examples; no room; a task that makes its tokens by itself.
      RunError: the cache cannot be written.
    """
    source = source_of(cache.task, training) if data.prompt_design.demonstrations else None
    parts = [_identity(cache), source and _identity(source)]
    design, length = data.prompt_design, data.task_feature_lengths["inputs"]
    key = [_FORMAT, *parts, dataclasses.asdict(design), vocabulary.fingerprint, length]
    directory = keyed_directory(data.cache_dir, cache.task, cache.split, key)

    def opened() -> TokenCache:
        if not bring(directory, data.cache_dir):
            raise Unusable("")
        return TokenCache(directory, data.task_module, cache.chooses, cache.index_N)

    def usable() -> bool:
        try:
            opened()
        except Unusable:
            return False
        return True

    for _ in range(2):
        try:
            found = opened()
        except Unusable as reason:
            if str(reason):
                log(f"token cache {directory}: {reason}; making it again")
            with new_cache(directory, usable, data.cache_dir) as temporary:
                _write(cache, source, design, length, vocabulary, temporary)
            continue
        _report(found)
        return found
    raise RunError(f"token cache {directory} does not stay readable: check its disk, or set CACHE_DIR")


def demonstrations_of(caches: Iterable[TokenCache]) -> dict[str, Any]:
    """`{"demonstrations": {task: how many}}` for records; empty where none were asked for."""
    found = {cache.task: cache.demonstrations for cache in caches if cache.demonstrations is not None}
    return {"demonstrations": found} if found else {}


def _identity(cache: TokenCache) -> list[Any]:
    rows = (
        None if cache.index_N is None else hashlib.sha256(cache.index_N.astype("<i8").tobytes()).hexdigest()
    )
    return [cache.tokens, rows]


def _report(cache: TokenCache) -> None:
    shown = cache.demonstrations
    if shown and shown["fewer"]:
        log(
            f"warning: DEMONSTRATIONS is {shown['asked']}, and {shown['fewer']} of {len(cache)} texts of {cache.task} "
            f"{cache.split} leave room for fewer ({shown['mean']:.2f} on average): raise 'inputs' of "
            "TASK_FEATURE_LENGTHS for all"
        )


class _Row(NamedTuple):
    """A designed text.

    Attributes:
      text: all of it, in words.
      ids: its tokens, without end of sentence.
      shown: how many demonstrations it has.
      cut: whether the text itself is cut.
    """

    text: str
    ids: list[int]
    shown: int
    cut: bool


def _write(
    cache: TokenCache,
    source: TokenCache | None,
    design: PromptDesign,
    length: int,
    vocabulary: Vocabulary,
    directory: pathlib.Path,
) -> None:
    """`tokens.arrow` and `info.json` of a designed cache."""
    pool = None if source is None else _pool(cache, source, design)
    log(f"putting the prompt design in front of {cache.task} {cache.split} (once)")
    longest, cut, shown = 0, 0, list[int]()
    with pa.OSFile(str(directory / "tokens.arrow"), "wb") as file:
        writer = pa.ipc.new_file(file, cache.schema)
        for batch in cache.record_batches(_ROWS):
            texts = batch.column("inputs_pretokenized").to_pylist()
            _check_tokens(cache.task, batch.column("inputs").to_pylist(), texts, vocabulary, length)
            rows = _rows(texts, pool, design, length, vocabulary)
            tokens = [[*vocabulary.begin_ids, *row.ids, vocabulary.eos_id] for row in rows]
            longest = max(longest, *map(len, tokens))
            cut += sum(row.cut for row in rows)
            shown += [row.shown for row in rows]
            changed = {
                "inputs": pa.array(tokens, pa.list_(pa.int32())),
                "inputs_pretokenized": pa.array([row.text for row in rows], pa.string()),
                "inputs_cut": pa.array([row.cut for row in rows], pa.bool_()),
            }
            columns = [changed.get(name, batch.column(name)) for name in cache.schema.names]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=cache.schema))
        writer.close()
    _check_room(cache, design, length, cut, shown)
    info = json.loads((cache.directory / "info.json").read_text())
    info |= {
        "count": len(cache),
        "longest": {"inputs": longest, "targets": cache.longest_targets},
        "cut": {**cache.cut(), "inputs": cut},
        "label_counts": cache.label_counts,
        "tokens": digest(directory / "tokens.arrow"),
    }
    if design.demonstrations:
        fewer = sum(count < design.demonstrations for count in shown)
        info["demonstrations"] = {
            "asked": design.demonstrations,
            "mean": statistics.fmean(shown),
            "fewer": fewer,
        }
    (directory / "info.json").write_text(json.dumps(info, indent=2) + "\n")


def _pool(cache: TokenCache, source: TokenCache, design: PromptDesign) -> Pool:
    pairs = zip(source.texts("inputs_pretokenized"), source.texts("targets_pretokenized"), strict=True)
    examples = (Demonstration(*pair) for pair in pairs)
    pool = pool_of(source.task, examples, source.labels, balanced=design.balanced, hidden=_NO_ANSWER)
    check(pool, design.demonstrations, set(cache.texts("inputs_pretokenized")))
    return pool


def _check_tokens(
    task: str, tokens: list[list[int]], texts: list[str], vocabulary: Vocabulary, length: int
) -> None:
    """Raises ConfigError unless these are the tokens of the texts, so that others can be put in their place."""
    encoded = vocabulary.encode_all(texts)
    begin = vocabulary.begin_ids
    room = length - 1 - len(begin)
    if tokens != [[*begin, *ids[:room], vocabulary.eos_id] for ids in encoded]:
        raise ConfigError(
            f"{task} makes its tokens by itself, so that no DEMONSTRATIONS or INSTRUCTION can be put in front: leave "
            "them out"
        )


def _rows(
    texts: list[str], pool: Pool | None, design: PromptDesign, length: int, vocabulary: Vocabulary
) -> list[_Row]:
    """Texts behind as many demonstrations as have room."""
    room = length - 1 - len(vocabulary.begin_ids)
    count = min(design.demonstrations, room)  # each has a token at least
    shown = [[] if pool is None else drawn(pool, design, count, text) for text in texts]
    whole = [written(design, text, found) for text, found in zip(texts, shown, strict=True)]
    return [
        _Row(read, ids, len(found), cut=False)
        if len(ids) <= room
        else _fitted(text, found, design, room, vocabulary)
        for text, found, read, ids in zip(texts, shown, whole, vocabulary.encode_all(whole), strict=True)
    ]


def _fitted(
    text: str, found: Sequence[Demonstration], design: PromptDesign, room: int, vocabulary: Vocabulary
) -> _Row:
    """A text behind fewer demonstrations than were found; without any, and where it must be, cut."""

    def ids_behind(count: int) -> list[int]:
        return vocabulary.encode(written(design, text, found[:count]))

    count = bisect.bisect_right(range(len(found)), room, key=lambda count: len(ids_behind(count))) - 1
    if count >= 0:
        return _Row(written(design, text, found[:count]), ids_behind(count), count, cut=False)
    before, between, _ = design.around
    begin = vocabulary.encode(design.separator.join(filter(None, [design.instruction, before])))
    end = vocabulary.encode(between.rstrip())
    left = room - len(begin) - len(end)
    if left < 1:
        raise ConfigError(
            f"INSTRUCTION and PromptDesign.template have {room - left} tokens and leave no room for the text: raise "
            "'inputs' of TASK_FEATURE_LENGTHS, or shorten them"
        )
    return _Row(written(design, text, []), [*begin, *vocabulary.encode(text)[:left], *end], 0, cut=True)


def written(design: PromptDesign, text: str, shown: Sequence[Demonstration]) -> str:
    """A text behind the instruction and demonstrations, the first of these right in front of it."""
    before, between, behind = design.around
    answered = [f"{before}{found.inputs}{between}{found.targets}{behind}" for found in reversed(shown)]
    asked = f"{before}{text}{between.rstrip()}"
    return design.separator.join([*filter(None, [design.instruction]), *answered, asked])


def _check_room(cache: TokenCache, design: PromptDesign, length: int, cut: int, shown: Sequence[int]) -> None:
    """Raises ConfigError where a design leaves most texts no demonstration, or cuts texts of which none was whole."""
    where = f"{cache.task} {cache.split} in {length} tokens: raise 'inputs' of TASK_FEATURE_LENGTHS, or"
    if design.demonstrations and statistics.median(shown) < 1:
        raise ConfigError(
            f"DEMONSTRATIONS is {design.demonstrations}, and there is no room for one beside most texts of {where} "
            "leave it out"
        )
    if cut == len(cache) > cache.cut()["inputs"]:
        raise ConfigError(f"INSTRUCTION and PromptDesign.template cut every text of {where} shorten them")
