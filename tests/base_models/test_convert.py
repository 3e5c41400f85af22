"""`t5x convert`: what is written, that it is whole, and that nothing half-written is taken for a model."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts
from safetensors.numpy import load_file, save_file

from jax_prompts.base_models import convert as model_module
from jax_prompts.base_models.build import make_model, make_vocabulary
from jax_prompts.base_models.convert import convert_model
from jax_prompts.base_models.fingerprint import fingerprint
from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.weights import load_weights
from jax_prompts.cli.inspection import describe
from jax_prompts.config import BaseModel
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats.safetensors import open_safetensors
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.main import main
from jax_prompts.storage.temporary import final_name, temporary_path

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
GOLDEN = str(GOLDENS / "t5_v1_1_hf")
SHARDS = [f"model-{i:05}-of-00004.safetensors" for i in range(1, 5)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(model_module, "SHARD_BYTES", 80_000)


def content(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def load(checkpoint, **changes):
    base = BaseModel(size=None, checkpoint=str(checkpoint), vocabulary=None, **changes)
    return load_weights(base, make_model(base))[0]


def test_a_converted_model_is_the_model(tmp_path, capsys):
    main(["convert", GOLDEN, str(tmp_path / "own")])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["files_written"] == SHARDS
    assert printed["origin"] == {"path": GOLDEN, "kind": "Hugging Face"}
    own, source = open_model(str(tmp_path / "own")), open_model(GOLDEN)
    assert (own.kind, own.config) == ("native", source.config)
    assert own.arrays.keys() == source.arrays.keys()
    assert all(np.array_equal(own.arrays[name][...], source.arrays[name][...]) for name in own.arrays)
    before, after = load(GOLDEN), load(tmp_path / "own")
    assert fingerprint(before) == fingerprint(after) == printed["fingerprint"]
    for changes in ({"weight_dtype": "bfloat16"}, {"scan_layers": True}):
        assert fingerprint(load(tmp_path / "own", **changes)) == printed["fingerprint"]
    other = jax.tree.map(lambda x: x, before)
    other["encoder"]["encoder_norm"] = {"scale": 2 * before["encoder"]["encoder_norm"]["scale"]}
    assert fingerprint(other) != printed["fingerprint"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("emb_dim", value) for value in ("x", None, [1], {}, 1.5, True, -1, 0, 10**400)),
        *(("num_decoder_layers", value) for value in (0, 10**6)),
        *(("mlp_activations", value) for value in (5, None, ["x"], [], [["gelu"]])),
        ("logits_via_embedding", 1),
        ("dropout_rate", 0.5),
    ],
)
def test_a_size_that_no_model_has_is_one_line(tmp_path, name, value):
    convert_model(GOLDEN, str(tmp_path))
    described = json.loads((tmp_path / "config.json").read_text())
    described["sizes"][name] = value
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(
        RunError, match=rf"config\.json is not this project's \({name} is .*convert the model again"
    ):
        open_model(str(tmp_path))


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        (0, r"its arrays and config\.json are not a BERT's"),
        (3, r"its arrays and config\.json are not a BERT's"),
        ("x", "config.json has num_attention_heads 'x', where a whole number belongs"),
    ],
)
def test_a_bert_whose_width_its_heads_do_not_share_is_refused(tmp_path, heads, words):
    source = shutil.copytree(GOLDENS / "bert_hf", tmp_path / "bert")
    described = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**described, "num_attention_heads": heads}))
    with pytest.raises(RunError, match=words):
        open_model(str(source))


def test_converting_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        convert_model(GOLDEN, str(tmp_path / name))
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_t5x_to_own_to_t5x_is_exact(shared, tmp_path):
    original = str(shared / "data" / "tiny_random_t5_1_1_checkpoint" / "checkpoint_3")
    convert_model(original, str(tmp_path / "own"))
    write_checkpoint(tmp_path / "checkpoint_3", open_model(str(tmp_path / "own")).arrays, 3)
    before, after = open_model(original), open_model(str(tmp_path / "checkpoint_3"))
    assert before.config == after.config
    assert before.arrays.keys() == after.arrays.keys()
    for name, array in before.arrays.items():
        assert array[...].dtype == after.arrays[name][...].dtype
        assert array[...].tobytes() == after.arrays[name][...].tobytes()


def test_a_written_t5x_checkpoint_is_what_t5x_reads(tmp_path):
    """Flax's msgpack and TensorStore's zarr, as T5X opens them: a tree of arrays and of specs."""
    arrays = open_model(GOLDEN).arrays
    write_checkpoint(tmp_path / "checkpoint_12", arrays, 12)
    saved = flax.serialization.msgpack_restore((tmp_path / "checkpoint_12" / "checkpoint").read_bytes())
    assert (saved["version"], saved["optimizer"]["state"]["step"]) == (3, 12)
    found = flax.traverse_util.flatten_dict(
        saved["optimizer"]["target"], sep="/", is_leaf=lambda _, value: "driver" in value
    )
    assert found.keys() == arrays.keys()
    for name, value in found.items():
        if isinstance(value, dict):
            path = tmp_path / "checkpoint_12" / value["kvstore"]["path"]
            spec = {"driver": value["driver"], "kvstore": {"driver": "file", "path": str(path)}}
            value = ts.open(spec).result().read().result()
        assert np.array_equal(value, arrays[name][...]), name


def test_an_interrupted_conversion_goes_on(tmp_path):
    target = tmp_path / "own"
    convert_model(GOLDEN, str(target))
    whole = content(target)
    assert convert_model(GOLDEN, str(target))["files_kept"] == SHARDS  # nothing to do
    (target / "config.json").unlink()
    (target / SHARDS[1]).unlink()
    (target / SHARDS[2]).write_bytes(whole[SHARDS[2]][:-1])
    damaged = bytearray(whole[SHARDS[3]])
    damaged[-100] ^= 1
    (target / SHARDS[3]).write_bytes(damaged)
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_model(str(target))
    again = convert_model(GOLDEN, str(target))
    assert (again["files_kept"], again["files_written"]) == (SHARDS[:1], SHARDS[1:])
    assert content(target) == whole


@pytest.mark.parametrize("file", [SHARDS[2], "config.json"])
def test_a_killed_conversion_goes_on_and_clears_up(tmp_path, file):
    convert_model(GOLDEN, str(tmp_path / "other"))
    target = tmp_path / "own"
    code = f"""
