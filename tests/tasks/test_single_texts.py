"""Classification tasks outside GLUE and SuperGLUE: their texts, files, and sizes."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import seqio
import tensorflow as tf

import tasks.registry  # noqa: F401
from tasks.errors import TaskError

# split sizes of the files at hand; the classes' counts in the first of them, in order of the classes
FILES = {
    "winogrande_v120": ({"validation": 1267}, (628, 639)),
    "yelp_polarity_v020": ({"validation": 800, "test": 800}, (400, 400)),
    "imdb_v100": ({"validation": 1000, "test": 1000}, (500, 500)),
    "ag_news_v100": ({"validation": 1000, "test": 1000}, (250, 250, 250, 250)),
    "trec_v100": ({"train": 4906, "validation": 546}, (1042, 1122, 75, 1120, 797, 750)),
    "mr": ({"train": 7795, "validation": 867}, (3879, 3916)),
    "cr": ({"train": 1597, "validation": 178}, (327, 1270)),
    "mpqa": ({"train": 7742, "validation": 861}, (5666, 2076)),
    "subj": ({"train": 7200, "validation": 800}, (3588, 3612)),
    "sst5": ({"train": 7689, "validation": 855}, (983, 1993, 1470, 2087, 1156)),
    "amazon_review": ({"validation": 1000, "test": 1000}, (200, 200, 200, 200, 200)),
    "yahoo_answers": ({"validation": 1000, "test": 1000}, (100,) * 10),
}
PAIRS = {
    "scitail_v100": ("premise", "hypothesis"),
    "paws_wiki_v110": ("sentence1", "sentence2"),
}


def examples(task_name: str, dataset: tf.data.Dataset) -> list[dict[str, Any]]:
    """What the preprocessors before tokenisation make of raw examples."""
    for preprocessor in seqio.TaskRegistry.get(task_name).preprocessors[:-2]:
        dataset = preprocessor(dataset)
    return [
        {name: value.decode() if isinstance(value, bytes) else value for name, value in example.items()}
        for example in dataset.as_numpy_iterator()
    ]


def of_files(task_name: str, data_dir: pathlib.Path, split: str) -> list[dict[str, Any]]:
    return examples(task_name, seqio.TaskRegistry.get(task_name).source.at(data_dir).get_dataset(split))


def of_tfds(task_name: str, raw: dict[str, Any]) -> dict[str, Any]:
    (example,) = examples(task_name, tf.data.Dataset.from_tensors(raw))
    return example


@pytest.mark.parametrize("task_name", FILES)
def test_real_files_have_their_sizes_and_classes(shared: pathlib.Path, task_name: str):
    sizes, counts = FILES[task_name]
    classes = seqio.TaskRegistry.get(task_name).postprocessor.keywords["label_classes"]
    for number, (split, size) in enumerate(sizes.items()):
        rows = of_files(task_name, shared / "data", split)
        assert len(rows) == size
        assert all(row["inputs"].startswith(task_name.partition("_v")[0]) for row in rows)
        if number == 0:
            assert tuple(sum(row["targets"] == name for row in rows) for name in classes) == counts


def test_winogrande_shows_both_options(shared: pathlib.Path):
    """ATTEMPT's text form has option1 twice, so that nothing tells which option is right."""
    row = of_files("winogrande_v120", shared / "data", "validation")[0]
    assert row == {
        "idx": 0,
        "inputs": "winogrande sentence: Sarah was a much better surgeon than Maria so _ always got the easier "
        "cases. option1: Sarah option2: Maria",
        "targets": "2",
    }
    assert of_files("bert_winogrande_v120", shared / "data", "validation")[0]["inputs"].endswith(
        "easier cases. [SEP] Sarah Maria"
    )


def test_trec_names_the_class_of_its_files(shared: pathlib.Path):
    rows = {
        row["inputs"]: row["targets"] for row in of_files("taskless_trec_v100", shared / "data", "validation")
    }
    assert rows["text: What city is served by Tempelhol Airport ?"] == "location"
    assert rows["text: What 's nature 's purpose for tornadoes ?"] == "description"


