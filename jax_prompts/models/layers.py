"""Layers of T5: norm, dropout, dense, attention, gated MLP, relative position bias.

Parameter names, shapes and initial values are T5X's, so that its checkpoints load by identity. Letters
are explained in `models/t5.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from jax_prompts.models.layer_prompts import NO_LAYER_PROMPTS, LayerPrompts, at_virtual_tokens
from jax_prompts.models.products import contract, product
from jax_prompts.models.quantized import KERNEL_PACKED, KERNEL_SCALE, Quantized
from jax_prompts.models.sums import softmax
from jax_prompts.models.tuned_leaves import ACTIVATIONS, adapted, leaf, plus, times

MASKED = -1e10  # added to attention logits of keys that must not be seen; finite, so that no row is NaN


def shard_batch(x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
    """`x_BLD` with its rows over the devices, on a mesh. Left alone, the compiler may divide D where weights are
    divided along it, and then move activations between devices in place of weights."""
    return nn.with_logical_constraint(x_BLD, ("batch", "length", "embed"))


class Embed(nn.Module):
    """The input layer: rows of the frozen table below V, rows of `prompts_QD` at and above V."""

    vocab_size: int
    emb_dim: int
    embedding_init: nn.initializers.Initializer

    def setup(self) -> None:
        init = nn.with_logical_partitioning(self.embedding_init, ("vocab", "embed"))
        self.embedding = self.param("embedding", init, (self.vocab_size, self.emb_dim))

    def __call__(
        self, ids_BL: Int[Array, "B L"], prompts_QD: Float[Array, "Q D"] | None = None
    ) -> Float[Array, "B L D"]:
        """Embeds token ids; float32 where prompts take part, so that their large rows keep their digits."""
        if prompts_QD is None or prompts_QD.shape[0] == 0:
            return jnp.take(self.embedding, ids_BL, axis=0)
        tokens_BLD = jnp.take(self.embedding, ids_BL, axis=0, mode="clip").astype(jnp.float32)
        return at_virtual_tokens(prompts_QD, ids_BL - self.vocab_size, tokens_BLD)


class RMSNorm(nn.Module):
    """x / RMS(x) * scale, with float32 statistics; returns `dtype`. T5 centres nothing and adds no bias, but a tuned
    one where it is there."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
        init = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
        scale_D = self.param("scale", init, (x_BLD.shape[-1],))
        x_BLD = x_BLD.astype(jnp.float32)
        normed_BLD = x_BLD * jax.lax.rsqrt(jnp.mean(jnp.square(x_BLD), axis=-1, keepdims=True) + 1e-6)
        return plus(times(normed_BLD.astype(self.dtype), scale_D), leaf(self, "bias"))


Rate = float | Float[Array, ""]


def drops(rate: Rate) -> bool:
    """Whether a layer with this rate draws; one of a traced rate always does."""
    return isinstance(rate, jax.Array) or rate > 0.0


class Dropout(nn.Module):
    """Dropout, its mask shared along the length or not.

    Shared it is as in T5X: cheap, and equal for every token of a row. In no case does what is drawn for a position
    depend on how many follow it, so that padding changes no draw (JAX numbers draws by place, the last axis first).
    """

    rate: Rate
    shared: bool = True

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B *l D"], deterministic: bool) -> Float[Array, "B *l D"]:
        if deterministic or not drops(self.rate):
            return x_BLD
        return dropped(x_BLD, self.rate, self.make_rng("dropout"), shared=self.shared)


def dropped(x_BLD: Float[Array, "B *l D"], rate: Rate, key: Array, *, shared: bool) -> Float[Array, "B *l D"]:
    """`x_BLD` after dropout as `Dropout` says."""
    keep, shape = functools.partial(jax.random.bernoulli, p=1.0 - rate), x_BLD.shape
    if shared:
        keep_BLD = keep(key, shape=(shape[0], 1, shape[2]))
    elif x_BLD.ndim == 4:  # attention weights [B, H, L, M]: each query draws by itself
        keys_L = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(shape[2]))
        keep_LMBH = jax.vmap(lambda key: keep(key, shape=(shape[3], *shape[:2])))(keys_L)
        keep_BLD = keep_LMBH.transpose(2, 3, 0, 1)
    else:
        keep_BLD = jnp.moveaxis(keep(key, shape=(*shape[1:-1], shape[0], shape[-1])), -2, 0)
    return x_BLD * (keep_BLD / (1.0 - rate)).astype(x_BLD.dtype)


