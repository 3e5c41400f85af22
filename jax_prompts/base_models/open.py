"""Opens base models of every kind, on disk or in a bucket: arrays, sizes and vocabulary."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import reprlib
import warnings
from typing import Any

from jax_prompts.assets import resolve_asset
from jax_prompts.base_models import hf, hf_bert, hf_t5, hf_t5gemma, hub, t5x
from jax_prompts.base_models.described import check_sizes
from jax_prompts.base_models.quantize import KINDS, widened
from jax_prompts.base_models.stacks import check_buckets, in_layers, t5_config
from jax_prompts.base_models.token_ids import check_token_ids
from jax_prompts.data.vocabularies.byte_level import CLASS
from jax_prompts.data.vocabularies.tokenizer_config import SETTINGS, tokenizer_class
from jax_prompts.data.vocabularies.vocabulary_file import VOCABULARIES
from jax_prompts.errors import ConfigError, RunError, SettingWarning
from jax_prompts.formats.arrays import ArraySource
from jax_prompts.models.bert import BertConfig
from jax_prompts.models.quantized import KERNEL_SCALE
from jax_prompts.models.sizes import ModelConfig
from jax_prompts.models.t5 import T5Config
from jax_prompts.models.t5gemma_config import GemmaStack, T5GemmaConfig
from jax_prompts.storage.json_file import read_object

_ARCHITECTURES = {"t5": T5Config, "t5gemma": T5GemmaConfig, "bert": BertConfig}
HEADS = ("mlm_", "classifier/")  # what a BERT has beside its encoder; a fingerprint is of the encoder
_NUMERICS = ("dtype", "dropout_rate", "scan_layers", "remat", "adapter_activation")
_STACKS = ("encoder", "decoder")
# Numbers that need not be whole, and the least of each.
_REALS = {"query_scalar": 1e-6, "attention_cap": 0.0, "logits_cap": 0.0, "rope_base": 1.0}
_MOST_LAYERS = 1000
_MODEL_TYPES = ("t5", "mt5", "umt5")
_WEIGHTS = (".safetensors", ".bin", ".msgpack", ".h5", ".pt", ".pth", ".ckpt", ".gguf", ".onnx")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A base model, opened.

    Attributes:
      kind: `native`, `Hugging Face` or `T5X`.
      arrays: by our path, in floating point, also where they are kept quantised; layers single or stacked.
      config: its sizes.
      vocabulary: the file beside it; None where there is none.
      described: config.json; empty for T5X.
      fingerprint: of what was quantised, where weights are kept so; None: that of `arrays`.
    """

    kind: str
    arrays: ArraySource
    config: ModelConfig
    vocabulary: str | None
    described: dict[str, Any]
    fingerprint: str | None = None


def open_model(path: str) -> Checkpoint:
    """Finds out what lies at `path` and opens it; no weights are read yet.

    Args:
      path: a directory, `gs://` path, `hf://ORGANISATION/NAME` or `asset:NAME`.

    Raises:
      ConfigError: there is no model.
      RunError: it cannot be reached, is damaged, or is a model that this project has not.
    """
    place, steps = locate(path), []
    if "://" not in place:
        folder = pathlib.Path(place)
        if folder.is_file() and folder.suffix in _WEIGHTS:
            raise ConfigError(
                f"{path} is one file of a model: give the directory that holds it with config.json"
            )
        if (folder / "config.json").is_file():
            return _open_folder(path, folder)
        if any(folder.glob("*.safetensors")):
            raise ConfigError(
                f"{path} has weights and no config.json: it is no whole model; convert or copy it again"
            )
        steps = sorted(found.name for found in folder.glob("checkpoint_*"))
    arrays = t5x.open_checkpoint(place)
    if arrays is None:
        inside = f"; it has {', '.join(steps)}, name one" if steps else ""
        raise ConfigError(
            f"{path} holds no model: expected a T5X checkpoint, or config.json with model.safetensors (native or "
            f"Hugging Face), pytorch_model.bin or flax_model.msgpack{inside}; set INITIAL_CHECKPOINT_PATH"
        )
    prompt, arrays = t5x.take_prompt(arrays)
    if prompt:
        words = f"{path} holds a prompt beside the model: t5x convert {path} NEW.safetensors takes it out"
        warnings.warn(words, SettingWarning, stacklevel=2)
    try:
        return Checkpoint("T5X", arrays, t5_config(in_layers(arrays)), find_vocabulary(place), {})
    except RunError as error:
        raise RunError(f"{path}: {error}") from error


def locate(path: str) -> str:
    """Where the model lies that `open_model` opens: a directory, to which a hub's is fetched, or a `gs://` path.

    Raises:
      ConfigError: an address of another kind, or no such asset.
      RunError: it cannot be fetched.
    """
    scheme, separator, _ = path.partition("://")
    if separator and scheme not in ("gs", "hf"):
        raise ConfigError(
            f"{path}: models are read from directories, gs:// and hf://; copy it to a directory"
        )
    if not separator:  # a directory may have the name of a scheme
        return resolve_asset(path)
    return hub.download(path) if scheme == "hf" else path


