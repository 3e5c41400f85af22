"""Raw examples in TFDS's form, made up: edge cases, and random ones that a seed fixes."""

import random
from collections.abc import Callable
from typing import Any

Raw = dict[str, Any]
Make = Callable[[random.Random, Callable[[], str]], Raw]

TEXTS = (
    "",
    " ",
    "  two  blanks  ",
    "tab\tfeed\f line\nreturn\r\nend",
    "vertical\x0btab NBSP\u00a0 narrow\u202f line\u2028 ideographic\u3000end",
    "Ünïcödé “quotes” ‘n’ — … 日本語 \U0001f600 e\u0301 İ",
    "<br>a<br>b <b>c</b> <br/> <BR> <b <<br>b>",
    "$5 U.S. (a-b) [c]_d {e} \\1 \\0 ^f^ `g` h* i+ j? k|l",
    "label: <unk> sentence1: question: context: entities:",
    'said "yes."\n@highlight\nno\n@highlight\n\n@highlight\nend!\n@highlight\n',
    "it's 'so'\n@highlight\nwhy?\n@highlight\n\"no\"\n@highlight\nU.S.\n@highlight\nend,\n@highlight\n.",
    "X he X X she X",
)
_PIECES = (*TEXTS, *"the a cat dog. sat, it's He X -1 3.8 @placeholder <unk> # é".split(), "\n@highlight\n")
_GLUE = ("", " ", " ", " ", "\n", "\t", "\u00a0", ". ")
_PRONOUNS = "he she they it her his their them him".split()


def random_text(rng: random.Random) -> str:
    """Up to six pieces with blanks of some sort, or nothing, behind each."""
    return "".join(rng.choice(_PIECES) + rng.choice(_GLUE) for _ in range(rng.randrange(7)))


def _labelled(*fields: str, classes: int = 2, **others: Callable[[random.Random], Any]) -> Make:
    """Examples of some text fields with a label, which is hidden at times: -1."""

    def make(rng: random.Random, text: Callable[[], str]) -> Raw:
        numbers = {"label": rng.randrange(-1, classes), "idx": rng.randrange(9999)}
        return (
            {field: text() for field in fields} | numbers | {key: draw(rng) for key, draw in others.items()}
        )

    return make


def _small(rng: random.Random) -> int:
    return rng.randrange(5)


def _multirc(rng: random.Random, text: Callable[[], str]) -> Raw:
    example = _labelled("paragraph", "question", "answer")(rng, text)
    return example | {"idx": {part: _small(rng) for part in ("paragraph", "question", "answer")}}


def _record(rng: random.Random, text: Callable[[], str]) -> Raw:
    return {
        "passage": text(),
        "query": text(),
        "entities": [text() for _ in range(_small(rng))],
        "answers": [text() for _ in range(rng.randrange(4))],
        "idx": {"passage": _small(rng), "query": _small(rng)},
    }


def _wsc(rng: random.Random, text: Callable[[], str]) -> Raw:
    pronoun, before = rng.choice([*_PRONOUNS, "It", "X", "he's"]), text()
    return {
        "text": " ".join([before, pronoun, *(text() for _ in range(rng.randrange(2)))]),
        "span1_text": text(),
        "span1_index": _small(rng),
        "span2_text": pronoun,
        "span2_index": len(before.split(" ")),
        "label": rng.randrange(-1, 2),
        "idx": rng.randrange(9999),
    }


def _dpr(rng: random.Random, text: Callable[[], str]) -> Raw:
    pronoun = rng.choice(_PRONOUNS)
    parts = [text(), " ", pronoun, rng.choice([" ", ".", ",", "!", "", f" {pronoun} "]), text()]
    return {
        "sentence": "".join(parts),
        "pronoun": pronoun,
        "candidates": [text(), text()],
        "label": rng.randrange(2),
    }


def _wnli(rng: random.Random, _: Callable[[], str]) -> Raw:
    """A sentence that both read alike, whatever the text."""
    first, second = rng.sample(["dog", "cat", "fox", "red hen"], 2)
    what = rng.choice(["was glad", "ran home at last", "saw nothing, then left"])
    premise = f"The {first} {rng.choice(['met', 'heard'])} the {second}. {rng.choice(['It', 'She'])} {what}."
    hypothesis = f"The {rng.choice([first, second])} {what}."
    return {"sentence1": premise, "sentence2": hypothesis, "label": rng.randrange(-1, 2), "idx": _small(rng)}


def _squad(rng: random.Random, text: Callable[[], str]) -> Raw:
    answers = [text() for _ in range(rng.randrange(1, 5))]
    return {"id": text(), "question": text(), "context": text(), "answers": {"text": answers}}


def _mrqa(rng: random.Random, text: Callable[[], str]) -> Raw:
    example = _squad(rng, text)
    return {
        "qid": example["id"],
        "question": example["question"],
        "context": example["context"],
        "answers": example["answers"]["text"],
    }


_PAIR = ("sentence1", "sentence2")
_MNLI = _labelled("premise", "hypothesis", classes=3)
_MAKERS: dict[str, Make] = {
    "super_glue_boolq_v102": _labelled("question", "passage"),
    "super_glue_cb_v102": _MNLI,
    "super_glue_copa_v102": _labelled("premise", "choice1", "choice2", "question"),
    "super_glue_multirc_v102": _multirc,
    "super_glue_record_v102": _record,
    "super_glue_rte_v102": _labelled("premise", "hypothesis"),
    "super_glue_wic_v102": _labelled("word", *_PAIR, start1=_small, end1=_small, start2=_small, end2=_small),
    "super_glue_axb_v102": _labelled(*_PAIR),
    "super_glue_axg_v102": _labelled("premise", "hypothesis"),
    "super_glue_wsc_v102_simple_train": _wsc,
    "super_glue_wsc_v102_simple_eval": _wsc,
    "dpr_v001_simple": _dpr,
    "glue_cola_v002": _labelled("sentence"),
    "glue_sst2_v002": _labelled("sentence"),
    "glue_mrpc_v002": _labelled(*_PAIR),
    "glue_qqp_v002": _labelled("question1", "question2"),
    "glue_stsb_v002": _labelled(*_PAIR, label=lambda rng: rng.uniform(0, 5)),
    "glue_mnli_v002": _MNLI,
    "glue_mnli_matched_v002": _MNLI,
    "glue_mnli_mismatched_v002": _MNLI,
    "glue_qnli_v002": _labelled("question", "sentence"),
    "glue_rte_v002": _labelled(*_PAIR),
    "glue_wnli_v002": _labelled(*_PAIR),
    "glue_ax_v002": _MNLI,
    "glue_wnli_v002_simple_eval": _wnli,
    "squad_v010_allanswers": _squad,
    "mrqa": _mrqa,
}
# Every label that is a multiple of 0.05: halves between two multiples of 0.2 are rounded to even; -1 is hidden.
_SCORES = [{"sentence1": "a", "sentence2": "b", "label": i / 20, "idx": i} for i in (-20, *range(101))]


def raw_examples(kind: str, count: int = 200) -> list[Raw]:
    """Examples of T5's task `kind` or of "mrqa": each text of `TEXTS` in all fields, then `count` random ones."""
    rng, make = random.Random(kind), _MAKERS[kind]
    edge = [make(rng, lambda text=text: text) for text in TEXTS]
    some = [make(rng, lambda: random_text(rng)) for _ in range(count)]
    return [*edge, *(_SCORES if kind == "glue_stsb_v002" else ()), *some]
