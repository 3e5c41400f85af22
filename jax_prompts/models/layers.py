"""Layers of T5: norm, dropout, dense, attention, gated MLP, relative position bias.

Parameter names, shapes and initial values are T5X's, so that its checkpoints load by identity. Letters
are explained in `models/t5.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jax_prompts.models.layer_prompts import NO_LAYER_PROMPTS, LayerPrompts, at_virtual_tokens

PRODUCT = "product"  # the name of all products with weights
MASKED = -1e10  # added to attention logits of keys that must not be seen; finite, so that no row is NaN

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": functools.partial(nn.gelu, approximate=True),
    "silu": nn.silu,
    "linear": lambda x: x,
}


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
    """x / RMS(x) * scale, with float32 statistics; returns `dtype`. T5 centres nothing and adds no bias."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "*b D"]) -> Float[Array, "*b D"]:
        init = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
        scale_D = self.param("scale", init, (x_BLD.shape[-1],))
        x_BLD = x_BLD.astype(jnp.float32)
        normed_BLD = x_BLD * jax.lax.rsqrt(jnp.mean(jnp.square(x_BLD), axis=-1, keepdims=True) + 1e-6)
        scale_D = jnp.expand_dims(scale_D.astype(self.dtype), range(x_BLD.ndim - 1))
        return normed_BLD.astype(self.dtype) * scale_D


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
        keep = functools.partial(jax.random.bernoulli, p=1.0 - self.rate)
        key, shape = self.make_rng("dropout"), x_BLD.shape
        if self.shared:
            keep_BLD = keep(key, shape=(shape[0], 1, shape[2]))
        elif x_BLD.ndim == 4:  # attention weights [B, H, L, M]: each query draws by itself
            keys_L = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(shape[2]))
            keep_LMBH = jax.vmap(lambda key: keep(key, shape=(shape[3], *shape[:2])))(keys_L)
            keep_BLD = keep_LMBH.transpose(2, 3, 0, 1)
        else:
            keep_BLD = jnp.moveaxis(keep(key, shape=(*shape[1:-1], shape[0], shape[-1])), -2, 0)
        return x_BLD * (keep_BLD / (1.0 - self.rate)).astype(x_BLD.dtype)


def contract(spec: str, a: Array, b: Array, dtype: DTypeLike) -> Array:
    """`einsum(spec, a, b)` in `dtype`, where each letter of `spec` stands in two or three of its terms.

    Two bfloat16 arrays are multiplied as they are, and so are their gradients; sums are float32's.
    """
    narrow = a.dtype == b.dtype == jnp.bfloat16
    return _contract(spec, dtype, *((a, b) if narrow else (a.astype(dtype), b.astype(dtype))))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _contract(spec: str, dtype: DTypeLike, a: Array, b: Array) -> Array:
    of_a, of_b, of_out = spec.replace("->", ",").split(",")
    summed = [letter for letter in of_a if letter in of_b and letter not in of_out]
    # An array on the left is transposed unless summed along its last axis, one on the right need not be; so that
    # attention's [B, H, L, M] never is, the larger goes to the right where both would be.
    last_a, last_b = of_a[-1] in summed, of_b[-1] in summed
    if (last_b and not last_a) or (not (last_a or last_b) and a.size > b.size):
        (a, of_a), (b, of_b) = (b, of_b), (a, of_a)
    batch = [letter for letter in of_a if letter in of_b and letter in of_out]
    dimensions = [tuple([of.index(x) for x in letters] for of in (of_a, of_b)) for letters in (summed, batch)]
    of_dot = batch + [x for x in of_a + of_b if x not in summed + batch]
    dot = functools.partial(jax.lax.dot_general, dimension_numbers=dimensions, preferred_element_type=dtype)
    if a.dtype == dtype == jnp.bfloat16:
        # Asked for a result of bfloat16, the CPU backend widens a and b first, and multiplies at half the rate. Others
        # do not, and what they move between devices should be narrow.
        exact = functools.partial(dot, preferred_element_type=jnp.float32)
        out = jax.lax.platform_dependent(a, b, cpu=lambda a, b: exact(a, b).astype(dtype), default=dot)
    else:
        out = dot(a, b)
    return out.transpose([of_dot.index(letter) for letter in of_out])


def _contract_forward(spec: str, dtype: DTypeLike, a: Any, b: Any) -> tuple[Array, tuple]:
    # What is not differentiated, a frozen kernel, keeps nothing for its gradient.
    kept = a.value if b.perturbed else None, b.value if a.perturbed else None
    return _contract(spec, dtype, a.value, b.value), kept


