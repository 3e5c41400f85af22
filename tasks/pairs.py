"""Sentence pairs outside GLUE and SuperGLUE: SciTail (Khot et al. 2018) and PAWS-Wiki (Zhang et al. 2019).

The papers name the sets and leave the text form open. Here: T5's form of like tasks (hypothesis before premise,
sentence1 before sentence2), and TFDS's class names as targets. PAWS-Wiki is its tokenised part with human labels,
`labeled_final`. Quotes are part of the text, where TFDS lets them enclose fields, and thus sometimes whole lines.
"""

from tasks.classification import register
from tasks.sources.table import Table
from tasks.text.preprocessors import numbered

_SCITAIL = {"train": "train", "validation": "dev", "test": "test"}

register(
    "scitail_v100",
    family="pairs",
    tfds_name="sci_tail:1.0.0",
    table=Table(
        folder="tsv_format",
        suite="SciTailV1.1",
        names={split: f"scitail_1.0_{name}.tsv" for split, name in _SCITAIL.items()},
        texts=("premise", "hypothesis"),
        labels=("entails", "neutral"),
        headers=dict.fromkeys(_SCITAIL, ("premise", "hypothesis", "label")),
        unlabelled=(),
        url="https://allenai.org/data/scitail",
    ),
    name="scitail",
    fields=("hypothesis", "premise"),
    pair=(("premise",), ("hypothesis",)),
    label_classes=("entails", "neutral"),
    before=(numbered,),
)
register(
    "paws_wiki_v110",
    family="pairs",
    tfds_name="paws_wiki/labeled_final_tokenized:1.1.0",
    table=Table(
        folder="final",
        suite="paws_wiki",
        names={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
        texts=("sentence1", "sentence2"),
        labels=("0", "1"),
        unlabelled=(),
        url="https://github.com/google-research-datasets/paws",
    ),
    name="paws",
    fields=("sentence1", "sentence2"),
    pair=(("sentence1",), ("sentence2",)),
    label_classes=("different_meaning", "paraphrase"),
    before=(numbered,),
)
