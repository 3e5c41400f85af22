"""Pre-training of the `mini` model, as T5 v1.0's: text beside supervised text-to-text tasks, then LM adaptation.

All files lie in DATA_DIR, as its SHA256SUMS names them (`sources/checksums.py`): text in `corpus/`, one paragraph a
line, books in files named `books*`; SQuAD 1.1 in `squad_v1.1/`; labelled rows of SNLI and MNLI in `glue_10k_subsets/`.
Another corpus brings its own SHA256SUMS. No task that prompts are compared on is among them; QNLI, though, is made
from SQuAD's questions and paragraphs.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import seqio
import tensorflow as tf

from tasks import registration
from tasks.errors import TaskError
from tasks.micro import micro_tasks  # noqa: F401  only what is registered can be mixed
from tasks.micro.world import Pair
from tasks.mini.sentences import sentence_pairs
from tasks.sources import nested
from tasks.sources.bad_lines import tolerated
from tasks.sources.checksums import checked_files
from tasks.sources.lines import Place, json_document, text_field
from tasks.sources.seqio_sources import as_dataset, directory
from tasks.sources.splits import parse
from tasks.sources.text_files import SPLITS, TextFiles
from tasks.text.objectives import prefix_lm, span_corruption

NLI_LABELS = ("entailment", "neutral", "contradiction")
CONTEXT_CHARACTERS = 500  # of a SQuAD paragraph that are read: with the question, 192 tokens hold them
_VALIDATION_QUESTIONS = 20  # one SQuAD question in so many validates, to spare time
_SENTENCE = re.compile(r"(?<=[.!?]) (?=[\"'(A-Z0-9])")


class Corpus(TextFiles):
    """Paragraphs of the text files that SHA256SUMS names in `corpus/`: of the books, or of all others."""

    def __init__(self, books: bool, data_dir: pathlib.Path | None = None) -> None:
        """`books`: files whose names begin with `books`; else the others."""
        super().__init__(data_dir)
        self._books = books

    def at(self, data_dir: str | pathlib.Path) -> Corpus:
        return Corpus(self._books, directory(data_dir))

    def files(self, split: str) -> list[pathlib.Path]:
        """Raises TaskError as `checked_files` does, or where none is of this kind."""
        found = checked_files(self._data_dir, "corpus")
        kept = [file for file in found if file.name.startswith("books") == self._books]
        if not kept:
            kind = "whose name begins with books" if self._books else "besides books"
            raise TaskError(f"SHA256SUMS in {self._data_dir} names no file of corpus/ {kind}: add one")
        return kept


class Pairs(seqio.DataSource):
    """Inputs and targets made from the files that SHA256SUMS names in a folder."""

    supports_arbitrary_sharding = False

    def __init__(
        self,
        folder: str,
        make: Callable[[Sequence[pathlib.Path], str], Iterator[Pair]],
        file_of: dict[str, str] | None = None,
        data_dir: pathlib.Path | None = None,
    ) -> None:
        """Takes no file in hand yet.

        Args:
          folder: under DATA_DIR.
          make: (files, split) -> pairs of the split.
          file_of: how a split's file begins; None: every file holds a part of every split.
          data_dir: None until `at` says.
        """
        super().__init__(splits=SPLITS)
        self._folder, self._make, self._file_of, self._data_dir = folder, make, file_of, data_dir
        self._read = functools.cache(lambda split: list(make(self.files(split), split)))

    def at(self, data_dir: str | pathlib.Path) -> Pairs:
        """The same, from files under `data_dir`."""
        return Pairs(self._folder, self._make, self._file_of, directory(data_dir))

    def files(self, split: str) -> list[pathlib.Path]:
        """The files that hold a split.

        Raises:
          TaskError: as `checked_files`, or none is of that split.
        """
        found = checked_files(self._data_dir, self._folder)
        if self._file_of is None:
            return found
        starts = {self._file_of[part.name] for part in parse(split, SPLITS)}
        if missing := {start for start in starts if not any(file.name.startswith(start) for file in found)}:
            raise TaskError(
                f"SHA256SUMS in {self._data_dir} names no {self._folder}/{min(missing)}*: add it with sha256sum"
            )
        return [file for file in found if file.name.startswith(tuple(starts))]

    def list_shards(self, split: str) -> Sequence[str]:
        return [split]

    def num_input_examples(self, split: str) -> int:
        return len(self._pairs(split))

    def get_dataset(self, split: str = "train", *_: Any, **__: Any) -> tf.data.Dataset:
        """All pairs in file order; raises TaskError as `files`, or where a file is malformed."""
        return as_dataset([{"inputs": inputs, "targets": targets} for inputs, targets in self._pairs(split)])

    def _pairs(self, split: str) -> list[Pair]:
        parts = [(part, self._read(part.name)) for part in parse(split, SPLITS)]
        return [pairs[i] for part, pairs in parts for i in part.range(len(pairs))]


def squad_pairs(files: Sequence[pathlib.Path], split: str) -> Iterator[Pair]:
    """SQuAD's questions, each on the sentences round its first answer (of validation, every 20th question)."""
    step = _VALIDATION_QUESTIONS if split == "validation" else 1
    for file in files:
        for number, (_, example) in enumerate(nested.squad(file)):
            answer = example["answers"]["text"][0]
            context = sentences_around(example["context"], answer, CONTEXT_CHARACTERS)
            if number % step == 0 and context is not None:
                yield f"question: {example['question'].strip()} context: {context}", answer


