"""Which instances of a pool serve when: stints between start and stop, and times of failure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Bools, Floats, Ints

TRIES = 64
"""Draws of an instance that is up before a request counts as turned away."""


@dataclass(frozen=True, slots=True)
class Broken:
    """When instances are down: instance, from, until [failure; s], by instance, then time."""

    instance: Ints
    start: Floats
    end: Floats

    @classmethod
    def none(cls) -> Broken:
        """Nothing fails."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0))

    @classmethod
    def drawn(
        cls,
        instances: int,
        means: tuple[float, float],
        span: tuple[float, float],
        rng: np.random.Generator,
    ) -> Broken:
        """Draw failures of `instances` instances in a span [s], as in the long run.

        means : of the time up and of the repair time [s], both exponential
        """
        numbers, starts, ends = [], [], []
        for number in range(instances):
            now = span[0]
            down = rng.random() < means[1] / sum(means)
            while now < span[1]:
                stay = float(rng.exponential(means[1] if down else means[0]))
                if down:
                    numbers.append(number)
                    starts.append(now)
                    ends.append(now + stay)
                now, down = now + stay, not down
        return cls(np.array(numbers, dtype=np.int64), np.array(starts), np.array(ends))

    def down(self, instance: Ints, times: Floats) -> Bools:
        """Return whether an instance is down at a time [n]."""
        found = np.zeros(times.size, dtype=bool)
        for number in np.unique(self.instance):
            mine = instance == number
            rows = self.instance == number
            at = np.searchsorted(self.start[rows], times[mine], side="right") - 1
            found[mine] = (at >= 0) & (times[mine] < self.end[rows][np.maximum(at, 0)])
        return found

    def hit(self, instance: Ints, start: Floats, end: Floats) -> Bools:
        """Return whether an instance fails between two times [n]."""
        found = np.zeros(start.size, dtype=bool)
        for number in np.unique(self.instance):
            mine = instance == number
            times = self.start[self.instance == number]
            after = np.searchsorted(times, start[mine], side="right")
            following = np.append(times, np.inf)[after]
            found[mine] = following < end[mine]
        return found


@dataclass(frozen=True, slots=True)
class Roster:
    """How many instances of a pool take requests, window by window.

    starts, counts [window]; instance j serves in the windows with more than j; late : those that a
    window adds serve so long after it begins [s]
    """

    starts: Floats
    counts: Ints
    late: float
    broken: Broken

    def open(self, times: Floats) -> Ints:
        """Return how many instances take requests at a time [n]."""
        window = np.searchsorted(self.starts, times, side="right") - 1
        window = np.clip(window, 0, self.starts.size - 1)
        before = np.minimum(self.counts, np.concatenate([self.counts[:1], self.counts[:-1]]))
        waiting = times - self.starts[window] < self.late
        found: Ints = np.where(waiting, before[window], self.counts[window])
        return found

    def choose(self, times: Floats, rng: np.random.Generator) -> tuple[Ints, Bools]:
        """Return an instance for each request, any that is up when it comes, and whether one is."""
        able = self.open(times)
        where = np.floor(rng.random(times.size) * able).astype(np.int64)
        down = self.broken.down(where, times)
        for _ in range(TRIES):
            again = np.flatnonzero(down)
            if again.size == 0:
                break
            where[again] = np.floor(rng.random(again.size) * able[again]).astype(np.int64)
            down[again] = self.broken.down(where[again], times[again])
        return where, ~down & (able > 0)


@dataclass(frozen=True, slots=True)
class Stint:
    """An instance serves from `start` to `end` [s], infinite for the last window's."""

    instance: int
    start: float
    end: float


def stints(roster: Roster) -> list[Stint]:
    """Return the stints of all instances of a pool."""
    found = []
    for number in range(int(roster.counts.max(initial=0))):
        serves = np.concatenate([[False], roster.counts > number, [False]])
        begins = np.flatnonzero(~serves[:-1] & serves[1:])
        stops = np.flatnonzero(serves[:-1] & ~serves[1:])
        for begin, stop in zip(begins, stops, strict=True):
            end = np.inf if stop == roster.counts.size else float(roster.starts[stop])
            start = -np.inf if begin == 0 else float(roster.starts[begin])
            found.append(Stint(number, start, end))
    return found
