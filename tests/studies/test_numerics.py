"""Studies' numbers of matrices and vocabularies whose answers are known."""

import numpy as np
import pytest

from jax_prompts.prompts.geometry import cosines
from jax_prompts.studies import similarity
from jax_prompts.studies.cosines import groups, mean_off_diagonal
from jax_prompts.studies.domain import typical
from jax_prompts.studies.nearest import alike, clusters, near_duplicates, nearest, random_vectors
from jax_prompts.studies.rank import ranks
from jax_prompts.studies.transfer import ratios

ORTHOGONAL_PD = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 4)))[0].T


def test_cosines_of_known_vectors():
    a_MD, b_ND = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), np.array([[-1e30, 0.0], [0.0, 2e-30]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(cosines(a_MD, b_ND), [[-1, 0], [-half, half], [0, 0]], atol=1e-12)
    assert mean_off_diagonal(np.array([[1.0, 0.2], [0.4, 1.0]])) == pytest.approx(0.3)
    assert mean_off_diagonal(np.ones((1, 1))) is None


def test_groups_join_what_pairs_join():
    assert groups(6, [(4, 1), (0, 5), (1, 2)]) == [[0, 5], [1, 2, 4]]
    assert groups(3, []) == []


def test_similarity_within_a_prompt():
    assert similarity.within(ORTHOGONAL_PD)["mean_off_diagonal"] == pytest.approx(0, abs=1e-12)
    assert similarity.within(np.tile([[1.0, 2.0]], (3, 1)))["positions"] == [[1.0] * 3] * 3
    assert similarity.within(ORTHOGONAL_PD[:1])["mean_off_diagonal"] is None


def test_similarity_between_prompts():
    a_PD, b_PD = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, -1.0]])
    assert similarity.of_means(a_PD, b_PD) == pytest.approx(0)
    assert similarity.position_wise(a_PD, b_PD) == pytest.approx(0)
    assert similarity.flattened(a_PD, 2 * a_PD) == pytest.approx(1)
    assert similarity.mean_of_pairs(a_PD, a_PD[:1]) == pytest.approx(0.5)
    assert similarity.of_means(a_PD, a_PD[:1]) == pytest.approx(np.sqrt(0.5))
    assert similarity.position_wise(a_PD, a_PD[:1]) is None and similarity.flattened(a_PD, a_PD[:1]) is None


def test_ranks_of_known_matrices():
    found = ranks(2 * ORTHOGONAL_PD)
    assert found["rank"] == 4
    np.testing.assert_allclose(found["singular_values"], [2.0] * 4)
    assert (found["entropy_rank"], found["stable_rank"]) == (pytest.approx(4), pytest.approx(4))
    one = ranks(np.diag([2.0, 1.0]))
    assert one["stable_rank"] == pytest.approx(5 / 4)
    zeros = ranks(np.zeros((2, 3)))
    assert [zeros[name] for name in ("rank", "entropy_rank", "stable_rank")] == [0, 0, 0]


def test_nearest_leaves_out_what_is_not_allowed(monkeypatch):
    monkeypatch.setattr("jax_prompts.studies.nearest._ROWS", 3)  # parts are joined
    rng = np.random.default_rng(1)
    embedding_VD, x_ND = rng.normal(size=(20, 5)), rng.normal(size=(4, 5))
    allowed_V = np.arange(20) % 4 != 0
    found = nearest(x_ND, embedding_VD, allowed_V, 6)
    every = np.where(allowed_V, cosines(x_ND, embedding_VD), -2)
    np.testing.assert_array_equal(found.ids_NK, np.argsort(-every, axis=1)[:, :6])
    np.testing.assert_allclose(found.cosines_NK, np.sort(every, axis=1)[:, ::-1][:, :6])
    assert nearest(x_ND, embedding_VD, np.arange(20) < 2, 6).ids_NK.shape == (4, 2)


def test_random_vectors_have_the_norms_and_come_again():
    rows_VD = np.random.default_rng(0).normal(3, 1, size=(50, 8))
    prompt_PD = np.arange(24.0).reshape(3, 8)
    drawn_PD = random_vectors(prompt_PD, rows_VD, seed=1)
    np.testing.assert_allclose(np.linalg.norm(drawn_PD, axis=1), np.linalg.norm(prompt_PD, axis=1))
    np.testing.assert_array_equal(drawn_PD, random_vectors(prompt_PD, rows_VD, seed=1))
    assert not np.allclose(drawn_PD, random_vectors(prompt_PD, rows_VD, seed=2))
    assert cosines(drawn_PD, rows_VD.mean(axis=0)[None]).min() > 0.8  # drawn from the embedding space


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("▁Technology", "technologies", True),
        ("▁good", "Good", True),
        ("▁to", "To", True),
        ("▁international", "▁interest", False),
        ("▁interesting", "▁international", False),
        ("▁act", "▁acting", False),
        ("1234", "12345", False),
        ("▁", "", False),
        ("##play", "playing", True),
    ],
)
def test_forms_of_one_word(one, other, expected):
    assert alike(one, other) is expected and alike(other, one) is expected


def test_clusters_are_joined_by_way_of_others():
    pieces = ["▁techno", "▁Technologies", "▁good", "technological", "▁bad"]
    assert clusters(pieces) == [["▁techno", "▁Technologies", "technological"]]


def test_near_duplicates():
    prompt_PD = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 9.0]])
    assert near_duplicates(prompt_PD, 0.95) == [[0, 2], [1, 3]]


def test_words_typical_of_texts():
    elsewhere_V = np.array([0.5, 0.3, 0.2, 0.0])
    # Shares 0.02, 0.03, 0.9 and 0.05: piece 2 is 5 times as frequent (elsewhere 0.18 with piece 3's floor of 0.09).
    assert typical(np.array([2, 3, 90, 5]), elsewhere_V).tolist() == [False, False, True, False]
    assert typical(np.array([5, 5, 5, 85]), elsewhere_V).tolist() == [False, False, False, True]
    assert typical(np.array([0, 0, 4, 0]), elsewhere_V).tolist() == [False] * 4  # fewer than five
    assert not typical(np.zeros(4, int), np.zeros(4)).any()


def test_ratios_to_a_task_s_own_prompts():
    assert ratios([40.0, 60.0, 100.0, None], [40.0, 60.0]) == [0.8, 1.2, 2.0, None]
    assert (
        ratios([40.0], []) == [None] and ratios([40.0], [0.0]) == [None] and ratios([1.0], [None]) == [None]
    )
