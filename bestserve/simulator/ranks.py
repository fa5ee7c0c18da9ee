"""Priorities: queues in the order of ranks, and who is evicted first (vLLM's `priority` policy).

A request's rank is its place by priority, then by arrival at the service. A waiting request of a
lesser rank goes first; where the KV cache is full the running request of the largest rank goes.
Nobody is evicted to admit another one.
"""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.models.system import Lengths
from bestserve.simulator.heap import (
    FINISH,
    ITERATION_SHIFT,
    KIND_MASK,
    REQUEST_MASK,
    REQUEST_SHIFT,
)
from bestserve.simulator.layout import ADMITTED, EVENTS, HEAD, NEXT, TAIL, Pool


def ranked(lengths: Lengths, kinds: Ints | None) -> Ints:
    """Return the ranks of requests of these kinds [n]; empty where all have one priority."""
    if kinds is None or not lengths.prioritised:
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(np.array(lengths.priorities)[kinds], kind="stable")
    ranks = np.empty(order.size, dtype=np.int64)
    ranks[order] = np.arange(order.size)
    return ranks


@njit(cache=True)
def insert(lane: int, request: int, pool: Pool, facts: Ints32) -> None:
    """Link a request into a lane's queue before the first one of a larger rank."""
    s, rank = pool.state[lane], pool.ranks[request]
    before = -1
    after = s[HEAD]
    while after >= 0 and pool.ranks[after] < rank:
        before = after
        after = facts[after, NEXT]
    facts[request, NEXT] = after
    if before < 0:
        s[HEAD] = request
    else:
        facts[before, NEXT] = request
    if after < 0:
        s[TAIL] = request


@njit(cache=True)
def goes_first(one: int, other: int, pool: Pool, facts: Ints32) -> bool:
    """Whether one running request is evicted before another one."""
    if pool.ranks.shape[0] == 0:
        return facts[one, ADMITTED] > facts[other, ADMITTED]
    return pool.ranks[one] > pool.ranks[other]


@njit(cache=True)
def last_decode(lane: int, pool: Pool, facts: Ints32) -> tuple[int, int]:
    """Return the decode of a lane that is evicted first, and when it ends; −1: none decodes."""
    s = pool.state[lane]
    last, finish = -1, 0
    for i in range(s[EVENTS]):
        if pool.heaps[lane, i] & KIND_MASK == FINISH:
            r = (pool.heaps[lane, i] >> REQUEST_SHIFT) & REQUEST_MASK
            if last < 0 or goes_first(r, last, pool, facts):
                last = r
                finish = pool.heaps[lane, i] >> ITERATION_SHIFT
    return last, finish
