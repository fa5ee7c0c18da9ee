"""Who does what in a hybrid: which pool a prompt goes to, and which answers stay with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bestserve.arrays import Bools, Floats, Ints32
from bestserve.host.compiled import njit
from bestserve.models.system import Hybrid
from bestserve.simulator.block_cache import Cache
from bestserve.simulator.inputs import POOLS, stratified, stream
from bestserve.simulator.layout import CACHED, OUTSTANDING, PROMPT, Pool
from bestserve.simulator.predicted import EQUAL, quickest
from bestserve.simulator.routing import LEAST_TTFT, choose

ANY_LENGTH = (1 << 31) - 1


class Mixed(NamedTuple):
    """How a hybrid's prompts and decodes are shared out.

    on : whether the system is a hybrid
    local : per request, whether a decode lane processes its prompt unless the lanes decide [n]
    longest : tokens to compute of the longest prompt that may be local; queue : requests at the
        prefill lanes from which any prompt is local, 0: never
    watermark : share of a decode lane's KV beyond which decodes leave it, 0: never; tpot : what
        they come back for [s]
    asked : when a request came [n] [s]
    """

    on: bool
    local: Bools
    longest: int
    queue: int
    watermark: float
    tpot: float
    asked: Floats


NOT_MIXED = Mixed(
    on=False,
    local=np.zeros(0, dtype=np.bool_),
    longest=0,
    queue=0,
    watermark=0.0,
    tpot=0.0,
    asked=np.zeros(0),
)


def share_out(system: Hybrid, facts: Ints32, seed: int) -> tuple[Mixed, Bools]:
    """Return how requests are shared out, and which answers stay on prefill lanes [n]."""
    rng = stream(seed, POOLS)
    n = len(facts)
    drawn, stays = stratified(rng, n), stratified(rng, n)
    local = drawn < system.local_prefill_share
    if system.longest_local > 0:
        local = facts[:, PROMPT] - facts[:, CACHED] <= system.longest_local
    flow = system.flow
    mixed = Mixed(
        on=True,
        local=local,
        longest=system.longest_local or ANY_LENGTH,
        queue=system.prefill_queue,
        watermark=0.0 if flow is None else flow.watermark,
        tpot=0.0 if flow is None else flow.tpot,
        asked=np.full(n, -1.0),
    )
    return mixed, stays < system.local_decode_share


@njit(cache=True)
def place(
    r: int,
    number: int,
    now: float,
    routing: int,
    draws: Floats,
    front: Pool,
    back: Pool,
    facts: Ints32,
    back_facts: Ints32,
    mixed: Mixed,
    cache: Cache,
) -> tuple[int, bool]:
    """Return the lane for the prompt of a request, and whether it is one of the decode pool."""
    tokens = facts[r, PROMPT] - facts[r, CACHED]
    local = mixed.local[r]
    if mixed.queue > 0 and not local:
        waiting = 0
        for lane in range(front.clock.shape[0]):
            waiting += front.state[lane, OUTSTANDING]
        local = waiting >= mixed.queue
    if routing == LEAST_TTFT:
        lane, time = quickest(number, now, tokens, front, facts)
        there, time_there = quickest(number, now, tokens, back, back_facts)
        if (local or tokens <= mixed.longest) and time_there < time - EQUAL:
            return there, True
        return lane, False
    if local:
        clock, state, costs, moe, table = back.clock, back.state, back.costs, back.moe, back.table
        return choose(routing, number, draws, now, clock, state, costs, moe, table, cache, r), True
    clock, state, costs, moe, table = front.clock, front.state, front.costs, front.moe, front.table
    return choose(routing, number, draws, now, clock, state, costs, moe, table, cache, r), False
