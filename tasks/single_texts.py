"""Single texts to classify: reviews, news, questions and opinions.

The papers that use them name the sets and leave the text form open. Here: `name text: ...` and, as targets, TFDS's
class names, in words where TFDS has codes. TFDS has no validation split of Yelp, IMDB, AG News and TREC.

Files: `{train,dev,test}.json` with one object of rows, `text_a` or `ori` and `label`, as the few-shot literature hands
these sets round. Yelp polarity is taken from reviews of one to five stars, three left out, as its authors made it.
AG News is title and description, joined by a blank where they come from TFDS.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tasks.classification import register
from tasks.sources.json_table import JsonTable
from tasks.text.preprocessors import numbered

_URL = "https://github.com/ZhengxiangShi/PowerfulPromptFT"
_POLARITY = ("negative", "positive")


def _register(
    task_name: str,
    folder: str,
    label_classes: Sequence[str],
    *,
    tfds_name: str | None = None,
    column: str = "text_a",
    classes: Mapping[str, int | None] | None = None,
    before: Sequence[Callable[..., tf.data.Dataset]] = (),
) -> None:
    """Registers one set; `classes` where the files number classes in another way than `label_classes`."""
    register(
        task_name,
        family="single_texts",
        tfds_name=tfds_name,
        table=JsonTable(
            folder=folder,
            suite="classification_misc",
            names={"train": "train.json", "validation": "dev.json", "test": "test.json"},
            column=column,
            classes=classes or {str(number): number for number in range(len(label_classes))},
            url=_URL,
        ),
        name=task_name.rpartition("_v")[0] or task_name,
        fields=("text",),
        pair=(("text",), ()),
        label_classes=label_classes,
        before=(*before, numbered) if tfds_name else (),
        tfds_splits={"validation": None},
    )


def _coarse_label(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps TREC's class among six, where TFDS also has one among fifty."""
    if "label-coarse" not in dataset.element_spec:
        return dataset
    return dataset.map(lambda example: {"text": example["text"], "label": example["label-coarse"]})


def _title_and_description(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Joins title and description of AG News to one text."""
    if "title" not in dataset.element_spec:
        return dataset

    def join(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        text = tf.strings.join([example["title"], example["description"]], separator=" ")
        return {"text": text, "label": example["label"]}

    return dataset.map(join)


_ori = functools.partial(_register, column="ori")

_ori(
    "yelp_polarity_v020",
    "yelp_review",
    _POLARITY,
    tfds_name="yelp_polarity_reviews:0.2.0",
    classes={"0": 0, "1": 0, "2": None, "3": 1, "4": 1},
)
_ori("imdb_v100", "aclImdb", _POLARITY, tfds_name="imdb_reviews/plain_text:1.0.0")
_ori(
    "ag_news_v100",
    "ag_news",
    ("World", "Sports", "Business", "Sci/Tech"),
    tfds_name="ag_news_subset:1.0.0",
    before=(_title_and_description,),
)
_register(
    "trec_v100",
    "trec",
    ("description", "entity", "abbreviation", "human", "number", "location"),
    tfds_name="trec:1.0.0",
    classes={"0": 0, "1": 1, "2": 2, "3": 3, "4": 5, "5": 4},  # the files have location before number
    before=(_coarse_label,),
)
_register("mr", "mr", _POLARITY)
_register("cr", "cr", _POLARITY)
_register("mpqa", "mpqa", _POLARITY)
_register("subj", "subj", ("subjective", "objective"))
_register("sst5", "sst-5", ("very negative", "negative", "neutral", "positive", "very positive"))
_ori("amazon_review", "amazon_review", ("1", "2", "3", "4", "5"))  # stars
_ori(
    "yahoo_answers",
    "yahoo_answers",
    (
        "Society & Culture",
        "Science & Mathematics",
        "Health",
        "Education & Reference",
        "Computers & Internet",
        "Sports",
        "Business & Finance",
        "Entertainment & Music",
        "Family & Relationships",
        "Politics & Government",
    ),
)
