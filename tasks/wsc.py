"""The Winograd schema challenge and its kin: finding what a pronoun stands for.

`super_glue_wsc_v102_simple_{train,eval}` and `dpr_v001_simple` generate the noun phrase (Raffel et al. 2020);
`super_glue_wsc_v102` and its `bert_` form choose between two classes.
"""

from __future__ import annotations

import functools
from typing import Any

from tasks import registration
from tasks.classification import register
from tasks.metrics.labels import accuracy
from tasks.sources.nested import Nested, definite_pronouns
from tasks.sources.seqio_sources import TfdsSource
from tasks.sources.table import Table
from tasks.text import postprocessors, pronouns

# Noun phrases of two rows with other words between their parts: TFDS leaves them, and so is done here.
_DIVIDED = ("Kamenev and Zinoviev", "Kamenev, Zinoviev, and Stalin")


def repair_spans(example: dict[str, Any]) -> dict[str, Any]:
    """Example with its two spans changed so that they occur in the text, as in TFDS's `wsc.fixed`.

    Their first letter takes the case of the text's word, a full stop at the end goes, line feeds become spaces.
    """
    repaired = dict(example)
    for span in ("span1", "span2"):
        phrase, words = example[f"{span}_text"], example["text"].split()
        if phrase and phrase not in example["text"] and phrase not in _DIVIDED:
            word = words[min(example[f"{span}_index"], len(words) - 1)]
            first = phrase[0].lower() if word[0].islower() else phrase[0].upper()
            repaired[f"{span}_text"] = (first + phrase[1:]).rstrip(".").replace("\n", " ")
    return repaired


table = functools.partial(
    Table,
    folder="WSC",
    suite="superglue",
    texts=("text", "span1_text", "span2_text"),
    numbers=("span1_index", "span2_index"),
    labels=(False, True),
    nested="target",
    repair=repair_spans,
)
TFDS_NAME = "super_glue/wsc.fixed:1.0.2"
TRAIN = {"train": "train.jsonl"}
HELD_OUT = {"validation": "val.jsonl", "test": "test.jsonl"}

# A model that is to name the referent learns from right ones alone.
registration.add(
    "super_glue_wsc_v102_simple_train",
    TfdsSource(TFDS_NAME, table(names=TRAIN)),
    (functools.partial(pronouns.wsc, correct_only=True),),
    family="wsc",
)
registration.add(
    "super_glue_wsc_v102_simple_eval",
    TfdsSource(TFDS_NAME, table(names=HELD_OUT)),
    (pronouns.wsc,),
    family="wsc",
    postprocess_fn=postprocessors.referent,
    metric_fns=(accuracy,),
)
registration.add(
    "dpr_v001_simple",
    TfdsSource(
        "definite_pronoun_resolution:1.1.0",
        Nested("dpr", "", {"train": "train.c.txt", "test": "test.c.txt"}, definite_pronouns),
    ),
    (pronouns.dpr,),
    family="wsc",
    postprocess_fn=postprocessors.referent,
    metric_fns=(accuracy,),
)
register(
    "super_glue_wsc_v102",
    family="wsc",
    tfds_name=TFDS_NAME,
    table=table(names=TRAIN | HELD_OUT),
    name="wsc",
    fields=("text", "span1_text", "span2_text"),
    pair=(("text",), ("span2_text", "span1_text")),
    label_classes=("False", "True"),
)
