"""Temporary names: one scheme, which can be told from every other name."""

import pathlib

import pytest

from jax_prompts.storage.temporary import final_name, temporary_path


@pytest.mark.parametrize("name", ["p.safetensors", ".hidden", "a b", "no_suffix", "x.tmp", "ünï\n"])
def test_a_temporary_name_tells_the_final_one(name):
    first, second = (temporary_path(pathlib.Path("folder", name)) for _ in range(2))
    assert first != second
    assert (first.parent, final_name(first.name)) == (pathlib.Path("folder"), name)


@pytest.mark.parametrize(
    "name", ["a", "a.tmp", ".a.tmp", ".a.0123.tmp", f".{'0' * 32}.tmp", f"a.{'0' * 32}.tmp"]
)
def test_other_names_are_no_temporary_ones(name):
    assert final_name(name) is None
