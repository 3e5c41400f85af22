"""Flax's msgpack files: what is damaged or hostile is a ValueError of one line."""

import msgpack
import pytest

from jax_prompts.formats.arrays import MappedFile
from jax_prompts.formats.flax_msgpack import read_tree


def array(shape, dtype, content=b"\0" * 8):
    return {"a": msgpack.ExtType(1, msgpack.packb((shape, dtype, content)))}


@pytest.mark.parametrize(
    "tree",
    [
        {"__msgpack_chunked_array__": True},
        {"__msgpack_chunked_array__": True, "shape": {"0": 5}, "chunks": {}},
        {"__msgpack_chunked_array__": True, "shape": {}, "chunks": {}},
        array((2,), "no such type"),
        array((2,), ""),
        array((2,), "O"),
        array((2**40,), "float32"),
        array((2,), "S99999999999"),
        array((-2,), "float32"),
        array(None, "float32"),
        array((2,), {"names": ["a"], "formats": ["O"]}),
    ],
)
def test_what_describes_no_array_is_refused(tree):
    with pytest.raises(ValueError, match=r"damaged msgpack|an array|shape|dtype|data type"):
        read_tree(MappedFile(msgpack.packb(tree)))
