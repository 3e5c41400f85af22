"""Prompts of each row's own beside the papers' equations in NumPy; what they do not depend on; bad input."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_prompts.base_models.tuned_file import load_tuned
from jax_prompts.base_models.weights import abstract_weights, random_weights
from jax_prompts.cli.arguments import parse
from jax_prompts.cli.gin_settings import resolve
from jax_prompts.config import Decoding
from jax_prompts.dry_run import dry_run
from jax_prompts.errors import ConfigError
from jax_prompts.inference.predict import make_predict
from jax_prompts.main import main
from jax_prompts.models.bert import Bert, BertConfig
from jax_prompts.models.row_prompts import routed
from jax_prompts.models.t5 import T5, T5Config
from jax_prompts.prompts import PerLayer, PromptMetadata, PromptTuning, load_prompt, save_prompt
from jax_prompts.prompts.prompt_file import load_file as load_prompt_file
from jax_prompts.tuned import ATTEMPT, SMoP, check_beside_prompt, fresh_leaves
from jax_prompts.tuned.leaves import by_path, lay_in

CONFIG = T5Config(64, 16, 2, 1, 1, 8, 24, ("gelu", "linear"), logits_via_embedding=False)
V, D, P, M, B, K = CONFIG.vocab_size, CONFIG.emb_dim, 3, 5, 4, 4
draw = np.random.default_rng(0)
TABLE_QD = 2 * draw.normal(size=(B * P, D))  # tuned prompts, of which rows have the first or the second
TEXTS = [[5, 9, 33, 1], [8, 1], [63, 12, 12, 40, 7, 1], [2, 1]]
SMOP = {
    "input_router/kernel": draw.normal(size=(D, K)),
    "input_router/prompt": draw.normal(size=(K - 1, P, D)),
}
ATTEMPTED = {
    "input_attention/down/kernel": draw.normal(size=(D, M)),
    "input_attention/up/kernel": draw.normal(size=(M, D)),
    "input_attention/norm/scale": 0.2 * draw.normal(size=D),
    "input_attention/norm/bias": 0.2 * draw.normal(size=D),
    "input_attention/sources": draw.normal(size=(K - 1, P, D)),
}


@pytest.fixture(scope="module")
def frozen():
    return nn.meta.unbox(random_weights(T5(CONFIG), jax.random.key(0)))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def smop_prompt(own_PD, text_TD):
    """Choi et al. 2023: the prompt that the router finds likeliest, times its probability."""
    p_K = softmax(text_TD.mean(0) @ SMOP["input_router/kernel"])
    prompts_KPD = np.concatenate([own_PD[None], SMOP["input_router/prompt"]])
    return p_K.max() * prompts_KPD[p_K.argmax()]


def attempt_prompt(own_PD, text_TD):
    """Asai et al. 2022, section 3.2: the tuned prompt, and the attention's mixture of it and of sources."""
    down, up, scale, bias, sources = ATTEMPTED.values()
    h_M = text_TD.max(0) @ down
    h_D = (h_M / (1 + np.exp(-h_M))) @ up
    query_D = (h_D - h_D.mean()) / np.sqrt(h_D.var() + 1e-5) * scale + bias
    prompts_KPD = np.concatenate([sources, own_PD[None]])
    a_K = softmax(prompts_KPD.max(1) @ query_D)
    return own_PD + np.tensordot(a_K, prompts_KPD, 1)


def rows(first_ids, length=12, begin=0):
    """Encoder inputs: virtual tokens from these ids in front of each text, behind `begin` tokens of it."""
    tokens_BL = np.zeros((B, length), np.int32)
    for row, text, first in zip(tokens_BL, TEXTS, first_ids, strict=True):
        ids = [*text[:begin], *range(first, first + P), *text[begin:]]
        row[: len(ids)] = ids
    return tokens_BL


TARGETS = draw.integers(2, V, (B, 3)).astype(np.int32)
TASK_OF_ROW = np.array([0, 1, 1, 0])


@jax.jit
def _logits(params, *arrays):
    return T5(CONFIG).apply({"params": params}, *arrays)


def logits(params, tokens_BL, table_QD):
    return np.asarray(_logits(params, jnp.asarray(tokens_BL), jnp.asarray(TARGETS), jnp.float32(table_QD)))


def answers(params, tokens_BL, table_QD):
    predict = make_predict(T5(CONFIG), Decoding(), 4)
    return np.asarray(predict(params, jnp.float32(table_QD), tokens_BL, jax.random.key(0)))


