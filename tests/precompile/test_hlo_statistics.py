"""Programs with known matrix work, traffic and collectives, read back from what the compiler made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jax_prompts.precompile.hlo_statistics import _first_group, statistics

P = PartitionSpec


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def compiled(function, *arguments, **settings):
    return jax.jit(function, **settings).lower(*arguments).compile().as_text()


def test_collectives_of_a_hand_made_program(mesh):
    def body(x_8D):
        gathered = jax.lax.all_gather(x_8D, "model", tiled=True)  # [8, 16] -> [32, 16]
        summed = jax.lax.psum(x_8D, "data")
        scattered = jax.lax.psum_scatter(gathered, "model", tiled=True)
        moved = jax.lax.ppermute(x_8D, "model", [(i, (i + 1) % 4) for i in range(4)])
        exchanged = jax.lax.all_to_all(x_8D, "model", 0, 0, tiled=True)
        return summed + scattered + moved + exchanged

    x = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=NamedSharding(mesh, P(("data", "model"))))
    spec = P(("data", "model"))
    function = jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    found = statistics(compiled(function, x), 8).collectives
    part = 8 * 16 * 4
    assert {kind: (each.count, each.bytes, each.sent) for kind, each in found.items()} == {
        "all-gather": (1, 4 * part, 3 * part),
        "all-reduce": (1, part, part),  # twice half of it
        "reduce-scatter": (1, 4 * part, 3 * part),
        "collective-permute": (1, part, part),
        "all-to-all": (1, part, 0.75 * part),
    }


@pytest.mark.parametrize(("groups", "expected"), [
    ("replica_groups=[4,4]<=[16]", [0, 1, 2, 3]),
    ("replica_groups=[4,4]<=[4,4]T(1,0), dimensions={0}", [0, 4, 8, 12]),
    ("replica_groups=[2,8]<=[2,2,4]T(1,0,2)", [0, 1, 2, 3, 8, 9, 10, 11]),
    ("replica_groups=mesh['data'=2,'model'=8] {'data'}", [0, 8]),
    ("replica_groups={{1,5},{2,6}}", [1, 5]),
    ("channel_id=1", list(range(16))),
])  # fmt: skip
def test_one_group_of_each_way_to_write_them(groups, expected):
    assert _first_group(f"all-gather, {groups}", 16) == expected


def test_groups_in_lines_are_told_apart():
    found = statistics(TPU, 16, lambda group: group == [0, 1, 2, 3]).collectives
    assert found["all-gather"].sent_in_lines == found["all-gather"].sent > 0
    assert statistics(TPU, 16).collectives["all-gather"].sent_in_lines == 0


def test_a_loop_counts_as_often_as_it_runs(mesh):
    """Seven layers of a scan, their weights gathered one by one."""

    def function(x, w_NDD):
        def layer(x, w_DD):
            return jnp.tanh(x @ w_DD), None

        return jax.lax.scan(layer, x, w_NDD)[0]

    rows = NamedSharding(mesh, P(("data", "model")))
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=rows)
    w = jax.ShapeDtypeStruct((7, 32, 32), jnp.float32, sharding=NamedSharding(mesh, P(None, "model")))
    found = statistics(compiled(function, x, w, out_shardings=rows), 8)
    assert found.flops == 7 * 2 * 8 * 32 * 32
    assert found.unknown_loops == 0
    gathered = found.collectives["all-gather"]
    assert (gathered.count, gathered.bytes) == (7, 7 * 32 * 32 * 4)


def test_a_loop_that_may_end_early_counts_to_its_limit():
    def function(x):
        def unfinished(state):
            step, x = state
            return (step < 5) & (x.sum() > 0)

        return jax.lax.while_loop(unfinished, lambda state: (state[0] + 1, state[1] @ state[1]), (0, x))

    x = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    assert statistics(compiled(function, x), 1).flops == 5 * 2 * 16**3


def test_loops_within_loops():
    def function(x):
        inner = lambda x, _: (x @ x, None)  # noqa: E731
        outer = lambda x, _: (jax.lax.scan(inner, x, length=3)[0], None)  # noqa: E731
        return jax.lax.scan(outer, x, length=4)[0]

    x = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    assert statistics(compiled(function, x), 1).flops == 12 * 2 * 16**3


TPU = """HloModule jit_step, is_scheduled=true

