"""Base models of every kind: the same arrays whatever form they have, and one line for what is no whole model."""

import dataclasses
import json
import pathlib
import shutil

import flax.serialization
import flax.traverse_util
import ml_dtypes
import numpy as np
import orbax.checkpoint
import pytest
import tensorstore as ts

from jax_prompts.base_models.open import open_model
from jax_prompts.base_models.stacks import in_layers, in_stacks, layer_count, t5_config
from jax_prompts.errors import ConfigError, RunError
from jax_prompts.formats import zarr
from jax_prompts.formats.arrays import in_memory
from jax_prompts.interop.t5x_write import write_checkpoint
from jax_prompts.models.t5 import T5Config

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
GOLDEN = GOLDENS / "t5_v1_1_hf"
CONFIG = T5Config(96, 32, 4, 2, 3, 8, 64, ("gelu", "linear"), logits_via_embedding=False)


def read(arrays):
    return {name: array[...] for name, array in arrays.items()}


@pytest.fixture(scope="module")
def golden():
    return read(open_model(str(GOLDEN)).arrays)


def equal(found, expected):
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and np.array_equal(found[name], expected[name])
        for name in expected
    )


def tree(arrays):
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def scanned(arrays):
    """As T5X has them: stacks with the layers on axis 1."""
    stacks = in_stacks({name: in_memory(array) for name, array in arrays.items()}, np.dtype(np.float32))
    return read({name: x.exchanged if "/layers/" in name else x for name, x in stacks.items()})


@pytest.mark.parametrize("form", ["sharded", "flax", "flax_in_pieces"])
def test_hugging_face_forms_hold_the_same_arrays(form, folder, tensors, golden):
    found = open_model(str(folder(form, tensors)))
    assert (found.kind, found.config) == ("Hugging Face", CONFIG)
    assert equal(read(found.arrays), golden)
    name = "decoder/layers_2/mlp/wi_1/kernel"
    part = (slice(4, 9), slice(10, 30))
    assert np.array_equal(found.arrays[name][part], golden[name][part])


@pytest.mark.parametrize("layout", ["layers", "stacks"])
@pytest.mark.parametrize("form", ["legacy", "state", "params", "bare", "files"])
def test_t5x_forms_hold_the_same_arrays(form, layout, golden, tmp_path):
    arrays = golden if layout == "layers" else scanned(golden)
    path = tmp_path / "checkpoint_7"
    if form == "legacy":
        write_checkpoint(path, {name: in_memory(array) for name, array in arrays.items()}, 7)
    else:
        slots = {"token_embedder": {"embedding": {"v": np.ones(3, np.float32)}}}
        state = {"step": np.int32(7), "param_states": slots}
        saved = {"state": {"target": tree(arrays), "state": state}, "params": {"params": tree(arrays)}}
        folder = path / "state" if form == "state" else path
        saver = orbax.checkpoint.PyTreeCheckpointer(use_ocdbt=form != "files")
        saver.save(folder, saved.get(form, tree(arrays)))
    found = open_model(str(path))
    assert (found.kind, found.config) == ("T5X", CONFIG)
    assert equal(read(in_layers(found.arrays)), golden)
    name = "encoder/layers_1/mlp/wo/kernel"
    part = (slice(3, 40), slice(0, 7))
    assert np.array_equal(in_layers(found.arrays)[name][part], golden[name][part])
    if layout == "stacks":
        assert arrays["decoder/layers/mlp/wi_1/kernel"].shape == (32, 3, 64)
    stacks = in_stacks(found.arrays, np.dtype(np.float32))
    assert equal(read(stacks), read(in_stacks(in_layers(found.arrays), np.dtype(np.float32))))
    name, part = "encoder/layers/mlp/wo/kernel", (slice(1, 2), slice(3, 40), slice(0, 7))
    assert np.array_equal(stacks[name][part][0], golden["encoder/layers_1/mlp/wo/kernel"][part[1:]])


def test_a_bfloat16_checkpoint_stays_bfloat16(golden, tmp_path):
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in golden.items()}
    write_checkpoint(tmp_path / "checkpoint_1", {name: in_memory(array) for name, array in half.items()}, 1)
    assert equal(read(open_model(str(tmp_path / "checkpoint_1")).arrays), half)


def test_the_real_legacy_checkpoint_is_described(shared):
    config = open_model(str(shared / "data" / "tiny_random_t5_1_1_checkpoint" / "checkpoint_3")).config
    assert (config.vocab_size, config.emb_dim, config.num_heads, config.head_dim) == (32128, 4, 2, 2)


