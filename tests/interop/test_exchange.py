"""`t5x convert` and `t5x export` of prompts, as commands; T5X checkpoints with a prompt in them."""

import json
import pathlib

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jax_prompts.base_models import t5x
from jax_prompts.base_models.fingerprint import fingerprint
from jax_prompts.base_models.open import open_model
from jax_prompts.formats.arrays import in_memory
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.main import main
from jax_prompts.models.t5 import T5
from jax_prompts.prompts import PromptMetadata, load_prompt, save_prompt

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
BASE = GOLDENS / "t5_v1_1_hf"
PROMPT_PD = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)


def t5x_command(capsys, *argv):
    capsys.readouterr()
    main([str(arg) for arg in argv])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def refusal(capsys, *argv):
    """(exit status, the one line on stderr)."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    return stopped.value.code, err


@pytest.fixture
def prompt(tmp_path):
    save_prompt(tmp_path / "p.safetensors", PROMPT_PD, PromptMetadata(method="Residual", task="rte"))
    return tmp_path / "p.safetensors"


@pytest.fixture(scope="module")
def original():
    """The model of the original prompt tuning code, T5X's names, its prompt among them."""
    golden = load_file(GOLDENS / "prompt_tuning_flaxformer" / "golden.safetensors")
    arrays = {name.removeprefix("params/"): x for name, x in golden.items() if name.startswith("params/")}
    return arrays, golden


def test_the_originals_checkpoint_gives_its_prompt_and_takes_it_back(original, tmp_path, capsys):
    arrays, golden = original
    write_checkpoint(tmp_path / "checkpoint_7", {name: in_memory(x) for name, x in arrays.items()}, 7)
    file, out = tmp_path / "p.safetensors", tmp_path / "checkpoint_9"
    found = t5x_command(capsys, "convert", tmp_path / "checkpoint_7", file)
    assert (found["from"], found["length"], found["width"]) == ("t5x", 7, 32)
    np.testing.assert_array_equal(load_prompt(file)[0], arrays[t5x.PROMPT])

    bare = {name: in_memory(x) for name, x in arrays.items() if name != t5x.PROMPT}
    write_checkpoint(tmp_path / "checkpoint_8", bare, 8)
    t5x_command(capsys, "export", file, out, "--to=t5x", f"--base_model={tmp_path / 'checkpoint_8'}")
    written = t5x.open_checkpoint(str(out))
    assert written.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name][...], array, err_msg=name)

    # The prompt and the model of that checkpoint give the original's logits.
    prompt_PD = jnp.asarray(written.pop(t5x.PROMPT)[...])
    tree = flax.traverse_util.unflatten_dict({n: jnp.asarray(x[...]) for n, x in written.items()}, sep="/")
    tokens = golden["encoder_input_tokens"]
    virtual_BP = np.tile(np.arange(96, 103, dtype=np.int32), (len(tokens), 1))
    model = T5(open_model(str(tmp_path / "checkpoint_8")).config)
    logits_BUV = model.apply(
        {"params": tree},
        jnp.concatenate([virtual_BP, tokens], axis=1),
        jnp.asarray(golden["decoder_input_tokens"]),
        prompt_PD,
    )
    real_BU = golden["decoder_target_tokens"] > 0
    assert np.abs(logits_BUV - golden["prompted/logits"])[real_BU].max() < 1e-4


@pytest.mark.filterwarnings("ignore:.*holds a prompt beside the model")
def test_a_prompt_in_a_checkpoint_is_no_part_of_the_model(original, tmp_path, capsys):
    arrays, _ = original
    write_checkpoint(tmp_path / "checkpoint_7", {name: in_memory(x) for name, x in arrays.items()}, 7)
    with pytest.warns(UserWarning, match="holds a prompt beside the model: t5x convert"):
        assert open_model(str(tmp_path / "checkpoint_7")).arrays.keys() == arrays.keys() - {t5x.PROMPT}
    save_prompt(tmp_path / "new.safetensors", PROMPT_PD, PromptMetadata())
    base = f"--base_model={tmp_path / 'checkpoint_7'}"
    t5x_command(capsys, "export", tmp_path / "new.safetensors", tmp_path / "out", "--to=t5x", base)
    np.testing.assert_array_equal(t5x.open_checkpoint(str(tmp_path / "out"))[t5x.PROMPT][...], PROMPT_PD)