def find_vocabulary(path: str) -> str | None:
    """Path of the vocabulary file in a directory; none is looked for in a bucket.

    Of a ByT5, which has none, that of its tokenizer_config.json, be it there or not.

    Raises:
      RunError: the file that names the tokenizer cannot be read.
    """
    if "://" in path:
        return None
    folder = pathlib.Path(path)
    found = next((file for name in VOCABULARIES if (file := folder / name).is_file()), None)
    if found is None and tokenizer_class(folder) == CLASS:
        found = folder / SETTINGS
    return None if found is None else str(found)


def _open_folder(path: str, folder: pathlib.Path) -> Checkpoint:
    described = read_object(folder / "config.json")
    arrays = hf.open_weights(folder)
    if arrays is None:
        raise ConfigError(f"{path} has a config.json and {_instead(folder)}")
    try:
        kind, config, fingerprint = "Hugging Face", None, None
        if "architecture" not in described:
            _check_unquantized(described)
            check_token_ids(folder, described)
        if "architecture" in described:
            kind, config = "native", _native_config(described)
            if (weight_dtype := described.get("weight_dtype")) is not None:
                fingerprint = described.get("fingerprint")
                if weight_dtype not in list(KINDS) or not isinstance(fingerprint, str):
                    raise RunError(
                        f"config.json has weight_dtype {weight_dtype!r} and fingerprint {fingerprint!r}: convert the "
                        "model again"
                    )
                arrays = widened(arrays, weight_dtype)
            elif scales := [name for name in arrays if name.endswith(f"/{KERNEL_SCALE}")]:
                raise RunError(
                    f"config.json has no weight_dtype, and there is {scales[0]}: convert the model again"
                )
        elif described.get("model_type") == "bert":
            arrays = hf_bert.to_ours(arrays)
            config = hf_bert.sizes(arrays, described)
        elif described.get("model_type") == "t5gemma":
            arrays = hf_t5gemma.to_ours(arrays)
            config = hf_t5gemma.sizes(arrays, described)
        elif described.get("model_type") in _MODEL_TYPES:
            arrays = hf_t5.to_t5x(arrays, described)
            config = t5_config(arrays, hf_t5.activations(described), hf_t5.max_distance(described))
        else:
            raise RunError(
                f"config.json has model_type {described.get('model_type')!r}; read are {', '.join(_MODEL_TYPES)}, "
                "t5gemma and bert"
            )
        if kind == "Hugging Face":
            check_sizes(described, config)
        return Checkpoint(kind, arrays, config, find_vocabulary(str(folder)), described, fingerprint)
    except RunError as error:
        raise RunError(f"{path}: {error}") from error


def _check_unquantized(described: dict[str, Any]) -> None:
    if (found := described.get("quantization_config")) is not None:
        method = found.get("quant_method") if isinstance(found, dict) else None
        raise RunError(
            f"its weights are quantised already ({method or 'quantization_config'}), in a form that is not read: "
            "use the model that they were made of; WEIGHT_DTYPE = 'int8' or 'int4' quantises it while it is read"
        )


def _instead(folder: pathlib.Path) -> str:
    """What lies where no weights were found: files under other names, such as a variant's, or none."""
    found = sorted(file.name for file in folder.iterdir() if file.suffix in _WEIGHTS)
    if not found:
        return "no weights: it is no whole model; convert or copy it again"
    names = f"{', '.join(found[:5])}{' and others' if len(found) > 5 else ''}"
    return (
        f"weights called {names}: rename what is to be read, or save it again, as {' or '.join(hf.OPENERS)}"
    )


def describe(config: ModelConfig) -> dict[str, Any]:
    """Architecture and sizes as config.json holds them; numerics are the run's, not the model's."""
    sizes = dataclasses.asdict(config)
    for numerics in _NUMERICS:
        sizes.pop(numerics, None)
    architecture = next(name for name, made in _ARCHITECTURES.items() if isinstance(config, made))
    return {"architecture": architecture, "sizes": sizes}


def _native_config(described: dict[str, Any]) -> ModelConfig:
    try:
        made = _ARCHITECTURES[described["architecture"]]
        sizes = _checked_sizes(described["sizes"])
        if made is T5GemmaConfig:
            sizes |= {name: GemmaStack(**_checked_sizes(sizes[name])) for name in _STACKS}
        config = made(**sizes)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"config.json is not this project's ({error}); convert the model again") from error
    if isinstance(config, T5Config):
        check_buckets("config.json", config.relpos_buckets, config.relpos_max_distance)
    if isinstance(config, BertConfig) and config.emb_dim % config.num_heads:
        raise RunError(
            f"config.json has {config.num_heads} heads of width {config.emb_dim}; convert the model again"
        )
    return config


def _checked_sizes(described: dict[str, Any]) -> dict[str, Any]:
    """Raises TypeError for what no model can have."""
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in described.items()}
    for name, value in sizes.items():
        if name in _NUMERICS or not _is_size(name, value):
            raise TypeError(f"{name} is {reprlib.repr(value)}")
    return sizes


def _is_size(name: str, value: Any) -> bool:
    """Whether a model can have this value; layers, which are built one by one, are no millions."""
    if name == "mlp_activations":
        return value in hf_t5.ACTIVATIONS.values()
    if name in ("logits_via_embedding", "relpos_in_layers"):
        return isinstance(value, bool)
    if name in _STACKS:
        return isinstance(value, dict)
    if name in _REALS:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and _REALS[name] <= value < math.inf
        )
    least, most = int(name != "separator_id"), _MOST_LAYERS if name.endswith("layers") else (1 << 31) - 1
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
