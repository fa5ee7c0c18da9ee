"""Steps that are formed while the one before runs (asynchronous scheduling).

Who arrives during a step finds the next one formed already and joins the one after it. By PASTA an
arrival meets a running lane with the share of the time that it runs, and waits for one more step
then; what runs meanwhile, and so TPOT, is the same. Who ends keeps a slot for one step more, so
that of n slots n·D/(D + 1) decode when all are taken.
"""

from __future__ import annotations

from bestserve.models.distribution import Distribution
from bestserve.models.system import Lane


def behind_next_step(lane: Lane, law: Distribution, busy: float, step: float) -> Distribution:
    """Return the law of TTFT with the step that an arrival finds formed, if `lane` forms ahead.

    busy : share of the time that steps run; step : mean length of one [s]
    """
    if not lane.async_scheduling:
        return law
    return Distribution.mixture([law, law.shift(step)], [1.0 - busy, busy])


def slots_decoding(lane: Lane, slots: int, decode_steps: float) -> int:
    """Return how many of `slots` decode when all are taken; decode_steps : of a mean answer."""
    if not lane.async_scheduling:
        return slots
    return min(slots, max(1, round(slots * decode_steps / (decode_steps + 1.0))))
