"""What readers met in a run: rows for the loops, and the figures that they leave behind."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.models.token_times import Reader
from bestserve.simulator.layout import Pool
from bestserve.simulator.reading import (
    BINS,
    COUNTS,
    DUE,
    LIMIT,
    PACE,
    PER_DECADE,
    SEEN_WIDTH,
    SHORTEST,
    note_message,
)

EVERYBODY = slice(0, None)

NOTHING_SEEN = np.empty((0, SEEN_WIDTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What the readers of a run met, requests in order of arrival [n].

    reader : whose deadlines these are
    latest : max (t_i − pace · i) from arrival [s]; nan if refused
    met, missed : deadlines of the fluidity index
    gaps, long_gaps, longest_gap : between messages: how many, those above `reader.limit`, the
        longest [s]
    counts : gaps by length, of the requests between warm-up and cool-down [800]
    """

    reader: Reader
    latest: Floats
    met: Floats
    missed: Floats
    gaps: Floats
    long_gaps: Floats
    longest_gap: Floats
    counts: Floats

    def lateness(self, first: float | Floats) -> Floats:
        """Return the largest lateness of each request where first tokens are due then [n] [s]."""
        return self.latest - first

    @property
    def fluidity(self) -> Floats:
        """Fluidity index of each request [n] [1]; nan if refused."""
        deadlines = self.met + self.missed
        out = np.full(len(deadlines), math.nan)
        np.divide(self.met, deadlines, out=out, where=deadlines > 0)
        return out

    def itl(self, p: float) -> float:
        """Return the p-quantile of the gaps between messages [s], to 2.3 %; nan without any."""
        total = self.counts.sum()
        if total == 0:
            return math.nan
        below = np.concatenate([[0.0], np.cumsum(self.counts)]) / total
        # edges rise by a factor: the quantile lies between two of them, in proportion of the log
        return float(SHORTEST * 10 ** (np.interp(p, below, np.arange(BINS + 1)) / PER_DECADE))


def new_seen(reader: Reader, front_end: Floats, counted: slice) -> Floats:
    """Return rows for the loops, whose times know of no front end [n, SEEN_WIDTH].

    front_end : of each request [n] [s]; counted : requests whose gaps go into the histogram
    """
    seen = np.zeros((len(front_end), SEEN_WIDTH))
    seen[:, DUE] = -math.inf if reader.first is None else reader.first - front_end
    seen[:, PACE] = reader.pace
    seen[:, LIMIT] = reader.limit
    seen[counted, COUNTS] = 1.0
    return seen


def read_by(pool: Pool, seen: Floats) -> Pool:
    """Return the pool with readers at its lanes; the rows are shared."""
    return pool._replace(seen=seen, gaps=np.zeros((len(pool.clock), BINS)))


def note_alone(pool: Pool, at: Floats, requests: Ints) -> None:
    """Note answers of one token [s], which no decode lane has seen."""
    for r in requests:
        note_message(0, int(r), 1, float(at[r]), pool)
