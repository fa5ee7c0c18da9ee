"""Which replica an arriving request goes to.

Static rules do not look at the lanes, so that each lane can be simulated on its own; the others
see the lanes as they are when the request arrives.
"""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Floats, Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.models.step.step_time_jit import A_SEQ, A_STEP, K
from bestserve.simulator.lane import steps_to, tokens_cost
from bestserve.simulator.layout import CONTEXT, DECODING, NOW, OUTSTANDING, QUEUED_TOKENS, STEPPING

RANDOM, ROUND_ROBIN, LEAST_OUTSTANDING, POWER_OF_TWO, LEAST_KV = range(5)
CODES = {
    "random": RANDOM,
    "round_robin": ROUND_ROBIN,
    "least_outstanding": LEAST_OUTSTANDING,
    "power_of_two": POWER_OF_TWO,
    "least_kv": LEAST_KV,
}
STATIC = ("random", "round_robin")


def assign(routing: str, draws: Floats, lanes: int, n: int) -> Ints32:
    """Return the lane of n requests under a static rule; `draws` float64[≥ n, 2] in [0, 1)."""
    if routing == "round_robin" or lanes == 1:
        return (np.arange(n) % lanes).astype(np.int32)
    return (draws[:n, 0] * lanes).astype(np.int32)


@njit(cache=True)
def kv_load(
    lane: int,
    now: float,
    clock: Floats,
    state: Ints,
    costs: Floats,
    moe: Floats,
    table: Floats,
) -> int:
    """Return prompt plus generated tokens of all requests at the lane, waiting ones included."""
    decoding = state[lane, DECODING]
    load = state[lane, CONTEXT] + state[lane, QUEUED_TOKENS]
    gap = now - clock[lane, NOW]
    if decoding == 0 or state[lane, STEPPING] != 0 or gap <= 0.0:
        return load
    # A jump over decode steps is under way: count the steps that ended by now.
    first = (
        costs[A_STEP]
        + costs[A_SEQ] * decoding
        + tokens_cost(decoding, table, costs, moe)
        + costs[K] * state[lane, CONTEXT]
    )
    growth = costs[K] * decoding
    n = steps_to(gap, first, growth)
    if n * first + growth * (0.5 * n * (n - 1)) > gap:
        n -= 1
    return load + n * decoding


@njit(cache=True)
def choose(
    routing: int,
    number: int,
    draws: Floats,
    now: float,
    clock: Floats,
    state: Ints,
    costs: Floats,
    moe: Floats,
    table: Floats,
) -> int:
    """Return the lane for arrival `number` (0, 1, …) at time `now` [s].

    Equals are taken in turn, starting with lane `number` mod lanes. Power of two choices picks
    two different lanes at random and takes the one with fewer requests, the first on a tie.
    """
    lanes = clock.shape[0]
    if lanes == 1:
        return 0
    if routing == RANDOM:
        return int(draws[number, 0] * lanes)
    if routing == ROUND_ROBIN:
        return number % lanes
    if routing == POWER_OF_TWO:
        one = int(draws[number, 0] * lanes)
        other = int(draws[number, 1] * (lanes - 1))
        if other >= one:
            other += 1
        return other if state[other, OUTSTANDING] < state[one, OUTSTANDING] else one
    best = -1
    least = 0
    for i in range(lanes):
        lane = (number + i) % lanes
        if routing == LEAST_KV:
            load = kv_load(lane, now, clock, state, costs, moe, table)
        else:
            load = state[lane, OUTSTANDING]
        if best < 0 or load < least:
            best, least = lane, load
    return best
