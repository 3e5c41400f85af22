"""A tied mT5 beside transformers: up to its version 4 logits are scaled, since 5 they are not."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install -e '.[parity]'")
pytest.importorskip("transformers", reason="pip install -e '.[parity]'")

import json

import torch
import transformers
from pairs import Pair, for_transformers, random_mt5, random_t5, texts_and_targets

pytestmark = pytest.mark.parity
SIZES = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": 2,
         "feed_forward_proj": "gated-gelu"}  # fmt: skip


def assert_logits_agree(pair):
    ids_BS, decoder_BU, labels_BU = texts_and_targets(SIZES["vocab_size"])
    with torch.no_grad():
        theirs_BUV = pair.theirs(**for_transformers(ids_BS, decoder_BU, labels_BU)).logits.numpy()
    np.testing.assert_allclose(pair.logits(ids_BS, decoder_BU), theirs_BUV, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_an_mt5_of_the_installed_version(tied, tmp_path):
    assert_logits_agree(Pair.of(random_mt5(7, **SIZES, tie_word_embeddings=tied), str(tmp_path)))


def test_a_tied_mt5_of_version_4(tmp_path, monkeypatch):
    """Its numbers are those of a tied T5 in any version."""
    theirs = random_t5(7, **SIZES, tie_word_embeddings=True)
    theirs.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    described.pop("scale_decoder_outputs", None)
    described |= {"model_type": "mt5", "transformers_version": "4.57.1"}
    (tmp_path / "config.json").write_text(json.dumps(described))
    monkeypatch.setattr(theirs, "save_pretrained", lambda _: None)  # it lies there already
    assert_logits_agree(Pair.of(theirs, str(tmp_path)))


def test_which_version_is_installed_is_what_its_files_say(tmp_path):
    random_mt5(7, **SIZES).save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["transformers_version"] == transformers.__version__
    assert described["model_type"] == "mt5"
