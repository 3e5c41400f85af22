"""Refuses, before data and weights are read, a run that memory cannot hold: the kernel would kill it without a word.

What is counted is surely there at once, so that no run which fits is refused: parameters, gradients and optimiser
state, and of the activations what every layer must keep.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import psutil
from jax.sharding import Mesh
from rich.filesize import decimal

from jax_prompts import partition
from jax_prompts.base_models.build import Model
from jax_prompts.base_models.quantize import frozen_shapes
from jax_prompts.base_models.weights import abstract_weights
from jax_prompts.config import BaseModel
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import static_length
from jax_prompts.errors import ConfigError
from jax_prompts.models.answers import ANSWERS
from jax_prompts.models.bert import BertConfig
from jax_prompts.models.layer_prompts import DECODER, PLACES
from jax_prompts.models.sizes import ModelConfig
from jax_prompts.models.t5gemma_config import GemmaStack, T5GemmaConfig
from jax_prompts.prompts.per_layer import prompt_kind_of
from jax_prompts.setup import Setup
from jax_prompts.tuned.leaves import flat

_UNLIMITED = 1 << 62
_LOWERED = {  # what a run's demand grows with, and the settings
    "members": "MEMBERS",
    "batch_size": "BATCH_SIZE",
    "eval_batch_size": "EVAL_BATCH_SIZE",
    "prompt_length": "PROMPT_LENGTH",
    "beams": "Decoding.num_decodes",
}


@dataclasses.dataclass(frozen=True)
class Demand:
    """What a device holds at least, by the settings that it grows with.

    Attributes:
      config: of the model.
      frozen: bytes of weights that are only read.
      tuned: bytes of one member's parameters, gradients and optimiser state.
      members: E.
      batch_size: rows a step, of one member, on all devices.
      microbatches: parts of these rows, one after the other, length groups among them.
      eval_batch_size: rows answered at once, on all devices.
      through_encoder: whether something is tuned that the encoder computes with.
      prompt_length: P.
      inputs_length: T, text tokens of a row that trains.
      targets_length: U, target tokens of a row that trains.
      eval_inputs_length: text tokens of a row that is answered.
      beams: hypotheses of a row that is answered.
      parts: devices that rows are divided over.
      model_parts: devices that heads and MLP are divided over.
    """

    config: ModelConfig
    frozen: int
    eval_batch_size: int
    tuned: int = 0
    members: int = 0
    batch_size: int = 0
    microbatches: int = 1
    through_encoder: bool = True
    prompt_length: int = 0
    inputs_length: int = 1
    targets_length: int = 1
    eval_inputs_length: int = 1
    beams: int = 1
    parts: int = 1
    model_parts: int = 1

    def at_rest(self) -> int:
        """Bytes that stay from step to step."""
        return self.frozen + self.members * self.tuned

    def total(self) -> int:
        """Bytes at the larger of the two peaks, a step's and an evaluation's."""
        step_rows = self.members * self.batch_size // (self.parts * self.microbatches)
        eval_rows = self.eval_batch_size // self.parts
        return self.at_rest() + max(step_rows * self._kept_a_row(), eval_rows * self._answering_a_row())

    def _kept_a_row(self) -> int:
        """Bytes kept of one row between the passes: of every layer or, recomputed, its input and the whole of one."""
        c, length = self.config, self.prompt_length + self.inputs_length
        encoder = length * self._kept_a_token(self._encoder, norms=2) + self._attention(length)
        stacks = []
        if self.through_encoder:
            layers = c.num_layers if isinstance(c, BertConfig) else c.num_encoder_layers
            stacks.append((layers, length * c.emb_dim, encoder))
        if not isinstance(c, BertConfig):
            target, of_decoder = self.targets_length, self._decoder
            whole = target * self._kept_a_token(of_decoder, norms=3)
            stacks.append((c.num_decoder_layers, target * of_decoder.emb_dim, whole))
        if c.remat == "none":
            numbers = sum(layers * whole for layers, _, whole in stacks)
        else:
            recomputed = max((whole for _, _, whole in stacks), default=0)
            numbers = sum(layers * states for layers, states, _ in stacks) + recomputed
        return numbers * np.dtype(c.dtype).itemsize

    def _kept_a_token(self, stack: ModelConfig | GemmaStack, norms: int) -> int:
        """Numbers of a token that the backward pass of a layer reads: inputs of norms and gates, query, key, value."""
        c = self.config
        gates = 1 if isinstance(c, BertConfig) else len(c.mlp_activations)
        heads = stack.num_heads + 2 * _key_heads(stack)
        return norms * stack.emb_dim + (heads * stack.head_dim + gates * stack.mlp_dim) // self.model_parts

    def _answering_a_row(self) -> int:
        """Bytes of one row that is answered: attention in a layer of the encoder, or what the decoder's beams read,
        keys and values or, of short answers, the encoder's output."""
        c, length = self.config, self.prompt_length + self.eval_inputs_length
        numbers = self._attention(length)
        if not isinstance(c, BertConfig):
            width = _key_heads(self._decoder) * self._decoder.head_dim
            keys_and_values = 2 * c.num_decoder_layers * length * width // self.model_parts
            numbers = max(numbers, self.beams * min(keys_and_values, length * c.emb_dim))
        return numbers * np.dtype(c.dtype).itemsize

    @property
    def _encoder(self) -> ModelConfig | GemmaStack:
        return self.config.encoder if isinstance(self.config, T5GemmaConfig) else self.config

    @property
    def _decoder(self) -> ModelConfig | GemmaStack:
        return self.config.decoder if isinstance(self.config, T5GemmaConfig) else self.config

    def _attention(self, length: int) -> int:
        """Weights of one row in a layer."""
        return self.config.num_heads * length**2 // self.model_parts