@pytest.mark.parametrize(("leaves", "prompt_of"), [(SMOP, smop_prompt), (ATTEMPTED, attempt_prompt)])
def test_each_row_has_the_prompt_of_the_equations(frozen, leaves, prompt_of):
    params = lay_in(frozen, jax.tree.map(jnp.float32, leaves))
    embedding_VD = np.asarray(frozen["token_embedder"]["embedding"], np.float64)
    own_BPD = TABLE_QD.reshape(B, P, D)[TASK_OF_ROW]
    wanted_BPD = [prompt_of(own, embedding_VD[text]) for own, text in zip(own_BPD, TEXTS, strict=True)]
    one_each = (
        np.arange(V, V + B * P, P),
        np.concatenate(wanted_BPD),
    )  # prompts as they are, of the bare model
    of_tasks = V + P * TASK_OF_ROW
    for begin in (0, 1):  # in front of the text, and not
        wanted = logits(frozen, rows(one_each[0], begin=begin), one_each[1])
        found = logits(params, rows(of_tasks, begin=begin), TABLE_QD)
        np.testing.assert_allclose(found, wanted, atol=2e-5)
        assert np.abs(found - logits(frozen, rows(of_tasks, begin=begin), TABLE_QD)).max() > 0.05
    padded = logits(params, rows(of_tasks, begin=begin, length=20), TABLE_QD)
    np.testing.assert_allclose(padded, wanted, atol=2e-5)
    np.testing.assert_array_equal(
        answers(params, rows(of_tasks), TABLE_QD), answers(frozen, rows(one_each[0]), one_each[1])
    )

    # Rows without a prompt, of text or of padding alone, are as in the bare model.
    without = rows(of_tasks)
    without[0], without[1] = [*TEXTS[0], *[0] * 8], 0
    ours, bare = (logits(weights, without, TABLE_QD) for weights in (params, frozen))
    np.testing.assert_array_equal(ours[:1], bare[:1])
    assert np.isfinite(ours).all()


def test_noise_moves_choices_and_no_gradient():
    x_BLD, text_BL = jnp.float32(draw.normal(size=(64, 5, D))), jnp.ones((64, 5), bool)
    kernel = jnp.float32(SMOP["input_router/kernel"])
    key, router = jax.random.key(3), {"kernel": kernel, "noise": jnp.float32(2.0)}
    still, noisy = routed(router, x_BLD, text_BL), routed(router, x_BLD, text_BL, key)
    assert (still.argmax(1) != noisy.argmax(1)).any() and (still.argmax(1) == noisy.argmax(1)).any()

    # By hand: d p_max / d W = x (p_max (1[max] - p)), at the noisy logits.
    mean_BD = x_BLD.mean(1)
    logits_BK = mean_BD @ kernel
    logits_BK = logits_BK * (1 + 2 * jax.random.normal(key, logits_BK.shape))
    p_BK, chosen_BK = jax.nn.softmax(logits_BK), jax.nn.one_hot(logits_BK.argmax(1), K)
    wanted = mean_BD.T @ ((p_BK * chosen_BK).sum(1, keepdims=True) * (chosen_BK - p_BK))
    found = jax.grad(lambda w: routed({**router, "kernel": w}, x_BLD, text_BL, key).sum())(kernel)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def source(path, shape=(P, D), **metadata):
    numbers = np.random.default_rng(len(str(path))).normal(size=shape).astype(np.float32)
    save_prompt(path, numbers, PromptMetadata(**metadata))
    return str(path)


@pytest.fixture
def sources(tmp_path):
    return tuple(source(tmp_path / f"{name}.safetensors", model_fingerprint="aaaa") for name in ("a", "bb"))


def test_a_router_starts_orthogonal_and_its_prompts_as_pieces_of_the_vocabulary(frozen):
    leaves = SMoP(length=P, prompts=K).init(boxed(T5(CONFIG), frozen), jax.random.key(0))
    kernel, prompts = (leaves[f"input_router/{name}"].value for name in ("kernel", "prompt"))
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(K), atol=1e-5)
    table = {row.tobytes() for row in np.asarray(frozen["token_embedder"]["embedding"][3:])}
    assert len({row.tobytes() for row in np.asarray(prompts).reshape(-1, D)} & table) == (K - 1) * P


def boxed(model, weights):
    names = nn.get_partition_spec(abstract_weights(model))
    return by_path(jax.tree.map(lambda x, axes: nn.LogicallyPartitioned(x, tuple(axes)), weights, names))