%condition (arg: (s32[], bf16[8,64])) -> pred[] {
  %limit = s32[]{:T(128)} constant(24)
  %arg = (s32[]{:T(128)}, bf16[8,64]{1,0:T(8,128)(2,1)}) parameter(0)
  %counter = s32[]{:T(128)} get-tuple-element(%arg), index=0
  ROOT %less = pred[]{:T(512)} compare(%counter, %limit), direction=LT
}

%fused (whole: bf16[24,16,64], at: s32[]) -> bf16[16,64] {
  %whole = bf16[24,16,64]{2,1,0:T(8,128)(2,1)} parameter(0)
  %at = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %slice = bf16[1,16,64]{2,1,0:T(8,128)(2,1)} dynamic-slice(%whole, %at, %zero, %zero), dynamic_slice_sizes={1,16,64}
  ROOT %view = bf16[16,64]{1,0:T(8,128)(2,1)} bitcast(%slice)
}

%body (carried: (s32[], bf16[8,64], bf16[24,16,64])) -> (s32[], bf16[8,64], bf16[24,16,64]) {
  %carried = (s32[]{:T(128)}, bf16[8,64]{1,0:T(8,128)(2,1)}, bf16[24,16,64]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%carried), index=0
  %x = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%carried), index=1
  %stack = bf16[24,16,64]{2,1,0:T(8,128)(2,1)} get-tuple-element(%carried), index=2
  %w = bf16[16,64]{1,0:T(8,128)(2,1)} fusion(%stack, %i), kind=kLoop, calls=%fused, \
backend_config={"window_config":{"estimated_cycles":"1000"}}
  %gather = (bf16[16,64]{1,0}, bf16[64,64]{1,0}) all-gather-start(%w), replica_groups=[4,4]<=[16], dimensions={0}
  %gathered = bf16[64,64]{1,0:T(8,128)(2,1)} all-gather-done(%gather)
  %y = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} convolution(%x, %gathered), dim_labels=bf_io->bf
  ROOT %out = (s32[]{:T(128)}, bf16[8,64]{1,0}, bf16[24,16,64]{2,1,0}) tuple(%i, %y, %stack)
}

%few (arg: (bf16[8,64], u32[])) -> pred[] {
  %eight = u32[]{:T(128)} constant(8)
  %arg = (bf16[8,64]{1,0}, u32[]{:T(128)}) parameter(0)
  %counter = u32[]{:T(128)} get-tuple-element(%arg), index=1
  ROOT %less = pred[]{:T(512)} compare(%counter, %eight), direction=LT
}

%starting (p: bf16[8,8]) -> bf16[32,8] {
  %p = bf16[8,8]{1,0:S(1)} parameter(0)
  ROOT %part = bf16[32,8]{1,0:S(1)} all-gather(%p), channel_id=7, replica_groups=[4,4]<=[16], dimensions={0}
}

%ending (p: bf16[8,8]) -> bf16[32,8] {
  %p = bf16[8,8]{1,0:S(1)} parameter(0)
  ROOT %part = bf16[32,8]{1,0:S(1)} all-gather(%p), channel_id=7, replica_groups=[4,4]<=[16], dimensions={0}
}

