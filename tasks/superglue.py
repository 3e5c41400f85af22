"""SuperGLUE (Wang et al. 2019): `super_glue_X_v102` in T5's text form, taskless and for BERT.

X is boolq, cb, copa, multirc, record, rte, wic, axb or axg; WSC is in `tasks.wsc`.
"""

import functools

import seqio

from tasks import classification, registration
from tasks.metrics.answers import squad_by_group, squad_of_best
from tasks.metrics.labels import accuracy, grouped_exact_match, grouped_f1, matthews, mean_multiclass_f1
from tasks.sources import nested
from tasks.sources.seqio_sources import TfdsSource
from tasks.sources.table import Table
from tasks.text import passages, postprocessors
from tasks.text.preprocessors import strip_markup

_NAMES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}
_FAMILY = "superglue"
_URL = "https://super.gluebenchmark.com/tasks"
_nested = functools.partial(nested.Nested, suite="superglue", names=_NAMES, url=_URL)
_table = functools.partial(Table, suite="superglue", names=_NAMES, url=_URL)
_register = functools.partial(classification.register, family=_FAMILY)

_register(
    "super_glue_boolq_v102",
    tfds_name="super_glue/boolq:1.0.2",
    table=_table("BoolQ", texts=("passage", "question"), labels=(False, True)),
    name="boolq",
    fields=("passage", "question"),
    pair=(("question",), ("passage",)),
    label_classes=("False", "True"),
)
_register(
    "super_glue_cb_v102",
    tfds_name="super_glue/cb:1.0.2",
    table=_table("CB", texts=("premise", "hypothesis"), labels=("entailment", "contradiction", "neutral")),
    name="cb",
    fields=("hypothesis", "premise"),
    pair=(("premise",), ("hypothesis",)),
    label_classes=("entailment", "contradiction", "neutral"),
    metric_fns=(functools.partial(mean_multiclass_f1, num_classes=3), accuracy),
)
_register(
    "super_glue_copa_v102",
    tfds_name="super_glue/copa:1.0.2",
    table=_table("COPA", texts=("premise", "choice1", "choice2", "question"), labels=(0, 1)),
    name="copa",
    fields=("choice1", "choice2", "premise", "question"),
    pair=(("premise", "question"), ("choice1", "choice2")),
    label_classes=("choice1", "choice2"),
)
_register(
    "super_glue_rte_v102",
    tfds_name="super_glue/rte:1.0.2",
    table=_table("RTE", texts=("premise", "hypothesis"), labels=("entailment", "not_entailment")),
    name="rte",
    fields=("hypothesis", "premise"),
    pair=(("premise",), ("hypothesis",)),
    label_classes=("entailment", "not_entailment"),
)
_register(
    "super_glue_wic_v102",
    tfds_name="super_glue/wic:1.0.2",
    table=_table(
        "WiC",
        texts=("word", "sentence1", "sentence2"),
        numbers=("start1", "start2", "end1", "end2"),
        labels=(False, True),
    ),
    name="wic",
    fields=("sentence1", "sentence2", "word"),
    pair=(("word", "sentence1"), ("sentence2",)),
    label_classes=("False", "True"),
)
_register(
    "super_glue_multirc_v102",
    tfds_name="super_glue/multirc:1.0.2",
    table=_nested("MultiRC", parse=nested.multirc),
    before=(functools.partial(strip_markup, fields=("paragraph", "question", "answer")),),
    name="multirc",
    fields=("question", "answer", "paragraph"),
    pair=(("paragraph",), ("question", "answer")),
    label_classes=("False", "True"),
    postprocess=postprocessors.multirc,
    metric_fns=(grouped_f1, grouped_exact_match),
)
_RECORD = TfdsSource("super_glue/record:1.0.2", _nested("ReCoRD", parse=nested.record))
_RIGHT = ("False", "True")
registration.add(
    "super_glue_record_v102",
    _RECORD,
    (passages.record,),
    family=_FAMILY,
    postprocess_fn=postprocessors.record,
    metric_fns=(squad_by_group,),
)
registration.add(
    "bert_super_glue_record_v102",
    _RECORD,
    (functools.partial(passages.record_candidates, label_classes=_RIGHT),),
    family=_FAMILY,
    postprocess_fn=functools.partial(postprocessors.record_candidate, label_classes=_RIGHT),
    metric_fns=(squad_of_best,),
    taskless=False,
)

# The two diagnostic sets are read as RTE is. Their labels are public, so that they are scored.
_register(
    "super_glue_axb_v102",
    tfds_name="super_glue/axb:1.0.2",
    table=_table(
        "AX-b",
        names={"test": "AX-b.jsonl"},
        texts=("sentence1", "sentence2"),
        labels=("entailment", "not_entailment"),
        counted=True,  # the file has its numbers as text
    ),
    before=(
        functools.partial(
            seqio.preprocessors.rekey,
            key_map={"premise": "sentence1", "hypothesis": "sentence2", "label": "label", "idx": "idx"},
        ),
    ),
    name="rte",
    fields=("hypothesis", "premise"),
    pair=(("premise",), ("hypothesis",)),
    label_classes=("entailment", "not_entailment"),
    metric_fns=(matthews, accuracy),
)
_register(
    "super_glue_axg_v102",
    tfds_name="super_glue/axg:1.0.2",
    table=_table(
        "AX-g",
        names={"test": "AX-g.jsonl"},
        texts=("premise", "hypothesis"),
        labels=("entailment", "not_entailment"),
    ),
    name="rte",
    fields=("hypothesis", "premise"),
    pair=(("premise",), ("hypothesis",)),
    label_classes=("entailment", "not_entailment"),
)
