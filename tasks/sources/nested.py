"""Official files whose examples lie inside one another: MultiRC, ReCoRD, SQuAD, MRQA; and the lists of DPR."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tasks.sources.bad_lines import tolerated
from tasks.sources.lines import Place, integer_field, json_document, json_lines, read_lines, text_field
from tasks.sources.official_files import UNLABELLED, Files

Examples = Iterator[tuple[Place, dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Nested(Files):
    """Files that a function takes apart.

    Attributes:
      parse: `parse(path)` gives the examples and their places.
    """

    parse: Callable[[pathlib.Path], Examples]

    def examples(self, path: pathlib.Path, split: str) -> Examples:
        return self.parse(path)


class Node:
    """An object of a JSON file that knows its place, so that whatever is wrong with it can be named."""

    def __init__(self, value: Any, place: Place) -> None:
        if not isinstance(value, dict):
            raise place.error(f"an object is expected, found {json.dumps(value)[:40]}")
        self.value, self.place = value, place

    def text(self, name: str) -> str:
        return text_field(self.value, name, self.place)

    def integer(self, name: str) -> int:
        return integer_field(self.value, name, self.place)

    def object(self, name: str) -> Node:
        return Node(self.value.get(name), self._inside(name))

    def objects(self, name: str) -> Iterator[Node]:
        for number, value in enumerate(self._list(name)):
            yield Node(value, self._inside(f"{name}[{number}]"))

    def texts(self, name: str) -> list[str]:
        """A list of texts, of which there has to be one at least."""
        values = {str(number): value for number, value in enumerate(self._list(name))}
        if not values:
            raise self.place.error(f"field {name!r} is empty")
        return [text_field(values, key, self._inside(name)) for key in values]

    def _list(self, name: str) -> list[Any]:
        value = self.value.get(name)
        if not isinstance(value, list):
            raise self.place.error(f"field {name!r} must be a list, found {json.dumps(value)[:40]}")
        return value

    def _inside(self, name: str) -> Place:
        return dataclasses.replace(self.place, inside=".".join(filter(None, [self.place.inside, name])))


def multirc(path: pathlib.Path) -> Examples:
    """Examples of MultiRC: an answer each, its label 1 where it is right."""
    return _of_lines(path, _multirc_line)


def _multirc_line(line: Node) -> Examples:
    passage = line.object("passage")
    for question in passage.objects("questions"):
        for answer in question.objects("answers"):
            label = answer.value.get("label", UNLABELLED)
            if label not in (0, 1, UNLABELLED):
                raise answer.place.error(f"label {json.dumps(label)} is none of 0, 1")
            index = {
                "paragraph": line.integer("idx"),
                "question": question.integer("idx"),
                "answer": answer.integer("idx"),
            }
            yield (
                answer.place,
                {
                    "paragraph": passage.text("text"),
                    "question": question.text("question"),
                    "answer": answer.text("text"),
                    "label": int(label),
                    "idx": index,
                },
            )


def record(path: pathlib.Path) -> Examples:
    """Examples of ReCoRD: a query each; entities and answers without repetition, in order of their characters."""
    return _of_lines(path, _record_line)


def _record_line(line: Node) -> Examples:
    passage = line.object("passage")
    text = passage.text("text")
    entities = {
        text[entity.integer("start") : entity.integer("end") + 1] for entity in passage.objects("entities")
    }
    for query in line.objects("qas"):
        answers = query.objects("answers") if "answers" in query.value else ()
        yield (
            query.place,
            {
                "passage": text,
                "query": query.text("query"),
                "entities": sorted(entities),
                "answers": sorted({answer.text("text") for answer in answers}),
                "idx": {"passage": line.integer("idx"), "query": query.integer("idx")},
            },
        )


def squad(path: pathlib.Path) -> Examples:
    """Examples of SQuAD 1.1: a question each, with the texts of its answers."""
    for article in Node(json_document(path), Place(path)).objects("data"):
        paragraphs: Sequence[Node] = ()
        with tolerated():
            paragraphs = list(article.objects("paragraphs"))
        for paragraph in paragraphs:
            yield from _whole(_squad_paragraph, paragraph.value, paragraph.place)


def _squad_paragraph(paragraph: Node) -> Examples:
    context = paragraph.text("context")
    for question in paragraph.objects("qas"):
        answers = [answer.text("text") for answer in question.objects("answers")]
        if not answers:
            raise question.place.error("no answers, and every question of SQuAD 1.1 has one")
        yield (
            question.place,
            {
                "id": question.text("id"),
                "context": context,
                "question": question.text("question"),
                "answers": {"text": answers},
            },
        )


def mrqa(path: pathlib.Path) -> Examples:
    """Examples of MRQA: a question each; the first line may be a header."""
    return _of_lines(path, _mrqa_line)


def _mrqa_line(line: Node) -> Examples:
    if "header" in line.value and "context" not in line.value:
        return
    context = line.text("context").strip()
    for question in line.objects("qas"):
        yield (
            question.place,
            {
                "qid": question.text("qid"),
                "context": context,
                "question": question.text("question").strip(),
                "answers": question.texts("answers"),
            },
        )


def _of_lines(path: pathlib.Path, make: Callable[[Node], Examples]) -> Examples:
    for place, row in json_lines(path):
        yield from _whole(make, row, place)


def _whole(make: Callable[[Node], Examples], row: Any, place: Place) -> Examples:
    """What is made of a line or a paragraph, or nothing of it: half would change what is scored by group."""
    examples: Sequence[tuple[Place, dict[str, Any]]] = ()
    with tolerated():
        examples = list(make(Node(row, place)))
    yield from examples


def definite_pronouns(path: pathlib.Path) -> Examples:
    """Examples of DPR's lists (Rahman and Ng): a sentence, its pronoun, two candidates, the right one."""
    lines = [(number, line.strip()) for number, line in read_lines(path)]
    for first in range(0, len(lines), 4):
        with tolerated():
            (number, sentence), *rest = lines[first : first + 4]
            place = Place(path, number)
            if len(rest) < 3:
                raise place.error(
                    "four lines an example are expected: sentence, pronoun, candidates, the right one"
                )
            pronoun, candidates, correct = (
                rest[0][1],
                [name.strip() for name in rest[1][1].split(",")],
                rest[2][1],
            )
            if len(candidates) != 2 or correct not in candidates:
                raise place.error(f"{correct!r} is none of two candidates {candidates}")
            yield (
                place,
                {
                    "sentence": sentence,
                    "pronoun": pronoun,
                    "candidates": candidates,
                    "label": candidates.index(correct),
                },
            )