%unrolled (carried: (bf16[8,64], u32[])) -> (bf16[8,64], u32[]) {
  %carried = (bf16[8,64]{1,0:S(1)}, u32[]{:T(128)}) parameter(0)
  %a = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%carried), index=0
  %counter = u32[]{:T(128)} get-tuple-element(%carried), index=1
  %two = u32[]{:T(128)} constant(2)
  %next = u32[]{:T(128)S(1)} add(%counter, %two)
  %square = bf16[8,8]{1,0:S(1)} convolution(%a, %a), dim_labels=bf_oi->bf
  %begun = bf16[32,8]{1,0:S(1)} fusion(%square), kind=kCustom, calls=%starting
  %done = bf16[32,8]{1,0:S(1)} fusion(%square), kind=kCustom, calls=%ending
  ROOT %out = (bf16[8,64]{1,0}, u32[]{:T(128)}) tuple(%a, %next)
}

ENTRY %main (x: bf16[8,64], stack: bf16[24,16,64]) -> bf16[8,64] {
  %x = bf16[8,64]{1,0:T(8,128)(2,1)} parameter(0)
  %stack = bf16[24,16,64]{2,1,0:T(8,128)(2,1)} parameter(1)
  %moved = (bf16[8,64]{1,0:S(1)}, bf16[8,64]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %start = s32[]{:T(128)} constant(0)
  %q = bf16[4,8,2,32]{3,2,1,0} parameter(2)
  %k = bf16[4,16,2,32]{3,2,1,0} parameter(3)
  %scores = f32[4,2,8,16]{3,2,1,0} convolution(%q, %k), \
window={size=4x2 stride=3x1 lhs_dilate=4x2}, dim_labels=0b1f_0o1i->01bf
  %sum = f32[128]{0} all-reduce(%part), replica_groups=mesh['a'=2,'b'=8] {'b'}, to_apply=%add
  %part = f32[128]{0} parameter(4)
  %zero = u32[]{:T(128)} constant(0)
  %pair = (bf16[8,64]{1,0}, u32[]{:T(128)}) tuple(%x, %zero)
  %short = (bf16[8,64]{1,0}, u32[]{:T(128)}) while(%pair), condition=%few, body=%unrolled
  %init = (s32[]{:T(128)}, bf16[8,64]{1,0}, bf16[24,16,64]{2,1,0}) tuple(%start, %x, %stack)
  %loop = (s32[]{:T(128)}, bf16[8,64]{1,0}, bf16[24,16,64]{2,1,0}) while(%init), condition=%condition, body=%body
  ROOT %result = bf16[8,64]{1,0:T(8,128)(2,1)} get-tuple-element(%loop), index=1
}
"""


def test_the_text_of_a_tpu_program():
    """Collectives in two parts, unrolled loops, products as convolutions, on-chip memory, cycles."""
    found = statistics(TPU, 16)
    attention = 2 * 4 * 2 * 8 * 16 * 32  # batch axes of a product stand as windows with holes
    by_twos = 4 * 2 * 8 * 8 * 64  # from 0 to 8
    assert found.flops == 24 * 2 * 8 * 64 * 64 + attention + by_twos
    assert found.cycles == 24 * 1000
    gathered, summed = found.collectives["all-gather"], found.collectives["all-reduce"]
    in_parts = 4 * 32 * 8 * 2  # one, though it stands in two fusions
    assert (gathered.count, gathered.bytes) == (24 + 4, 24 * 64 * 64 * 2 + in_parts)
    assert gathered.sent == 0.75 * gathered.bytes
    assert (summed.count, summed.bytes, summed.sent) == (1, 512, 2 * 7 / 8 * 512)
    # One layer of the stack is read and written, gathered (part read, whole written) and read whole.
    slices = 24 * (2 + 1 + 4 + 4) * 16 * 64 * 2
    index = 24 * 4 + 4 * 2 * 4  # a counter and the number added to it
    scores = (4 * 8 * 64 + 4 * 16 * 64) * 2 + 4 * 2 * 8 * 16 * 4
    copied = 8 * 64 * 2  # read here, written on the chip
    assert found.bytes == slices + index + scores + 2 * 512 + copied
