"""WinoGrande (Sakaguchi et al. 2020): which of two options fills the blank `_` of a sentence.

The papers give no text form. Here: all three fields in the order of the data, both options included, and as the
target the number of the option, as the data set spells it. Training is on its largest training set, `train_xl`.
"""

from tasks.classification import register
from tasks.sources.table import Table
from tasks.text.preprocessors import numbered

register(
    "winogrande_v120",
    family="winogrande",
    tfds_name="winogrande:1.2.0",
    table=Table(
        folder="winogrande",
        suite=".",
        names={"train": "train_xl.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"},
        texts=("sentence", "option1", "option2"),
        label="answer",
        labels=("1", "2"),
        counted=True,
        url="https://winogrande.allenai.org",
    ),
    name="winogrande",
    fields=("sentence", "option1", "option2"),
    pair=(("sentence",), ("option1", "option2")),
    label_classes=("1", "2"),
    before=(numbered,),
    tfds_splits={"train": "train_xl"},
)
