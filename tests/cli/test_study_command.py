"""`t5x study ...` as typed, with the embedded model."""

import json
import shlex

import numpy as np
import pytest

from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.fingerprint import fingerprint
from jax_prompts.base_models.weights import load_weights
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.config import BaseModel
from jax_prompts.main import main
from jax_prompts.prompts import FromFile, FromFiles, PromptMetadata, save_prompt
from jax_prompts.results.find import find
from jax_prompts.studies.base_vocabulary import open_vocabulary

MICRO = "--gin_file=gin_configs/models/micro.gin"
BASE = BaseModel("micro", "asset:micro", "asset:micro")
TASK = "quickstart_reviews"


@pytest.fixture(scope="module")
def vocabulary():
    return open_vocabulary(BASE)


@pytest.fixture
def save(tmp_path):
    def written(name, prompt_PD, **metadata):
        file = tmp_path / f"{name}.safetensors"
        save_prompt(file, np.asarray(prompt_PD, np.float32), PromptMetadata(**metadata))
        return str(file)

    return written


@pytest.fixture
def study(capsys):
    def run(*arguments):
        main(["study", *map(str, arguments)])
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.fixture
def refused(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["study", *map(str, arguments)])
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return ended.value.code, err.splitlines()[-1]

    return run


def test_the_fingerprint_is_that_of_loaded_weights(vocabulary):
    weights = load_weights(BASE, make_model(BASE))[0]
    assert vocabulary.fits()["model_fingerprint"] == fingerprint(weights)
    assert vocabulary.embedding_VD.shape == (4096, 192)
    np.testing.assert_array_equal(vocabulary.embedding_VD, weights["token_embedder"]["embedding"])


def test_pieces_of_text_are_no_special_ones(vocabulary):
    left_out = [
        piece for piece, kept in zip(vocabulary.pieces, vocabulary.ordinary_V, strict=True) if not kept
    ]
    assert len(left_out) == 103 and left_out[:3] == ["<pad>", "</s>", "<unk>"]
    assert all("extra_id" in piece for piece in left_out[3:])


def test_neighbours_of_words_are_these_words(vocabulary, save, study, tmp_path):
    rows = {piece: row for piece, row in zip(vocabulary.pieces, vocabulary.embedding_VD, strict=True)}
    whole = vocabulary.vocabulary.encode("unquestionable")
    assert len(whole) > 1
    prompt_PD = np.stack(
        [
            rows["▁negative"],
            2 * rows["▁positive"] + 0.01,
            rows["▁positive"],
            vocabulary.embedding_VD[whole].mean(axis=0),
            vocabulary.embedding_VD[0],  # padding is left out
        ]
    )
    file = save("words", prompt_PD, labels=("negative", "positive", "unquestionable", " "))
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"n": [1, "positive positive"], "label": "negative"}) + "\n" for _ in range(5))
    )
    found = study(
        "neighbours", file, MICRO, "--k=3", f"--texts={texts}", "--field=n", f"--output={tmp_path}/n.json"
    )
    assert found == json.loads((tmp_path / "n.json").read_text())
    assert find([str(tmp_path)]).studies == [tmp_path / "n.json"]
    (prompt,) = found["prompts"]
    nearest = [each["neighbours"][0] for each in prompt["positions"]]
    assert [each["piece"] for each in nearest[:3]] == ["▁negative", "▁positive", "▁positive"]
    assert nearest[0]["cosine"] == 1.0 and nearest[4]["piece"] != "<pad>"
    assert all(len(each["neighbours"]) == 3 for each in prompt["positions"])
    labels = {label["label"]: label for label in prompt["labels"]}
    assert labels["negative"]["first_piece_at"] == labels["negative"]["mean_at"] == [0]
    assert labels["positive"]["first_piece_at"] == [1, 2]
    assert 3 in labels["unquestionable"]["mean_at"] and labels["unquestionable"]["best_position"] == 3
    assert labels[" "] == {
        "label": " ", "pieces": [], "first_piece_at": [], "mean_at": [], "best_position": None, "best_cosine": None,
    }  # fmt: skip
    assert prompt["near_duplicates"] == [[1, 2]]
    assert prompt["mean_best_cosine"] > 0.7 > prompt["random"]["mean_best_cosine"]
    assert found["typical"]["pieces"] == 1
    assert prompt["typical_share"] == pytest.approx(2 / 15)
    assert study("neighbours", file, MICRO, "--k=3", f"--texts={texts}", "--field=n") == found  # seeded


