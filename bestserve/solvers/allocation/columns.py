"""What the programme can choose: pools and how many instances of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.solvers.allocation.reduction import Reduced


@dataclass(frozen=True, slots=True)
class Columns:
    """What can be chosen, one row each [j].

    pool : row of the reduced pools; count : instances; goodput : F(count) [req/s]
    high : how often the column can be taken: once, or up to the pool's most where it stands for
    any number of instances
    """

    pool: Ints
    count: Ints
    goodput: Floats
    high: Floats

    @property
    def repeated(self) -> Bools:
        """Whether a column may be taken several times [j]."""
        return self.high > 1

    def instances(self, x: Floats) -> tuple[Ints, Ints]:
        """Return the columns taken in a point `x` [j], and the instances that each stands for."""
        times = np.rint(x).astype(np.int64)
        taken = np.flatnonzero(times > 0)
        return taken, np.asarray(self.count[taken] * times[taken], dtype=np.int64)


def choices(reduced: Reduced) -> Columns:
    """Return one column per pool and allowed instance count; one for all where F is linear."""
    single = reduced.linear & (reduced.fewest == 1)
    lengths = np.where(single, 1, reduced.most - reduced.fewest + 1)
    pool = np.repeat(np.arange(reduced.count), lengths)
    first = np.cumsum(lengths) - lengths
    count = np.arange(lengths.sum()) - np.repeat(first - reduced.fewest, lengths)
    high = np.where(single, reduced.most, 1)[pool].astype(np.float64)
    return Columns(pool, count, reduced.goodput[pool, count], high)


def slopes(reduced: Reduced, per_instance: Floats) -> Columns:
    """Return one continuous column per pool that brings `per_instance` each [req/s]."""
    pool = np.arange(reduced.count)
    one = np.ones(reduced.count, dtype=np.int64)
    return Columns(pool, one, per_instance, reduced.most.astype(np.float64))
