"""SuperGLUE (Wang et al. 2019): `super_glue_{boolq,cb,copa,rte,wic}_v102` in T5's text form, taskless and for BERT.

WSC is here as BERT sees it, a choice between two classes.
"""

import functools

from tasks import metrics
from tasks.classification import register
from tasks.files import Table

_table = functools.partial(
    Table,
    suite="superglue",
    url="https://super.gluebenchmark.com/tasks",
    names={"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"},
)

register(
    "super_glue_boolq_v102",
    tfds_name="super_glue/boolq:1.0.2",
    table=_table("BoolQ", texts=("passage", "question"), labels=(False, True)),
    name="boolq",
    fields=("passage", "question"),
    pair=(("question",), ("passage",)),
    label_classes=("False", "True"),
)
register(
    "super_glue_cb_v102",
    tfds_name="super_glue/cb:1.0.2",
    table=_table("CB", texts=("premise", "hypothesis"), labels=("entailment", "contradiction", "neutral")),
    name="cb",
    fields=("hypothesis", "premise"),
    pair=(("premise",), ("hypothesis",)),
    label_classes=("entailment", "contradiction", "neutral"),
    metric_fns=(functools.partial(metrics.mean_multiclass_f1, num_classes=3), metrics.accuracy),
)
register(
    "super_glue_copa_v102",
    tfds_name="super_glue/copa:1.0.2",
    table=_table("COPA", texts=("premise", "choice1", "choice2", "question"), labels=(0, 1)),
    name="copa",
    fields=("choice1", "choice2", "premise", "question"),
    pair=(("premise", "question"), ("choice1", "choice2")),
    label_classes=("choice1", "choice2"),
)
register(
    "super_glue_rte_v102",
    tfds_name="super_glue/rte:1.0.2",
    table=_table("RTE", texts=("premise", "hypothesis"), labels=("entailment", "not_entailment")),
    name="rte",
    fields=("hypothesis", "premise"),
    pair=(("premise",), ("hypothesis",)),
    label_classes=("entailment", "not_entailment"),
)
register(
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
register(
    "super_glue_wsc_v102",
    tfds_name="super_glue/wsc.fixed:1.0.2",
    table=_table(
        "WSC",
        texts=("text", "span1_text", "span2_text"),
        numbers=("span1_index", "span2_index"),
        labels=(False, True),
        nested="target",
    ),
    name="wsc",
    fields=("text", "span1_text", "span2_text"),
    pair=(("text",), ("span2_text", "span1_text")),
    label_classes=("False", "True"),
    forms=("bert_",),
)