def test_neighbours_need_the_prompt_s_own_model(save, refused, tmp_path):
    fits = save("fits", np.ones((2, 192)))
    for arguments, words in (
        ([save("other", np.ones((2, 192)), model_fingerprint="0" * 16), MICRO], "belongs to base model 0000"),
        ([save("wide", np.ones((2, 8))), MICRO], "has width 8 and the base model 192"),
        (
            [save("deep", np.ones((2, 576)), prompt_kind="deep"), MICRO],
            "kind deep: its rows stand at every layer",
        ),
        ([fits], "no gin file"),
        ([fits, MICRO, "--gin.INITIAL_CHECKPOINT_PATH=None"], "INITIAL_CHECKPOINT_PATH is None"),
        ([fits, MICRO, "--k=0"], "--k 0"),
        ([fits, MICRO, "--background=x"], "add --texts=FILE"),
        ([fits, MICRO, f"--texts={tmp_path}/none"], "none does not exist"),
        ([f"{tmp_path}/none", MICRO], "none does not exist"),
    ):
        status, line = refused("neighbours", *arguments)
        assert status == 2 and words in line, line


@pytest.mark.parametrize(("text", "status"), [("\n \n", 2), ("{", 1)])
def test_texts_that_cannot_be_read(save, refused, tmp_path, text, status):
    (tmp_path / "texts.jsonl").write_text(text + "\n")
    file = save("fits", np.ones((2, 192)))
    assert refused("neighbours", file, MICRO, f"--texts={tmp_path}/texts.jsonl")[0] == status


def test_norms_beside_the_vocabulary_s(vocabulary, save, study):
    file = save("row", vocabulary.embedding_VD[10:12])
    found = study("norms", file, MICRO)
    assert 14 < found["vocabulary"]["mean"] < 17 and found["vocabulary"]["rows"] == 4096 - 103
    assert study("norms", file)["vocabulary"] is None


@pytest.mark.parametrize("name", ["similarity", "rank"])
def test_studies_of_names_with_markup(save, study, capsys, name):
    found = study(name, save("[red]<b>\u202ex", np.ones((1, 4)), task="[bold]a"))
    assert found["prompts"][0]["task"] == "[bold]a"


def test_what_to_start_from_can_be_typed(save, study, capsys):
    """The flags that the ranking ends with make the initialisers that it names."""
    draw = np.random.default_rng(0).normal(size=(3, 2, 192))
    names = ("it's", "two words", "third")
    files = [save(name, draw[0] + 0.3 * x) for name, x in zip(names, draw, strict=True)]
    main(["study", "similarity", *files, f"--target={save('target', draw[0])}"])
    out, err = capsys.readouterr()
    ranking = json.loads(out.splitlines()[-1])["ranking"]
    lines = [line.partition(": ")[2] for line in err.splitlines() if "--gin.INITIALIZER" in line]
    made = [
        resolve(parse(["train", "--gin_file=gin_configs/quickstart.gin", *shlex.split(line)]), "TrainRun")[
            0
        ].initializer
        for line in lines
    ]
    ranked, weights = (tuple(each[key] for each in ranking) for key in ("file", "mean_vectors"))
    assert made == [FromFile(ranked[0]), FromFiles(ranked, weights=weights)]


def test_what_cannot_be_written(save, refused, tmp_path):
    (tmp_path / "file").write_text("")
    for prompt in (save("a", np.ones((1, 4))), "none.safetensors"):  # before anything is read
        status, line = refused("rank", prompt, f"--output={tmp_path}/file/x.json")
        assert status == 2 and "could not be written" in line


