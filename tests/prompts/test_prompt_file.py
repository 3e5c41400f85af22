"""Prompt files: exact round trip, atomic writing, and what happens with files that are not right."""

import concurrent.futures
import dataclasses
import json
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.prompts import PromptMetadata, Residual, load_prompt, prompt_file, save_prompt

PROMPT_PD = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
METADATA = PromptMetadata(
    method="Residual",
    settings=prompt_file.settings_of(Residual(length=5, hidden=7)),
    base_model="t5_1_1_lm100k_small",
    model_fingerprint="aaaa",
    tokenizer_fingerprint="bbbb",
    task="super_glue_cb",
    labels=("entailment", "contradiction", "neutral"),
    metric="accuracy",
    score=0.1 + 0.2,
    step=300,
    extra={"note": "kept"},
)


@pytest.fixture
def path(tmp_path):
    save_prompt(tmp_path / "p.safetensors", PROMPT_PD, METADATA)
    return tmp_path / "p.safetensors"


def test_round_trip(path):
    prompt_PD, metadata = load_prompt(
        path, prompt_width=lambda _: 8, model_fingerprint="aaaa", tokenizer_fingerprint="bbbb"
    )
    np.testing.assert_array_equal(prompt_PD, PROMPT_PD)
    assert prompt_PD.dtype == np.float32 and metadata == METADATA
    assert metadata.settings == {
        "length": 5, "hidden": 7, "passes": 1, "shared": True,
        "activation": "relu", "norm": True, "skip": True, "bias": True,
    }  # fmt: skip
    np.testing.assert_array_equal(load_file(path)["prompt"], PROMPT_PD)


RESERVED = {"crc32", *(field.name for field in dataclasses.fields(PromptMetadata))}
PLAIN = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers() | st.text())
TEXTS = ("method", "prompt_kind", "base_model", "task", "metric", "library_version")
ANY_FIELDS = st.fixed_dictionaries(
    {
        **dict.fromkeys(TEXTS, st.text()),
        "settings": st.dictionaries(st.text(), PLAIN, max_size=3),
        "labels": st.lists(st.text(), max_size=3).map(tuple),
        "score": st.none() | st.integers() | st.floats(allow_nan=False),
        "step": st.none() | st.integers(),
        "extra": st.dictionaries(st.text().filter(lambda name: name not in RESERVED), st.text(), max_size=3),
    }
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(ANY_FIELDS, st.lists(NUMBERS, min_size=6, max_size=6), st.sampled_from([1, 2, 3, 6]))
def test_whatever_is_written_is_read(tmp_path_factory, fields, values, rows):
    path, prompt_PD = tmp_path_factory.mktemp("any") / "p", np.float32(values).reshape(rows, -1)
    metadata = PromptMetadata(**fields)
    save_prompt(path, prompt_PD, metadata)
    read_PD, read = load_prompt(path)
    assert read_PD.tobytes() == prompt_PD.tobytes() and read_PD.shape == prompt_PD.shape
    assert read == metadata


def test_a_bare_prompt_fits_every_model_of_its_width(tmp_path):
    (tmp_path / "bare").write_bytes(save({"prompt": PROMPT_PD}))
    prompt_PD, metadata = load_prompt(tmp_path / "bare", prompt_width=lambda _: 8, model_fingerprint="aaaa")
    np.testing.assert_array_equal(prompt_PD, PROMPT_PD)
    assert metadata == PromptMetadata(library_version="")


@pytest.mark.parametrize(
    "expected, words",
    [
        ({"prompt_width": lambda _: 16}, ["width 8", "16", "t5_1_1_lm100k_small"]),
        (
            {"prompt_width": lambda _: 8, "model_fingerprint": "cccc"},
            ["base model aaaa", "cccc", "t5_1_1_lm100k_small"],
        ),
        ({"tokenizer_fingerprint": "dddd"}, ["vocabulary bbbb", "dddd"]),
    ],
)
def test_another_model_is_refused(path, expected, words):
    with pytest.raises(ConfigError) as caught:
        load_prompt(path, **expected)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in [str(path), "use the", *words]), message


def header(text):
    return struct.pack("<Q", len(text)) + text


