"""The best of each member: kept in checkpoints, written again as it was."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts import best, partition
from jax_prompts.errors import RunError
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt
from jax_prompts.state import of_member

METADATA = PromptMetadata(method="Residual", task="rte", labels=("no", "yes"), metric="accuracy")
SCORED = {"metric": "accuracy", "metrics": {}}
CHOSEN = [{**SCORED, "value": 1 / 3, "step": 12}, {**SCORED, "value": 90.0, "step": 24}]


@pytest.fixture
def setup():
    return types.SimpleNamespace(
        mesh=partition.make_mesh({}), run=types.SimpleNamespace(tunes_model=False, leaves=()), prompt_tasks=()
    )


def of(seed):
    """Folded prompts of two members with a classifier."""
    random = np.random.default_rng(seed)
    leaves = {"classifier": {"kernel": jnp.asarray(random.normal(size=(2, 4, 2)), jnp.float32)}}
    return {"prompt": jnp.asarray(random.normal(size=(2, 3, 4)), jnp.float32), "model": leaves}


def assert_same_bits(trees, others):
    assert jax.tree.structure(trees) == jax.tree.structure(others)
    for x, y in zip(jax.tree.leaves(trees), jax.tree.leaves(others), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_only_members_that_improved_are_replaced_by_arrays_that_nothing_else_has(setup):
    zeros = jax.tree.map(jnp.zeros_like, of(0))
    first = best.keep(setup, zeros, [0, 1], of(1), [0, 1])
    second = best.keep(setup, first, [0, 1], of(2), [1])
    for member, seed in enumerate([1, 2]):
        assert_same_bits(of_member(second, member), of_member(of(seed), member))
    assert best.keep(setup, first, [0, 1], of(2), []) is first

    folded = of(3)
    kept = best.keep(setup, second, [0, 1], folded, [0, 1])
    for array in jax.tree.leaves(folded):
        array.delete()  # as a step does with what is donated to it
    assert_same_bits(kept, of(3))


def test_the_whole_model_is_not_kept(setup):
    setup.run.tunes_model = True
    assert best.none_yet(setup) == {}
    assert best.keep(setup, {}, [0], {"model": {}}, [0]) == {}


def gone(file):
    file.unlink()


def damaged(file):
    file.write_bytes(file.read_bytes()[:-9])


def of_a_later_step(file):
    later = best.scored(METADATA, {"metric": "accuracy", "value": 95.0, "step": 36})
    save_prompt(file, np.asarray(of(7)["prompt"][0]), later)


@pytest.mark.parametrize("happens", [gone, damaged, of_a_later_step])
def test_files_are_written_again_as_they_were(setup, tmp_path, happens):
    files = [tmp_path / f"prompt-{member}.safetensors" for member in range(2)]
    for member, file in enumerate(files):
        best.save(file, setup, of_member(of(1), member), METADATA, CHOSEN[member])
    before = [file.read_bytes() for file in files]
    assert [load_prompt(file)[1].step for file in files] == [12, 24]
    times = [file.stat().st_mtime_ns for file in files]
    happens(files[0])
    best.restore(files, setup, METADATA, json.loads(json.dumps(CHOSEN)), of(1), {}, 30)
    assert [file.read_bytes() for file in files] == before
    assert files[1].stat().st_mtime_ns == times[1]  # which nothing has happened to


def test_nothing_is_written_before_the_first_evaluation(setup, tmp_path):
    files = [tmp_path / f"prompt-{member}.safetensors" for member in range(2)]
    best.restore(files, setup, METADATA, [None, None], {}, {}, 6)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_gone_comes_back_from_its_own_step_alone(setup, tmp_path, monkeypatch):
    setup.run.tunes_model, saved = True, []
    monkeypatch.setattr(best, "save", lambda *arguments: saved.append(arguments))
    tuned = {"model": {"embedding": jnp.ones((1, 2, 3))}}
    with pytest.raises(RunError, match=r"model is gone, which was the best at step 12, and .* holds step 24"):
        best.restore([tmp_path / "model"], setup, METADATA, CHOSEN[:1], {}, tuned, 24)
    best.restore([tmp_path / "model"], setup, METADATA, CHOSEN[1:], {}, tuned, 24)
    ((file, _, folded, _, chosen),) = saved
    assert (file, chosen["step"]) == (tmp_path / "model", 24)
    assert folded["model"]["embedding"].shape == (2, 3)