EVAL = [
    f"--gin_file=gin_configs/{file}.gin" for file in ("quickstart", "runs/eval")
] + ["--gin.EVAL_SPLIT=validation[:24]", "--gin.EVAL_BATCH_SIZE=16", "--gin.MODEL_DIR=None"]  # fmt: skip


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    return f"--gin.CACHE_DIR={tmp_path_factory.mktemp('caches')}"


@pytest.mark.slow
def test_transfer_scores_every_prompt_on_every_task(vocabulary, save, study, caches):
    ids = vocabulary.vocabulary.encode("negative positive")
    own = save("own", vocabulary.embedding_VD[ids], task=TASK, labels=("negative", "positive"))
    other = save("other", vocabulary.embedding_VD[100:105], task="micro_world")
    files = {TASK: (own,), "micro_reviews": (), "micro_world": (other, own)}
    found = study("transfer", *EVAL, caches, f"--gin.PROMPT_FILES={files}")
    assert [prompt["own"] for prompt in found["prompts"]] == [[TASK, "micro_world"], ["micro_world"]]
    assert [task["task"] for task in found["tasks"]] == list(files)
    first, *by_loss = found["tasks"]
    assert first["higher_is_better"] and first["examples"] == {TASK: 24} and len(first["ratios"]) == 2
    for task in by_loss:  # free text, whose score is the loss
        assert task["ratios"] is None and not task["higher_is_better"]
        assert len(task["scores"]) == 2 and min(task["scores"]) > 0


def test_transfer_refuses_prompts_that_no_model_reads_together(save, refused, caches):
    input_, wide = save("input", np.ones((2, 192))), save("wide", np.ones((2, 8)))
    deep = save("deep", np.ones((2, 192)), prompt_kind="deep")
    for files, words in (
        ({TASK: (input_, wide)}, "width 192 and"),
        ({TASK: (input_,), "micro_world": (deep,)}, "kind input and"),
        ((input_,), "names no tasks"),
        ({TASK: ()}, "names no prompts"),
    ):
        status, line = refused("transfer", *EVAL, caches, f"--gin.PROMPT_FILES={files}")
        assert status == 2 and words in line, line


@pytest.mark.slow
def test_copies_of_every_position(save, study, caches, monkeypatch):
    rng = np.random.default_rng(0)
    file = save("three", rng.normal(size=(3, 192)), task=TASK)
    every = ["copies", *EVAL, caches, f"--gin.PROMPT_FILES=('{file}',)", "--copies=1", "--copies=3"]
    found = study(*every)
    assert np.shape(found["scores"]) == (2, 3) and found["positions"] == [0, 1, 2]
    monkeypatch.setattr("jax_prompts.studies.copies.TOGETHER", 2)
    assert study(*every)["scores"] == found["scores"]
    alone = study(*every, "--position=2")
    assert [row[0] for row in alone["scores"]] == [row[2] for row in found["scores"]]
    # A prompt of equal rows, copied as often as it is long, is itself.
    same = save("same", np.tile(rng.normal(size=(1, 192)), (3, 1)), task=TASK)
    found = study("copies", *EVAL, caches, f"--gin.PROMPT_FILES=('{same}',)", "--copies=3")
    assert found["scores"] == [[found["whole"]] * 3]


def test_copies_of_what_is_not_there(save, refused, caches):
    file = save("two", np.ones((2, 192)))
    given = f"--gin.PROMPT_FILES=('{file}',)"
    for arguments, words in (
        ([given, "--position=2"], "from 0 to 1"),
        ([given, "--copies=0"], "from 1 to"),
        ([given, "--copies=2", "--copies=2"], "each number once"),
        (["--gin.PROMPT_FILES=()"], "names 0 prompts"),
        ([f"--gin.PROMPT_FILES={{'{TASK}': ('{file}',), 'micro_world': ()}}"], "several tasks"),
    ):
        status, line = refused("copies", *EVAL, caches, *arguments)
        assert status == 2 and words in line, line


def test_an_evaluation_s_own_gin_file_is_named(refused):
    status, line = refused("copies", MICRO)
    assert status == 2 and "gin_configs/runs/eval.gin" in line
