"""Targets that begin with a sentinel: in the tokens alone, and gone before answers are scored."""

import dataclasses

import numpy as np
import pytest
from test_verbalizer import micro, opened, quickstart  # noqa: F401  its fixtures

from jax_prompts.base_models.build import make_model
from jax_prompts.config import BaseModel, Decoding
from jax_prompts.errors import ConfigError
from jax_prompts.inference.ranking import label_arrays
from jax_prompts.scoring.evaluator import Evaluator


def test_targets_begin_with_the_sentinel_and_texts_do_not(quickstart, micro):  # noqa: F811
    (sentinel,) = micro.encode("<extra_id_0>")
    plain, cache = (opened(dataclasses.replace(quickstart, sentinel=on), micro) for on in (False, True))
    assert cache.directory != plain.directory
    assert cache.longest_targets == plain.longest_targets + 1
    for index in range(len(cache)):
        (_, before), (_, after) = plain.rows([index]), cache.rows([index])
        assert after.values_N.tolist() == [sentinel, *before.values_N.tolist()]
        assert cache.example(index) == plain.example(index)
    with_sentinel = label_arrays(("negative", "positive"), micro, begin=(sentinel,))["decoder_target_tokens"]
    alone = label_arrays(("negative", "positive"), micro)["decoder_target_tokens"]
    np.testing.assert_array_equal(with_sentinel[:, 0], sentinel)
    np.testing.assert_array_equal(with_sentinel[:, 1:], alone)


@pytest.mark.parametrize(("sentinel", "right"), [(True, True), (False, False)])
def test_answers_are_scored_without_it(quickstart, micro, monkeypatch, sentinel, right):  # noqa: F811
    data = dataclasses.replace(quickstart, sentinel=sentinel)
    cache = opened(data, micro)
    answer_U = np.array([*micro.encode("<extra_id_0> positive"), 1], np.int32)

    def answer(params, prompts_QD, batch, key):
        ones_B = np.ones(len(batch["encoder_input_tokens"]))
        return np.tile(answer_U, (len(ones_B), 1)), dict.fromkeys(("loss_sum", "tokens", "correct"), ones_B)

    monkeypatch.setattr(Evaluator, "_answer", lambda scorer, longest: answer)
    model = make_model(BaseModel("micro", None, "asset:micro"), vocabulary=micro)
    (scores,) = Evaluator(model, micro, [cache], data, Decoding())([{}], None)
    found = scores["quickstart_reviews"]
    share = 100 * cache.label_counts["positive"] / len(cache)
    assert found.metrics["accuracy"] == pytest.approx(share if right else 0.0)
    assert {row["prediction"] for row in found.predictions} == {
        "positive" if right else "<extra_id_0> positive"
    }


def test_a_task_that_makes_its_own_tokens_is_refused(quickstart, micro, tmp_path):  # noqa: F811
    (tmp_path / "text.txt").write_text("a line of text\n" * 50)
    lengths = {"inputs": 16, "targets": 16}
    data = dataclasses.replace(
        quickstart, task="prefix_lm", sentinel=True, data_dir=str(tmp_path), task_feature_lengths=lengths
    )
    with pytest.raises(ConfigError, match="SENTINEL is True, but prefix_lm makes its tokens by itself"):
        opened(dataclasses.replace(data, eval_split="train"), micro)
