"""What every kind of tuned leaf keeps: one line of `KINDS` each."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_steps import make_train_step

from jax_prompts import optim, partition
from jax_prompts.base_models.tuned_file import load_tuned
from jax_prompts.base_models.weights import abstract_weights, random_weights, with_axes
from jax_prompts.config import Optimizer
from jax_prompts.errors import ConfigError
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.precompile.accounting import matrix_flops
from jax_prompts.prompts import PromptMetadata, PromptTuning, init_members, load_prompt, save_prompt
from jax_prompts.step import assemble, dropout_keys, loss_sums
from jax_prompts.tuned import (
    ATTEMPT,
    IA3,
    Adapter,
    ADePT,
    BitFit,
    DePT,
    LoRA,
    SMoP,
    constants_of,
    fold_leaves,
    fresh_leaves,
    init_leaves,
)
from jax_prompts.tuned.leaves import by_path, flat, lay_in, nested

CONFIG = T5Config(64, 16, 2, 2, 2, 8, 24, ("gelu", "linear"), logits_via_embedding=False, dropout_rate=0.1)
V, D, B, SEEDS, STEPS = CONFIG.vocab_size, CONFIG.emb_dim, 8, (3, 4, 5), 3
NONE = np.zeros((0, 0), np.float32)

KINDS = {
    "adapter": (Adapter(bottleneck=3),),
    "adapter_drop": (Adapter(bottleneck=3, first_layer=1, cross_attention=True, activation="relu"),),
    "bitfit": (BitFit(),),
    "lora": (LoRA(rank=2, alpha=3.0, dropout=0.2),),
    "lora_everywhere": (
        LoRA(rank=2, targets=("query", "key", "value", "out", "wi_0", "wo", "logits_dense")),
    ),
    "ia3": (IA3(),),
    "dept": (DePT(rank=3, max_length=12),),
    "adept": (ADePT(rank=3, dropout=0.2),),
    "dept_and_adept": (DePT(rank=2, max_length=7), ADePT(rank=3)),
    "several": (LoRA(rank=2), IA3(), Adapter(bottleneck=3)),
    "attempt": (ATTEMPT(sources=("source-*.safetensors",), bottleneck=3, temperature=5.0),),
    "smop": (SMoP(length=2, prompts=3),),
}
COUNTS = {  # of D = 16, H K = 16, F = 24, V = 64: 2 encoder layers of one attention, 2 decoder layers of two
    "adapter": 8 * (2 * 16 * 3 + 3 + 16) + 12 * 16,
    "adapter_drop": 5 * (2 * 16 * 3 + 3 + 16) + 12 * 16,
    "bitfit": 2 * (4 * 16 + 2 * 24 + 16 + 2 * 16) + 2 * (8 * 16 + 2 * 24 + 16 + 3 * 16) + 64,
    "lora": 6 * 2 * 2 * 32,
    "lora_everywhere": 6 * 4 * 2 * 32 + 4 * 2 * (40 + 40) + 2 * (16 + 64),
    "ia3": 6 * 32 + 4 * 24,
    "dept": 3 * (12 + 16),
    "adept": 2 * 16 * 3 + 3 + 16,
    "attempt": 2 * 16 * 3 + 2 * 16,
    "smop": 2 * 2 * 16 + 3 * 16,
}
OF_ROWS = {"attempt", "smop"}  # which make prompts of rows of a tuned one


@pytest.fixture(scope="module")
def frozen():
    return nn.meta.unbox(random_weights(T5(CONFIG), jax.random.key(0)))


@pytest.fixture(autouse=True, scope="module")
def sources(tmp_path_factory):
    """Where source prompts lie."""
    folder = tmp_path_factory.mktemp("sources")
    for number in range(3):
        prompt_PD = np.random.default_rng(number).normal(size=(2, D)).astype(np.float32)
        save_prompt(folder / f"source-{number}.safetensors", prompt_PD, PromptMetadata())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def constants(kinds):
    return {path: box.value for path, box in constants_of(kinds).items()}


def in_stacks(frozen):
    """The same weights, their layers stacked."""

    def stack(part):
        layers = [part[f"layers_{i}"] for i in range(2)]
        rest = {name: tree for name, tree in part.items() if not name.startswith("layers_")}
        return {**rest, "layers": jax.tree.map(lambda *x: jnp.stack(x), *layers)}

    return {**frozen, "encoder": stack(frozen["encoder"]), "decoder": stack(frozen["decoder"])}


def boxes(model, frozen):
    return by_path(with_axes(model, frozen))


def batch(members, length=2):
    draw = np.random.default_rng(1)
    virtual = np.broadcast_to(np.arange(V, V + length, dtype=np.int32), (members, B, length))
    text, targets = (draw.integers(2, V, (members, B, size), dtype=np.int32) for size in (10, 3))
    return {
        "encoder_input_tokens": np.concatenate([virtual, text], axis=-1),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (0, 0), (1, 0)))[..., :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }


def tune(kinds, frozen, seeds, data, *, config=CONFIG, method=None, groups=None, mesh=None, rate=0.02):
    """(start, end, losses [steps, E]) of a few steps."""
    model = T5(config)
    optimizer = optim.make_optimizer(Optimizer(name="adamw", learning_rate=rate), STEPS)
    keys_E = jax.vmap(jax.random.key)(np.asarray(seeds))
    leaves = init_leaves(kinds, with_axes(model, frozen), keys_E)
    tuned = {"model": leaves, **({"prompt": init_members(method, keys_E, D)} if method else {})}
    opt_state = jax.vmap(optimizer.init)(tuned)
    if mesh is not None:
        everywhere = partition.replicated(mesh)
        tuned, opt_state, frozen = jax.device_put((tuned, opt_state, frozen), everywhere)
        data = jax.device_put(data, partition.batch_sharding(mesh, members=True))
    step = make_train_step(model, method, optimizer, z_loss=1e-4, normalization="sum", kinds=kinds)
    frozen = lay_in(frozen, constants(kinds))
    step, start, losses = jax.jit(step), jax.tree.map(np.asarray, tuned), []
    for s in range(STEPS):
        parts = [data] if groups is None else groups(data)
        tuned, opt_state, metrics = step(tuned, opt_state, frozen, parts, dropout_keys(np.asarray(seeds), s))
        losses.append(np.asarray(metrics["loss_sum"]))
    assert step._cache_size() == 1
    return start, jax.tree.map(np.asarray, tuned), np.stack(losses)


def member(tree, e):
    return jax.tree.map(lambda x: x[e : e + 1], tree)


def first(tree):
    return jax.tree.map(lambda x: jnp.asarray(x[0]), tree)


def close(a, b, atol=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=atol), a, b)


def halves(data):
    return [jax.tree.map(lambda x, i=i: x[:, i::2], data) for i in range(2)]


def logits_of(model, params, data, prompt_PD=None):
    rows = first(data)
    arrays = rows["encoder_input_tokens"], rows["decoder_input_tokens"], prompt_PD
    return jax.jit(lambda params: model.apply({"params": params}, *arrays))(params)


# Others among KINDS have what these have.
REPEATED = ("adapter_drop", "lora_everywhere", "ia3", "dept", "adept")
SLOW = ("adapter", "attempt", "bitfit", "dept_and_adept", "several", *REPEATED)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in KINDS]
)
def test_contract(name, frozen, tmp_path):
    kinds, model, method = KINDS[name], T5(CONFIG), PromptTuning(length=2)
    before = jax.tree.map(np.asarray, frozen)
    data = batch(len(SEEDS))
    start, end, losses = tune(kinds, frozen, SEEDS, data, method=method)

    # Only what is tuned changes, all of it, and there is as much as the docstring says.
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, frozen))
    moved = jax.tree.map(lambda a, b: np.isfinite(b).all() and not np.array_equal(a, b), start, end)
    still = [path for path, has_moved in flat(moved).items() if not has_moved]
    # Biases of keys do nothing but for rounding, and those of rows that no token is seen with may stay at zero.
    assert [path for path in still if not path.endswith("key/bias")] == []
    assert np.isfinite(losses).all()
    if name in COUNTS:
        assert partition.parameter_count(first(end["model"])) == COUNTS[name]

    # A file holds all that the model reads.
    params, prompt_PD = assemble(model, method, first(end), frozen, kinds)
    params = lay_in(params, constants(kinds))
    leaves = jax.tree.map(np.asarray, fold_leaves(kinds, flat(first(end["model"])), training=False))
    leaves |= constants(kinds)
    metadata = PromptMetadata(method="some")
    save_prompt(tmp_path / "both.safetensors", np.asarray(prompt_PD), metadata, leaves)
    save_prompt(tmp_path / "alone.safetensors", NONE, metadata, leaves)
    for file, rows in (("both", 2), *([] if name in OF_ROWS else [("alone", 0)])):
        path = tmp_path / f"{file}.safetensors"
        loaded = lay_in(frozen, load_tuned(model, path)[1])
        loaded_PD = load_prompt(path, prompt_width=CONFIG.prompt_width)[0]
        assert len(loaded_PD) == rows
        jax.tree.map(np.testing.assert_array_equal, params, loaded)
    np.testing.assert_array_equal(
        logits_of(model, params, data, prompt_PD), logits_of(model, loaded, data, prompt_PD)
    )
    bare = logits_of(model, frozen, data, prompt_PD)
    assert not np.allclose(logits_of(model, params, data, prompt_PD), bare, atol=1e-3)

    # Stacked layers are the same function, and have the same leaves.
    scanned = T5(dataclasses.replace(CONFIG, scan_layers=True))
    stacked = lay_in(in_stacks(frozen), leaves)
    close(logits_of(model, params, data, prompt_PD), logits_of(scanned, stacked, data, prompt_PD))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name in KINDS if name not in REPEATED],
)
def test_members_are_separate_runs_whatever_devices_layers_and_activations(name, frozen):
    still = {LoRA: {"dropout": 0.0}, ADePT: {"dropout": 0.0}, SMoP: {"noise": 0.0}}
    kinds = tuple(dataclasses.replace(kind, **still.get(type(kind), {})) for kind in KINDS[name])
    method = PromptTuning(length=2) if name in OF_ROWS else None
    config = dataclasses.replace(CONFIG, dropout_rate=0.0)
    data = batch(len(SEEDS), length=2 if method else 0)
    _, end, losses = tune(kinds, frozen, SEEDS, data, config=config, method=method)
    seed, rows = SEEDS[1:2], member(data, 1)

    # Alone on eight devices; the layers stacked; activations recomputed; rows in groups.
    assert jax.device_count() == 8
    for weights, settings, options in (
        (frozen, {}, {"mesh": partition.make_mesh({})}),
        (in_stacks(frozen), {"scan_layers": True}, {}),
        (frozen, {"remat": "full"}, {}),
        (frozen, {}, {"groups": halves}),
    ):
        changed = dataclasses.replace(config, **settings)
        _, alone, losses_alone = tune(kinds, weights, seed, rows, config=changed, method=method, **options)
        np.testing.assert_allclose(losses[:, 1:2], losses_alone, rtol=1e-5)
        if not any(
            isinstance(kind, BitFit) for kind in kinds
        ):  # Adam makes steps of rounding where keys have biases
            close(member(end, 1), alone, atol=2e-4)

    # bfloat16 activations: parameters stay float32, the loss is near.
    narrow = dataclasses.replace(config, dtype=jnp.bfloat16)
    _, end_narrow, losses_narrow = tune(kinds, frozen, seed, rows, config=narrow, method=method)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(end_narrow))
    np.testing.assert_allclose(losses_narrow[0], losses_alone[0], rtol=0.02)


@pytest.mark.parametrize(
    "kinds",
    [
        (LoRA(rank=1),),
        *(pytest.param((kind,), marks=pytest.mark.slow) for kind in (Adapter(bottleneck=1), BitFit(), IA3())),
    ],
    ids=str,
)
def test_no_gradient_of_a_frozen_matrix_is_computed(kinds):
    """Counted by products, of which the leaves' own are a few per cent."""
    config = dataclasses.replace(CONFIG, emb_dim=128, mlp_dim=256, head_dim=64, vocab_size=256)
    model, key = T5(config), jax.random.key(0)
    frozen = nn.meta.unbox(jax.eval_shape(lambda: random_weights(model, key)))
    leaves = jax.eval_shape(
        lambda frozen: nn.meta.unbox(nested(fresh_leaves(kinds, boxes(model, frozen), key))), frozen
    )

    def loss(leaves, frozen):
        params, _ = assemble(model, None, {"model": leaves}, frozen, kinds, training=True)
        return loss_sums(model, params, None, first(batch(1, length=0)), key)["loss_sum"]

    def products(function):
        return matrix_flops(jax.make_jaxpr(function)(leaves, frozen).jaxpr)

    forward, ours = products(loss), products(jax.grad(loss))
    everything = products(jax.grad(loss, argnums=(0, 1)))
    assert 1.8 < ours / forward < 2.3
    assert everything > 1.25 * ours


