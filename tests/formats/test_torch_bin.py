"""PyTorch's files against what torch wrote into them; nothing in them is executed."""

import pathlib
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jax_prompts.errors import RunError
from jax_prompts.formats.torch_bin import open_bin

FILES = pathlib.Path(__file__).parents[1] / "goldens" / "torch_bin"
TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)
WRITTEN = {
    "table": TABLE,
    "rows": TABLE[1:],
    "transposed": TABLE.T,
    "half": np.arange(6, dtype=np.float16),
    "brain": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "number": np.float32(3.5).reshape(()),
    "trained": np.ones(2, np.float32),
    "nested.ids": np.arange(3),
}


@pytest.mark.parametrize("form", ["zip", "sequence"])
def test_arrays_are_those_that_torch_wrote(form):
    arrays = open_bin(FILES / f"{form}.bin")
    assert arrays.keys() == WRITTEN.keys()
    for name, expected in WRITTEN.items():
        assert (arrays[name].shape, arrays[name].dtype) == (expected.shape, expected.dtype)
        assert np.array_equal(arrays[name][...], expected), name
    part = arrays["transposed"][slice(1, 3), slice(None)]
    assert np.array_equal(part, TABLE.T[1:3])


def test_a_released_adapter(shared):
    arrays = open_bin(shared / "data" / "pretrained_prompts" / "dept_t5_base" / "cola" / "adapter_model.bin")
    assert {name: array.shape for name, array in arrays.items()} == {
        "prompt_embeddings": (80, 768),
        "prompt_encoder.lora_embedding_A": (256, 15),
        "prompt_encoder.lora_embedding_B": (15, 768),
    }
    norms = np.linalg.norm(arrays["prompt_embeddings"][...], axis=1)
    assert norms.mean() == pytest.approx(917, abs=1)


class Code:
    """What a hostile file holds: a call of something that it should not call."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return pathlib.Path.touch, (self.marker,)


def zipped(path, content, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, value in entries.items():
            archive.writestr(f"archive/{name}", value)
    return path


def test_code_is_refused_by_name_and_not_run(tmp_path):
    marker = tmp_path / "was_run"
    hostile = pickle.dumps({"shared.weight": Code(marker)}, protocol=2)
    for path in (zipped(tmp_path / "zip.bin", hostile), tmp_path / "plain.bin"):
        if not path.exists():
            path.write_bytes(hostile)
        with pytest.raises(RunError, match="only arrays are read") as caught:
            open_bin(path)
        assert "pathlib" in str(caught.value) or "getattr" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not marker.exists()
    pickle.loads(hostile)
    assert marker.exists()  # the file would have done it


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "os.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n.", "_rebuild_tensor_v3"),
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (pickle.dumps({"epoch": 3}, 2), "epoch (int)"),
        (pickle.dumps([1, 2], 2), "a list"),
    ],
)
def test_what_describes_no_tensor_is_named(tmp_path, content, named):
    with pytest.raises(RunError, match="only arrays are read") as caught:
        open_bin(zipped(tmp_path / "model.bin", content))
    assert named in str(caught.value)


def test_a_pickled_module_is_refused():
    with pytest.raises(RunError, match=r"torch\.nn\.modules\.linear\.Linear"):
        open_bin(FILES / "module.bin")


@pytest.mark.parametrize("form", ["zip", "sequence"])
def test_a_file_cut_anywhere_is_one_line(tmp_path, form):
    content = (FILES / f"{form}.bin").read_bytes()
    path = tmp_path / "cut.bin"
    for end in range(0, len(content) - 1, 7):
        path.write_bytes(content[:end])
        with pytest.raises(RunError) as caught:
            open_bin(path)
        assert "\n" not in str(caught.value)


def test_a_flipped_byte_reads_or_is_one_line(tmp_path):
    """Every byte of the description in turn: no other exception, and no array outside the file."""
    content = (FILES / "sequence.bin").read_bytes()
    path = tmp_path / "flipped.bin"
    for position in range(0, len(content), 3):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        try:
            for array in open_bin(path).values():
                array[...]
        except RunError as error:
            assert "\n" not in str(error)


def test_a_tensor_past_its_storage_is_refused(tmp_path):
    content = (FILES / "sequence.bin").read_bytes()
    count = struct.pack("<q", 12)
    assert count in content
    path = tmp_path / "short.bin"
    path.write_bytes(content.replace(count, struct.pack("<q", 11)))
    with pytest.raises(RunError, match="not of the size described"):
        open_bin(path)
