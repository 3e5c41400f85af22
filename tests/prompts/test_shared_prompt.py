"""What prompts have in common up to a rank-1 matrix of each."""

import numpy as np
import pytest

from jax_prompts.prompts.shared_prompt import decompose

DRAW = np.random.default_rng(0)
K, P, D = 5, 10, 32
SHARED_PD = DRAW.normal(size=(P, D))
U_KP, V_KD = 1 + 0.3 * DRAW.normal(size=(K, P)), 1 + 0.3 * DRAW.normal(size=(K, D))
SOURCES_KPD = SHARED_PD[None] * U_KP[:, :, None] * V_KD[:, None]


def rebuilt(found):
    return found.shared_PD[None] * found.u_KP[:, :, None] * found.v_KD[:, None]


def test_what_was_made_of_a_shared_prompt_is_found_again():
    found = decompose(SOURCES_KPD)
    assert found.explained > 1 - 1e-6
    np.testing.assert_allclose(rebuilt(found), SOURCES_KPD, atol=5e-3)
    np.testing.assert_allclose(
        found.start_PD, found.shared_PD * found.u_KP.mean(0)[:, None] * found.v_KD.mean(0)[None]
    )
    sizes = [np.sqrt(np.square(factor).mean(1)) for factor in (found.u_KP, found.v_KD)]
    np.testing.assert_allclose(*sizes, rtol=1e-6)
    assert (found.u_KP.sum(1) >= 0).all()


def test_explained_is_the_share_of_the_squared_norm_and_above_that_of_the_mean():
    sources_KPD = SOURCES_KPD + 0.5 * np.random.default_rng(1).normal(size=(K, P, D))
    found = decompose(sources_KPD)
    error = np.square(sources_KPD - rebuilt(found)).sum()
    assert found.explained == pytest.approx(1 - error / np.square(sources_KPD).sum())
    of_mean = np.square(sources_KPD - sources_KPD.mean(0)[None]).sum()
    assert error < 0.8 * of_mean


def test_multiples_of_one_prompt_share_it():
    """By hand: sources X, 3 X and -X are one prompt with factors in the ratio 1, 3 and -1, the sign being of v."""
    x_PD = SHARED_PD[:3, :4]
    found = decompose(np.stack([x_PD, 3 * x_PD, -x_PD]))
    assert found.explained == pytest.approx(1)
    ratios_K = (found.u_KP[:, :1] * found.v_KD[:, :1])[:, 0]
    np.testing.assert_allclose(ratios_K / ratios_K[0], [1, 3, -1], rtol=1e-5)
    assert (found.u_KP > 0).all() and (found.v_KD[2] < 0).all()


@pytest.mark.parametrize("sources_KPD", [SHARED_PD[None], np.stack([SHARED_PD] * 3)], ids=["one", "equal"])
def test_one_source_is_its_own_shared_prompt(sources_KPD):
    found = decompose(sources_KPD)
    assert found.explained == pytest.approx(1)
    np.testing.assert_allclose(found.start_PD, SHARED_PD, atol=1e-9)


def test_zeros_are_no_division():
    some_KPD = SOURCES_KPD.copy()
    some_KPD[0], some_KPD[:, 3] = 0, 0
    for sources_KPD in (np.zeros((2, 3, 4)), some_KPD):
        found = decompose(sources_KPD)
        assert all(np.isfinite(x).all() for x in found)
        np.testing.assert_allclose(rebuilt(found), sources_KPD, atol=1e-2)