def _key_heads(stack: ModelConfig | GemmaStack) -> int:
    return stack.num_kv_heads if isinstance(stack, GemmaStack) else stack.num_heads


def check_training(setup: Setup, caches: Mapping[str, Sequence[TokenCache]] | None = None) -> None:
    """Checks that a run can fit.

    Args:
      setup: the run.
      caches: its data by role, which say how long rows are; None: not known yet.

    Raises:
      ConfigError: it cannot; the settings to lower are named, with the largest values that fit.
    """
    run, caches = setup.run, caches or {}

    def length(role: str, text: str, most: int) -> int:
        longest = [getattr(cache, f"longest_{text}") for cache in caches.get(role, ())]
        return static_length(most, max(longest)) if longest else 1

    tuned = 2 * partition.bytes_per_device(setup.tuned) + partition.bytes_per_device(setup.opt_state)
    demand = Demand(
        config=setup.model.config,
        frozen=partition.bytes_per_device(setup.frozen),
        tuned=tuned // run.training.members,
        members=run.training.members,
        batch_size=run.data.batch_size,
        microbatches=run.training.microbatches * setup.groups,
        through_encoder=_through_encoder(setup),
        eval_batch_size=run.data.eval_batch_size,
        prompt_length=setup.prompt_length,
        inputs_length=length("train", "inputs", setup.inputs_length),
        targets_length=length("train", "targets", setup.targets_length),
        eval_inputs_length=length("validation", "inputs", setup.inputs_length),
        beams=run.decoding.num_decodes,
        **_parts(setup.mesh),
    )
    _check(demand, available_bytes())


def _through_encoder(setup: Setup) -> bool:
    if setup.run.tunes_model:
        return True
    in_prompt = setup.method is not None and PLACES[prompt_kind_of(setup.run.method)] != (DECODER,)
    outside = ("decoder/", *(f"{answer}/" for answer in ANSWERS))
    return in_prompt or any(not path.startswith(outside) for path in flat(setup.tuned.get("model", {})))


def check_answering(model: Model, base: BaseModel, mesh: Mesh, batch_size: int, beams: int) -> None:
    """Checks that `batch_size` rows can be answered at once, with so many hypotheses each.

    Raises:
      ConfigError: they cannot; the largest number that can is named.
    """
    frozen = partition.sharded_shapes(frozen_shapes(abstract_weights(model), base.weight_dtype), mesh)
    demand = Demand(model.config, partition.bytes_per_device(frozen), batch_size, beams=beams, **_parts(mesh))
    _check(demand, available_bytes())


def available_bytes() -> int | None:
    """Bytes that a device can still hold: an accelerator's own, or a CPU's share of the host's; None: unknown."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        stats = devices[0].memory_stats() or {}
        return stats.get("bytes_limit")
    return min(psutil.virtual_memory().available, _cgroup_bytes()) // len(devices)


def _cgroup_bytes(own: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """Bytes that the job's control groups (of a container, of Slurm) still allow; many where none has a limit."""
    left = _UNLIMITED
    try:
        folder = pathlib.Path(root, pathlib.Path(own).read_text().rpartition("::")[2].strip().lstrip("/"))
    except OSError:
        return left
    for group in (folder, *folder.parents):
        try:
            most, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit():  # else `max`: no limit
            left = min(left, int(most) - int(used) + int(stat.get("inactive_file", 0)))
    return left


def _parts(mesh: Mesh) -> dict[str, Any]:
    return {"parts": partition.row_parts(mesh), "model_parts": mesh.shape["model"]}


def _check(demand: Demand, available: int | None) -> None:
    if available is None or demand.total() <= available:
        return
    fits = {macro: _largest(demand, name, available) for name, macro in _LOWERED.items()}
    remedy = ", or ".join(f"{macro} to {value:,}" for macro, value in fits.items() if value)
    if remedy:
        remedy = f"lower {remedy}"
    elif demand.frozen + demand.tuned < available:
        remedy = "lower several of MEMBERS, BATCH_SIZE, EVAL_BATCH_SIZE and PROMPT_LENGTH"
    elif demand.frozen:
        remedy = "set WEIGHT_DTYPE = 'bfloat16', 'int8' or 'int4', or PARTITIONS to more devices"
    else:
        remedy = "tune a prompt in place of the whole model, or set PARTITIONS to more devices"
    raise ConfigError(
        f"the run needs at least {decimal(demand.total())} of memory on a device, and {decimal(available)} are "
        f"free: {remedy}"
    )


def _largest(demand: Demand, name: str, available: int) -> int:
    """The largest value of a setting, all others as they are, that fits; 0 where none does."""
    unit = {"batch_size": demand.parts * demand.microbatches, "eval_batch_size": demand.parts}.get(name, 1)

    def needed(units: int) -> int:
        changed: Any = {name: units * unit}
        return dataclasses.replace(demand, **changed).total()

    low, high = 0, getattr(demand, name) // unit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= available else (low, middle - 1)
    return low * unit