def with_metadata(value):
    """A whole file of other software, with any JSON as its metadata."""
    shape = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
    return header(json.dumps({"__metadata__": value, "prompt": shape}).encode()) + bytes(8)


BAD_FILES = {
    "empty": b"",
    "short": b"abc",
    "truncated": save({"prompt": PROMPT_PD})[:-1],
    "pickle": pickle.dumps({"prompt": [1.0] * 100}),
    "huge header": struct.pack("<Q", 2**40) + b"{}",
    "header past the end": struct.pack("<Q", 1000) + b"{}",
    "not JSON": header(b"{nonsense"),
    "offsets past the end": header(b'{"prompt":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'),
    "shape times dtype overflows": header(
        b'{"prompt":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'
    ),
    "no prompt": save({"embedding": PROMPT_PD}),
    "nothing": save({}, {"method": "LoRA"}),
    "a name of control characters": save({"encoder\x1b[31m\n/bias": PROMPT_PD[0]}, {"method": "BitFit"}),
    "a name without end": save({"x" * 1000: PROMPT_PD[0]}, {"method": "BitFit"}),
    "half precision": save({"prompt": PROMPT_PD.astype(np.float16)}),
    "one axis": save({"prompt": PROMPT_PD[0]}),
    "no rows": save({"prompt": PROMPT_PD[:0]}),
    "not finite": save({"prompt": np.where(PROMPT_PD.max() == PROMPT_PD, np.nan, PROMPT_PD)}),
    "infinite": save({"prompt": np.where(PROMPT_PD.max() == PROMPT_PD, np.inf, PROMPT_PD)}),
    "labels not JSON": save({"prompt": PROMPT_PD}, {"labels": "entailment"}),
    "labels not a list": save({"prompt": PROMPT_PD}, {"labels": '"entailment"'}),
    "settings nested too deep": save({"prompt": PROMPT_PD}, {"settings": "[" * 100_000}),
    "settings nested deep": save({"prompt": PROMPT_PD}, {"settings": '{"a":' + "[" * 300 + "]" * 300 + "}"}),
    "labels not texts": save({"prompt": PROMPT_PD}, {"labels": '[["entailment"]]'}),
    "score a word": save({"prompt": PROMPT_PD}, {"score": '"high"'}),
    "score true": save({"prompt": PROMPT_PD}, {"score": "true"}),
    "score past every float": save({"prompt": PROMPT_PD}, {"score": "1" + "0" * 400}),
    "score of too many digits": save({"prompt": PROMPT_PD}, {"score": "1" * 5000}),
    "step true": save({"prompt": PROMPT_PD}, {"step": "true"}),
    "step of too many digits": save({"prompt": PROMPT_PD}, {"step": "1" * 5000}),
    "metadata a list": with_metadata([]),
    "metadata a text": with_metadata("format"),
    "metadata of numbers": with_metadata({"step": 3}),
    "metadata of dictionaries": with_metadata({"settings": {}}),
    "a number of too many digits in the header": header(
        b'{"prompt":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8],"more":' + b"1" * 5000 + b"}}"
    )
    + bytes(8),
    "another checksum": save({"prompt": PROMPT_PD}, {"crc32": "00000000"}),
    "a checksum that is none": save({"prompt": PROMPT_PD}, {"crc32": ""}),
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_line(tmp_path, content):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(RunError) as caught:
        load_prompt(tmp_path / "bad")
    assert "\n" not in str(caught.value) and str(tmp_path / "bad") in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_missing_file_or_a_directory_is_a_wrong_setting(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            load_prompt(path)


def test_a_large_file_is_not_read(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(prompt_file.MAX_BYTES + 1)
    with pytest.raises(RunError, match="large has 1073741825 bytes"):
        load_prompt(tmp_path / "large")


def test_leaves_are_in_order_and_names_that_no_line_shows_are_not_written(path):
    leaves = {name: np.ones(2) for name in "dcab"}
    save_prompt(path, PROMPT_PD, METADATA, leaves)
    assert list(prompt_file.load_file(path)[1]) == sorted(leaves)
    before = path.read_bytes()
    for name in ("a\nb", "x" * 201):
        with pytest.raises(RunError, match="no place in a model"):
            save_prompt(path, PROMPT_PD, METADATA, {name: np.ones(2)})
    assert path.read_bytes() == before


def test_values_that_are_not_finite_are_not_written(path):
    with pytest.raises(RunError, match="not all finite"):
        save_prompt(path, PROMPT_PD * np.inf, METADATA)
    np.testing.assert_array_equal(load_prompt(path)[0], PROMPT_PD)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"p.safetensors could not be written: No space left on device"):
        save_prompt(path, PROMPT_PD + 1, METADATA)
    assert [entry.name for entry in path.parent.iterdir()] == ["p.safetensors"]
    np.testing.assert_array_equal(load_prompt(path)[0], PROMPT_PD)


def test_directories_are_made_and_files_get_ordinary_permissions(tmp_path):
    path = tmp_path / "a" / "b" / "p.safetensors"
    save_prompt(path, PROMPT_PD, METADATA)
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_writers_do_not_disturb_one_another_or_readers(path):
    def write(value):
        for _ in range(20):
            save_prompt(path, np.full((50, 64), value, np.float32), METADATA)

    def read():
        for _ in range(40):
            prompt_PD, _ = load_prompt(path)
            assert len(np.unique(prompt_PD)) == 1

    save_prompt(path, np.zeros((50, 64), np.float32), METADATA)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for job in [pool.submit(write, float(n)) for n in range(4)] + [pool.submit(read) for _ in range(2)]:
            job.result()
    assert [entry.name for entry in path.parent.iterdir()] == ["p.safetensors"]


def test_metadata_is_text_that_other_software_can_read(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        text = json.loads(file.read(size))["__metadata__"]
    assert text["base_model"] == "t5_1_1_lm100k_small"
    assert json.loads(text["labels"]) == ["entailment", "contradiction", "neutral"]
    assert json.loads(text["score"]) == 0.1 + 0.2


def test_metadata_may_be_null(tmp_path):
    (tmp_path / "p").write_bytes(with_metadata(None))
    prompt_PD, metadata = load_prompt(tmp_path / "p")
    assert prompt_PD.shape == (1, 2) and metadata == PromptMetadata(library_version="")


def test_the_same_prompt_gives_the_same_bytes(tmp_path):
    """Whatever the order in which its metadata, extra entries and classifier came."""
    head = {"kernel": np.ones((8, 3)), "bias": np.zeros(3)}
    extra = {name: name for name in "abcdefgh"}
    for number in range(6):
        backwards = slice(None, None, -1 if number % 2 else 1)
        again = dataclasses.replace(METADATA, extra=dict(list(extra.items())[backwards]))
        save_prompt(tmp_path / str(number), PROMPT_PD, again, dict(list(head.items())[backwards]))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert load_prompt(tmp_path / "0")[1].extra == extra
    np.testing.assert_array_equal(load_file(tmp_path / "0")["kernel"], head["kernel"])


def test_every_flipped_bit_of_the_numbers_is_noticed(path, tmp_path):
    content = path.read_bytes()
    for bit in range(8 * (len(content) - PROMPT_PD.nbytes), 8 * len(content), 7):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flipped").write_bytes(flipped)
        with pytest.raises(RunError, match=r"flipped (is damaged|holds values)") as caught:
            load_prompt(tmp_path / "flipped")
        assert "\n" not in str(caught.value)


def test_a_score_that_is_not_finite_is_none(tmp_path):
    for score in (float("nan"), float("inf")):
        save_prompt(tmp_path / "p", PROMPT_PD, dataclasses.replace(METADATA, score=score))
        assert load_prompt(tmp_path / "p")[1].score is None


def test_metadata_that_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "p"
    save_prompt(path, PROMPT_PD, dataclasses.replace(METADATA, base_model="models/\udcff"))
    assert load_prompt(path)[1].base_model == "models/\\udcff"
    with pytest.raises(RunError, match="was not written: its metadata has"):
        save_prompt(path, PROMPT_PD, dataclasses.replace(METADATA, labels=("x" * 2**20,)))
    assert load_prompt(path)[1].base_model == "models/\\udcff"
