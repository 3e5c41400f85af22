"""A task of the user's own files: what settings make of them, and what is said of bad ones."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from jax_prompts import main
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.config import Data, OwnTask
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.open import open_caches
from jax_prompts.data.vocabularies.sentencepiece import Vocabulary
from jax_prompts.errors import ConfigError

ROWS = [
    {"id": "a", "premise": "It rains.", "hypothesis": 'it is, "very" wet', "label": 0},
    {"id": "b", "premise": "It\u2028rains.", "hypothesis": "it is dry", "label": 2},
    {"id": "c", "premise": "It {rains}.", "hypothesis": "the fox\njumps", "label": 0},
]
WORDS = {"0": "entailment", "1": "neutral", "2": "contradiction"}
TEXTS = [
    'premise: It rains. hypothesis: it is, "very" wet',
    "premise: It\u2028rains. hypothesis: it is dry",
    "premise: It {rains}. hypothesis: the fox\njumps",
]
NLI = OwnTask(
    train="train.jsonl", inputs="premise: {premise} hypothesis: {hypothesis}", labels=WORDS, id="id"
)


@pytest.fixture(scope="module")
def vocabulary(train_vocabulary) -> Vocabulary:
    return Vocabulary(train_vocabulary("the quick brown fox jumps over a lazy dog 0123456789"))


@pytest.fixture
def data(tmp_path: pathlib.Path) -> Data:
    return Data(
        task="my_nli",
        task_module="tasks.registry",
        task_feature_lengths={"inputs": 32, "targets": 8},
        batch_size=2,
        data_dir=str(tmp_path),
        cache_dir=str(tmp_path / "caches"),
        own_task=NLI,
    )


def write(path: pathlib.Path, rows: list[dict | str] = ROWS) -> pathlib.Path:
    """Rows as JSON lines; text as it is."""
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows))
    return path


def only(data: Data, vocabulary: Vocabulary, split: str = "train") -> TokenCache:
    ((_, cache),) = open_caches(data, split, vocabulary)
    return cache


def with_own(data: Data, **settings) -> Data:
    return dataclasses.replace(data, own_task=dataclasses.replace(data.own_task, **settings))


def refusal(data: Data, vocabulary: Vocabulary, split: str = "train") -> str:
    with pytest.raises(ConfigError) as error:
        open_caches(data, split, vocabulary)
    assert "\n" not in str(error.value)
    return str(error.value)


def texts(cache: TokenCache) -> list[str]:
    return [cache.example(i)["inputs_pretokenized"] for i in range(len(cache))]


def test_json_lines_become_texts_and_labels(tmp_path, data, vocabulary):
    write(tmp_path / "train.jsonl")
    cache = only(data, vocabulary)
    assert texts(cache) == TEXTS
    assert [cache.example(i)["targets_pretokenized"] for i in range(3)] == [
        WORDS["0"],
        WORDS["2"],
        WORDS["0"],
    ]
    assert [cache.example(i)["id"] for i in range(3)] == ["a", "b", "c"]
    assert cache.labels == ("entailment", "neutral", "contradiction")
    assert cache.postprocess("contradiction") == 2
    assert [metric([0, 2], [0, 1]) for metric in cache.metrics] == [{"accuracy": 50.0}]


def test_csv_and_tsv_with_quotes_and_without(tmp_path, data, vocabulary):
    (tmp_path / "train.csv").write_bytes(
        b"\xef\xbb\xbfid,premise,hypothesis,label\r\n"
        b'a,It rains.,"it is, ""very"" wet",0\r\n'
        b"\r\n"
        b"b,It\xe2\x80\xa8rains.,it is dry,2\r\n"
        b'c,It {rains}.,"the fox\njumps",0\r\n'
    )
    assert texts(only(with_own(data, train="train.csv"), vocabulary)) == TEXTS
    (tmp_path / "train.tsv").write_bytes(
        b"\xef\xbb\xbfid\tpremise\thypothesis\tlabel\r\n"
        b'a\tIt rains.\tit is, "very" wet\t0\r\n'
        b'b\t"It\xe2\x80\xa8rains.\tit is dry\t2\n'
    )
    assert texts(only(with_own(data, train="train.tsv"), vocabulary)) == [
        TEXTS[0],
        'premise: "It\u2028rains. hypothesis: it is dry',
    ]
    quoted = b'id\tpremise\thypothesis\tlabel\na\tIt rains.\t"it is, ""very"" wet"\t0\n'
    (tmp_path / "train.tsv").write_bytes(quoted)
    assert texts(only(with_own(data, train="train.tsv"), vocabulary)) == TEXTS[:1]
    plain = only(with_own(data, train="train.tsv", tsv_quotes=False), vocabulary)
    assert texts(plain) == ['premise: It rains. hypothesis: "it is, ""very"" wet"']


def test_a_byte_order_mark_before_json_lines(tmp_path, data, vocabulary):
    path = write(tmp_path / "train.jsonl")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert texts(only(data, vocabulary)) == TEXTS


def test_a_file_of_bad_lines_alone_says_why_they_are_bad(tmp_path, data, vocabulary):
    write(tmp_path / "train.jsonl", ["{", "[1]"])
    message = refusal(dataclasses.replace(data, skip_bad_lines=True), vocabulary)
    assert "holds no examples; 2 bad lines were left out, the first: " in message
    assert "line 1: malformed JSON" in message


def test_free_text_templates_and_classes(tmp_path, data, vocabulary):
    rows = [{"stars": n, "good": n > 2, "text": f"text {n}"} for n in range(5)]
    write(tmp_path / "train.jsonl", rows)
    free = with_own(data, inputs="{{x}} {text}", target="{stars}, {good}", labels=None, id=None)
    cache = only(free, vocabulary)
    assert (cache.labels, cache.example(4)["inputs_pretokenized"]) == (None, "{x} text 4")
    assert cache.example(4)["targets_pretokenized"] == "4, true"
    assert cache.metrics[0](["4, true"], [cache.postprocess("4, true")]) == {"accuracy": 100.0}
    classes = with_own(
        data,
        inputs="{text}",
        target="{good}",
        labels={"false": "bad", "true": "good"},
        id=None,
        metrics=("accuracy", "mean_multiclass_f1"),
    )
    cache = only(classes, vocabulary)
    assert (cache.labels, cache.label_counts) == (("bad", "good"), {"bad": 3, "good": 2})
    assert list(cache.metrics[1]([0, 1], [0, 1])) == ["mean_2class_f1"]


def test_lists_of_right_answers(tmp_path, data, vocabulary):
    write(
        tmp_path / "train.jsonl",
        [{"question": "who?", "answers": ["the fox", "a dog"]}, {"question": "what?", "answers": "a fox"}],
    )
    asked = with_own(
        data, inputs="question: {question}", labels=None, id=None, answers="answers", metrics=("squad",)
    )
    cache = only(asked, vocabulary)
    examples = [cache.example(i) for i in range(2)]
    assert [example["targets_pretokenized"] for example in examples] == ["the fox", "a fox"]
    targets = [cache.postprocess("", example=example, is_target=True) for example in examples]
    assert targets == [["the fox", "a dog"], ["a fox"]]
    said = [cache.postprocess(text, example=examples[0]) for text in ("Dog", "a red fox")]
    assert cache.metrics[0](targets, said) == {"em": 50.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 2)}
    generated = only(with_own(asked, metrics=("squad", "rougeL", "bleu", "exact_match")), vocabulary)
    assert [list(metric(targets, said)) for metric in generated.metrics] == [
        ["em", "f1"],
        ["rougeL"],
        ["bleu"],
        ["exact_match"],
    ]
    for answers, reason in [
        ([], "column 'answers' is empty"),
        (["a", " "], "empty"),
        (["a", ["b"]], "text or a"),
    ]:
        write(tmp_path / "train.jsonl", [{"question": "who?", "answers": answers}])
        assert reason in refusal(asked, vocabulary)


def test_numbers(tmp_path, data, vocabulary):
    write(tmp_path / "train.jsonl", [{"text": f"text {n}", "stars": n / 2} for n in range(4)])
    stars = with_own(
        data, inputs="{text}", target="{stars}", labels=None, id=None, metrics=("pearson", "spearman")
    )
    cache = only(stars, vocabulary)
    targets = [cache.postprocess(cache.example(i)["targets_pretokenized"], is_target=True) for i in range(4)]
    assert targets == [0.0, 0.5, 1.0, 1.5]
    pearson, spearman = (metric(targets, [1.0, 2.0, 3.0, 4.0]) for metric in cache.metrics)
    assert pearson == {"pearson_corrcoef": pytest.approx(100)}
    assert spearman == {"spearman_corrcoef": pytest.approx(100)}
    for bad in ("3,5", "n/a", "1e999"):
        write(tmp_path / "train.jsonl", [{"text": "text", "stars": bad}])
        assert f"target {bad!r} is no number" in refusal(stars, vocabulary)


def test_settings_and_files_decide_the_cache(tmp_path, data, vocabulary):
    write(tmp_path / "train.jsonl")
    first = only(data, vocabulary)
    assert only(data, vocabulary).directory == first.directory
    other = only(with_own(data, inputs="{premise}"), vocabulary)
    assert other.directory != first.directory and texts(other)[0] == "It rains."
    write(tmp_path / "train.jsonl", ROWS[:2])
    assert len(only(data, vocabulary)) == 2


def test_files_of_the_working_directory_without_data_dir(tmp_path, data, vocabulary, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    path = write(folder / "train.jsonl")
    monkeypatch.chdir(folder)
    here = dataclasses.replace(data, data_dir=None)
    assert len(only(here, vocabulary)) == 3
    write(path, ROWS[:2])
    assert len(only(here, vocabulary)) == 2
    absolute = with_own(here, train=str(path))
    assert len(only(absolute, vocabulary)) == 2
    path.unlink()  # where only the cache was copied to
    assert len(only(here, vocabulary)) == 2
    write(path)
    assert len(only(absolute, vocabulary)) == 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "x"', "malformed JSON"),
        ("[1]", "a JSON object is expected, not list"),
        (
            '{"id": "x", "id": "y", "premise": "p", "hypothesis": "h", "label": 0}',
            "key 'id' twice in one object",
        ),
        ('{"id": "x", "premise": "p", "hypothesis": "h", "label": NaN}', "NaN is no finite number"),
        ({**ROWS[0], "id": "a"}, 'the same number or name ("a") as line 1'),
        ({**ROWS[0], "id": "x", "label": 7}, "label '7' is none of OwnTask.labels '0', '1', '2'"),
        (
            {"id": "x", "premis": "p", "hypothesis": "h", "label": 0},
            "no column 'premise', only id, premis, hypothesis, label",
        ),
        ({**ROWS[0], "id": "x", "premise": " "}, "column 'premise' is empty"),
        ({**ROWS[0], "id": "x", "premise": None}, "must be text or a number, found null"),
        ('{"id": "x", "premise": "\\ud800", "hypothesis": "h", "label": 0}', "half a surrogate pair"),
        ({**ROWS[0], "id": "x", "premise": "a\0b"}, "column 'premise' holds a NUL character"),
    ],
)
def test_a_bad_row_stops_or_is_left_out(tmp_path, data, vocabulary, line, reason):
    path = write(tmp_path / "train.jsonl", [ROWS[0], "", line, ROWS[1]])
    message = refusal(data, vocabulary)
    assert message.startswith(f"{path}, line 3: ") and reason in message
    cache = only(dataclasses.replace(data, skip_bad_lines=True), vocabulary)
    assert texts(cache) == TEXTS[:2]
    assert cache.bad_lines["count"] == 1 and reason in cache.bad_lines["first"][0]
    assert reason in refusal(data, vocabulary)  # still


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.csv", b'text,label\ngood,0\n"bad"x,0\nfine,2\n', "line 3: malformed CSV"),
        ("x.csv", b"text,label\ngood,0\nbad\nfine,2\n", "line 3: 1 fields, the header has 2"),
        ("x.csv", b'text,label\n"go\nod",0\n\xff,0\nfine,2\n', "line 4: not UTF-8"),
        ("x.tsv", b"text\tlabel\ngood\t0\nbad\nfine\t2\n", "line 3: 1 tab-separated fields"),
        ("x.tsv", b"text\tlabel\ngood\t0\nb\xff\t0\nfine\t2\n", "line 3: not UTF-8"),
        ("x.tsv", b"text\tlabel\ngood\t0\nb\0d\t0\nfine\t2\n", "line 3: column 'text' holds a NUL character"),
        ("x.csv", b"text,label\ngood,0\nb\0d,0\nfine,2\n", "line 3: column 'text' holds a NUL character"),
        (
            "x.jsonl",
            b'{"text": "good", "label": 0}\n\n"\xff"\n{"text": "fine", "label": "2"}',
            "line 3: not UTF",
        ),
    ],
)
def test_a_bad_line_of_each_kind_of_file(tmp_path, data, vocabulary, name, content, reason):
    (tmp_path / name).write_bytes(content)
    own = with_own(data, train=name, inputs="{text}", id=None)
    message = refusal(own, vocabulary)
    assert message.startswith(str(tmp_path / name)) and reason in message
    cache = only(dataclasses.replace(own, skip_bad_lines=True), vocabulary)
    assert texts(cache)[-1] == "fine" and len(cache) == 2
    assert cache.bad_lines["count"] == 1


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_files_that_cannot_be_used(tmp_path, data, vocabulary, name):
    own = with_own(data, train=name, inputs="{text}", id=None)
    assert "is not there; set it to a file of yours" in refusal(own, vocabulary)
    (tmp_path / name).write_text("")
    empty = f"{tmp_path / name} holds no examples; it is empty: set OwnTask.train to a file with rows"
    assert refusal(own, vocabulary) == empty
    if name != "x.jsonl":
        separator = "," if name == "x.csv" else "\t"
        (tmp_path / name).write_text(separator.join(["text", "label"]))
        assert "it has no row behind its header: set OwnTask.train" in refusal(own, vocabulary)
        (tmp_path / name).write_text(separator.join(["txt", "label"]))
        assert "has no column 'text', only txt, label: correct OwnTask.inputs" in refusal(own, vocabulary)
        (tmp_path / name).write_text(separator.join(["text", "text", "label"]))
        assert "two columns 'text'" in refusal(own, vocabulary)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"inputs": "premise"}, "OwnTask.inputs 'premise' names no column"),
        ({"target": "yes"}, "OwnTask.target 'yes' names no column"),
        ({"inputs": "{premise"}, "expected '}'"),
        ({"inputs": "{}"}, "braces hold a column's name alone"),
        ({"inputs": "{premise!r}"}, "braces hold a column's name alone"),
        ({"metrics": ()}, "OwnTask.metrics is empty: set it to one of accuracy"),
        ({"metrics": ("acuracy",)}, "acuracy is unknown; use accuracy or f1_with_invalid"),
        ({"metrics": ("mean_multiclass_f1",), "labels": None}, "does not compare texts (OwnTask.labels and"),
        (
            {"metrics": ("f1_with_invalid",), "labels": {"a": "a", "b": "b", "c": "c"}},
            "f1_with_invalid is of two classes, and OwnTask.labels has 3: use mean_multiclass_f1",
        ),
        ({"metrics": ("squad",)}, "does not compare classes (OwnTask.labels is set); use accuracy or"),
        ({"labels": {"0": "same", "1": "same"}}, "'same' for both '0' and '1': give each label a word"),
        ({"answers": "label"}, "OwnTask.labels and OwnTask.answers are both set"),
        (
            {"answers": "label", "labels": None},
            "does not compare lists of answers (OwnTask.answers is set); use squad",
        ),
        ({"metrics": ("pearson", "accuracy"), "labels": None}, "accuracy does not compare numbers"),
        ({"metrics": ("grouped_f1",)}, "grouped_f1 is unknown; use accuracy or"),
        ({"train": None}, "OWN_TASK has no files"),
        ({"train": "x.txt"}, "use a file that ends in .jsonl, .csv, .tsv"),
    ],
)
def test_settings_that_cannot_work(tmp_path, data, vocabulary, settings, reason):
    write(tmp_path / "train.jsonl")
    (tmp_path / "x.txt").write_text("x")
    assert reason in refusal(with_own(data, **settings), vocabulary)


def test_names_and_splits_that_cannot_work(tmp_path, data, vocabulary):
    write(tmp_path / "train.jsonl")
    assert "another task's name" in refusal(dataclasses.replace(data, task="glue_rte_v200"), vocabulary)
    assert "letters, digits" in refusal(dataclasses.replace(data, task="my task"), vocabulary)
    assert "has no split 'validation': use train" in refusal(data, vocabulary, "validation")
    elsewhere = dataclasses.replace(data, task_module="json")
    assert "OWN_TASK is set, and MIXTURE_OR_TASK_MODULE is json: leave" in refusal(elsewhere, vocabulary)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_a_text_of_100_000_tokens_is_cut(tmp_path, data, vocabulary, name):
    long = "fox " * 100_000
    rows = {
        "x.csv": f'text,label\n"{long}",0',
        "x.tsv": f"text\tlabel\n{long}\t0",
        "x.jsonl": json.dumps({"text": long, "label": 0}),
    }
    (tmp_path / name).write_text(rows[name])
    cache = only(with_own(data, train=name, inputs="{text}", id=None), vocabulary)
    assert cache.longest_inputs == 32
    inputs, _ = cache.rows([0])
    assert inputs.values_N[-1] == vocabulary.eos_id


def test_the_example_gin_file_alone_makes_a_task(tmp_path, capsys, monkeypatch):
    (tmp_path / "my_nli").mkdir()
    for name in ("train", "dev"):
        write(tmp_path / "my_nli" / f"{name}.jsonl")
    argv = [
        "--gin_file=gin_configs/quickstart.gin",
        "--gin_file=gin_configs/tasks/own_example.gin",
        f"--gin.DATA_DIR={tmp_path}",
        f"--gin.CACHE_DIR={tmp_path / 'caches'}",
    ]
    main.main(["cache", *argv])
    caches = json.loads(capsys.readouterr().out)["caches"]
    assert [(c["task"], c["split"], c["examples"], c["bad_lines"]) for c in caches] == [
        ("my_nli", "train", 3, 0),
        ("my_nli", "validation", 3, 0),
    ]
    write(tmp_path / "my_nli" / "train.jsonl", [*ROWS, "{"])
    main.main(["cache", *argv, "--skip_bad_lines"])
    out, err = capsys.readouterr()
    assert [c["bad_lines"] for c in json.loads(out)["caches"]] == [1, 0]
    assert "1 bad lines left out: " in err and "train.jsonl, line 4: malformed JSON" in err.replace("\n", " ")


def test_settings_of_the_wrong_type_are_named():
    argv = ["--gin_file=gin_configs/quickstart.gin", "--gin_file=gin_configs/tasks/own_example.gin"]
    run, text = resolve(parse(["train", *argv, "--gin.OwnTask.id=key"]), "TrainRun")
    assert run.data.own_task.id == "key" and run.data.task == "my_nli"
    assert "OwnTask.inputs = 'premise: {premise} hypothesis: {hypothesis}'" in text
    with pytest.raises(ConfigError, match=r"OwnTask.labels is \('a', 'b'\): set it to a dictionary"):
        resolve(parse(["train", *argv, "--gin.OwnTask.labels=('a', 'b')"]), "TrainRun")