def test_what_does_not_go_together_is_one_line(sources, tmp_path, frozen):
    of_t5, key = boxed(T5(CONFIG), frozen), jax.random.key(0)
    wide = source(tmp_path / "wide", (P, D + 1))
    deep, alone = source(tmp_path / "deep", prompt_kind="deep"), str(tmp_path / "alone")
    save_prompt(
        alone,
        np.zeros((0, D), np.float32),
        PromptMetadata(),
        {"encoder/layers_0/mlp/wo/bias": np.zeros(D, np.float32)},
    )
    bert = by_path(abstract_weights(Bert(BertConfig(64, 16, 2, 1, 24), classes=2)))
    cases = {
        r"wide has width 17 and the base model 16: use prompts": lambda: ATTEMPT((wide,)).init(of_t5, key),
        r"wide has width 17 and the base model 16: use the": lambda: ATTEMPT((*sources, wide)).init(of_t5, key),
        r"long has 4 prompt tokens and .* 3": lambda: ATTEMPT(
            (*sources, source(tmp_path / "long", (P + 1, D)))
        ).init(of_t5, key),
        r"deep is a prompt of kind deep": lambda: ATTEMPT((deep,)).init(of_t5, key),
        r"^ATTEMPT.sources .*alone holds leaves .* no prompt": lambda: ATTEMPT(
            (alone,)
        ).init(of_t5, key),
        r"a.safetensors twice": lambda: ATTEMPT((*sources, sources[0])).init(of_t5, key),
        r"a.safetensors belongs to base model aaaa .* this run has bbbb": lambda: ATTEMPT(sources).check_sources(
            "bbbb"
        ),
        r"ATTEMPT is tuned beside .* or a T5": lambda: ATTEMPT(sources).init(bert, key),
        r"SMoP is tuned beside .* or a T5": lambda: SMoP(P).init(bert, key),
        r"tokens and PROMPT_LENGTH is 4: set PROMPT_LENGTH to 3": lambda: check_beside_prompt(
            [ATTEMPT(sources)], PromptTuning(4)
        ),
        r"SMoP makes .* set PROMPT": lambda: check_beside_prompt([SMoP(P)], None),
        r"SMoP .* or one like it": lambda: check_beside_prompt([SMoP(P)], PerLayer(P)),
        r"two kinds that make a row's prompt": lambda: check_beside_prompt(
            [SMoP(P), ATTEMPT(sources)], PromptTuning(P)
        ),
    }  # fmt: skip
    for words, made in cases.items():
        with pytest.raises(ConfigError, match=words) as caught:
            made()
        assert "\n" not in str(caught.value)
    ATTEMPT(sources).check_sources("aaaa")
    check_beside_prompt([ATTEMPT(sources)], PromptTuning(P))


def test_files_whose_parts_do_not_go_together_are_one_line(tmp_path):
    metadata = PromptMetadata(method="PromptTuning + SMoP")
    arrays = {path: leaf.astype(np.float32) for path, leaf in SMOP.items()}
    few = {**arrays, "input_router/kernel": arrays["input_router/kernel"][:, 1:]}
    wide = {path: leaf.astype(np.float32) for path, leaf in ATTEMPTED.items()}
    wide["input_attention/sources"] = np.ones((2, P, D + 1), np.float32)
    cases = {
        r"a prompt of 4 tokens and beside it \[3, 3, 16\]": (P + 1, arrays, {}),
        r"a router of 3 prompts and 4 prompts": (P, few, {}),
        r"a prompt of kind 'deep'": (P, arrays, {"prompt_kind": "deep"}),
        r"\(1 leaves.* - input_router/prompt:": (
            P,
            {"input_router/kernel": arrays["input_router/kernel"]},
            {},
        ),
        r"sources \[2, 3, 16\] \+ input_attention/sources \[2, 3, 17\]": (P, wide, {}),
        r"\+ input_router/other": (P, {**arrays, "input_router/other": np.ones(2, np.float32)}, {}),
    }
    for words, (length, leaves, settings) in cases.items():
        prompt_PD = np.ones((length, D), np.float32)
        save_prompt(tmp_path / "p", prompt_PD, dataclasses.replace(metadata, **settings), leaves)
        with pytest.raises(ConfigError, match=words) as caught:
            load_tuned(T5(CONFIG), tmp_path / "p")[1]
        assert "\n" not in str(caught.value)
    save_prompt(tmp_path / "p", np.ones((P, D), np.float32), metadata, arrays)
    assert load_tuned(T5(CONFIG), tmp_path / "p")[1].keys() == SMOP.keys()


