"""What steps take of whole prompts, against a listing of all sequences."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from bestserve.models.queues.bulk.whole_prompts import riding, steps_to, taken

Script = Callable[[str], ModuleType]

SHARES = {1: 0.5, 2: 0.3, 4: 0.2}
"""Sizes in cells, one above the budget of 3."""


@pytest.fixture
def pmf() -> np.ndarray:
    law = np.zeros(16)
    for size, share in SHARES.items():
        law[size] = share
    return law


@pytest.mark.parametrize("growth", [0.2, 1.0])
def test_steps_of_fresh_prompts_are_those_of_all_sequences(
    script: Script, pmf: np.ndarray, growth: float
) -> None:
    m = script("models/derive_whole_prompts.py")
    at = {m.theta: growth} | {m.f[size]: share for size, share in SHARES.items()}
    listed = np.array([float(m.taken_by_listing(x).subs(at)) for x in range(1, m.WAITING + 1)])
    law = taken(pmf, m.BUDGET, m.WAITING, growth, 0.0)
    assert law[-1, 1:] == pytest.approx(listed / listed.sum(), abs=1e-9)
    assert float(m.second_prompt().subs(m.a, 2 * growth)) == pytest.approx(growth)


def test_behind_full_steps_prompts_are_longer(pmf: np.ndarray) -> None:
    fresh, behind = (taken(pmf, 3, 12, 0.5, full) for full in (0.0, 1.0))
    alone = [float(law[-1, 4:].sum()) for law in (fresh, behind)]
    assert alone[1] > 1.1 * alone[0]
    for law in (fresh, behind):
        assert law.sum(axis=1) == pytest.approx(1.0)
        waiting = np.arange(4, 13)[:, None]
        assert not law[np.arange(13)[None, :] > waiting].any()


def test_packing_of_many_prompts_agrees_with_a_long_queue(pmf: np.ndarray) -> None:
    # one queue taken to its end, prompt by prompt
    rng = np.random.default_rng(7)
    prompts = rng.choice(list(SHARES), p=list(SHARES.values()), size=200_000)
    steps: list[int] = []
    for size in prompts:
        if steps and steps[-1] + size <= 3:
            steps[-1] += size
        else:
            steps.append(int(size))
    law = taken(pmf, 3, 15, 1.0, 1.0)[-1]
    assert law[:5] == pytest.approx(np.bincount(steps, minlength=5) / len(steps), abs=0.01)


def test_number_of_steps_and_what_is_left_for_the_last(pmf: np.ndarray) -> None:
    steps, remain, alone = steps_to(taken(pmf, 3, 9, 1.0, 0.0), 3)
    assert list(steps[:4]) == [1.0] * 4
    assert (np.diff(steps[3:]) > 0).all()
    # as many tokens as a lone prompt of 4: that prompt, or three ways of two steps
    one = SHARES[4]
    two = {
        (1, 1, 2): SHARES[1] ** 2 * SHARES[2],
        (2, 2): SHARES[2] ** 2,
        (1, 2, 1): SHARES[1] ** 2 * SHARES[2],
        (2, 1, 1): SHARES[1] ** 2 * SHARES[2],
        (1, 1, 1, 1): SHARES[1] ** 4,
    }
    assert steps[4] == pytest.approx(1 + sum(two.values()) / (sum(two.values()) + one))
    assert alone[4] == pytest.approx(one / (sum(two.values()) + one))
    last = 2 * two[1, 1, 2] + 2 * two[2, 2] + two[1, 2, 1] + two[2, 1, 1] + two[1, 1, 1, 1]
    assert remain[4] == pytest.approx(last / sum(two.values()))


def test_prompts_that_follow_ride_along_until_one_does_not_fit(pmf: np.ndarray) -> None:
    chance, mean = riding(pmf, 0.5, 3)
    # up to 3 cells: nothing fits behind; up to 2: one of a cell does
    assert chance[3] == pytest.approx(1.0)
    assert mean[3] == 3.0
    follows = 0.5 * SHARES[1]
    longer = SHARES[2] + SHARES[4]
    assert chance[2] == pytest.approx(longer + follows)
    assert mean[2] == pytest.approx((2 * longer + 3 * follows) / (longer + follows))
