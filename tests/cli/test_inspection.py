"""`t5x inspect`: arrays of other systems and models of every kind, and names that a terminal would obey."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from jax_prompts.assets import resolve_asset
from jax_prompts.base_models import hub
from jax_prompts.base_models.open import open_model
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.main import main

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "t5_v1_1_hf"


@pytest.fixture
def inspect(capsys):
    """`inspect(path) -> (what was said, what went to stderr)`."""

    def run(path):
        try:
            main(["inspect", str(path)])
        except SystemExit as end:
            assert end.code in (1, 2)
        out, err = capsys.readouterr()
        return json.loads(out) if out else None, err

    return run


@pytest.mark.parametrize("name", ["prompt.npy", "prompt"])
def test_a_numpy_array_is_described(tmp_path, inspect, name):
    with open(tmp_path / name, "wb") as file:
        np.save(file, np.full((5, 4), 2, np.float32))
    said, _ = inspect(tmp_path / name)
    assert (said["length"], said["width"], said["row_norm"]["max"]) == (5, 4, 4.0)


def test_models_in_other_forms_are_described(tmp_path, inspect):
    arrays = open_model(str(GOLDEN)).arrays
    write_checkpoint(tmp_path / "checkpoint_7", arrays, 7)
    said, _ = inspect(tmp_path / "checkpoint_7")
    assert (said["kind"], said["dtypes"], said["architecture"]) == ("model (T5X)", ["float32"], "t5")
    assert said["parameters"] == sum(array[...].size for array in arrays.values())
    assert said["sizes"]["emb_dim"] == 32


def test_the_vocabulary_of_a_model_is_described(tmp_path, inspect):
    source = shutil.copytree(GOLDEN.with_name("bert_hf"), tmp_path / "bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film"]
    (source / "vocab.txt").write_text("\n".join(pieces))
    (source / "added_tokens.json").write_text('{"<org>": 6}')
    said, _ = inspect(source)
    found = said["vocabulary"]
    assert (found["file"], found["ids"], found["obeyed"]) == (
        str(source / "vocab.txt"),
        7,
        ["added_tokens.json"],
    )
    (source / "added_tokens.json").write_text('{"<org>": 9}')
    said, err = inspect(source)
    assert said is None
    assert "added_tokens.json" in err


def test_models_are_named_as_everywhere(inspect, monkeypatch):
    monkeypatch.setattr(hub, "download", {"hf://an/asset": resolve_asset("asset:micro")}.__getitem__)
    said = [inspect(name)[0] for name in ("asset:micro", "hf://an/asset", resolve_asset("asset:micro"))]
    assert said[0]["sizes"]["vocab_size"] and said[0]["files"] == {"model.safetensors": "no checksum"}
    assert said[0] == said[1] == said[2]
    _, err = inspect("s3://bucket/model")
    assert "models are read from directories, gs:// and hf://" in err
    _, err = inspect("asset:none")
    assert "asset:none does not exist" in err


@pytest.mark.parametrize(
    "change", [{"architecture": "gpt"}, {"sizes": {}}, {"sizes": None}, {"sizes": {"vocab_size": "many"}}]
)
def test_a_native_model_with_a_broken_config_is_refused(tmp_path, inspect, change):
    model = shutil.copytree(resolve_asset("asset:micro"), tmp_path / "model")
    described = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(described | change))
    said, err = inspect(model)
    assert said is None and "config.json is not this project's" in err


def test_weights_without_config_and_nothing_at_all_are_told_apart(tmp_path, inspect):
    (tmp_path / "model.safetensors").write_bytes((GOLDEN / "model.safetensors").read_bytes())
    said, err = inspect(tmp_path)
    assert said is None and "has weights and no config.json: it is no whole model" in err
    said, err = inspect(tmp_path / "gone")
    assert said is None and f"{tmp_path / 'gone'} does not exist" in err


def test_what_is_nothing_of_these_is_one_line(tmp_path, inspect):
    said, err = inspect(tmp_path)
    assert said is None and "T5X checkpoint or MODEL_DIR" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\rb", "bell\x07\x9b2J"])
def test_names_of_files_and_arrays_are_shown_and_not_obeyed(tmp_path, inspect, name):
    (tmp_path / name).mkdir()
    for path in (tmp_path / f"{name}.safetensors", tmp_path / name):
        said, err = inspect(path)
        assert said is None
        assert err.removesuffix("\n").isprintable()
        assert name.encode("unicode_escape").decode() in err


def test_what_is_nothing_of_ours_is_said(tmp_path, inspect):
    (tmp_path / "notes.txt").write_text("a list of things to do")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, said in {
        tmp_path / "notes.txt": "notes.txt is not a whole T5X checkpoint",
        tmp_path / "loop": "Too many levels of symbolic links",
        tmp_path / ("x" * 300): "File name too long",
    }.items():
        assert said in (err := inspect(path)[1]) and "--debug" not in err
