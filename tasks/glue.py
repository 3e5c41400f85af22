"""GLUE (Wang et al. 2018) in T5's text form: `glue_{sst2,rte}_v200`, taskless and for BERT."""

import functools

from tasks.classification import register
from tasks.files import Table

_table = functools.partial(
    Table,
    suite="glue",
    url="https://gluebenchmark.com/tasks",
    names={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
)

register(
    "glue_sst2_v200",
    tfds_name="glue/sst2:2.0.0",
    table=_table("SST-2", texts=("sentence",), labels=("0", "1")),
    name="sst2",
    fields=("sentence",),
    pair=(("sentence",), ()),
    label_classes=("negative", "positive"),
)
register(
    "glue_rte_v200",
    tfds_name="glue/rte:2.0.0",
    table=_table("RTE", texts=("sentence1", "sentence2"), labels=("entailment", "not_entailment")),
    name="rte",
    fields=("sentence1", "sentence2"),
    pair=(("sentence1",), ("sentence2",)),
    label_classes=("entailment", "not_entailment"),
)
