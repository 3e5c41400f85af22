"""Prompts in upstream's two T5 networks: their loss and gradients are those of the project on the same weights."""

import functools
import types

import flax.core
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.base_models.build import make_model
from jax_prompts.base_models.weights import load_weights
from jax_prompts.config import BaseModel
from jax_prompts.errors import RunError
from jax_prompts.formats.arrays import in_memory
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.prompts import (
    MPT,
    Decomposed,
    Explosive,
    LSTMPrompt,
    PromptTuning,
    PTuningLSTM,
    PTuningMLP,
    RankProbe,
    Residual,
    SuperPos,
    load_prompt,
)
from jax_prompts.step import loss_sums
from jax_prompts.upstream.parameters import Prompt

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
CARRIED = {
    "prompt_tuning": PromptTuning(4),
    "residual": Residual(4, hidden=6),
    "residual_separate": Residual(4, hidden=6, shared=False),
    "lstm": LSTMPrompt(4),
    "p_tuning_mlp": PTuningMLP(4),
    "p_tuning_lstm": PTuningLSTM(4, hidden=5),
    "decomposed": Decomposed(4, rank=2),
    "rank_probe": RankProbe(4),
    "explosive": Explosive(),
    "explosive_star": Explosive(4),
    "superpos": SuperPos(4, rows=3),
    "mpt": MPT(4),
}
V, D, RATE, Z_LOSS = 48, 12, 0.3, 1e-4
BATCH = {
    "encoder_input_tokens": np.array([[5, 9, 30, 1, 0], [7, 8, 1, 0, 0]], np.int32),
    "decoder_input_tokens": np.array([[0, 11, 4], [0, 6, 0]], np.int32),
    "decoder_target_tokens": np.array([[11, 4, 1], [6, 1, 0]], np.int32),
    "decoder_loss_weights": np.array([[1, 1, 1], [1, 1, 0]], np.int32),
}


@pytest.fixture(autouse=True)
def upstreams_ranks(peers):
    """T5X adds arrays of unlike ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module", params=["t5", "scalable_t5"])
def network(request, peers, tmp_path_factory):
    """T5X's model with a method, its frozen weights, and our loss and gradient [P, D] of a prompt with the same."""
    return _network(request.param, tmp_path_factory.mktemp("model"))


def _network(name, folder):
    import seqio
    from t5x import adafactor, models, optimizers

    from jax_prompts.upstream import rules, scalable_t5, t5

    module = {"t5": t5, "scalable_t5": scalable_t5}[name]
    sizes = {"num_heads": 2, "num_encoder_layers": 2, "num_decoder_layers": 2, "head_dim": 4, "mlp_dim": 16}
    remat = {"remat_policy": "minimal"} if name == "scalable_t5" else {}
    config = module.network.T5Config(V, emb_dim=D, mlp_activations=("gelu", "linear"), **sizes, **remat)

    def model_of(method):
        adafactor_def = adafactor.Adafactor(
            multiply_by_parameter_scale=False, logical_factor_rules=rules.factor_rules()
        )
        tuned = flax.traverse_util.ModelParamTraversal(rules.is_tuned)
        return models.EncoderDecoderModel(
            module.Transformer(config, method=method),
            input_vocabulary=seqio.ByteVocabulary(),
            output_vocabulary=seqio.ByteVocabulary(),
            optimizer_def=optimizers.MultiOptimizer([(tuned, adafactor_def)]),
            z_loss=Z_LOSS,
        )

    with jax.numpy_rank_promotion("allow"):
        variables = variables_of(model_of(CARRIED["prompt_tuning"]))
    frozen, path = dict(variables["params"]), folder / "checkpoint_1"
    frozen.pop("prompt")
    arrays = {
        n: in_memory(np.asarray(x)) for n, x in flax.traverse_util.flatten_dict(frozen, sep="/").items()
    }
    write_checkpoint(path, arrays, 1)
    base = BaseModel(None, str(path), "")
    model = make_model(base)
    weights = load_weights(base, model)[0]

    @jax.jit
    def ours(prompt_PD):
        def loss(prompt_PD):
            virtual_BP = jnp.broadcast_to(V + jnp.arange(len(prompt_PD))[None], (2, len(prompt_PD)))
            ids_BL = jnp.concatenate([virtual_BP, BATCH["encoder_input_tokens"]], axis=1)
            batch = {**jax.tree.map(jnp.asarray, BATCH), "encoder_input_tokens": ids_BL}
            return loss_sums(model, weights, prompt_PD, batch, None, Z_LOSS)["loss_sum"]

        return jax.value_and_grad(loss)(prompt_PD)

    return model_of, frozen, ours


