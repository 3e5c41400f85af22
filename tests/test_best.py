"""The best of each member: kept in checkpoints, written again as it was."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts import best, partition
from jax_prompts.errors import RunError
from jax_prompts.prompts import PromptMetadata, load_prompt

METADATA = PromptMetadata(method="Residual", task="rte", labels=("no", "yes"), metric="accuracy")
SCORED = {"metric": "accuracy", "metrics": {}}
CHOSEN = [{**SCORED, "value": 1 / 3, "step": 12}, {**SCORED, "value": 90.0, "step": 24}]


@pytest.fixture
def setup():
    return types.SimpleNamespace(mesh=partition.make_mesh({}), method=object())


def of(seed):
    """(prompts_EPD, tuned) of two members with a classifier."""
    random = np.random.default_rng(seed)
    head = {"classifier": {"kernel": jnp.asarray(random.normal(size=(2, 4, 2)), jnp.float32)}}
    return jnp.asarray(random.normal(size=(2, 3, 4)), jnp.float32), {"prompt": {}, "head": head}


def assert_same_bits(trees, others):
    assert jax.tree.structure(trees) == jax.tree.structure(others)
    for x, y in zip(jax.tree.leaves(trees), jax.tree.leaves(others), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_only_members_that_improved_are_replaced_by_arrays_that_nothing_else_has(setup):
    zeros = jax.tree.map(jnp.zeros_like, {"prompt": of(0)[0], "head": of(0)[1]["head"]})
    first = best.keep(setup, zeros, [0, 1], *of(1), [0, 1])
    second = best.keep(setup, first, [0, 1], *of(2), [1])
    for member, seed in enumerate([1, 2]):
        prompts_EPD, tuned = of(seed)
        kept = {"prompt": prompts_EPD, "head": tuned["head"]}
        assert_same_bits(*(jax.tree.map(lambda x, e=member: x[e], tree) for tree in (second, kept)))
    assert best.keep(setup, first, [0, 1], *of(2), []) is first

    prompts_EPD, tuned = of(3)
    kept = best.keep(setup, second, [0, 1], prompts_EPD, tuned, [0, 1])
    for array in jax.tree.leaves((prompts_EPD, tuned)):
        array.delete()  # as a step does with what is donated to it
    assert_same_bits(kept["prompt"], of(3)[0])


def test_the_whole_model_is_not_kept(setup):
    setup.method = None
    assert best.none_yet(setup) == {}
    assert best.keep(setup, {}, [0], None, {"model": {}}, [0]) == {}


def gone(file):
    file.unlink()


def damaged(file):
    file.write_bytes(file.read_bytes()[:-9])


def of_a_later_step(file):
    best.save(
        file,
        None,
        of(7)[1]["head"],
        of(7)[0][0],
        best.scored(METADATA, {"metric": "accuracy", "value": 95.0, "step": 36}),
    )


@pytest.mark.parametrize("happens", [gone, damaged, of_a_later_step])
def test_files_are_written_again_as_they_were(setup, tmp_path, happens):
    files = [tmp_path / f"prompt-{member}.safetensors" for member in range(2)]
    prompts_EPD, tuned = of(1)
    for member, file in enumerate(files):
        head = jax.tree.map(lambda x, e=member: x[e], tuned["head"])
        best.save(file, setup, head, prompts_EPD[member], best.scored(METADATA, CHOSEN[member]))
    before = [file.read_bytes() for file in files]
    assert [load_prompt(file)[1].step for file in files] == [12, 24]
    times = [file.stat().st_mtime_ns for file in files]
    happens(files[0])
    kept = {"prompt": prompts_EPD, "head": tuned["head"]}
    best.restore(files, setup, METADATA, json.loads(json.dumps(CHOSEN)), kept, tuned, 30)
    assert [file.read_bytes() for file in files] == before
    assert files[1].stat().st_mtime_ns == times[1]  # which nothing has happened to


def test_nothing_is_written_before_the_first_evaluation(setup, tmp_path):
    files = [tmp_path / f"prompt-{member}.safetensors" for member in range(2)]
    best.restore(files, setup, METADATA, [None, None], {}, {}, 6)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_gone_comes_back_from_its_own_step_alone(setup, tmp_path, monkeypatch):
    setup.method, saved = None, []
    monkeypatch.setattr(best, "save", lambda *arguments: saved.append(arguments))
    tuned = {"model": {"embedding": jnp.ones((1, 2, 3))}}
    with pytest.raises(RunError, match=r"model is gone, which was the best at step 12, and .* holds step 24"):
        best.restore([tmp_path / "model"], setup, METADATA, CHOSEN[:1], {}, tuned, 24)
    best.restore([tmp_path / "model"], setup, METADATA, CHOSEN[1:], {}, tuned, 24)
    ((file, _, params, prompt_PD, metadata),) = saved
    assert (file, prompt_PD, metadata.step) == (tmp_path / "model", None, 24)
    assert params["embedding"].shape == (2, 3)
