"""Plans the lengths of a run's rows before it starts: which few programs compute least padding, compiling included."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from jax_prompts import partition
from jax_prompts.base_models.build import Model
from jax_prompts.config import Data
from jax_prompts.data.cache import TokenCache
from jax_prompts.data.layout import text_length
from jax_prompts.data.length_groups import LengthGroups, plan_lengths, planned
from jax_prompts.data.roles import Caches
from jax_prompts.data.sampler import needed_lengths
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.flops import encoder_flops
from jax_prompts.setup import Setup

_SAMPLED_STEPS = 256  # stand for all of a run; the longest example has a place whichever they are
_BACKWARD = 2  # times the forward pass: gradients of activations alone

# What compiling costs, in products that could be computed meanwhile. Orders of magnitude do.
_FLOPS_A_SECOND = {"cpu": 1e11}
_FLOPS_A_SECOND_ELSEWHERE = 1e14
_TRAINING_PROGRAM = 2.0, 0.5  # seconds to compile it, and more of them a layer
_ANSWERING_PROGRAM = 0.5, 0.1


@dataclasses.dataclass(frozen=True)
class LengthPlan:
    """How the rows of a run are padded.

    Attributes:
      groups: parts of a batch.
      lengths: text tokens that a part is padded to.
    """

    groups: int
    lengths: tuple[int, ...]


def plan_training(setup: Setup, mixtures_E: list[Caches], steps: int) -> LengthPlan:
    """The plan of a run's batches: the same for the same data and settings.

    Raises:
      ConfigError: LENGTH_GROUPS without a place for the longest example.
    """
    data, mesh, config, groups = setup.run.data, setup.mesh, setup.model.config, setup.groups
    sampled = np.unique(np.linspace(0, steps - 1, _SAMPLED_STEPS).astype(int))
    needed = needed_lengths(
        mixtures_E,
        seeds=setup.seeds_E.tolist(),
        batch_size=data.batch_size,
        inputs_length=setup.inputs_length,
        groups=groups,
        steps=sampled,
    )
    rows = steps * setup.rows * (1 + _BACKWARD)
    lengths = plan_lengths(
        _setting(setup.model, data),
        needed.ravel(),
        max(cache.longest_inputs for mixture in mixtures_E for _, cache in mixture),
        setup.inputs_length,
        lambda length: rows * encoder_flops(config, setup.prompt_length + length) / mesh.size,
        _program_cost(setup.model, mesh, *_TRAINING_PROGRAM),
    )
    return LengthPlan(groups, lengths)


@dataclasses.dataclass(frozen=True)
class EvaluationPlan:
    """How examples are answered.

    Attributes:
      order_N: their numbers, those of longer ones first.
      lengths: text tokens that a batch is padded to.
    """

    order_N: Int[np.ndarray, " N"]
    lengths: tuple[int, ...]

    def rows_in_order(self, prompts: int) -> Int[np.ndarray, " R"]:
        """Where each example's answers behind so many prompts stand, example by example."""
        places_N = np.argsort(self.order_N, kind="stable")
        return (places_N[:, None] * prompts + np.arange(prompts)).ravel()


def plan_evaluation(
    model: Model,
    mesh: Mesh | None,
    data: Data,
    cache: TokenCache,
    *,
    prompts: int,
    prompt_length: int,
    passes: int,
) -> EvaluationPlan:
    """The plan of an evaluation.

    Args:
      model, mesh, data: of the evaluation.
      cache: the examples.
      prompts: E, behind each of which every example is asked.
      prompt_length: P.
      passes: how often the examples are answered.

    Raises:
      ConfigError: LENGTH_GROUPS without a place for the longest example.
    """
    most = text_length(data, prompt_length)
    lengths_N = np.minimum(cache.input_lengths_N, most)
    order_N = np.arange(len(lengths_N))
    if data.length_groups != 1:
        order_N = np.argsort(-lengths_N, kind="stable")  # what needs most memory comes first
    rows, devices = len(lengths_N) * prompts * passes, 1 if mesh is None else mesh.size
    lengths = plan_lengths(
        _setting(model, data),
        np.repeat(lengths_N[order_N], prompts)[:: data.eval_batch_size],
        cache.longest_inputs,
        most,
        lambda length: rows * encoder_flops(model.config, prompt_length + length) / devices,
        _program_cost(model, mesh, *_ANSWERING_PROGRAM),
    )
    return EvaluationPlan(order_N, lengths)


def plan_texts(
    model: Model,
    mesh: Mesh,
    needed_K: Sequence[int],
    rows_K: Sequence[int],
    *,
    prompt_length: int,
    known: Sequence[int],
) -> tuple[int, ...]:
    """The lengths of batches of texts: the known ones, or others where there is so much to read that they spare more
    than compiling them takes.

    Args:
      model, mesh: that answer.
      needed_K: the longest text of each batch, in tokens.
      rows_K: of each batch.
      prompt_length: P.
      known: lengths whose programs are there already, or are shared with other texts; the last holds every text.
    """
    needed_R = np.repeat(needed_K, rows_K)
    program_cost = _program_cost(model, mesh, *_ANSWERING_PROGRAM)

    def cost(rows: int, length: int) -> float:
        return rows * encoder_flops(model.config, prompt_length + length) / mesh.size

    def total(lengths: Sequence[int]) -> float:
        new = len(set(lengths) - set(known))
        batches = zip(rows_K, needed_K, strict=True)
        return sum(cost(rows, planned(lengths, needed)) for rows, needed in batches) + new * program_cost

    of_all = functools.partial(cost, len(needed_R))
    own = plan_lengths(None, needed_R, max(needed_K), known[-1], of_all, program_cost)
    return min(tuple(known), own, key=total)


def _setting(model: Model, data: Data) -> LengthGroups:
    """LENGTH_GROUPS, but one length where each position of a text has a target: of a BERT that learns masked words."""
    return 1 if isinstance(model, Bert) and not model.classes else data.length_groups


def _program_cost(model: Model, mesh: Mesh | None, seconds: float, seconds_a_layer: float) -> float:
    config, platform = model.config, "cpu" if mesh is None else partition.platform_of(mesh)
    layers = (
        config.num_layers
        if isinstance(config, BertConfig)
        else config.num_encoder_layers + config.num_decoder_layers
    )
    if not isinstance(config, BertConfig) and config.scan_layers:
        layers = 2
    return (seconds + layers * seconds_a_layer) * _FLOPS_A_SECOND.get(platform, _FLOPS_A_SECOND_ELSEWHERE)
