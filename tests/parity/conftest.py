"""Nothing here is imported without `-m parity`: torch takes seconds."""

import pytest


def pytest_ignore_collect(collection_path, config):
    return True if "not parity" in config.option.markexpr else None


CASES = {
    "v1.0": {"vocab_size": 101, "d_model": 20, "d_kv": 7, "num_heads": 3, "d_ff": 33, "num_layers": 1,
             "feed_forward_proj": "relu"},
    "v1.1": {"vocab_size": 128, "d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": 2,
             "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def pair(request, tmp_path_factory):
    """A small random T5, here and in transformers; of both versions."""
    from pairs import Pair, random_t5

    return Pair.of(random_t5(11, **request.param), str(tmp_path_factory.mktemp("model")))