def test_a_hugging_face_model_becomes_a_prompted_t5x_checkpoint(prompt, tmp_path, capsys):
    result = t5x_command(capsys, "export", prompt, tmp_path / "out", "--to=t5x", f"--base_model={BASE}")
    assert result["base_model"] == str(BASE)
    written, base = t5x.open_checkpoint(str(tmp_path / "out")), open_model(str(BASE)).arrays
    assert written.keys() == base.keys() | {t5x.PROMPT}
    for name, array in base.items():
        np.testing.assert_array_equal(written[name][...], array[...], err_msg=name)


def test_only_the_prompts_own_model_is_completed(tmp_path, capsys):
    arrays = open_model(str(BASE)).arrays
    own = fingerprint(flax.traverse_util.unflatten_dict({n: x[...] for n, x in arrays.items()}, sep="/"))
    for known, status in ((own, None), ("0" * 16, 2)):
        file = tmp_path / f"{known}.safetensors"
        save_prompt(file, PROMPT_PD, PromptMetadata(model_fingerprint=known, base_model="tiny there"))
        argv = ("export", file, tmp_path / known, "--to=t5x", f"--base_model={BASE}")
        if status is None:
            t5x_command(capsys, *argv)
        else:
            code, line = refusal(capsys, *argv)
            assert code == status and own in line and "tiny there" in line
            assert not (tmp_path / known).exists()


def test_refusals(prompt, tmp_path, capsys):
    np.save(tmp_path / "wide.npy", np.ones((3, 33), np.float32))
    t5x_command(capsys, "convert", tmp_path / "wide.npy", tmp_path / "wide.safetensors")
    (tmp_path / "run").mkdir()
    for member in (0, 1):
        save_prompt(tmp_path / "run" / f"prompt-{member}.safetensors", PROMPT_PD, PromptMetadata())
    new, t5 = tmp_path / "new", f"--base_model={BASE}"
    cases = [
        (("export", prompt, new, "--to=t5x"), "--base_model=CHECKPOINT"),
        (("export", prompt, tmp_path / "run", "--to=t5x", t5), "run exists"),
        (("export", tmp_path / "wide.safetensors", new, "--to=t5x", t5), "width 33"),
        (("export", prompt, new, "--to=t5x", f"--base_model={GOLDENS / 'bert_hf'}"), "BERT"),
        (("export", prompt, new, "--to=t5x", f"--base_model={tmp_path}"), "no whole model"),
        (("export", tmp_path / "run", new, "--to=peft"), "prompt-0.safetensors or "),
        (("export", tmp_path / "absent", new, "--to=npy"), "does not exist"),
        (("export", prompt, new, "--to=onnx"), "--to"),
        (("export", prompt, new), "--to"),
        (
            ("export", prompt, "gs://bucket/p", "--to=peft"),
            "TARGET gs://bucket/p is no directory or file of this",
        ),
        (("export", prompt, new, "--to=npy", t5), "--base_model says nothing to --to=npy"),
        (
            ("convert", tmp_path / "wide.npy", tmp_path / "x.safetensors", "--vocabulary=v"),
            "nothing of a prompt",
        ),
        (("convert", BASE, new, "--prompt_only"), "nothing of a model"),
        (("convert", tmp_path / "wide.npy", new), "end it in .safetensors"),
        (("convert", prompt, tmp_path / "again.safetensors"), "is no prompt of another system"),
        (("convert", tmp_path / "run", tmp_path / "x.safetensors"), "neither a T5X checkpoint"),
        (("convert", tmp_path / "absent", tmp_path / "x.safetensors"), "is no prompt of another system"),
    ]
    for argv, words in cases:
        code, line = refusal(capsys, *argv)
        assert code == 2 and words in line, line
    assert not new.exists()


def test_a_checkpoint_without_a_prompt_says_what_is_like_one(original, tmp_path, capsys):
    arrays = {name: in_memory(x) for name, x in original[0].items()}
    arrays["encoder/prompts/table"] = arrays.pop(t5x.PROMPT)
    write_checkpoint(tmp_path / "checkpoint_7", arrays, 7)
    code, line = refusal(capsys, "convert", tmp_path / "checkpoint_7", tmp_path / "x.safetensors")
    assert code == 2 and "(encoder/prompts/table)" in line


def test_a_t5gemmas_prompt_is_not_given_to_peft(tmp_path, capsys):
    """PEFT would put it in front of <bos>, where it was not trained."""
    file = tmp_path / "p.safetensors"
    save_prompt(
        file, PROMPT_PD, PromptMetadata(method="PromptTuning", base_model="t5gemma_small /models/small")
    )
    code, err = refusal(capsys, "export", file, tmp_path / "adapter", "--to=peft")
    assert code == 2 and "is a T5Gemma's: PEFT does not find the sizes of one" in err
    assert not (tmp_path / "adapter").exists()