@pytest.mark.parametrize(
    ("task_name", "raw", "expected"),
    [
        (
            "winogrande_v120",
            {"sentence": "_ ran", "option1": "A", "option2": "B", "label": 1},
            ("winogrande sentence: _ ran option1: A option2: B", "2"),
        ),
        (
            "winogrande_v120",
            {"sentence": "_ ran", "option1": "A", "option2": "B", "label": -1},
            ("winogrande sentence: _ ran option1: A option2: B", "<unk>"),
        ),
        ("yelp_polarity_v020", {"text": "good", "label": 1}, ("yelp_polarity text: good", "positive")),
        ("imdb_v100", {"text": "bad", "label": 0}, ("imdb text: bad", "negative")),
        (
            "ag_news_v100",
            {"title": "T", "description": "d e", "label": 3},
            ("ag_news text: T d e", "Sci/Tech"),
        ),
        (
            "trec_v100",
            {"text": "how far", "label-coarse": 4, "label-fine": 7},
            ("trec text: how far", "number"),
        ),
        (
            "scitail_v100",
            {"premise": "p", "hypothesis": "h", "label": 1},
            ("scitail hypothesis: h premise: p", "neutral"),
        ),
        (
            "paws_wiki_v110",
            {"sentence1": "a", "sentence2": "b", "label": 1},
            ("paws sentence1: a sentence2: b", "paraphrase"),
        ),
    ],
)
def test_examples_of_tfds(task_name: str, raw: dict[str, Any], expected: tuple[str, str]):
    inputs, targets = expected
    typed = {
        name: tf.constant(value, tf.int64) if isinstance(value, int) else value for name, value in raw.items()
    }
    assert of_tfds(task_name, typed) == {"idx": 0, "inputs": inputs, "targets": targets}
    assert of_tfds(f"taskless_{task_name}", typed)["inputs"] == inputs.partition(" ")[2]


def test_splits_and_slices_have_tfds_names():
    source = seqio.TaskRegistry.get("winogrande_v120").source
    assert source._in_tfds("train[:10%]+validation") == "train_xl[:10%]+validation"
    assert source.splits == ("train", "validation", "test")
    assert seqio.TaskRegistry.get("imdb_v100").source.splits == ("train", "test")
    assert source.wanted("train[:5]") == "winogrande/train_xl.jsonl from https://winogrande.allenai.org"


def test_the_files_of_scitail_and_paws(tmp_path: pathlib.Path):
    scitail = tmp_path / "SciTailV1.1/tsv_format/scitail_1.0_dev.tsv"
    paws = tmp_path / "paws_wiki/final/test.tsv"
    for path in (scitail, paws):
        path.parent.mkdir(parents=True)
    scitail.write_text('"Frost line" is deep.\tIt is deep.\tentails\n"Open\tb\tneutral\n')
    paws.write_text("id\tsentence1\tsentence2\tlabel\n3\t`` a '' \tb\t0\n9\tc\td\t1\n")
    assert of_files("scitail_v100", tmp_path, "validation") == [
        {
            "idx": 0,
            "inputs": 'scitail hypothesis: It is deep. premise: "Frost line" is deep.',
            "targets": "entails",
        },
        {"idx": 1, "inputs": 'scitail hypothesis: b premise: "Open', "targets": "neutral"},
    ]
    assert [row["targets"] for row in of_files("paws_wiki_v110", tmp_path, "test")] == [
        "different_meaning",
        "paraphrase",
    ]
    assert of_files("bert_paws_wiki_v110", tmp_path, "test")[0]["inputs"] == "`` a ''  [SEP] b"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1]", "one JSON object of rows is expected, not list"),
        ('{"0": 1', "malformed JSON"),
        ('{"0": {"text_a": "x", "label": 1}, "1": 7}', "entry '1': a JSON object is expected, not int"),
        ('{"0": {"text_a": "x", "label": 5}}', 'entry \'0\': label 5 is none of the set\'s labels "0", "1"'),
        ('{"0": {"text_a": "x"}}', "entry '0': no field 'label'"),
        ('{"0": {"text": "x", "label": 1}}', "entry '0': no field 'text_a'"),
        ("{}", "holds no examples; put classification_misc/mr/train.json from "),
    ],
)
def test_a_bad_json_table_is_named(tmp_path: pathlib.Path, content: str, reason: str):
    path = tmp_path / "mr/train.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(TaskError) as error:
        of_files("mr", tmp_path, "train")
    assert str(error.value).startswith(str(path)) and reason in str(error.value)


def test_a_set_that_tfds_lacks_says_what_to_put_where(tmp_path: pathlib.Path):
    source = seqio.TaskRegistry.get("taskless_subj").source
    with pytest.raises(TaskError, match=r"put classification_misc/subj/dev.json from https.*set DATA_DIR"):
        source.get_dataset("validation[:10]")
    with pytest.raises(TaskError, match=r"has no validation file: neither .*subj/dev.json"):
        source.at(tmp_path).get_dataset("validation")


def test_a_bert_form_of_every_set():
    for task_name in [*FILES, *PAIRS]:
        assert {f"taskless_{task_name}", f"bert_{task_name}"} <= set(seqio.TaskRegistry.names())
        json.dumps(seqio.TaskRegistry.get(f"bert_{task_name}").postprocessor.keywords)