def write_config(path, **changes):
    described = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**described, **changes}))


@pytest.mark.parametrize(
    ("head", "config", "tied"),
    [
        (None, {}, True),
        ("shared", {}, True),
        ("own", {}, False),
        ("own", {"tie_word_embeddings": True}, False),  # what transformers 5 writes for every T5
        ("own", {"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ("shared", {"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        (None, {"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        (None, {"tie_word_embeddings": False}, False),
        (None, {"model_type": "mt5", "transformers_version": "4.57.1", "tie_word_embeddings": True}, True),
        ("shared", {"model_type": "mt5", "transformers_version": "4.9.2", "tie_word_embeddings": True}, True),
        ("shared", {"model_type": "mt5", "tie_word_embeddings": True}, True),
        ("own", {"model_type": "mt5", "transformers_version": "4.57.1"}, False),
        # transformers 5 has no scale for an mT5, and ties it.
        (None, {"model_type": "mt5", "transformers_version": "5.0.0.dev0"}, False),
        (None, {"model_type": "mt5", "transformers_version": "5.17.0", "tie_word_embeddings": True}, False),
        ("shared", {"model_type": "mt5", "transformers_version": "10.1", "tie_word_embeddings": True}, False),
        ("own", {"model_type": "mt5", "transformers_version": "5.17.0", "tie_word_embeddings": True}, False),
        (None, {"model_type": "t5", "transformers_version": "5.17.0", "tie_word_embeddings": True}, True),
    ],
)
def test_whether_the_head_is_tied_is_seen_in_the_weights(head, config, tied, folder, tensors):
    arrays = {name: array for name, array in tensors.items() if name != "lm_head.weight"}
    if head:
        arrays["lm_head.weight"] = (
            tensors["lm_head.weight"] if head == "own" else tensors["shared.weight"].copy()
        )
    path = folder("safetensors", arrays)
    described = json.loads((path / "config.json").read_text())
    del described["tie_word_embeddings"]
    (path / "config.json").write_text(json.dumps({**described, **config}))
    found = open_model(str(path))
    assert found.config == dataclasses.replace(CONFIG, logits_via_embedding=tied)
    if not tied:
        wanted = tensors["lm_head.weight" if head == "own" else "shared.weight"]
        assert np.array_equal(found.arrays["decoder/logits_dense/kernel"][...], wanted.T)


def test_repeated_and_unused_arrays_are_left_out(folder, tensors, golden):
    repeated = {
        f"{stack}.embed_tokens.weight": tensors["shared.weight"].copy() for stack in ("encoder", "decoder")
    }
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    path = folder("safetensors", {**tensors, **repeated, unused: np.zeros((32, 4), np.float32)})
    assert equal(read(open_model(str(path)).arrays), golden)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gpt2"}, ["gpt2", "t5, mt5, umt5, t5gemma and bert"]),
        ({"feed_forward_proj": "gated-swish"}, ["gated-swish", "gated-gelu"]),
        ({"layer_norm_epsilon": 1e-5}, ["layer_norm_epsilon"]),
        *(
            (
                {"relative_attention_max_distance": value},
                ["relative_attention_max_distance", "no number of tokens"],
            )
            for value in ("x", None, [1], True, 0, -1, 1.5, 10**400)
        ),
    ],
)
def test_models_that_this_project_has_not_are_named(changes, named, folder, tensors):
    path = folder("safetensors", tensors)
    write_config(path, **changes)
    with pytest.raises(RunError) as caught:
        open_model(str(path))
    assert all(word in str(caught.value) for word in named)


@pytest.mark.parametrize(
    ("changes", "belongs"),
    [
        ({"tie_word_embeddings": "x"}, "true or false"),
        ({"scale_decoder_outputs": 1}, "true or false"),
        ({"num_heads": 4.0}, "a whole number"),
        ({"eos_token_id": True}, "a whole number"),
        ({"eos_token_id": [1, "2"]}, "a whole number"),
        ({"layer_norm_epsilon": "1e-6"}, "a number"),
        ({"feed_forward_proj": ["gated-gelu"]}, "a text"),
        ({"model_type": {}}, "a text"),
    ],
)
def test_fields_of_another_type_are_named(changes, belongs, folder, tensors):
    path = folder("safetensors", tensors)
    for file in ("config.json", "generation_config.json"):
        described = json.loads((path / "config.json").read_text())
        (path / file).write_text(json.dumps(described | changes))
        ((name, _),) = changes.items()
        with pytest.raises(RunError, match=f"{file} has {name} .*, where {belongs} belongs"):
            open_model(str(path))
        (path / "config.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_layers": 4}, "num_layers 4, and the weights have 2"),  # a file with some layers is not there
        ({"num_decoder_layers": 2}, "num_decoder_layers 2, and the weights have 3"),
        ({"num_heads": 8}, "num_heads 8, and the weights have 4"),
        ({"vocab_size": 128}, "vocab_size 128, and the weights have 96"),
        ({"dense_act_fn": "gelu"}, "dense_act_fn 'gelu', and 'gelu_new' goes with"),
        ({"is_gated_act": False}, "is_gated_act False, and True goes with"),
    ],
)
def test_another_models_config_is_refused(changes, reason, folder, tensors):
    path = folder("safetensors", tensors)
    write_config(path, dense_act_fn="gelu_new", is_gated_act=True, num_decoder_layers=None)
    assert open_model(str(path)).config == CONFIG
    write_config(path, **changes)
    with pytest.raises(RunError, match=reason):
        open_model(str(path))


