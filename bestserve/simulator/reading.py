"""What readers meet, kept per request while the lanes run: no token time is stored.

A row of `Pool.seen` per request is updated once per event of its lane, whatever the number of
tokens between: inside a jump gaps grow evenly, so that lateness is largest at one of its ends and
gaps above a limit are its last ones. The definitions are those of `models.token_times`.
"""

from __future__ import annotations

import math

from bestserve.arrays import Floats, Ints32
from bestserve.host.compiled import njit
from bestserve.simulator.heap import (
    FINISH,
    ITERATION_SHIFT,
    KIND_MASK,
    REQUEST_MASK,
    REQUEST_SHIFT,
)
from bestserve.simulator.layout import EVENTS, ITERATION, NOW, OUTPUT, STREAM, Pool

# seen[request]
(
    TOKENS,
    TIME,
    LATEST,
    SLACK,
    MET,
    MISSED,
    MESSAGES,
    LONG,
    LONGEST,
    DUE,
    PACE,
    LIMIT,
    COUNTS,
) = range(13)
"""TOKENS, TIME: tokens out so far, and when the last one was [s]. LATEST: max (t_i − pace · i)
[s]. SLACK, MET, MISSED: of the fluidity index. MESSAGES, LONG, LONGEST: gaps so far, those above
the limit, the longest [s]. Of its reader: DUE: when the first token is due [s]; −∞: whenever it
comes. PACE: time per token [s]. LIMIT: gap above which one is long [s]. COUNTS: 1 if its gaps go
into the histogram."""
SEEN_WIDTH = 13

SHORTEST = 1e-5
"""First edge of the histogram of gaps [s]."""

PER_DECADE = 100
"""Its bins per factor of 10: 2.3 % each."""

BINS = 800
"""Its bins: to 1000 s."""

LOG10_E = 0.4342944819032518


@njit(cache=True)
def gap_bin(gap: float) -> int:
    """Return the bin of a gap [s]; shorter and longer ones stand in the outermost."""
    if gap <= SHORTEST:
        return 0
    return min(int(PER_DECADE * LOG10_E * math.log(gap / SHORTEST)), BINS - 1)


@njit(cache=True)
def note_message(lane: int, r: int, tokens: int, now: float, pool: Pool) -> None:
    """Note a message with which request r has `tokens` tokens out."""
    row = pool.seen[r]
    pace = row[PACE]
    before = row[TOKENS]
    more = tokens - before
    late = now - pace * (tokens - 1)
    if before == 0.0:
        row[LATEST] = late
        slack = 0.0
        if row[DUE] > -math.inf:
            slack = row[DUE] + pace * (tokens - 1) - now
        if slack >= 0.0:
            row[MET] += more
            row[SLACK] = slack
        elif pace > 0.0:
            row[MISSED] += 1.0 + math.floor(-slack / pace)
    else:
        row[LATEST] = max(row[LATEST], late)
        gap = now - row[TIME]
        allowed = pace * more
        if gap <= allowed + row[SLACK]:
            row[MET] += more
            row[SLACK] += allowed - gap
        elif pace > 0.0:
            row[MISSED] += math.floor((gap - row[SLACK]) / pace)
            row[SLACK] = 0.0
        row[MESSAGES] += 1.0
        row[LONGEST] = max(row[LONGEST], gap)
        if gap > row[LIMIT]:
            row[LONG] += 1.0
        pool.gaps[lane, gap_bin(gap)] += row[COUNTS]
    row[TOKENS] = tokens
    row[TIME] = now


@njit(cache=True)
def even_gaps(row: Floats, n: int, first: float, growth: float) -> None:
    """Note n tokens, one a step, whose gaps are first, first + growth, … [s]."""
    pace, limit = row[PACE], row[LIMIT]
    span = n * first + growth * (0.5 * n * (n - 1))
    last = first + growth * (n - 1)
    end = row[TIME] + span
    row[TOKENS] += n
    row[TIME] = end
    row[LATEST] = max(row[LATEST], end - pace * (row[TOKENS] - 1.0))
    row[MESSAGES] += n
    row[LONGEST] = max(row[LONGEST], last)
    if last > limit:
        short = 0
        if first <= limit:
            short = n
            if growth > 0.0:
                short = min(int((limit - first) / growth) + 1, n)
        row[LONG] += n - short
    if last <= pace:
        row[MET] += n
        row[SLACK] += n * pace - span
    elif pace > 0.0:
        for j in range(n):
            gap = first + growth * j
            if gap <= pace + row[SLACK]:
                row[MET] += 1.0
                row[SLACK] += pace - gap
            else:
                row[MISSED] += math.floor((gap - row[SLACK]) / pace)
                row[SLACK] = 0.0


@njit(cache=True)
def even_counts(gaps: Floats, times: float, n: int, first: float, growth: float) -> None:
    """Add `times` each of n gaps first, first + growth, … [s] to a lane's histogram."""
    low, high = gap_bin(first), gap_bin(first + growth * (n - 1))
    if low == high:
        gaps[low] += times * n
        return
    for j in range(n):
        gaps[gap_bin(first + growth * j)] += times


@njit(cache=True)
def read_on(lane: int, pool: Pool, facts: Ints32, n: int, first: float, growth: float) -> None:
    """Note the tokens of n steps from the lane's boundary on, one a step for every decode.

    first : duration of the first step [s]; growth : by how much each takes longer than the one
    before [s]
    """
    s, start = pool.state[lane], pool.clock[lane, NOW]
    heap, stream = pool.heaps[lane], pool.limits[STREAM]
    counted = 0.0
    for i in range(s[EVENTS]):
        event = heap[i]
        if event & KIND_MASK != FINISH:
            continue
        r = (event >> REQUEST_SHIFT) & REQUEST_MASK
        output = facts[r, OUTPUT]
        before = output - ((event >> ITERATION_SHIFT) - s[ITERATION])
        if stream == 1:
            note_message(lane, r, before + 1, start + first, pool)
            if n > 1:
                even_gaps(pool.seen[r], n - 1, first + growth, growth)
            counted += pool.seen[r, COUNTS]
            continue
        for j in range(1, n + 1):
            tokens = before + j
            if tokens % stream == 0 or tokens == output:
                now = start + (j * first + growth * (0.5 * j * (j - 1)))
                note_message(lane, r, tokens, now, pool)
    if n > 1 and counted > 0.0:
        even_counts(pool.gaps[lane], counted, n - 1, first + growth, growth)
