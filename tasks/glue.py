"""GLUE (Wang et al. 2018): `glue_X_v200` in T5's text form, taskless and, but for STS-B, for BERT.

X is cola, sst2, mrpc, qqp, stsb, mnli, mnli_matched, mnli_mismatched, qnli, rte, wnli or ax. `v002` is the same
on TFDS's version 1.0.0. `glue_{mrpc_from_qqp,qqp_from_mrpc}_v002` score answers in the other set's words.
"""

import functools
from typing import Any

from tasks import registration
from tasks.classification import register
from tasks.metrics.correlations import pearson, spearman
from tasks.metrics.labels import accuracy, f1_with_invalid, matthews
from tasks.sources.seqio_sources import TfdsSource
from tasks.sources.table import Table
from tasks.text import postprocessors, pronouns
from tasks.text.preprocessors import score_text

VERSIONS = {"v002": "1.0.0", "v200": "2.0.0"}  # of T5's names, and TFDS's
_TSV = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
_HELD_OUT = {"validation": "dev.tsv", "test": "test.tsv"}
_table = functools.partial(Table, suite="glue", names=_TSV, url="https://gluebenchmark.com/tasks")

_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_COLA = ("source", "is_acceptable", "mark", "sentence")
_MRPC = functools.partial(
    _table,
    "MRPC",
    texts=_PAIR,
    columns={"sentence1": "#1 String", "sentence2": "#2 String"},
    label="Quality",
    labels=("0", "1"),
)
# Some rows of the official file break off.
_QQP = functools.partial(
    _table, "QQP", texts=("question1", "question2"), label="is_duplicate", labels=("0", "1"), incomplete=True
)
_MNLI = functools.partial(
    _table,
    folder="MNLI",
    texts=("premise", "hypothesis"),
    columns={"premise": "sentence1", "hypothesis": "sentence2"},
    label="gold_label",
    labels=("entailment", "neutral", "contradiction"),
    unlabelled=("test", "test_matched", "test_mismatched"),
)
_WNLI = functools.partial(_table, "WNLI", texts=_PAIR, labels=("0", "1"))

_PARAPHRASE: dict[str, dict[str, Any]] = {
    "mrpc": {
        "fields": _PAIR,
        "pair": (("sentence1",), ("sentence2",)),
        "label_classes": ("not_equivalent", "equivalent"),
        "metric_fns": (f1_with_invalid, accuracy),
    },
    "qqp": {
        "fields": ("question1", "question2"),
        "pair": (("question1",), ("question2",)),
        "label_classes": ("not_duplicate", "duplicate"),
        "metric_fns": (f1_with_invalid, accuracy),
    },
}
_AS_MNLI: dict[str, Any] = {
    "name": "mnli",
    "fields": ("hypothesis", "premise"),
    "pair": (("premise",), ("hypothesis",)),
    "label_classes": ("entailment", "neutral", "contradiction"),
}


def _register(task: str, **settings: Any) -> None:
    """Registers both versions of a task; see `classification.register`."""
    for version, tfds_version in VERSIONS.items():
        names = {"name": task, "tfds_name": f"glue/{task}:{tfds_version}"}
        register(f"glue_{task}_{version}", family="glue", **{**names, **settings})


_register(
    "cola",
    table=_table(
        "CoLA",
        texts=("sentence",),
        label="is_acceptable",
        labels=("0", "1"),
        headers={"train": _COLA, "validation": _COLA},
    ),
    fields=("sentence",),
    pair=(("sentence",), ()),
    label_classes=("unacceptable", "acceptable"),
    metric_fns=(matthews,),
)
_register(
    "sst2",
    table=_table("SST-2", texts=("sentence",), labels=("0", "1")),
    fields=("sentence",),
    pair=(("sentence",), ()),
    label_classes=("negative", "positive"),
)
_register("mrpc", table=_MRPC(), **_PARAPHRASE["mrpc"])
_register("qqp", table=_QQP(), **_PARAPHRASE["qqp"])
_register(
    "mnli",
    table=_MNLI(
        names={
            "train": "train.tsv",
            "validation_matched": "dev_matched.tsv",
            "validation_mismatched": "dev_mismatched.tsv",
            "test_matched": "test_matched.tsv",
            "test_mismatched": "test_mismatched.tsv",
        }
    ),
    **_AS_MNLI,
)
for half in ("matched", "mismatched"):
    files = {"validation": f"dev_{half}.tsv", "test": f"test_{half}.tsv"}
    _register(f"mnli_{half}", table=_MNLI(names=files), **_AS_MNLI)
# The labels of the diagnostic set are not public.
_register("ax", table=_MNLI(folder="diagnostic", names={"test": "diagnostic.tsv"}), **_AS_MNLI, metric_fns=())
_register(
    "qnli",
    table=_table("QNLI", texts=("question", "sentence"), labels=_ENTAILMENT),
    fields=("question", "sentence"),
    pair=(("question",), ("sentence",)),
    label_classes=_ENTAILMENT,
)
_register(
    "rte",
    table=_table("RTE", texts=_PAIR, labels=_ENTAILMENT),
    fields=_PAIR,
    pair=(("sentence1",), ("sentence2",)),
    label_classes=_ENTAILMENT,
)
_register(
    "wnli",
    table=_WNLI(),
    fields=_PAIR,
    pair=(("sentence1",), ("sentence2",)),
    label_classes=("not_entailment", "entailment"),
)

for version, tfds_version in VERSIONS.items():
    registration.add(
        f"glue_stsb_{version}",
        TfdsSource(f"glue/stsb:{tfds_version}", _table("STS-B", texts=_PAIR, label="score", labels=None)),
        (functools.partial(score_text, name="stsb", fields=_PAIR),),
        family="glue",
        postprocess_fn=postprocessors.score,
        metric_fns=(pearson, spearman),
    )
    registration.add(
        f"glue_wnli_{version}_simple_eval",
        TfdsSource(f"glue/wnli:{tfds_version}", _WNLI(names=_HELD_OUT)),
        (pronouns.wnli,),
        family="glue",
        postprocess_fn=postprocessors.referent,
        metric_fns=(accuracy,),
        taskless=False,
    )

# A prompt tuned on one paraphrase set answers the other in its own words, which are then replaced. Training
# splits are left out: their targets would be in the other words.
for task, other, table, old, new in (
    ("mrpc", "qqp", _MRPC, "duplicate", "equivalent"),
    ("qqp", "mrpc", _QQP, "equivalent", "duplicate"),
):
    register(
        f"glue_{task}_from_{other}_v002",
        family="glue",
        tfds_name=f"glue/{task}:1.0.0",
        name=task,
        table=table(names={"validation": "dev.tsv"}),
        postprocess=functools.partial(postprocessors.translated_label_id, old=old, new=new),
        forms=("",),
        **_PARAPHRASE[task],
    )
