"""Whether leaves fit a model: its places for them, which leaves belong together, their shapes in letters.

Letters as in `models/t5.py`; I, O sides of a projection, R rank, M bottleneck, T text tokens, S sources, K tables.
D, I, O and V are the model's, the others the leaves' own, the same in all leaves that belong together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jax_prompts.tuned.leaves import Weights, input_width

_NETWORK = {"down/kernel": "DM", "down/bias": "M", "up/kernel": "MD", "up/bias": "D"}
_SUBLAYERS = ("attention", "self_attention", "encoder_decoder_attention", "mlp")


class _Together(NamedTuple):
    """Leaves of one place that are all there or none; their shapes."""

    place: str
    leaves: dict[str, str]


_TOGETHER = (
    _Together("projection", {"lora_a": "IR", "lora_b": "RO"}),
    _Together("projection", {"bias": "O"}),
    _Together("projection", {"scale": "O"}),
    _Together("projection", {"input_scale": "I"}),
    _Together("norm", {"bias": "D"}),
    _Together("sublayer", {f"adapter/{name}": shape for name, shape in _NETWORK.items()}),
    _Together("T5", {"decoder/logits_bias": "V"}),
    _Together("T5", {"input_offset/a": "TR", "input_offset/b": "RD"}),
    _Together("T5", {f"input_offset/{name}": shape for name, shape in _NETWORK.items()}),
    _Together("T5", {"input_router/kernel": "DN", "input_router/prompt": "KPD"}),
    _Together(
        "T5",
        {
            "input_attention/sources": "SPD",
            "input_attention/down/kernel": "DM",
            "input_attention/up/kernel": "MD",
            "input_attention/norm/scale": "D",
            "input_attention/norm/bias": "D",
        },
    ),
)


def misfits(leaves: Mapping[str, Any], weights: Weights) -> Iterator[str]:
    """What is wrong with leaves as parts of a model, a line each.

    `+ path` the model has no place for; `- path` is missing beside another; of another shape both are said.

    Args:
      leaves: arrays or shapes by path.
      weights: shapes of the model's.
    """
    places = _places(weights)
    seen: set[str] = set()
    for path in leaves:
        if path in weights and not path.endswith("/kernel"):  # which nothing here tunes, and may be quantised
            yield from _other_shape(path, weights[path].value.shape, leaves[path].shape)
        elif path not in seen:
            found = next(_of(path, places), None)
            if found is None:
                yield f"+ {path}"
                continue
            prefix, together, sizes = found
            seen |= {prefix + name for name in together.leaves}
            yield from _wrong(prefix, together, sizes, leaves)


def _of(
    path: str, places: dict[str, dict[str, dict[str, int]]]
) -> Iterator[tuple[str, _Together, dict[str, int]]]:
    for together in _TOGETHER:
        for name in together.leaves:
            prefix = path.removesuffix(name)
            if prefix + name == path and prefix in places[together.place]:
                yield prefix, together, places[together.place][prefix]


def _wrong(
    prefix: str, together: _Together, sizes: dict[str, int], leaves: Mapping[str, Any]
) -> Iterator[str]:
    sizes = dict(sizes)
    for name, letters in together.leaves.items():
        path = prefix + name
        if path not in leaves:
            yield f"- {path}"
            continue
        shape = leaves[path].shape
        if len(shape) == len(letters):
            for letter, size in zip(letters, shape, strict=True):
                sizes.setdefault(letter, max(size, 1))
        wanted = tuple(sizes.get(letter, 1) for letter in letters)
        yield from _other_shape(path, wanted, shape)


def _other_shape(path: str, wanted: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[str]:
    if wanted != shape:
        yield f"- {path} {list(wanted)} + {path} {list(shape)}"


def _places(weights: Weights) -> dict[str, dict[str, dict[str, int]]]:
    """By kind the places of a model, what stands in front of their leaves' names, and the sizes there."""
    places: dict[str, dict[str, dict[str, int]]] = {"projection": {}, "norm": {}, "sublayer": {}, "T5": {}}
    for path, box in weights.items():
        parent, _, name = path.rpartition("/")
        if name == "kernel":
            fan_in, fan_out = box.value.shape
            places["projection"][f"{parent}/"] = {"I": fan_in, "O": fan_out}
            sublayer, _, projection = parent.rpartition("/")
            if projection in ("out", "wo") and sublayer.rpartition("/")[2] in _SUBLAYERS:
                places["sublayer"][f"{sublayer}/"] = {"D": fan_out}
        elif name == "scale" and parent.endswith("norm"):
            places["norm"][f"{parent}/"] = {"D": box.value.shape[0]}
    if (width := input_width(weights)) is not None:
        places["T5"][""] = {"D": width, "V": weights["token_embedder/embedding"].value.shape[0]}
    return places
