"""One lane of an engine, advanced from event to event.

While nobody joins or leaves, n decode steps take n·t₀ + k·b·n(n−1)/2, because the context grows
by b tokens a step. The loop jumps to the earliest of the next departure, the first step boundary
at or after the next arrival and the step at which the KV cache is full; it costs a few
operations per event, however many tokens lie between.

Semantics (the naive loop in `tests/simulator/naive.py` says the same without jumping):

* A step starts at a boundary and ends at the next; who arrives at a boundary or before takes
  part. The queue is first come first served; evicted requests go to its head.
* A request needs l + j tokens of KV in its j-th decode step, in whole blocks. At admission it
  takes the blocks of its prompt and of the reserved share of its output, l + ⌊reserve·(o − 1)⌋.
* If the next step's blocks do not fit, the youngest running request is evicted until they do;
  its prompt and the tokens generated so far are processed again. Nobody is admitted then.
* A prompt is admitted if its blocks fit beside those that the next step needs. Without a reserve it
  takes them part by part, as it is processed.
* With asynchronous scheduling a step is formed when the one before it starts: it knows nobody who
  arrived since, and counts those who end meanwhile as running. If it has nothing to do, it is
  formed again when the one before has ended.
* With a prefix cache, blocks that nobody runs with stay where there is room (`block_cache`).
* With speculative decoding every step is one (`drafts`): a decode takes 1 + γ tokens of its budget
  and KV for γ more, and gains as many as are accepted.
"""

from __future__ import annotations

from bestserve.arrays import Floats, Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.simulator.admission import admit, blocks_coming, evict
from bestserve.simulator.block_cache import Cache
from bestserve.simulator.departures import fire_events, join, let_go
from bestserve.simulator.layout import (
    AHEAD,
    CONTEXT,
    DECODING,
    FORMED,
    HEAD,
    LEAVING,
    NOW,
    OUTSTANDING,
    PEAK,
    PROMPT_TOKENS,
    REPORTED,
    RIDING,
    SPLIT,
    STEPPING,
    STEPWISE,
    T_END,
    T_NEXT,
    Pool,
)
from bestserve.simulator.reading import read_on
from bestserve.simulator.step import (
    BUSY_NOW,
    end_step,
    idle_until,
    jump,
    start_step,
)


@njit(cache=True)
def advance(
    lane: int,
    until: float,
    before: float,
    pool: Pool,
    times: Floats,
    facts: Ints32,
    done: Ints,
    cache: Cache,
) -> int:
    """Process the lane's events up to `until` [s] and return how many requests ended.

    Steps end at or before `until`; new ones start at or before it too, and before `before`. With a
    non-empty `done`, it returns after the first boundary at which requests ended and lists them
    there. Whatever has not ended stays as it is, to be continued by the next call.

    cache : of prefixes, or `NO_CACHE`
    """
    s, c = pool.state[lane], pool.clock[lane]
    ended = 0
    while True:
        if s[STEPPING] != 0:
            if c[T_END] > until:
                t_next = float(c[T_END])
                break
            if s[RIDING] != 0 and pool.seen.shape[0] > 0:
                read_on(lane, pool, facts, 1, c[T_END] - c[NOW], 0.0)
            end_step(lane, pool, facts)
        else:
            t_next = idle_until(lane, until, before, pool, times, facts, cache)
            if t_next != BUSY_NOW:
                break
            coming = blocks_coming(lane, pool, facts)
            prompts, tokens, pairs, waits = 0, 0, 0.0, False
            evicted = evict(lane, pool, facts, coming, cache)
            if not evicted:
                prompts, tokens, pairs, waits = admit(lane, pool, times, facts, coming, cache)
            s[PEAK] = max(s[PEAK], s[CONTEXT] + s[PROMPT_TOKENS])
            empty = s[DECODING] == 0 and prompts == 0 and s[SPLIT] < 0
            if empty and pool.limits[AHEAD] != 0:
                # Nothing to do for whom it knew of: formed again when those have left.
                let_go(lane, pool, facts, cache)
                c[FORMED] = c[NOW]
                continue
            if prompts > 0 or evicted or pool.limits[STEPWISE] > 0:
                start_step(lane, pool, prompts, tokens, pairs, facts, cache)
                continue
            t_next = jump(lane, until, pool, times, facts, waits, cache)
            if t_next != BUSY_NOW:
                break
        ended_earlier = ended
        ended = fire_events(lane, pool, times, facts, done, cache, ended)
        ended = join(lane, pool, times, facts, done, cache, ended)
        s[REPORTED] = s[CONTEXT] + s[PROMPT_TOKENS]
        if s[LEAVING] > 0 and s[DECODING] == 0 and s[SPLIT] < 0 and s[HEAD] < 0:
            let_go(lane, pool, facts, cache)  # idle: no step is formed that counts them
        if ended > ended_earlier and done.size > 0:
            t_next = float(c[NOW])
            break
    c[T_NEXT] = t_next
    s[OUTSTANDING] -= ended
    return ended
