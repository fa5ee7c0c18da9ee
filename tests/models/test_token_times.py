"""What a reader meets, by definition: identities that hold for any token times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.models import token_times as tt

gap = st.floats(0.0, 2.0, allow_nan=False)
times = st.lists(gap, min_size=1, max_size=60).map(lambda g: np.cumsum(np.array(g) + 1e-3))
first = st.floats(0.01, 3.0)
pace = st.floats(0.01, 1.0)

quick = settings(max_examples=200, deadline=None, derandomize=True, database=None)


def waits_of_a_reader(tokens: np.ndarray, start: float, each: float) -> float:
    """Read token by token with a clock, and wait for those that are not there."""
    clock, waited = start, 0.0
    for t in tokens:
        waited += max(t - clock, 0.0)
        clock = max(clock, t) + each
    return waited


def ticking_deadlines(tokens: np.ndarray, start: float, each: float) -> tuple[int, int]:
    """Let a clock tick from deadline to deadline until the token is there, and begin anew."""
    met = missed = 0
    deadline = start
    for t in tokens:
        if t <= deadline + 1e-12:
            met += 1
            deadline += each
            continue
        while deadline <= t + 1e-12:
            missed += 1
            deadline += each
        deadline = t + each
    return met, missed


@quick
@given(times, first, pace)
def test_largest_lateness_is_the_time_a_reader_waits(t, first, pace):
    waited = waits_of_a_reader(t, first, pace)
    assert max(tt.lateness(t, first, pace), 0.0) == pytest.approx(waited, abs=1e-9)
    assert tt.stall_time(t, pace) == pytest.approx(waits_of_a_reader(t, t[0], pace), abs=1e-9)


@quick
@given(times, first, pace)
def test_no_deadline_is_missed_just_when_all_tokens_are_on_time(t, first, pace):
    late = tt.lateness(t, first, pace)
    if abs(late) < 1e-6:
        return  # on the edge, rounding decides
    met, missed = tt.fluidity(t, first, pace)
    assert (missed == 0) == (late <= 0) == tt.on_time(t, first, pace)
    assert (tt.share_on_time(t, first, pace) == 1.0) == (late <= 0)
    if missed == 0:
        assert met == len(t)


def test_fluidity_counts_deadlines_as_a_clock_that_ticks():
    rng = np.random.default_rng(5)
    compared = 0
    for _ in range(300):
        t = np.cumsum(rng.choice([0.02, 0.05, 0.3, 0.9], 30) * rng.random(30))
        got = tt.fluidity(t, 0.2, 0.07)
        assert got == ticking_deadlines(t, 0.2, 0.07)
        compared += got[1] > 0
    assert compared > 100, "most cases must miss some deadline"


@pytest.mark.parametrize(("gap", "missed_each"), [(0.05, 0), (0.0625, 0), (0.08, 1), (0.15, 2)])
def test_fluidity_of_even_gaps(gap, missed_each):
    t = 0.5 + gap * np.arange(21)
    assert tt.fluidity(t, 0.5, 0.0625) == (21 if missed_each == 0 else 1, 20 * missed_each)


def test_a_late_first_token_misses_the_deadlines_until_it_is_there():
    assert tt.fluidity(np.array([1.23]), first=1.0, pace=0.1) == (0, 3)
    assert tt.fluidity(np.array([1.0]), first=1.0, pace=0.1) == (1, 0)


@quick
@given(times, first, pace)
def test_holding_tokens_back_lowers_tpot_and_helps_no_reader(t, first, pace):
    held = tt.held_back(t, first)
    assert np.all(held >= t)
    if len(t) > 1:
        assert held[-1] - held[0] <= t[-1] - t[0] + 1e-12
    assert tt.on_time(held, first, pace) == tt.on_time(t, first, pace)
    # separate objectives met with tokens held back are the end condition
    d = len(t) - 1
    late_end = t[-1] - first - pace * d
    if t[0] <= first and abs(late_end) > 1e-9:
        tpot_holds = held[-1] - held[0] <= pace * d
        assert tpot_holds == tt.ends_on_time(t, first, pace)


@quick
@given(times, first, pace)
def test_on_time_is_stricter_than_the_ends(t, first, pace):
    if tt.on_time(t, first, pace):
        assert tt.ends_on_time(t, first, pace) or math.isclose(
            t[-1], first + pace * (len(t) - 1), abs_tol=1e-9
        )


def test_messages_of_several_tokens_count_at_their_last_one():
    t, index = np.array([0.5, 1.0, 1.4375]), np.array([3, 7, 9])
    assert tt.lateness(t, 0.25, 0.125, index) == 0.0625
    assert tt.stall_time(t, 0.125, index) == 0.1875
    assert tt.fluidity(t, 0.25, 0.125, index) == (8, 2)


def test_dropping_late_answers_earns_nothing():
    tokens, waits = np.array([300.0, 40.0]), np.array([0.0, 1.5])
    whole = tt.smooth_goodput(tokens, waits, 10.0, 20.0)
    assert whole == pytest.approx((340 - 30) / 10)
    kept = tt.smooth_goodput(np.array([300.0, 25.0]), waits, 10.0, 20.0)  # given up at token 25
    assert kept < whole