def test_a_bert_of_other_sizes_than_its_config_is_refused(tmp_path):
    path = shutil.copytree(GOLDENS / "bert_hf", tmp_path / "bert")
    layers = open_model(str(path)).config.num_layers
    write_config(path, num_hidden_layers=layers + 1)
    with pytest.raises(RunError, match=f"num_hidden_layers {layers + 1}, and the weights have {layers}"):
        open_model(str(path))


@pytest.mark.parametrize("name", ["hf", "gs"])
def test_a_directory_may_have_the_name_of_a_scheme(name, tmp_path, monkeypatch):
    shutil.copytree(GOLDEN, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert open_model(name).config == CONFIG


@pytest.mark.parametrize("file", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x", ".."])
def test_an_index_that_leaves_its_folder_is_refused(file, folder, tensors):
    path = folder("sharded", tensors)
    save_outside = path.parent / "secret.safetensors"
    shutil.copy(GOLDEN / "model.safetensors", save_outside)
    index = {"weight_map": dict.fromkeys(tensors, file)}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(RunError, match="no file of its folder"):
        open_model(str(path))


def test_an_index_and_its_files_must_agree(folder, tensors):
    path = folder("sharded", tensors)
    index = json.loads((path / "model.safetensors.index.json").read_text())
    index["weight_map"]["more.weight"] = "model-00001-of-00002.safetensors"
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(RunError, match=r"have not: - more\.weight"):
        open_model(str(path))
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(RunError, match=r"model-00002-of-00002\.safetensors"):
        open_model(str(path))


@pytest.mark.parametrize("form", ["safetensors", "flax"])
def test_a_damaged_file_is_one_line(form, folder, tensors):
    """Cut anywhere, or with a byte of the beginning flipped: an error of one line, or arrays inside the file."""
    path = folder(form, tensors)
    file = next(file for file in path.iterdir() if file.name != "config.json")
    content = file.read_bytes()
    for end in [0, 5, 100, 3000, len(content) // 2, len(content) - 1]:
        file.write_bytes(content[:end])
        with pytest.raises(RunError) as caught:
            open_model(str(path))
        assert "\n" not in str(caught.value)
    for position in range(0, 3000, 101):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        try:
            read(open_model(str(path)).arrays)
        except RunError as error:
            assert "\n" not in str(error)


def test_damaged_t5x_checkpoints_are_one_line(golden, tmp_path):
    path = tmp_path / "checkpoint_7"
    write_checkpoint(path, {name: in_memory(array) for name, array in golden.items()}, 7)
    zarr_array = path / "target.decoder.logits_dense.kernel"
    chunk = zarr_array / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(RunError, match=r"logits_dense/kernel cannot be read"):
        read(open_model(str(path)).arrays)
    (zarr_array / ".zarray").write_text("{")
    with pytest.raises(RunError, match=r"logits_dense/kernel cannot be read"):
        open_model(str(path))
    shutil.rmtree(zarr_array)
    with pytest.raises(RunError, match=r"logits_dense/kernel cannot be read"):
        open_model(str(path))
    content = (path / "checkpoint").read_bytes()
    for damaged in (content[:-1], b"", b"\xff" * 10, content + b"\x00"):
        (path / "checkpoint").write_bytes(damaged)
        with pytest.raises(RunError, match="not a whole T5X checkpoint"):
            open_model(str(path))


def test_a_folder_called_checkpoint_is_no_t5x_checkpoint(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ConfigError, match="holds no model"):
        open_model(str(tmp_path))


def test_a_compressed_zarr_array_with_a_flipped_bit_is_refused(shared, tmp_path):
    path = shutil.copytree(shared / "data" / "tiny_random_t5_1_1_checkpoint" / "checkpoint_3", tmp_path / "c")
    chunk = path / "target.decoder.logits_dense.kernel" / "0.3"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.unlink()
    chunk.write_bytes(content)
    with pytest.raises(RunError, match=r"logits_dense/kernel cannot be read"):
        open_model(str(path)).arrays["decoder/logits_dense/kernel"][...]


def test_bfloat16_of_an_old_t5x_is_explained(golden, tmp_path):
    path = tmp_path / "checkpoint_7"
    write_checkpoint(path, {name: in_memory(array) for name, array in golden.items()}, 7)
    name = "target.encoder.layers_0.mlp.wo.kernel"
    shutil.rmtree(path / name)
    metadata = {"shape": [64, 32], "chunks": [64, 32], "dtype": "<u2"}
    kvstore = {"driver": "file", "path": str(path / name)}
    ts.open({"driver": "zarr", "kvstore": kvstore, "metadata": metadata}, create=True).result()
    with pytest.raises(RunError, match=r"wo/kernel is uint16: an old T5X wrote bfloat16"):
        open_model(str(path))


def test_a_bucket_that_cannot_be_reached_is_one_line(monkeypatch):
    class Never:
        def result(self, timeout):
            assert timeout <= 30
            raise TimeoutError

    monkeypatch.setattr(zarr, "check_reachable", lambda *_: None)
    monkeypatch.setattr(zarr.ts.KvStore, "open", lambda *_, **__: Never())
    with pytest.raises(RunError, match=r"gs://bucket/model.*no answer in 25 s") as caught:
        open_model("gs://bucket/model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("without", ["decoder.", "shared", "encoder.block.0.layer.0.SelfAttention.rel"])
def test_half_a_t5_is_refused(without, folder, tensors):
    path = folder(
        "safetensors", {name: array for name, array in tensors.items() if not name.startswith(without)}
    )
    with pytest.raises(RunError, match=r"no T5|not a T5's") as caught:
        open_model(str(path))
    assert "\n" not in str(caught.value)


def test_two_embeddings_are_refused(folder, tensors):
    other = {"encoder.embed_tokens.weight": tensors["shared.weight"] + 1}
    with pytest.raises(RunError, match=r"encoder\.embed_tokens\.weight is not the other embedding again"):
        open_model(str(folder("safetensors", {**tensors, **other})))


def test_what_is_no_model_says_what_was_expected(tmp_path, tensors, folder):
    with pytest.raises(ConfigError, match="INITIAL_CHECKPOINT_PATH"):
        open_model(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="copy it to a directory"):
        open_model("s3://bucket/model")
    (tmp_path / "run" / "checkpoint_500").mkdir(parents=True)
    with pytest.raises(ConfigError, match="it has checkpoint_500, name one"):
        open_model(str(tmp_path / "run"))
    path = folder("safetensors", tensors)
    (path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_model(str(path))
    (path / "model.safetensors").unlink()
    shutil.copy(GOLDEN / "config.json", path)
    with pytest.raises(ConfigError, match="no weights"):
        open_model(str(path))


@pytest.mark.parametrize(
    "files",
    [
        ["model.fp16.safetensors"],
        ["pytorch_model.fp16.bin"],
        ["model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"],
        ["tf_model.h5"],
    ],
)
def test_weights_under_other_names_are_named(files, folder, tensors):
    path = folder("safetensors", tensors)
    (path / "model.safetensors").unlink()
    for file in files:
        (path / file).write_bytes(b"weights")
    with pytest.raises(ConfigError) as caught:
        open_model(str(path))
    assert f"weights called {', '.join(files)}: rename" in str(caught.value)
    assert "model.safetensors or pytorch_model.bin" in str(caught.value)


@pytest.mark.parametrize(
    ("prefix", "wrapper"),
    [("module.", "torch's DataParallel"), ("_orig_mod.", r"torch\.compile"), ("my.t5.", "a model around it")],
)
def test_names_behind_a_prefix_are_recognised(prefix, wrapper, folder, tensors):
    path = folder("safetensors", {f"{prefix}{name}": array for name, array in tensors.items()})
    with pytest.raises(RunError, match=rf"its names begin with {prefix}, as {wrapper} saves them"):
        open_model(str(path))


def test_an_encoder_alone_is_recognised(folder, tensors, golden, tmp_path):
    alone = {name: array for name, array in tensors.items() if not name.startswith(("decoder.", "lm_head"))}
    with pytest.raises(RunError, match="it has no decoder: an encoder alone"):
        open_model(str(folder("safetensors", alone)))
    arrays = {name: in_memory(array) for name, array in golden.items() if not name.startswith("decoder/")}
    write_checkpoint(tmp_path / "checkpoint_1", arrays, 1)
    with pytest.raises(RunError, match="it has no decoder: an encoder alone"):
        open_model(str(tmp_path / "checkpoint_1"))


def test_one_file_of_a_model_is_no_model(folder, tensors):
    path = folder("safetensors", tensors) / "model.safetensors"
    with pytest.raises(ConfigError, match="is one file of a model: give the directory"):
        open_model(str(path))


@pytest.mark.parametrize(
    "around", [["optimizer", "target"], ["target"], ["params", "params"], ["params"], []]
)
def test_a_t5x_checkpoint_in_a_single_file(around, golden, tmp_path):
    saved = tree(golden)
    for name in reversed(around):
        saved = {name: saved}
    if around:
        saved["step"] = 7
    path = tmp_path / "checkpoint_7"
    path.write_bytes(flax.serialization.msgpack_serialize(saved))
    found = open_model(str(path))
    assert (found.kind, found.config, found.vocabulary) == ("T5X", CONFIG, None)
    assert equal(read(found.arrays), golden)


@pytest.mark.parametrize("content", [b"no msgpack", b"\x81\xa1a\x01", b"\x01", b""])
def test_a_file_that_is_no_checkpoint_is_one_line(content, tmp_path):
    path = tmp_path / "checkpoint_7"
    path.write_bytes(content)
    with pytest.raises(RunError, match="checkpoint_7 is not a whole T5X checkpoint") as caught:
        open_model(str(path))
    assert "\n" not in str(caught.value)


def test_trees_that_are_no_models_are_one_line(folder, tensors, tmp_path):
    pack = flax.serialization.msgpack_serialize
    path = folder("flax", tensors)
    (path / "flax_model.msgpack").write_bytes(pack([1, 2]))
    with pytest.raises(RunError, match="cannot be read as Flax's msgpack"):
        open_model(str(path))
    (tmp_path / "checkpoint_7").write_bytes(pack({"optimizer": {"target": [1]}}))
    with pytest.raises(RunError, match="is not a whole T5X checkpoint"):
        open_model(str(tmp_path / "checkpoint_7"))


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        ("encoder/layers_0/attention/query/kernel", (32,)),
        ("encoder/layers_0/mlp/wi_0/kernel", (32,)),
        ("encoder/relpos_bias/rel_embedding decoder/relpos_bias/rel_embedding", (0, 32)),
    ],
)
def test_arrays_of_shapes_that_no_t5_has_are_one_line(names, shape, golden):
    changed = dict.fromkeys(names.split(), np.zeros(shape))
    with pytest.raises(RunError, match="its arrays are not a T5's"):
        t5_config({path: in_memory(array) for path, array in {**golden, **changed}.items()})


def test_buckets_too_few_for_near_and_far_are_refused(golden):
    few = {name: array[:, :2] if "rel_embedding" in name else array for name, array in golden.items()}
    with pytest.raises(RunError, match="has 2 buckets for distances up to 128: it is no T5"):
        t5_config({path: in_memory(array) for path, array in few.items()})


@pytest.mark.parametrize("shape", [[1 << 30, [0]], [1 << 30, "x"], [-1], [True, 4], [1 << 59, 4]])
def test_a_shape_that_no_array_has_is_refused_before_it_is_multiplied(shape, folder, tensors):
    path = folder("safetensors", {"a": np.zeros(4, np.float32)}) / "model.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(RunError, match=r"no array has|can have|does not fill"):
        open_model(str(path.parent))


@pytest.mark.parametrize("stack", ["encoder/", ""])
def test_a_layer_of_a_number_that_no_model_has_is_refused(stack):
    near, far = (
        {f"{stack}layers_{number}/mlp/wi/kernel": in_memory(np.zeros(1))} for number in ("11", "9" * 5000)
    )
    assert layer_count(near, stack) == 12 and layer_count({}, stack) == 0
    with pytest.raises(RunError, match=f"name {stack}layers_9999.*it is no whole model"):
        layer_count(near | far, stack)