def variables_of(model):
    shapes = {name: x.shape for name, x in BATCH.items()}
    types = {name: x.dtype for name, x in BATCH.items()}
    init = functools.partial(model.get_initial_variables, input_shapes=shapes, input_types=types)
    return flax.core.unfreeze(jax.jit(init)(jax.random.PRNGKey(5)))


@pytest.mark.parametrize("name", CARRIED)
def test_loss_and_gradient_are_ours_and_a_step_tunes_the_prompt_alone(network, name):
    from t5x.train_state import FlaxOptimTrainState

    (model_of, frozen, ours), method = network, CARRIED[name]
    model = model_of(method)
    variables = variables_of(model)
    prompt = variables["params"]["prompt"]
    variables["params"] = {**frozen, "prompt": prompt}

    loss, gradient = jax.jit(jax.value_and_grad(lambda params: model.loss_fn(params, BATCH, None)[0]))(
        variables["params"]
    )
    folded_PD, back = jax.vjp(lambda prompt: method.apply({"params": prompt}, D), prompt)
    our_loss, our_gradient_PD = ours(folded_PD)
    np.testing.assert_allclose(loss, our_loss, rtol=1e-5)
    (our_gradient,) = back(our_gradient_PD)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(our_gradient))
    for theirs, mine in zip(*map(jax.tree.leaves, (gradient["prompt"], our_gradient)), strict=True):
        assert jnp.abs(mine).max() > 0
        np.testing.assert_allclose(theirs, mine, atol=1e-5 * scale, rtol=1e-5)

    state = FlaxOptimTrainState.create(model.optimizer_def, flax.core.freeze(variables))
    after = state.apply_gradient(flax.core.freeze(gradient), learning_rate=RATE).params
    for path, before in flax.traverse_util.flatten_dict(variables["params"], sep="/").items():
        now = flax.traverse_util.flatten_dict(flax.core.unfreeze(after), sep="/")[path]
        assert np.array_equal(now, before) != path.startswith("prompt/"), path


@pytest.mark.parametrize("place", ["ours", "original"])
def test_an_evaluation_leaves_a_prompt_file(peers, tmp_path, place):
    """Wherever the parameters lie, and of a run without a base model; numbers that are not finite end the run."""
    from jax_prompts.upstream.save import PromptFiles

    method = CARRIED["residual"]
    params = Prompt(method).init(jax.random.key(0), D)["params"]
    model = {"token_embedder": {"embedding": jnp.zeros((V, D))}}
    tree = {"ours": {"prompt": params}, "original": {"encoder": {"prompt": {"prompt": params}}}}[place]
    state = types.SimpleNamespace(params=flax.core.freeze({**model, **tree}), step=jnp.asarray(12))
    action = PromptFiles(method, f"{tmp_path}/", None, None)
    assert action.run(state, {}) is False
    found_PD, metadata = load_prompt(tmp_path / "prompts" / "12.safetensors")
    np.testing.assert_array_equal(found_PD, method.apply({"params": params}, D))
    assert (metadata.method, metadata.settings["hidden"], metadata.step) == ("Residual", 6, 12)
    assert (metadata.base_model, metadata.task) == ("", "")
    state.params = jax.tree.map(lambda x: x * jnp.nan, state.params)
    with pytest.raises(RunError, match="its values are not all finite"):
        action.run(state, {})
