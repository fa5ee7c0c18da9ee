"""What a reader meets: definitions on the times at which the tokens of one request appear.

A request arrives at 0 and its tokens 0 … D appear at t_0 ≤ … ≤ t_D [s]: t_0 is TTFT, t_D is E2EL.
Token i is due at `first` + i · `pace`; 1/pace is the reading speed. Absolute deadlines begin at
`first` after arrival, relative ones with the first token, first = t_0. Where a message brings
several tokens, it counts at its last one: give times and `index` of the messages.

Sources, by what of them was read: [W] Wang et al., "Revisiting SLO and goodput metrics in LLM
serving", arXiv 2410.14257, abstract and summaries of both versions, their equations by those
summaries and not by the text; [A] Agrawal et al., "Etalon" (Metron), arXiv 2407.07000, by its
public code, `metric_utils.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Whose deadlines count.

    pace : time per token [s]; first : when the first token is due, from arrival [s]; None or −∞:
    when it comes; limit : gap above which one is long [s]. Arrays: of each request its own [n]
    """

    pace: float | Floats
    first: float | Floats | None = None
    limit: float | Floats = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Whose deadlines count, by kind of request.

    others : of kinds that are not named; each : name of a kind and its reader, None: nobody reads
    """

    others: Reader | None
    each: tuple[tuple[str, Reader | None], ...]

    def of(self, kinds: Ints, names: Sequence[str]) -> Reader | None:
        """Return the readers of requests as one; kinds : place in `names` of every request [n]."""
        known = dict(self.each)
        return readers([known.get(name, self.others) for name in names], kinds)


def readers(each: Sequence[Reader | None], kinds: Ints) -> Reader | None:
    """Return the readers of requests of several kinds as one; None if nobody reads.

    kinds : place in `each` of every request [n]
    """
    if all(reader is None for reader in each):
        return None
    some = [reader or Reader(pace=0.0) for reader in each]
    firsts = [-math.inf if reader.first is None else reader.first for reader in some]
    return Reader(
        pace=np.array([reader.pace for reader in some])[kinds],
        first=np.array(firsts)[kinds],
        limit=np.array([reader.limit for reader in some])[kinds],
    )


def due(tokens: int | Ints, first: float, pace: float) -> Floats:
    """Return when tokens are due, first + pace · i [n] [s]; [W]: d_i = V i.

    tokens : how many, or their numbers from 0
    """
    index = np.arange(tokens) if isinstance(tokens, int) else np.asarray(tokens)
    return np.asarray(first + pace * index, dtype=np.float64)


def lateness(times: Floats, first: float, pace: float, index: Ints | None = None) -> float:
    """Return the largest lateness, max_i (t_i − d_i) [s]; below 0 if every token is early.

    Its positive part is the time that a reader waits in all who starts to read at `first`, or with
    the first token if that is later, and takes `pace` a token: l_r of [W], l_r = max (t_i − d_i).

    >>> lateness(np.array([0.5, 0.75, 1.5]), first=1.0, pace=0.125)
    0.25
    """
    index = np.arange(len(times)) if index is None else index
    return float(np.max(times - due(index, first, pace)))


def stall_time(times: Floats, pace: float, index: Ints | None = None) -> float:
    """Return how long a reader waits in all after the first token: `lateness` with first = t_0 [s].

    >>> stall_time(np.array([0.5, 0.625, 1.0, 1.125]), pace=0.125)
    0.25
    """
    start = 0 if index is None else int(index[0])
    return max(lateness(times, float(times[0]) - pace * start, pace, index), 0.0)


def on_time(times: Floats, first: float, pace: float, slack: float = 0.0) -> bool:
    """Return whether every token appears at its deadline or at most `slack` [s] later."""
    return lateness(times, first, pace) <= slack


def share_on_time(times: Floats, first: float, pace: float, slack: float = 0.0) -> float:
    """Return the share of the tokens that appear by their deadline and `slack` [1]."""
    return float(np.mean(times <= due(len(times), first, pace) + slack))


def ends_on_time(times: Floats, first: float, pace: float) -> bool:
    """Return whether the first and the last token are on time.

    This is an E2EL objective proportional to the length, t_D ≤ first + pace · D, beside TTFT's; and
    what separate TTFT and TPOT objectives come to once the first token may be held back
    (`held_back`).
    """
    return bool(times[0] <= first and times[-1] <= first + pace * (len(times) - 1))


def held_back(times: Floats, until: float) -> Floats:
    """Return the times with tokens held back until `until`: t_i' = max(t_i, until) [n] [s].

    TPOT falls by (until − t_0)/D at most, and no reader gains: no token appears earlier.
    """
    return np.maximum(times, until)


def gaps(times: Floats) -> Floats:
    """Return the inter-token latencies t_i − t_{i−1} [n − 1] [s]."""
    return np.diff(times)


def fluidity(
    times: Floats, first: float, pace: float, index: Ints | None = None
) -> tuple[int, int]:
    """Return deadlines met and missed; the fluidity index is met/(met + missed) [A].

    What a token is early by is slack of the next. A late token misses ⌊(gap − slack)/pace⌋
    deadlines, a late first one 1 + ⌊(t_0 − first)/pace⌋: those that pass, a `pace` apart, until it
    is there. The next deadlines count from it. A message of n tokens is due after n · pace and, if
    in time, meets n deadlines.

    >>> fluidity(np.array([0.5, 1.0, 1.25, 1.5, 2.75]), first=0.5, pace=0.5)
    (4, 1)
    """
    index = np.arange(len(times)) if index is None else index
    slack = first + pace * float(index[0]) - float(times[0])
    met, missed = int(index[0]) + 1, 0
    if slack < 0.0:
        met, missed, slack = 0, 1 + math.floor(-slack / pace), 0.0
    for gap, tokens in zip(np.diff(times), np.diff(index), strict=True):
        allowed = pace * float(tokens)
        if gap <= allowed + slack:
            met += int(tokens)
            slack += allowed - float(gap)
        else:
            missed += math.floor((float(gap) - slack) / pace)
            slack = 0.0
    return met, missed


def smooth_goodput(tokens: Floats, waits: Floats, duration: float, cost: float) -> float:
    """Return (Σ n_r − cost · Σ l_r)/duration [tokens/s]: what readers got, less their waiting [W].

    tokens : n_r of each request, as far as served [n]; waits : l_r, the positive part of `lateness`
    [n] [s]; cost : α, tokens that a second of waiting is worth [tokens/s]: at 1/pace a second costs
    what could have been read in it. f of [W] is the identity here. A request that was given up
    keeps its tokens and its wait, so that dropping earns nothing.

    >>> smooth_goodput(np.array([300.0, 100.0]), np.array([0.0, 2.0]), duration=10.0, cost=20.0)
    36.0
    """
    return float(np.sum(tokens) - cost * np.sum(waits)) / duration