@pytest.mark.parametrize("kind", [LoRA(rank=2, targets=("key", "value", "wo")), IA3(), BitFit()])
def test_absorbed_projections_are_the_same_function(kind, frozen, monkeypatch):
    """Whose keys and values are never made, whatever is tuned beside them."""
    boxed = boxes(T5(CONFIG), frozen)
    leaves = nn.meta.unbox(kind.init(boxed, jax.random.key(1)))
    leaves = {
        path: x + 0.1 * jax.random.normal(jax.random.key(len(path)), x.shape) for path, x in leaves.items()
    }
    params, data = lay_in(frozen, kind.fold(leaves, training=False)), batch(1, length=0)
    found = []
    for absorbed in (True, False):
        monkeypatch.setattr(
            "jax_prompts.models.t5_stacks.prefers_absorbed_projections", lambda *_, a=absorbed: a
        )
        found.append(logits_of(T5(CONFIG), params, data))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_a_model_takes_no_leaves_that_it_has_no_place_for(frozen, tmp_path):
    other = T5Config(64, 24, 2, 3, 2, 8, 24, ("gelu", "linear"), logits_via_embedding=False)
    leaves = LoRA(rank=2).init(boxes(T5(CONFIG), frozen), jax.random.key(0))
    leaves = jax.tree.map(np.asarray, nn.meta.unbox(leaves))
    save_prompt(tmp_path / "a", NONE, PromptMetadata(method="LoRA", base_model="tiny"), leaves)
    with pytest.raises(ConfigError, match=r"a does not fit the model \(12 leaves.*tiny"):
        load_tuned(T5(other), tmp_path / "a")[1]
    a = next(path for path in leaves if path.endswith("lora_a"))
    one_less = {path: x for path, x in leaves.items() if path != a}
    save_prompt(tmp_path / "b", NONE, PromptMetadata(method="LoRA"), one_less | {"encoder/up": np.ones(3)})
    with pytest.raises(ConfigError, match=rf"\(2 leaves.*: - {a} \+ encoder/up: use the"):
        load_tuned(T5(CONFIG), tmp_path / "b")[1]
    whole = {"encoder/layers_0/mlp/wo/kernel": np.ones((24, 16), np.float32)}
    save_prompt(tmp_path / "c", NONE, PromptMetadata(), whole)
    with pytest.raises(ConfigError, match=r"\(1 leaves.*: \+ encoder/layers_0/mlp/wo/kernel"):
        load_tuned(T5(CONFIG), tmp_path / "c")[1]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: LoRA(rank=17), r"LoRA.rank is 17 and .* is 16 by 16: set it to at most 16"),
        (lambda: LoRA(targets=("qery",)), r"LoRA.targets names 'qery', .* did you mean query"),
        (lambda: LoRA(targets="query"), "LoRA.targets is 'query': set it to a tuple"),
        (lambda: LoRA(rank=0), "LoRA.rank is 0"),
        (lambda: LoRA(dropout=1.0), "LoRA.dropout is 1.0"),
        (lambda: LoRA(alpha=0.0), "LoRA.alpha is 0.0: set it to a number above 0"),
        (lambda: DePT(alpha=-8.0), "DePT.alpha is -8.0"),
        (
            lambda: DePT(rank=17, max_length=30),
            r"DePT.rank is 17 and the offsets are 30 by 16: set it to at most 16",
        ),
        (lambda: DePT(rank=8, max_length=7), r"DePT.rank is 8 .* 7 by 16: set it to at most 7"),
        (lambda: DePT(max_length=0), "DePT.max_length is 0"),
        (lambda: ADePT(rank=17), "ADePT.rank is 17 and embeddings have 16 numbers: set it to at most 16"),
        (lambda: ADePT(dropout=-0.1), "ADePT.dropout is -0.1"),
        (lambda: Adapter(bottleneck=0), "Adapter.bottleneck is 0"),
        (lambda: Adapter(activation="geloo"), r"Adapter.activation is 'geloo': set it to gelu"),
        (lambda: ATTEMPT(), r"ATTEMPT.sources is \(\): set it to prompts of other tasks"),
        (lambda: ATTEMPT(("absent-*",)), "ATTEMPT.sources absent-. names no file"),
        (lambda: ATTEMPT(("a",), temperature=0.0), "ATTEMPT.temperature is 0.0"),
        (lambda: SMoP(length=2, prompts=1), "SMoP.prompts is 1"),
        (lambda: SMoP(length=2, prompts=17), "SMoP.prompts is 17: set it to at most 16"),
        (lambda: SMoP(length=2, noise=-1.0), "SMoP.noise is -1.0"),
        (lambda: Adapter(scale=-1.0), "Adapter.scale is -1.0: set it to a number of at least 0"),
        (
            lambda: Adapter(first_layer=2),
            "Adapter.first_layer is 2 and the model has layers 0 to 1: set it to one of these",
        ),
    ],
)
def test_settings_that_cannot_work_are_one_line(frozen, made, words):
    with pytest.raises(ConfigError, match=words):
        made().init(boxes(T5(CONFIG), frozen), jax.random.key(0))


def test_sources_that_are_not_there_stop_a_run_but_no_count(frozen):
    """A table is counted before the prompts that its rows start from are tuned."""
    attempt = ATTEMPT(("absent.safetensors",), bottleneck=3)
    assert len(attempt.init(boxes(T5(CONFIG), frozen), jax.random.key(0))) == 4
    with pytest.raises(ConfigError, match=r"ATTEMPT.sources absent\.safetensors names no file"):
        attempt.check_sources()


def test_biases_of_logits_that_a_file_could_not_tell_apart_are_refused():
    """32,100 rows are those of a table that was cut to its pieces, or the pieces of one of 32,128."""
    cut = T5(T5Config(32_100, 8, 1, 1, 1, 8, 8, ("relu",), logits_via_embedding=True))
    weights = by_path(abstract_weights(cut))
    with pytest.raises(
        ConfigError, match=r"cannot tell this model's 32,100 rows .* set BitFit.logits to False"
    ):
        BitFit().init(weights, jax.random.key(0))
    assert "decoder/logits_bias" not in jax.eval_shape(
        lambda key: nn.meta.unbox(BitFit(logits=False).init(weights, key)), jax.random.key(0)
    )