import os, signal
from jax_prompts.base_models import convert
convert.SHARD_BYTES = 80_000
replace = os.replace
def killed(source, target):
    if str(target).endswith({file!r}):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
convert.convert_model({GOLDEN!r}, {str(target)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (left,) = [path.name for path in target.iterdir() if final_name(path.name)]
    assert final_name(left) == file
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_model(str(target))
    kept = SHARDS[:2] if file in SHARDS else SHARDS
    assert convert_model(GOLDEN, str(target))["files_kept"] == kept
    assert content(target) == content(tmp_path / "other")


def test_files_of_another_model_are_not_kept(tmp_path):
    other = shutil.copytree(GOLDEN, tmp_path / "other")
    doubled = {name: 2 * array for name, array in load_file(f"{GOLDEN}/model.safetensors").items()}
    save_file(doubled, other / "model.safetensors")
    convert_model(str(other), str(tmp_path / "own"))
    assert convert_model(GOLDEN, str(tmp_path / "own"))["files_kept"] == []


def test_a_full_disk_leaves_no_model_and_the_next_run_finishes(tmp_path):
    """In a process of its own, whose files may have 100,000 bytes; the arrays are 281,472."""
    target = tmp_path / "own"
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
from jax_prompts.cli.inspection import describe
from jax_prompts.main import main
from jax_prompts.storage.temporary import final_name, temporary_path
main(["convert", {GOLDEN!r}, {str(target)!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"t5x convert: {target} could not be written: File too large")
    assert done.stderr.count("\n") == 1
    assert list(target.iterdir()) == []
    with pytest.raises(ConfigError):
        open_model(str(target))
    assert convert_model(GOLDEN, str(target))["files_kept"] == []


def test_targets_that_hold_something_else_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for target, reason in ((tmp_path, "thesis.txt"), (pathlib.Path(GOLDEN), "source itself")):
        before = content(target)
        with pytest.raises(ConfigError, match=reason):
            convert_model(GOLDEN, str(target))
        assert content(target) == before
    left = temporary_path(tmp_path / "thesis.txt")
    (tmp_path / "thesis.txt").rename(left)
    with pytest.raises(ConfigError, match=r"holds \.thesis\.txt"):
        convert_model(GOLDEN, str(tmp_path))
    assert left.read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        convert_model(GOLDEN, str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="no directory or file of this machine"):
        convert_model(GOLDEN, "gs://bucket/model")
    with pytest.raises(RunError, match="could not be written: File name too long"):
        convert_model(GOLDEN, str(tmp_path / ("n" * 300)))
    bert = shutil.copytree(
        GOLDENS / "bert_hf", tmp_path / "bert", ignore=shutil.ignore_patterns("golden*", "README*")
    )
    with pytest.raises(ConfigError, match=r"another config\.json"):
        convert_model(GOLDEN, str(bert))


def test_the_vocabulary_comes_along(tmp_path, train_vocabulary):
    source = shutil.copytree(GOLDEN, tmp_path / "source")
    shutil.copy(train_vocabulary("the quick brown fox jumps over the lazy dog"), source / "spiece.model")
    with pytest.raises(
        ConfigError, match=r"has \d+ ids and the model 96 embedding rows"
    ):  # with 100 sentinels
        convert_model(str(source), str(tmp_path / "own"))
    micro = convert_model("asset:micro", str(tmp_path / "micro"))
    base = BaseModel(size=None, checkpoint=str(tmp_path / "micro"), vocabulary=None)
    assert make_vocabulary(base).fingerprint == micro["vocabulary"]["fingerprint"]
    moved = shutil.copy(tmp_path / "micro" / "vocabulary.model", tmp_path / "renamed.model")
    make_vocabulary(BaseModel(size=None, checkpoint=str(tmp_path / "micro"), vocabulary=str(moved)))
    other = train_vocabulary("pack my box with five dozen liquor jugs")
    with pytest.raises(ConfigError, match="was converted with"):
        make_vocabulary(BaseModel(size=None, checkpoint=str(tmp_path / "micro"), vocabulary=other))


def test_bert_keeps_its_vocabulary_and_its_fingerprint_is_the_encoders(tmp_path):
    source = shutil.copytree(GOLDENS / "bert_hf", tmp_path / "bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(75))]
    (source / "vocab.txt").write_text("\n".join(pieces))
    done = convert_model(str(source), str(tmp_path / "own"))
    assert done["vocabulary"]["file"] == "vocab.txt"
    base = BaseModel(size=None, checkpoint=str(tmp_path / "own"), vocabulary=None)
    assert make_vocabulary(base).size == 80
    weights = load_weights(base, make_model(base, classes=2))[0]
    assert fingerprint(weights) == done["fingerprint"]
    (source / "vocab.txt").write_text("\n".join([*pieces, "more"]))
    with pytest.raises(ConfigError, match="81 ids and the model 80 embedding rows"):
        convert_model(str(source), str(tmp_path / "own2"))


def test_arrays_lie_where_jax_uses_them_without_a_copy(tmp_path):
    convert_model(GOLDEN, str(tmp_path / "own"))
    array = open_model(str(tmp_path / "own")).arrays["encoder/layers_0/mlp/wo/kernel"][...]
    weights = load(tmp_path / "own")
    assert array.ctypes.data % 64 == 0
    kernel = weights["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]
    taken = jax.jit(lambda x: 2 * x, donate_argnums=0)(kernel)  # the file is read-only memory
    assert np.array_equal(taken, 2 * jnp.asarray(array))
    for name in SHARDS:
        offsets = [
            entry[...].ctypes.data % 64 for entry in open_safetensors(tmp_path / "own" / name).values()
        ]
        assert not any(offsets)


def without_an_array(arrays):
    del arrays["decoder.block.0.layer.0.SelfAttention.q.weight"]


def with_another(arrays):
    arrays["encoder.block.0.layer.0.SelfAttention.norm.weight"] = np.zeros(3, np.float32)


def of_another_shape(arrays):
    arrays["decoder.block.1.layer.2.DenseReluDense.wo.weight"] = np.zeros((32, 63), np.float32)


def in_whole_numbers(arrays):
    arrays["decoder.block.1.layer.2.DenseReluDense.wo.weight"] = np.zeros((32, 64), np.int8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            without_an_array,
            r"does not match the model \(1 missing -.*- decoder/layers_0/self_attention/query/kernel",
        ),
        (with_another, r"1 unknown \+\): \+ .*SelfAttention.norm.weight"),
        (
            of_another_shape,
            r"1 shapes\): .*layers_1/mlp/wo/kernel \(63, 32\); it is no whole model; copy it again",
        ),
        (in_whole_numbers, "holds decoder/layers_1/mlp/wo/kernel as int8: use weights in floating point"),
    ],
)
@pytest.mark.parametrize("weight_dtype", [None, "int8"])
def test_a_model_that_would_not_load_is_not_written(tmp_path, change, words, weight_dtype):
    source = tmp_path / "source"
    shutil.copytree(GOLDENS / "t5_v1_1_hf", source)
    arrays = load_file(source / "model.safetensors")
    change(arrays)
    save_file(arrays, source / "model.safetensors")
    with pytest.raises(RunError, match=words):
        convert_model(str(source), str(tmp_path / "native"), weight_dtype=weight_dtype)
    assert not (tmp_path / "native" / "config.json").exists()


def test_a_source_that_is_no_model_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="holds no model"):
        convert_model(str(tmp_path), str(tmp_path / "own"))
    with pytest.raises(RunError):
        bad = shutil.copytree(GOLDEN, tmp_path / "bad")
        (bad / "model.safetensors").write_bytes(b"\x00" * 50)
        convert_model(str(bad), str(tmp_path / "own"))
    assert not (tmp_path / "own").exists()


def test_inspect_finds_a_flipped_bit(tmp_path):
    convert_model(GOLDEN, str(tmp_path / "own"))
    assert describe(str(tmp_path / "own"))["files"] == dict.fromkeys(SHARDS, "whole")
    file = tmp_path / "own" / SHARDS[0]
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(RunError, match=f"{SHARDS[0]} is damaged"):
        describe(str(tmp_path / "own"))
    assert describe(GOLDEN)["files"] == {"model.safetensors": "no checksum"}