class Dense(nn.Module):
    """x W, computed in `dtype`, and with `biased` + b; T5 has no biases. W may be quantised (`models/quantized.py`).

    And what is tuned around W, where it is there: (z W + drop(z) lora_a lora_b + bias) * scale of z = x * input_scale.
    """

    in_features: int
    out_features: int
    axes: tuple[str, str]
    kernel_init: nn.initializers.Initializer
    dtype: DTypeLike
    biased: bool = False

    def setup(self) -> None:
        init = nn.with_logical_partitioning(self.kernel_init, self.axes)
        scale_GO, packed = leaf(self, KERNEL_SCALE), leaf(self, KERNEL_PACKED)
        if packed is not None:
            self.kernel = Quantized(packed, scale_GO, packed=True)
        else:
            kernel_IO = self.param("kernel", init, (self.in_features, self.out_features))
            self.kernel = kernel_IO if scale_GO is None else Quantized(kernel_IO, scale_GO)
        if self.biased:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[1:])
            self.bias = self.param("bias", zeros, (self.out_features,))

    def __call__(self, x_BLI: Float[Array, "*b I"]) -> Float[Array, "*b O"]:
        x_BLI = times(x_BLI, leaf(self, "input_scale"))
        y_BLO = product(x_BLI, self.kernel, self.dtype)
        if (a_IR := leaf(self, "lora_a")) is not None:
            if (rate := leaf(self, "lora_dropout")) is not None:
                x_BLI = dropped(x_BLI, rate, self.make_rng("dropout"), shared=False)
            low_BLR = product(x_BLI, a_IR, self.dtype)
            y_BLO = y_BLO + product(low_BLR, leaf(self, "lora_b"), self.dtype)
        return times(plus(y_BLO, leaf(self, "bias")), leaf(self, "scale"))


