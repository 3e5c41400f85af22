"""`t5x infer` over a task's split: T5X's files and keys, gone on with after any end, in a directory or a bucket."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from bucket_servers import amazon_bucket, google_bucket

from jax_prompts import load_model
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.inference import split_answers
from jax_prompts.inference.shards import Shards
from jax_prompts.main import main
from jax_prompts.prompts import PromptMetadata, save_prompt
from jax_prompts.storage import buckets, places

TASK = "quickstart_reviews"
PREDICT = [f"{TASK}-predict.jsonl-{shard:05}-of-00003" for shard in range(3)]
LEFT = {"infer.gin", f"{TASK}-predict.settings.json", *PREDICT, *(f"{name}.COMPLETED" for name in PREDICT)}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    for number in range(2):
        prompt_PD = 3 * np.array(jax.random.normal(jax.random.key(number), (3, 192)))
        save_prompt(folder / f"{number}.safetensors", prompt_PD, PromptMetadata(task=TASK))
    return folder


@pytest.fixture(scope="module")
def infer(tmp_path_factory, compiled_once, prompts):
    """`infer(output, *flags, **settings)` answers 22 reviews, eight at a time, in three shards."""
    caches = tmp_path_factory.mktemp("caches")

    def run(output, *flags, **settings):
        settings = {
            "SCAN_LAYERS": True,
            "MIXTURE_OR_TASK_NAME": TASK,
            "EVAL_SPLIT": "validation[:22]",
            "EVAL_BATCH_SIZE": 8,
            "CACHE_DIR": caches,
            "infer.num_shards": 3,
            "infer.checkpoint_period": 1,
            "PROMPT_FILE": prompts / "0.safetensors",
            "INFER_OUTPUT_DIR": output,
            **settings,
        }
        bindings = [f"--gin.{name}={value}" for name, value in settings.items() if value is not None]
        main(["infer", "--gin_file=gin_configs/quickstart_infer.gin", *bindings, *flags])

    return run


@pytest.fixture(scope="module")
def whole(infer, tmp_path_factory):
    """What one run leaves."""
    folder = tmp_path_factory.mktemp("whole") / "answers"
    infer(folder)
    return folder


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def contents(folder):
    return {name: (folder / name).read_bytes() for name in LEFT - {"infer.gin"}}


def refusal(capsys):
    *_, last = capsys.readouterr().err.splitlines()
    return last


def test_shards_are_t5xs_and_answers_those_of_the_engine(whole, prompts, tmp_path, infer, capsys):
    assert {path.name for path in whole.iterdir()} == LEFT
    found = [rows(whole / name) for name in PREDICT]
    assert [len(shard) for shard in found] == [8, 7, 7]
    assert all(list(row) == ["inputs", "prediction"] for shard in found for row in shard)
    assert all(list(row["inputs"]) == ["inputs_pretokenized", "targets_pretokenized"] for row in found[0])
    infer(tmp_path, **{"infer.mode": "score"})
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {key: summary[key] for key in ("examples", "shards", "kept", "cut")} == {
        "examples": 22, "shards": 3, "kept": 0, "cut": 0,
    }  # fmt: skip
    engine = load_model("asset:micro", inputs_length=48, targets_length=4, batch_size=8, scan_layers=True)
    prompt = engine.load_prompt(prompts / "0.safetensors")
    for shard, answered in enumerate(found):
        texts = [row["inputs"]["inputs_pretokenized"] for row in answered]
        assert [row["prediction"] for row in answered] == engine.predict(texts, prompt)
        scored = rows(tmp_path / f"{TASK}-score.jsonl-{shard:05}-of-00003")
        assert [list(row) for row in scored] == [["inputs", "score"]] * len(texts)
        assert [row["inputs"] for row in scored] == [row["inputs"] for row in answered]
        targets = [row["inputs"]["targets_pretokenized"] for row in scored]
        log_p_NC = engine.score_labels(texts, ["negative", "positive"], prompt)
        expected = [
            log_p_C[["negative", "positive"].index(target)]
            for log_p_C, target in zip(log_p_NC, targets, strict=True)
        ]
        np.testing.assert_allclose([row["score"] for row in scored], expected, rtol=1e-4)


@pytest.fixture
def limited(monkeypatch):
    """How many batches are answered until Ctrl-C, and how many rows were answered."""
    made, left, answered = split_answers.device_batches, [10**6], [0]

    def batches(*args, **options):
        for index, batch in made(*args, **options):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            answered[0] += len(index)
            yield index, batch

    monkeypatch.setattr(split_answers, "device_batches", batches)
    return left, answered


def test_a_run_that_was_stopped_goes_on_and_answers_nothing_twice(infer, limited, tmp_path, capsys):
    left, answered = limited
    for left[0] in (0, 2):
        with pytest.raises(SystemExit) as ended:
            infer(tmp_path, **{"EVAL_BATCH_SIZE": 8, "infer.num_shards": 1, "EVAL_SPLIT": "validation[:40]"})
        assert ended.value.code == 75
        assert "the same command goes on behind it" in refusal(capsys)
        assert not (tmp_path / f"{TASK}-predict.jsonl-00000-of-00001").exists()
    left[0] = 10**6
    infer(tmp_path, **{"infer.num_shards": 1, "EVAL_SPLIT": "validation[:40]"})
    assert answered[0] == 40
    infer(tmp_path, **{"infer.num_shards": 1, "EVAL_SPLIT": "validation[:40]"})
    assert answered[0] == 40 and json.loads(capsys.readouterr().out.splitlines()[-1])["kept"] == 1
    assert not list(tmp_path.glob("tmp-*"))


@pytest.mark.slow
def test_one_shard_alone_then_the_others(infer, whole, limited, tmp_path):
    infer(tmp_path, "--shard_id=1")
    assert (tmp_path / PREDICT[1]).exists() and not (tmp_path / PREDICT[0]).exists()
    assert limited[1] == [7]
    infer(tmp_path)
    assert limited[1] == [22] and contents(tmp_path) == contents(whole)


@pytest.mark.slow
def test_several_prompts_have_folders(infer, whole, prompts, tmp_path, capsys):
    flags = [f"--prompt={name}={prompts}/{number}.safetensors" for number, name in enumerate(("a", "b"))]
    infer(tmp_path, *flags, PROMPT_FILE=None)
    assert contents(tmp_path / "a") == contents(whole) != contents(tmp_path / "b")
    for settings, words in [
        ({"PROMPT_FILE": None, "PROMPT_FILES": f"('{prompts}/*.safetensors',)"}, "--prompt NAME="),
        ({}, "leave one out"),
    ]:
        with pytest.raises(SystemExit):
            infer(tmp_path / "c", *(flags if not settings else ()), **settings)
        assert words in refusal(capsys)


def test_answers_of_other_settings_are_not_mixed(infer, whole, capsys):
    before = contents(whole)
    with pytest.raises(SystemExit) as ended:
        infer(whole, **{"Decoding.name": "beam"})
    said = refusal(capsys)
    assert ended.value.code == 2
    assert f"{whole} holds answers of {TASK} that were made with another Decoding: " in said
    assert contents(whole) == before


@pytest.mark.parametrize("kind", ["directory", "gs", "s3"])
def test_what_is_there_has_to_agree(kind, request, monkeypatch, tmp_path):
    folder = str(tmp_path)
    if kind != "directory":
        server, bucket = {"gs": ("google", google_bucket), "s3": ("amazon", amazon_bucket)}[kind]
        folder = f"{bucket(request.getfixturevalue(server), monkeypatch)}/a"
    made_with = {"prompt": "p", "examples": {"a": "b"}, "Decoding": None}
    shards = Shards(folder, "task", "score", 2)
    shards.agree(made_with)
    shards.agree(made_with)
    for changed in ({**made_with, "prompt": "q"}, {"examples": {"a": "b"}, "Decoding": None}):
        with pytest.raises(ConfigError, match="made with another prompt: give the same"):
            shards.agree(changed)
    with pytest.raises(ConfigError, match="another num_shards"):
        dataclasses.replace(shards, count=3).agree(made_with)
    dataclasses.replace(shards, mode="predict", count=3).agree(made_with)
    shards.write_chunk(1, 0, [{"score": 1.0}])
    shards.write_chunk(1, 1, [{"score": float("nan")}])
    rows_of = {0: 2, 1: 2}
    assert (shards.finished(rows_of), shards.chunks(1, [1, 1]), shards.chunks(0, [1, 1])) == (
        set(),
        {0, 1},
        set(),
    )
    with pytest.raises(RunError, match="00002 is gone"):
        shards.finish(1, [1, 1, 1])
    shards.finish(1, [1, 1])
    assert (shards.finished(rows_of), shards.chunks(1, [1, 1])) == ({1}, set())
    assert places.read(shards.address(1), 99) == b'{"score": 1.0}\n{"score": null}\n'


def test_what_is_damaged_is_made_again(tmp_path, capsys):
    shards = Shards(str(tmp_path), "task", "score", 1)
    for chunk in range(2):
        shards.write_chunk(0, chunk, [{"score": 1.0}, {"score": 2.0}])
    (damaged,) = tmp_path.rglob("00001")
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert shards.chunks(0, [2, 2]) == {0}
    with pytest.raises(RunError, match="00001 is gone or damaged: start the command again"):
        shards.finish(0, [2, 2])
    shards.write_chunk(0, 1, [{"score": 1.0}, {"score": 2.0}])
    shards.finish(0, [2, 2])
    shard, content = tmp_path / shards.name(0), (tmp_path / shards.name(0)).read_bytes()
    for wrong in (b"", content[:-5], content[:-1], content + b"more\n"):
        shard.write_bytes(wrong)
        assert shards.finished({0: 4}) == set()
        assert f"{shard} is damaged: it has not 4 rows" in capsys.readouterr().err


def test_of_two_at_once_both_end_well(tmp_path):
    shards = Shards(str(tmp_path), "task", "score", 1)
    for chunk in range(2):
        shards.write_chunk(0, chunk, [{"score": 1.0}])
    shards.finish(0, [1, 1])  # the quicker one
    shards.write_chunk(0, 1, [{"score": 1.0}])
    shards.finish(0, [1, 1])
    assert {path.name for path in tmp_path.iterdir()} == {shards.name(0), f"{shards.name(0)}.COMPLETED"}


@pytest.mark.slow
def test_folders_that_cannot_be(infer, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / PREDICT[0]).write_text("{}\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / f"{TASK}-predict.settings.json").write_text("{")
    for folder, words in [
        (tmp_path / "file", "is no directory"),
        (tmp_path / "theirs", "no quickstart_reviews-predict.settings.json"),
        (tmp_path / "damaged", "is damaged"),
    ]:
        with pytest.raises(SystemExit) as ended:
            infer(folder)
        assert ended.value.code == 2 and words in refusal(capsys)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gin.infer.num_shards=0"], "num_shards is 0"),
        (["--gin.infer.num_shards=100000"], "set it to at most 99999"),
        (["--gin.infer.shard_id=3"], "shards are numbered 0 to 2"),
        (["--gin.infer.mode=predict_with_aux"], "InferTaskRun.mode is 'predict_with_aux'"),
        (["--gin.infer.nmu_shards=3"], "num_shards: InferTaskRun.num_shards"),
        (["--input=x"], "--input and --output go together"),
        (["--resume"], "--resume is of --output"),
        (["--input=x", "--output=y", "--shard_id=1"], "--shard_id is of a task's split"),
        (["--gin.MIXTURE_OR_TASK_NAME=%gin.REQUIRED"], "MIXTURE_OR_TASK_NAME not set"),
        (["--gin.INFER_OUTPUT_DIR=%gin.REQUIRED"], "or, to answer lines, --input=FILE --output=FILE"),
        (
            ["--gin.MIXTURE_OR_TASK_NAME=none_of_this_name"],
            "none_of_this_name is not registered by tasks.registry",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(infer, tmp_path, capsys, flags, words):
    with pytest.raises(SystemExit) as ended:
        infer(tmp_path / "never", *flags)
    assert ended.value.code == 2 and words in refusal(capsys)
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_a_bucket_that_fails_now_and_then_has_the_same_bytes(infer, whole, google, monkeypatch, limited):
    url, asked, done = f"{google_bucket(google, monkeypatch)}/answers", [0], []

    def faults(method, path):
        asked[0] += 1
        if asked[0] % 5 == 4:
            asked[0] += 1
            done.append((503, 429, "drop", "half")[len(done) % 4])
            return done[-1]
        return None

    google.faults = faults
    monkeypatch.setattr("jax_prompts.storage.remote._LONGEST_PAUSE", 0.01)
    limited[0][0] = 2
    with pytest.raises(SystemExit):
        infer(url)
    limited[0][0] = 10**6
    infer(url)
    google.faults = lambda method, path: None
    assert len(done) > 3 and limited[1] == [22]
    assert set(buckets.stored(url)) == LEFT
    assert {name: buckets.content(f"{url}/{name}", 1 << 20) for name in LEFT - {"infer.gin"}} == contents(
        whole
    )


def test_a_bucket_that_is_not_there_is_named(infer, google, monkeypatch, capsys):
    google_bucket(google, monkeypatch)
    with pytest.raises(SystemExit) as ended:
        infer("gs://none-of-this-name/answers")
    said = refusal(capsys)
    assert ended.value.code == 1 and "gs://none-of-this-name/answers" in said and "no such bucket" in said
