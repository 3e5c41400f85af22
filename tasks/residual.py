"""WSC and MultiRC as the code of Residual Prompt Tuning (Razdaibiedina et al. 2023) scores them.

Its numbers are not those of SuperGLUE: WSC counts the referents that are right (38 of 104 in validation) and
their first word alone; F1 of MultiRC is a micro average, which of single labels is their accuracy.
"""

import functools

from tasks import registration, wsc
from tasks.classification import register
from tasks.metrics.answers import normalized_match
from tasks.metrics.labels import grouped_accuracy, grouped_exact_match
from tasks.sources import nested
from tasks.sources.seqio_sources import TfdsSource
from tasks.text import postprocessors, pronouns

registration.add(
    "residual_super_glue_wsc",
    TfdsSource(wsc.TFDS_NAME, wsc.table(names=wsc.TRAIN | wsc.HELD_OUT)),
    (functools.partial(pronouns.wsc, correct_only=True, first_word=True),),
    family="residual",
    metric_fns=(normalized_match,),
)
register(
    "residual_super_glue_multirc",
    family="residual",
    tfds_name="super_glue/multirc:1.0.2",
    table=nested.Nested(
        "MultiRC",
        "superglue",
        {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"},
        nested.multirc,
    ),
    name="multirc",
    fields=("question", "answer", "paragraph"),
    pair=((), ()),
    label_classes=("false", "true"),
    postprocess=postprocessors.multirc,
    metric_fns=(grouped_accuracy, grouped_exact_match),
    forms=("",),
)