class Attention(nn.Module):
    """Multi-head attention without the 1/sqrt(K) of other transformers: T5 folds it into the query's initial values."""

    num_heads: int
    head_dim: int
    emb_dim: int
    dropout_rate: Rate
    dtype: DTypeLike
    adapter_activation: str = "gelu"

    def setup(self) -> None:
        width = self.num_heads * self.head_dim
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        query_init = nn.initializers.variance_scaling(1.0 / self.head_dim, "fan_in", "normal")
        axes = ("embed", "joined_kv")
        self.query = Dense(self.emb_dim, width, axes, query_init, self.dtype)
        self.key = Dense(self.emb_dim, width, axes, init, self.dtype)
        self.value = Dense(self.emb_dim, width, axes, init, self.dtype)
        self.out = Dense(width, self.emb_dim, ("joined_kv", "embed"), init, self.dtype)

    def keys_values(
        self,
        x_BMD: Float[Array, "B M D"],
        prompts: LayerPrompts = NO_LAYER_PROMPTS,
        virtual_BM: Int[Array, "B M"] | None = None,
    ) -> tuple[Array, Array]:
        """Keys and values [B, M, H, K] of the attended sequence, or of its virtual tokens those in `prompts`."""
        key_BMHK, value_BMHK = self._heads(self.key(x_BMD)), self._heads(self.value(x_BMD))
        key_BMHK = at_virtual_tokens(prompts.keys_NQHK, virtual_BM, key_BMHK).astype(self.dtype)
        return key_BMHK, at_virtual_tokens(prompts.values_NQHK, virtual_BM, value_BMHK).astype(self.dtype)

    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        keys_values: tuple[Array, Array],
        bias: Float[Array, "#B #H #L M"],
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        """Attend from `x_BLD` to keys and values [B, M, H, K]; `bias` is added to the logits."""
        key_BMHK, value_BMHK = keys_values
        query_BLHK = self._heads(self.query(x_BLD))
        logits_BHLM = contract("BLHK,BMHK->BHLM", query_BLHK, key_BMHK, jnp.float32)
        weights_BHLM = softmax(logits_BHLM + bias, self.dtype)
        if not deterministic and drops(self.dropout_rate):
            # T5X's mask is shared by all queries, so dropping a weight is dropping its value: one
            # pass over [B, M, H] in place of one over [B, H, L, M].
            value_BMHK = value_BMHK * self._dropout_mask(*value_BMHK.shape[:3])[..., None]
        out_BLHK = contract("BHLM,BMHK->BLHK", weights_BHLM, value_BMHK, self.dtype)
        return adapted(self, self.out(out_BLHK.reshape(*x_BLD.shape[:2], -1)), self.adapter_activation)

    def absorbed_projections(
        self,
        x_BUD: Float[Array, "B U D"],
        attended_BMD: Float[Array, "B M D"],
        bias: Float[Array, "#B #H #U M"],
        deterministic: bool,
    ) -> Float[Array, "B U D"]:
        """The same function without keys and values: cheaper when U is small (`prefers_absorbed_projections`).

        q . (W_k x) = (W_k^T q) . x, and sum_m w_m (W_v x_m) = W_v (sum_m w_m x_m), so the projections are
        done for each of U queries in place of each of M attended positions.
        """
        query_BUHD = self._by_keys(self._heads(self.query(x_BUD)))
        query_BUHD = nn.with_logical_constraint(query_BUHD, ("batch", "length", "heads", "embed"))
        attended_BMD = attended_BMD.astype(self.dtype)
        logits_BHUM = contract("BUHD,BMD->BHUM", query_BUHD, attended_BMD, jnp.float32)
        weights_BHUM = softmax(logits_BHUM + bias, self.dtype)
        if not deterministic and drops(self.dropout_rate):
            mask_BMH = self._dropout_mask(*attended_BMD.shape[:2], self.num_heads)
            weights_BHUM = weights_BHUM * jnp.swapaxes(mask_BMH, 1, 2)[:, :, None]
        mixed_BUHD = contract("BHUM,BMD->BUHD", weights_BHUM, attended_BMD, self.dtype)
        out_BUHK = self._values_of(mixed_BUHD, weights_BHUM)
        return adapted(self, self.out(out_BUHK.reshape(*x_BUD.shape[:2], -1)), self.adapter_activation)

    @property
    def can_absorb(self) -> bool:
        """Whether keys and values may be absorbed: what is dropped of their inputs, one by one, stands in the way."""
        return leaf(self.key, "lora_dropout") is None and leaf(self.value, "lora_dropout") is None

    def _by_keys(self, query_BUHK: Float[Array, "B U H K"]) -> Float[Array, "B U H D"]:
        """What a query multiplies attended states by. A bias of keys, the same for all, does nothing."""
        query_BUHK = times(query_BUHK, leaf(self.key, "scale"))
        query_BUHD = contract("BUHK,DHK->BUHD", query_BUHK, self._by_head(self.key.kernel), self.dtype)
        if (a_DR := leaf(self.key, "lora_a")) is not None:
            b_RHK = self._by_head(leaf(self.key, "lora_b"))
            low_BUHR = contract("BUHK,RHK->BUHR", query_BUHK, b_RHK, self.dtype)
            query_BUHD = query_BUHD + contract("BUHR,DR->BUHD", low_BUHR, a_DR, self.dtype)
        return times(query_BUHD, leaf(self.key, "input_scale"))

    def _values_of(
        self, mixed_BUHD: Float[Array, "B U H D"], weights_BHUM: Float[Array, "B H U M"]
    ) -> Float[Array, "B U H K"]:
        """Mixed values, of attended states that were mixed with these weights."""
        mixed_BUHD = times(mixed_BUHD, leaf(self.value, "input_scale"))
        out_BUHK = contract("BUHD,DHK->BUHK", mixed_BUHD, self._by_head(self.value.kernel), self.dtype)
        if (a_DR := leaf(self.value, "lora_a")) is not None:
            b_RHK = self._by_head(leaf(self.value, "lora_b"))
            low_BUHR = contract("BUHD,DR->BUHR", mixed_BUHD, a_DR, self.dtype)
            out_BUHK = out_BUHK + contract("BUHR,RHK->BUHK", low_BUHR, b_RHK, self.dtype)
        if (bias_O := leaf(self.value, "bias")) is not None:
            whole_BUH = jnp.swapaxes(weights_BHUM.sum(axis=-1), 1, 2)  # not 1 where weights were dropped
            out_BUHK = out_BUHK + whole_BUH[..., None] * self._by_head(bias_O[None]).astype(self.dtype)[None]
        return times(out_BUHK, leaf(self.value, "scale"))

    def _by_head(self, kernel_IO: Float[Array, "I O"] | Quantized) -> Any:
        return kernel_IO.reshape(kernel_IO.shape[0], self.num_heads, self.head_dim)

    def _heads(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L H K"]:
        return x_BLD.reshape(*x_BLD.shape[:2], self.num_heads, self.head_dim)

    def _dropout_mask(self, rows: int, attended: int, heads: int) -> Float[Array, "B M H"]:
        # With the length in front, what is drawn for a position does not depend on how many follow it.
        shape = attended, rows, heads
        keep_MBH = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.dropout_rate, shape)
        return (jnp.swapaxes(keep_MBH, 0, 1) / (1.0 - self.dropout_rate)).astype(self.dtype)


