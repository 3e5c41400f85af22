"""SuperGLUE (Wang et al. 2019) in T5's text form: `super_glue_{boolq,cb,copa,rte,wic}_v102`, and taskless."""

import functools

from tasks import metrics
from tasks.classification import register
from tasks.files import Table

_table = functools.partial(
    Table,
    suite="superglue",
    names={"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"},
)

register(
    "super_glue_boolq_v102",
    tfds_name="super_glue/boolq:1.0.2",
    table=_table("BoolQ", texts=("passage", "question"), labels=(False, True)),
    name="boolq",
    fields=("passage", "question"),
    label_classes=("False", "True"),
)
register(
    "super_glue_cb_v102",
    tfds_name="super_glue/cb:1.0.2",
    table=_table("CB", texts=("premise", "hypothesis"), labels=("entailment", "contradiction", "neutral")),
    name="cb",
    fields=("hypothesis", "premise"),
    label_classes=("entailment", "contradiction", "neutral"),
    metric_fns=(functools.partial(metrics.mean_multiclass_f1, num_classes=3), metrics.accuracy),
)
register(
    "super_glue_copa_v102",
    tfds_name="super_glue/copa:1.0.2",
    table=_table("COPA", texts=("premise", "choice1", "choice2", "question"), labels=(0, 1)),
    name="copa",
    fields=("choice1", "choice2", "premise", "question"),
    label_classes=("choice1", "choice2"),
)
register(
    "super_glue_rte_v102",
    tfds_name="super_glue/rte:1.0.2",
    table=_table("RTE", texts=("premise", "hypothesis"), labels=("entailment", "not_entailment")),
    name="rte",
    fields=("hypothesis", "premise"),
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
    label_classes=("False", "True"),
)
