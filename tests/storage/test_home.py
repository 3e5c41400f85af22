"""Paths as users write them: one place knows the home directory."""

import pathlib

import pytest

from jax_prompts.cli.arguments import parse
from jax_prompts.config import BaseModel, Data, OwnTask
from jax_prompts.errors import ConfigError
from jax_prompts.runs import EvalRun, TrainRun
from jax_prompts.storage import files
from jax_prompts.storage.home import with_home


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return str(tmp_path)


def test_the_home_directory(home):
    assert with_home("~/a") == with_home(pathlib.Path("~/a")) == f"{home}/a"
    for same in ("a~", "a/~/b", "/a", "gs://b/~", "hf://a/b", "asset:micro", "-"):
        assert with_home(same) == same


@pytest.mark.parametrize("path", [5, None, b"a", "", "a\0b", "a\ud800", ["a"], 1.5])
def test_what_is_no_path_is_one_line(path):
    for ask in (
        with_home,
        lambda path: files.read(path, 9),
        files.listing,
        lambda path: files.write(path, b""),
    ):
        with pytest.raises(ConfigError, match="is no path") as caught:
            ask(path)
        assert "\n" not in str(caught.value)


def test_files_are_there(home):
    files.write("~/f/a", b"1")
    assert (pathlib.Path(home) / "f" / "a").read_bytes() == files.read("~/f/a", 1) == b"1"
    assert files.listing("~/f") == {"a"}


def test_settings_of_a_run(home):
    model = BaseModel(None, "~/model", "~/v.model")
    assert (model.checkpoint, model.vocabulary) == (f"{home}/model", f"{home}/v.model")
    data = Data(
        "t",
        "m",
        {},
        1,
        data_dir="~/d",
        tfds_data_dir="~/t",
        cache_dir="~/c",
        own_task=OwnTask(train="~/a.tsv"),
    )
    assert (data.data_dir, data.tfds_data_dir, data.cache_dir) == (f"{home}/d", f"{home}/t", f"{home}/c")
    assert data.own_task.train == f"{home}/a.tsv" and data.own_task.test is None
    assert TrainRun("~/r", model, data, None, None).model_dir == f"{home}/r"
    assert EvalRun("~/o", model, data).output_dir == f"{home}/o"


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        (
            ["train", "--gin_file=~/a.gin", "--tfds_data_dir=~/t"],
            {"gin_file": ["H/a.gin"], "tfds_data_dir": "H/t"},
        ),
        (
            ["infer", "--gin_file=~/a", "--prompt=p=~/p", "--input=~/i", "--output=~/o"],
            {"prompt": {"p": "H/p"}, "input": "H/i", "output": "H/o"},
        ),
        (["infer", "--gin_file=a", "--input=-", "--output=-"], {"input": "-", "output": "-"}),
        (
            ["convert", "~/a", "~/b", "--vocabulary=~/v"],
            {"source": "H/a", "target": "H/b", "vocabulary": "H/v"},
        ),
        (
            ["export", "~/a", "~/b", "--to=t5x", "--base_model=~/m"],
            {"file": "H/a", "target": "H/b", "base_model": "H/m"},
        ),
        (["inspect", "~/a"], {"path": "H/a"}),
        (["store", "add", "~/s", "n=~/p"], {"store": "H/s", "prompt": {"n": "H/p"}}),
        (["tasks", "--data_dir=~/d", "--vocabulary=~/v"], {"data_dir": "H/d", "vocabulary": "H/v"}),
    ],
)
def test_flags(home, argv, flags):
    args = vars(parse(argv))
    found = {name: args[name] for name in flags}
    assert str(found) == str(flags).replace("H/", f"{home}/")


def test_the_home_of_nobody():
    with pytest.raises(ConfigError, match=r"~no_such_user/a is in the home of a user who is not known"):
        with_home("~no_such_user/a")