def counted(*settings):
    flags = [
        f"--gin_file=gin_configs/{file}.gin" for file in ("models/t5_base", "recipes/explosive", "runs/train")
    ]
    flags += ["--gin.MODEL_DIR=never", "--gin.MIXTURE_OR_TASK_NAME=super_glue_rte_v102", *settings]
    return dry_run(resolve(parse(["train", *flags]), "TrainRun")[0])


def test_counts_of_the_papers(tmp_path):
    files = [source(tmp_path / f"{number}", (100, 768)) for number in range(6)]
    attempt = ("--gin_file=gin_configs/prompts/attempt.gin", f"--gin.ATTEMPT.sources={tuple(files)!r}")
    paper = counted(*attempt)
    assert paper["method"] == "PromptTuning + ATTEMPT"
    assert paper["tuned_parameters"] == 100 * 768 + 2 * 768 * 100 + 2 * 768 == 231_936
    assert paper["frozen_parameters"] == 222_903_552 + 6 * 76_800
    smop = counted("--gin_file=gin_configs/prompts/smop.gin")
    assert smop["tuned_parameters"] == 4 * 5 * 768 + 4 * 768 == 18_432


@pytest.mark.slow
def test_a_file_is_whole_and_sources_are_not_tuned(tmp_path, capsys):
    """Sources have no gradient, no optimiser's state and no place in checkpoints; the file has them; eval takes it."""
    files = [source(tmp_path / f"{number}", (4, 192)) for number in range(2)]
    run = ["--gin_file=gin_configs/quickstart.gin", "--gin_file=gin_configs/prompts/attempt.gin"]
    settings = {
        "MODEL_DIR": tmp_path / "run", "PROMPT_LENGTH": 4, "TRAIN_STEPS": 2, "EVAL_PERIOD": 2, "MEMBERS": 2,
        "Optimizer.warmup_steps": 0, "ATTEMPT.sources": repr(tuple(files)), "ATTEMPT.bottleneck": 3,
        "Optimizer.weight_decay": 0.1,
    }  # fmt: skip
    main(["train", *run, *(f"--gin.{name}={value}" for name, value in settings.items())])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["tuned_parameters"] == 2 * (4 * 192 + 2 * 192 * 3 + 2 * 192)
    written = sorted((tmp_path / "run").glob("prompt-*.safetensors"))
    for file in written:
        _, leaves, metadata = load_prompt_file(file)
        assert metadata.method == "PromptTuning + ATTEMPT"
        np.testing.assert_array_equal(
            leaves["input_attention/sources"], np.stack([load_prompt(file)[0] for file in files])
        )
    flags = [f"--gin_file={tmp_path}/run/config.gin", "--gin_file=gin_configs/runs/eval.gin"]
    flags += [f"--gin.MODEL_DIR={tmp_path}/eval", f"--gin.PROMPT_FILES={tuple(map(str, written))!r}"]
    main(["eval", *flags])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["losses"]
    for file, losses in zip(written, summary["losses"], strict=True):
        loss, wanted = (each["quickstart_reviews"]["loss"] for each in (found[str(file)], losses))
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_a_norm_that_is_not_tuned_is_one_divided_by_the_temperature(frozen, sources):
    kind = ATTEMPT(sources, norm=False)
    leaves = nn.meta.unbox(kind.init(boxed(T5(CONFIG), frozen), jax.random.key(0)))
    assert sum(leaf.size for leaf in leaves.values()) == 2 * D * 100
    folded = kind.fold(leaves, training=True)
    np.testing.assert_allclose(folded["input_attention/norm/scale"], np.full(D, 1 / (D * np.e)), rtol=1e-6)
    assert not folded["input_attention/norm/bias"].any()
    colder = ATTEMPT(sources, temperature=2.0).fold({**folded, **leaves}, training=False)
    np.testing.assert_allclose(colder["input_attention/norm/scale"], np.full(D, 0.5 / (D * np.e)), rtol=1e-6)


def test_fresh_leaves_are_the_same_for_a_key(frozen, sources):
    kinds, weights = [ATTEMPT(sources)], boxed(T5(CONFIG), frozen)
    a, b = (fresh_leaves(kinds, weights, jax.random.key(seed)) for seed in (1, 1))
    jax.tree.map(np.testing.assert_array_equal, nn.meta.unbox(a), nn.meta.unbox(b))
    assert {path: box.value.shape for path, box in a.items()} == {
        "input_attention/down/kernel": (D, 100),
        "input_attention/up/kernel": (100, D),
        "input_attention/norm/scale": (D,),
        "input_attention/norm/bias": (D,),
    }