def _contract_backward(spec: str, dtype: DTypeLike, kept: tuple, gradient: Array) -> tuple:
    of_a, of_b, of_out = spec.replace("->", ",").split(",")
    a, b = kept
    to_a = None if b is None else _contract(f"{of_out},{of_b}->{of_a}", b.dtype, gradient.astype(b.dtype), b)
    to_b = None if a is None else _contract(f"{of_a},{of_out}->{of_b}", a.dtype, a, gradient.astype(a.dtype))
    return to_a, to_b


_contract.defvjp(_contract_forward, _contract_backward, symbolic_zeros=True)


def product(x_BLI: Float[Array, "*b I"], w_IO: Float[Array, "I O"], dtype: DTypeLike) -> Float[Array, "*b O"]:
    """x W in `dtype`: what `models/remat.py` may keep."""
    rows = "ABCDE"[: x_BLI.ndim - 1]
    return checkpoint_name(contract(f"{rows}I,IO->{rows}O", x_BLI, w_IO, dtype), PRODUCT)


class Dense(nn.Module):
    """x W without bias, computed in `dtype`."""

    in_features: int
    out_features: int
    axes: tuple[str, str]
    kernel_init: nn.initializers.Initializer
    dtype: DTypeLike

    def setup(self) -> None:
        init = nn.with_logical_partitioning(self.kernel_init, self.axes)
        self.kernel = self.param("kernel", init, (self.in_features, self.out_features))

    def __call__(self, x_BLD: Float[Array, "*b I"]) -> Float[Array, "*b O"]:
        return product(x_BLD, self.kernel, self.dtype)


class Attention(nn.Module):
    """Multi-head attention without the 1/sqrt(K) of other transformers: T5 folds it into the query's initial values."""

    num_heads: int
    head_dim: int
    emb_dim: int
    dropout_rate: Rate
    dtype: DTypeLike

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
        weights_BHLM = jax.nn.softmax(logits_BHLM + bias, axis=-1).astype(self.dtype)
        if not deterministic and drops(self.dropout_rate):
            # T5X's mask is shared by all queries, so dropping a weight is dropping its value: one
            # pass over [B, M, H] in place of one over [B, H, L, M].
            value_BMHK = value_BMHK * self._dropout_mask(*value_BMHK.shape[:3])[..., None]
        out_BLHK = contract("BHLM,BMHK->BLHK", weights_BHLM, value_BMHK, self.dtype)
        return self.out(out_BLHK.reshape(*x_BLD.shape[:2], -1))

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
        kernel_shape = (self.emb_dim, self.num_heads, self.head_dim)
        key_DHK = self.key.kernel.astype(self.dtype).reshape(kernel_shape)
        value_DHK = self.value.kernel.astype(self.dtype).reshape(kernel_shape)
        attended_BMD = attended_BMD.astype(self.dtype)
        query_BUHK = self._heads(self.query(x_BUD))
        query_BUHD = contract("BUHK,DHK->BUHD", query_BUHK, key_DHK, self.dtype)
        query_BUHD = nn.with_logical_constraint(query_BUHD, ("batch", "length", "heads", "embed"))
        logits_BHUM = contract("BUHD,BMD->BHUM", query_BUHD, attended_BMD, jnp.float32)
        weights_BHUM = jax.nn.softmax(logits_BHUM + bias, axis=-1).astype(self.dtype)
        if not deterministic and drops(self.dropout_rate):
            mask_BMH = self._dropout_mask(*attended_BMD.shape[:2], self.num_heads)
            weights_BHUM = weights_BHUM * jnp.swapaxes(mask_BMH, 1, 2)[:, :, None]
        mixed_BUHD = contract("BHUM,BMD->BUHD", weights_BHUM, attended_BMD, self.dtype)
        out_BUHK = contract("BUHD,DHK->BUHK", mixed_BUHD, value_DHK, self.dtype)
        return self.out(out_BUHK.reshape(*x_BUD.shape[:2], -1))

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

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B L D"], deterministic: bool) -> Float[Array, "B L D"]:
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        width = x_BLD.shape[-1]
        gates = []
        for i, name in enumerate(self.activations):
            wi = "wi" if len(self.activations) == 1 else f"wi_{i}"
            hidden_BLF = Dense(width, self.mlp_dim, ("embed", "mlp"), init, self.dtype, name=wi)(x_BLD)
            gates.append(_ACTIVATIONS[name](hidden_BLF))
        hidden_BLF = functools.reduce(jnp.multiply, gates)
        hidden_BLF = Dropout(self.dropout_rate)(hidden_BLF, deterministic)
        return Dense(self.mlp_dim, width, ("mlp", "embed"), init, self.dtype, name="wo")(hidden_BLF)


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
    """One learned number for each head and bucket; all layers of a stack share them."""

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