def prefers_absorbed_projections(queries: int, attended: int, head_dim: int) -> bool:
    """Whether `Attention.absorbed_projections` needs fewer multiplications than keys and values: U (K + M) < M K."""
    return queries * (head_dim + attended) < attended * head_dim


class MLP(nn.Module):
    """T5's feed-forward block: `wi` with one activation (v1.0), or the product of `wi_0`, `wi_1` (v1.1)."""

    mlp_dim: int
    activations: tuple[str, ...]
    dropout_rate: Rate
    dtype: DTypeLike
    adapter_activation: str = "gelu"

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B L D"], deterministic: bool) -> Float[Array, "B L D"]:
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        width = x_BLD.shape[-1]
        hidden = []
        for i in range(len(self.activations)):
            wi = "wi" if len(self.activations) == 1 else f"wi_{i}"
            hidden.append(Dense(width, self.mlp_dim, ("embed", "mlp"), init, self.dtype, name=wi)(x_BLD))
        hidden_BLF = Dropout(self.dropout_rate)(gated(self.activations, hidden), deterministic)
        out_BLD = Dense(self.mlp_dim, width, ("mlp", "embed"), init, self.dtype, name="wo")(hidden_BLF)
        return adapted(self, out_BLD, self.adapter_activation)


def gated(activations: Sequence[str], hidden: Sequence[Float[Array, "B L F"]]) -> Float[Array, "B L F"]:
    """The product of what each activation makes of its own `hidden`, in float32 and rounded once.

    The backward pass computes it again from `hidden`, the only thing that is kept.
    """

    @jax.checkpoint
    def gate(*hidden: Array) -> Array:
        wide = [ACTIVATIONS[name](x.astype(jnp.float32)) for name, x in zip(activations, hidden, strict=True)]
        return functools.reduce(jnp.multiply, wide).astype(hidden[0].dtype)

    return gate(*hidden)


def relative_position_bucket(
    offset: Int[Array, "*o"], *, bidirectional: bool, num_buckets: int, max_distance: int
) -> Int[Array, "*o"]:
    """Bucket of key position minus query position (Raffel et al. 2020, section 2.1; Shaw et al. 2018).

    Half of the buckets hold small distances exactly, the other half grow logarithmically up to
    `max_distance`, beyond which all share the last. The decoder looks back only; the encoder spends half
    of its buckets on each direction.
    """
    bucket = jnp.zeros_like(offset)
    if bidirectional:
        num_buckets //= 2
        bucket = jnp.where(offset > 0, num_buckets, 0)
        distance = jnp.abs(offset)
    else:
        distance = jnp.maximum(-offset, 0)
    exact = num_buckets // 2
    ratio = jnp.log(distance.astype(jnp.float32) / exact + np.finfo(np.float32).eps)
    growth = ratio / np.log(max_distance / exact) * (num_buckets - exact)
    far = jnp.minimum(exact + growth.astype(jnp.int32), num_buckets - 1)
    return bucket + jnp.where(distance < exact, distance, far)


class RelativePositionBias(nn.Module):
    """One learned number for each head and bucket; all layers of a stack share them, but in umT5."""

    num_heads: int
    num_buckets: int
    max_distance: int
    bidirectional: bool

    @nn.compact
    def __call__(self, query_L: Int[Array, " L"], key_M: Int[Array, " M"]) -> Float[Array, "1 H L M"]:
        """The bias between positions; float32."""
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        init = nn.with_logical_partitioning(init, ("heads", "relpos_buckets"))
        table = self.param("rel_embedding", init, (self.num_heads, self.num_buckets))
        bucket_LM = relative_position_bucket(
            key_M[None, :] - query_L[:, None],
            bidirectional=self.bidirectional,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        return table.astype(jnp.float32)[:, bucket_LM][None]


def key_bias(valid_BL: Bool[Array, "B L"]) -> Float[Array, "B 1 1 L"]:
    """What is added to attention's logits: `MASKED` where a key is not to be seen."""
    return jnp.where(valid_BL, 0.0, MASKED)[:, None, None, :]


def written(past: Any, new: Any, position: Array) -> Any:
    """Keys and values [..., M, H, K] with those of one token at `position`."""
    return jax.tree.map(
        lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y.astype(x.dtype), position, axis=-3), past, new
    )
