"""Shapes in signatures are promises that tests check at every call (`conftest.py`); here the check itself."""

import ast
import importlib
import pathlib

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from jax_prompts.models.layers import Embed
from jax_prompts.prompts.geometry import mean_norm

PACKAGE = pathlib.Path(__file__).parents[1] / "jax_prompts"
TYPED = sorted(path for path in PACKAGE.rglob("*.py") if "from jaxtyping import" in path.read_text())
SHAPED = {"Bool", "Float", "Float32", "Int", "Int32", "Key", "Real"}


def test_a_transposed_prompt_raises():
    embed = Embed(10, 8, jax.nn.initializers.zeros)
    ids_BL, prompts_QD = jnp.array([[3, 10, 11]]), jnp.ones((2, 8))
    variables = {"params": {"embedding": jnp.zeros((10, 8))}}
    assert embed.apply(variables, ids_BL, prompts_QD).shape == (1, 3, 8)
    with pytest.raises(jaxtyping.TypeCheckError):
        embed.apply(variables, ids_BL, prompts_QD.T)


def test_a_prompt_without_its_second_axis_raises():
    with pytest.raises(jaxtyping.TypeCheckError, match="prompt_PD"):
        mean_norm(jnp.ones(8))


@pytest.mark.parametrize("path", TYPED, ids=lambda path: path.stem)
def test_shapes_can_be_read(path):
    """What cannot be is `Any` to the checker, which says nothing."""
    module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in SHAPED:
            eval(ast.unparse(node), vars(module))
