"""Prompts as NumPy arrays: the original's released ones, exactly; anything else refused in one line."""

import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.interop.exchange import convert_prompt, export_prompt
from jax_prompts.interop.npy import read_array
from jax_prompts.prompts import (
    Base,
    FromFile,
    PromptMetadata,
    PromptTuning,
    init_members,
    load_prompt,
    save_prompt,
)

PROMPT_PD = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)


@pytest.mark.parametrize(("name", "norm"), [("mrpc", 868), ("rte", 903)])
def test_released_prompts_come_in_start_a_run_and_go_out_byte_for_byte(shared, tmp_path, name, norm):
    released = shared / "data" / "pretrained_prompts" / "t5_1_1_lm100k_base" / f"{name}.npy"
    target = tmp_path / "p.safetensors"
    convert_prompt(str(released), str(target))
    prompt_PD, metadata = load_prompt(target)
    np.testing.assert_array_equal(prompt_PD, np.load(released, allow_pickle=False))
    assert prompt_PD.shape == (100, 768) and metadata.method == "PromptTuning"
    assert abs(np.linalg.norm(prompt_PD, axis=1).mean() - norm) < 1
    start = FromFile(str(target)).table_init(Base(jnp.zeros((4, 768))))
    params_E = init_members(PromptTuning(100), jax.random.split(jax.random.key(0), 1), 768, start)
    np.testing.assert_array_equal(params_E["prompt"][0], prompt_PD)
    export_prompt(str(target), str(tmp_path / "out.npy"), to="npy")
    assert (tmp_path / "out.npy").read_bytes() == released.read_bytes()


def test_the_array_itself_is_told_how_to_become_a_prompt_file(tmp_path):
    np.save(tmp_path / "p.npy", PROMPT_PD)
    with pytest.raises(ConfigError, match=r"t5x convert \S+p.npy NEW.safetensors"):
        load_prompt(tmp_path / "p.npy")


@pytest.mark.parametrize(
    "array", [PROMPT_PD.astype(">f4"), np.asfortranarray(PROMPT_PD), PROMPT_PD.astype(np.float64)], ids=str
)
def test_other_layouts_of_the_same_numbers(tmp_path, array):
    np.save(tmp_path / "p", array)
    (tmp_path / "p.npy").rename(tmp_path / "encoder.prompt.prompt.prompt")
    convert_prompt(str(tmp_path / "encoder.prompt.prompt.prompt"), str(tmp_path / "p.safetensors"))
    np.testing.assert_array_equal(load_prompt(tmp_path / "p.safetensors")[0], PROMPT_PD)


def saved(array, **more):
    file = io.BytesIO()
    np.save(file, array, **more)
    return file.getvalue()


def header(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


BAD = {
    "magic alone": b"\x93NUMPY",
    "truncated": saved(PROMPT_PD)[:-1],
    "claims more than there is": header(
        b"{'descr':'<f4','fortran_order':False,'shape':(1000000000,1000000)}\n"
    ),
    "claims more than can be": header(
        b"{'descr':'<f4','fortran_order':False,'shape':(" + b"9" * 30 + b",2)}\n"
    ),
    "negative": header(b"{'descr':'<f4','fortran_order':False,'shape':(-1,2)}\n") + bytes(64),
    "code for a header": header(b"__import__('os').system('true')\n"),
    "a list for a key": header(b"{[]: 1}\n"),
    "a truth for a size": header(b"{'descr':'<f4','fortran_order':False,'shape':(True,4)}\n") + bytes(64),
    "an open bracket": header(b"{'descr':'<f4','fortran_order':False,'shape':(2,2\n"),
    "nested without end": header(b"-" * 5000 + b"1\n"),
    "Python objects": saved(np.array([[print]], dtype=object), allow_pickle=True),
    "records": saved(np.zeros((2, 2), dtype="f4,f4")),
    "whole numbers": saved(PROMPT_PD.astype(np.int64)),
    "one axis": saved(PROMPT_PD[0]),
    "three axes": saved(PROMPT_PD[None]),
    "no rows": saved(PROMPT_PD[:0]),
    "not finite": saved(PROMPT_PD * np.nan),
    "past float32": saved(PROMPT_PD.astype(np.float64) * 1e300),
    "pickle": pickle.dumps(PROMPT_PD),
    "archive": b"PK\x03\x04" + bytes(100),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_bad_array_is_one_line(tmp_path, content):
    (tmp_path / "p.npy").write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_array(tmp_path / "p.npy")
    assert str(tmp_path / "p.npy") in str(caught.value) and "\n" not in str(caught.value)


def test_a_classifier_is_not_lost_without_a_word(tmp_path):
    save_prompt(tmp_path / "p.safetensors", PROMPT_PD, PromptMetadata(), {"classifier/kernel": PROMPT_PD})
    with pytest.raises(ConfigError, match="no place for the classifier"):
        export_prompt(str(tmp_path / "p.safetensors"), str(tmp_path / "p.npy"), to="npy")
