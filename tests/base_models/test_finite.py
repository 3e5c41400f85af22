"""Numbers that are not finite: named where weights are loaded, converted and looked at."""

import ml_dtypes
import numpy as np
import pytest

from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.convert import convert_model
from jax_prompts.base_models.finite import check_finite
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.weights import load_weights, save_model
from jax_prompts.cli.inspection import describe
from jax_prompts.config import BaseModel
from jax_prompts.errors import RunError


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
def test_the_first_is_named_with_its_place(dtype, value):
    numbers = np.full((400, 300), ml_dtypes.finfo(dtype).max).astype(dtype)
    numbers[::2] *= -1
    for array in (numbers, numbers.T, numbers[:, 3:90], numbers[:0], numbers[0, 0].reshape(())):
        check_finite("model", "wo", array)
    numbers[399, 7] = value
    for array, place in ((numbers, [399, 7]), (numbers.T, [7, 399]), (numbers[300:, 5:], [99, 2])):
        with pytest.raises(RunError) as caught:
            check_finite("model", "wo", array)
        assert f"model: wo holds 1 of {array.size:,} numbers that are not finite" in str(caught.value)
        assert f"at {place} first" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [
        (1e5, np.float32, np.float16),
        (1e300, np.float64, np.float32),
        (3.4e38, np.float32, ml_dtypes.bfloat16),
    ],
)
def test_what_is_too_large_for_the_dtype_of_the_run_is_named(value, source, target):
    numbers = np.array([1.0, value], source)
    check_finite("model", "wo", numbers)
    with pytest.raises(RunError, match=rf"1 of 2 numbers .* in {np.dtype(target)}, .* at \[1\] first"):
        check_finite("model", "wo", numbers, np.dtype(target))


@pytest.fixture
def half(folder, tensors):
    """A folder in float16 in which one number became infinite."""
    arrays = {name: array.astype(np.float16) for name, array in tensors.items()}
    arrays["encoder.block.1.layer.1.DenseReluDense.wo.weight"][5, 3] = np.inf
    return folder("safetensors", arrays)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_loading_names_them(half, scan_layers):
    base = BaseModel(size=None, checkpoint=str(half), vocabulary=None, scan_layers=scan_layers)
    named = "encoder/layers/mlp/wo/kernel" if scan_layers else "encoder/layers_1/mlp/wo/kernel"
    with pytest.raises(RunError, match=rf"{named} holds 1 of .*, inf at \[(1, )?3, 5\] first"):
        load_weights(base, make_model(base))


def test_conversion_and_inspection_name_them(half, tmp_path):
    with pytest.raises(RunError, match=rf"{half}: encoder/layers_1/mlp/wo/kernel holds 1 of"):
        convert_model(str(half), str(tmp_path / "own"))
    assert not list((tmp_path / "own").iterdir())
    theirs = r"model\.safetensors: encoder\.block\.1\.layer\.1\.DenseReluDense\.wo\.weight holds 1 of"
    with pytest.raises(RunError, match=theirs):
        describe(str(half))
    found = open_model(str(half))
    weights = {name: array[...] for name, array in found.arrays.items()}
    save_model(tmp_path / "saved", weights, found.config, {})
    with pytest.raises(RunError, match=r"model\.safetensors: encoder/layers_1/mlp/wo/kernel holds 1 of"):
        describe(str(tmp_path / "saved"))
