"""PyTorch's files against what torch wrote into them; nothing in them is executed."""

import collections
import io
import pathlib
import pickle
import struct
import sys
import tracemalloc
import types
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


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_refused_by_name_and_not_run(tmp_path, protocol):
    marker = tmp_path / "was_run"
    hostile = pickle.dumps({"shared.weight": Code(marker)}, protocol)
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


@pytest.mark.parametrize("form", ["zip", "sequence"])
def test_a_flipped_byte_reads_or_is_one_line(tmp_path, form):
    """Every byte of the description in turn: no other exception, and no array outside the file."""
    content = (FILES / f"{form}.bin").read_bytes()
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


@pytest.mark.parametrize("protocol", range(1, 6))
def test_every_protocol_that_torch_can_load_reads_the_same(tmp_path, monkeypatch, protocol):
    """As `torch.save(..., pickle_protocol=N)` describes tensors; in protocol 0 it cannot name a storage."""
    utils = types.ModuleType("torch._utils")
    exec("def _rebuild_tensor_v2(*_): ...\ndef _rebuild_parameter(*_): ...", utils.__dict__)
    torch = types.ModuleType("torch")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Described:
        def __init__(self, function, *arguments):
            self.reduced = function, arguments

        def __reduce__(self):
            return self.reduced

    class Stored:
        pass

    class Writer(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", 12) if isinstance(value, Stored) else None

    hooks = collections.OrderedDict()
    table = Described(utils._rebuild_tensor_v2, Stored(), 4, (2, 4), (4, 1), False, hooks)
    trained = Described(utils._rebuild_parameter, table, True, hooks)
    named = collections.OrderedDict(rows=table, inside={"trained": trained})
    named._metadata = {"": {"version": 1}}
    stream = io.BytesIO()
    Writer(stream, protocol).dump(named)
    arrays = open_bin(zipped(tmp_path / "model.bin", stream.getvalue(), **{"data/0": TABLE.tobytes()}))
    assert arrays.keys() == {"rows", "inside.trained"}
    assert all(np.array_equal(array[...], TABLE[1:]) for array in arrays.values())


# Tuples, and dicts with two names, that hold the one before twice: 2**90 leaves in some hundred bytes.
TUPLES = b")" + b"2\x86" * 90
DICTS = b"}" + b"".join(b"q%c0}X\x01\0\0\0ah%csX\x01\0\0\0bh%cs" % (i, i, i) for i in range(90))
TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000NK\x0ctQ"
)
HUGE = b"\x8a\x07" + (1 << 50).to_bytes(7, "little")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"}r\xff\xff\xff\x7f}s.", "list index out of range"),
        (b"(" * 300_000 + b"t" * 299_999 + b".", "a tuple in place"),
        (b"(" * 300_000 + b"d" * 299_999 + b".", "is shorter than"),
        (DICTS + b".", "more than 131,072 names"),
        (b"}q\0X\x01\0\0\0ah\0s.", "a name of 1,001 characters"),
        (b"}" + TUPLES + b"Ns.", "something under a tuple"),
        (b"(" + TUPLES + b"Nd.", "something under a tuple"),
        (b"ccollections\nOrderedDict\n]" + TUPLES + b"N\x86a\x85R.", "something under a tuple"),
        (TUPLES + b"Q.", "where a tuple|unpack"),
        (b"}X\x01\0\0\0a" + TUPLES + b"s.", r"a \(tuple\)"),
        (b"}X\x01\0\0\0a" + TENSOR + b"K\0(" + HUGE + b")t)tRs.", "no array has"),
        (b"}X\x01\0\0\0a" + TENSOR + b"K\0(" + HUGE + b"X\x01\0\0\0xt)tRs.", "no array has"),
        (b"}X\x01\0\0\0a" + TENSOR + b"K\0(" + HUGE + HUGE + b"t)tRs.", "more numbers"),
        (b"}X\x01\0\0\0a" + TENSOR + b"K\0(" + b"K\1" * 65 + b"t)tRs.", "no array has"),
        (b"}X\x01\0\0\0a" + TENSOR + b"K\0K\2\x85K\1\x85tR}X\x06\0\0\0offsetK\2sbs.", "state of a Tensor"),
        (b"\x96" + (1 << 40).to_bytes(8, "little") + b"x.", "BYTEARRAY8"),
        (b"\x95" + (1 << 62).to_bytes(8, "little") + b"K\0.", "a int in place"),
    ],
)  # fmt: skip
def test_what_would_take_forever_or_all_memory_is_refused(tmp_path, content, said):
    path = zipped(tmp_path / "model.bin", b"\x80\x02" + content)
    tracemalloc.start()
    with pytest.raises(RunError, match=said) as caught:
        open_bin(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(("size", "said"), [(10_000_000, "compressed"), (50_000_000, "too large")])
def test_a_description_is_not_inflated(tmp_path, size, said):
    path = tmp_path / "model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + bytes(size))
    tracemalloc.start()
    with pytest.raises(RunError, match=rf"archive/data\.pkl .*{said}"):
        open_bin(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_keys_of_storages_are_text(tmp_path):
    content = (FILES / "sequence.bin").read_bytes()
    path = tmp_path / "model.bin"
    stream = io.BytesIO(content)
    for _ in range(3):
        pickle.load(stream)
    path.write_bytes(content[: stream.tell()] + b"\x80\x02}.\x80\x02]" + TUPLES + b"a." + bytes(8))
    with pytest.raises(RunError, match="a storage without a key"):
        open_bin(path)