def sentences_around(context: str, answer: str, characters: int) -> str | None:
    """The sentence of the answer's first place and as many on either side as fit, in turns; None if it does not."""
    ends = [match.start() for match in _SENTENCE.finditer(context)] + [len(context)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    place = context.find(answer)
    first = max(i for i, start in enumerate(starts) if start <= max(place, 0))
    last = min(i for i, end in enumerate(ends) if end >= place + len(answer))
    if place < 0 or ends[last] - starts[first] > characters:
        return None
    while True:
        before = first - 1 if first and ends[last] - starts[first - 1] <= characters else first
        after = last + 1 if last + 1 < len(ends) and ends[last + 1] - starts[before] <= characters else last
        if (before, after) == (first, last):
            return context[starts[first] : ends[last]]
        first, last = before, after


def nli_pairs(files: Sequence[pathlib.Path], split: str, task: str) -> Iterator[Pair]:
    """T5's form of inference, from `{"0": {"text_a": premise, "text_b": hypothesis, "label": ...}, ...}`."""
    for file in files:
        rows = json_document(file)
        if not isinstance(rows, dict):
            raise TaskError(f"{file}: one JSON object of rows is expected, not {type(rows).__name__}")
        for key, row in rows.items():
            place = Place(file, inside=f"entry {key!r}")
            with tolerated():
                if not isinstance(row, dict) or row.get("label") not in NLI_LABELS:
                    raise place.error(f"a row with one of the labels {', '.join(NLI_LABELS)} is expected")
                premise, hypothesis = (text_field(row, name, place).strip() for name in ("text_a", "text_b"))
                yield f"{task} hypothesis: {hypothesis} premise: {premise}", row["label"]


SUPERVISED = {
    "mini_squad": Pairs("squad_v1.1", squad_pairs, {"train": "train", "validation": "dev"}),
    **{
        f"mini_{task.lower()}": Pairs(
            f"glue_10k_subsets/{task}",
            functools.partial(nli_pairs, task=task.lower()),
            {"train": "train", "validation": "dev"},
        )
        for task in ("SNLI", "MNLI")
    },
    "mini_sentences": Pairs("corpus", sentence_pairs),
}
for name, source in SUPERVISED.items():
    registration.add(name, source, (), family="mini", taskless=False)

# Of 100 rows. The text is half books, half articles.
RATES = {
    "mini_squad": 5,
    "mini_snli": 6,
    "mini_mnli": 8,
    "mini_sentences": 7,
    "micro_world": 2,
    "micro_reviews": 2,
}
TEXT_RATE = (100 - sum(RATES.values())) / 2
for objective, mixture in (
    (span_corruption, "mini_span_corruption"),
    (prefix_lm, "mini_lm_adaptation"),
):
    texts = {f"{mixture}_books": Corpus(books=True), f"{mixture}_articles": Corpus(books=False)}
    for name, source in texts.items():
        registration.add_objective(name, source, objective, family="mini")
    registration.mix(mixture, {**dict.fromkeys(texts, TEXT_RATE), **RATES}, family="mini")
