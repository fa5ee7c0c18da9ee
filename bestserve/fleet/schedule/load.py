"""What arrives over a day: windows, each with a rate and its lengths."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.models.system import Lengths

MOST_WINDOWS = 2_016
"""A week of windows of five minutes."""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time with one load.

    start, duration [s]; rate [req/s]; kind : which of the load's lengths its requests have
    """

    start: float
    duration: float
    rate: float
    kind: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """Requests in order of arrival [n]: time [s], window, lengths and cached tokens [tokens].

    kind : place of the class in `Load.kind_names` [n], empty where nobody asks
    """

    times: Floats
    window: Ints
    input_len: Ints
    output_len: Ints
    cached: Ints
    kind: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __getitem__(self, rows: Ints) -> Arrived:
        return Arrived(
            self.times[rows],
            self.window[rows],
            self.input_len[rows],
            self.output_len[rows],
            self.cached[rows],
            self.kind[rows] if self.kind.size else self.kind,
        )


@dataclass(frozen=True, slots=True)
class Load:
    """Windows in order of time, without gaps, and the lengths that occur in them.

    recorded : the requests themselves, where a trace has them
    """

    windows: tuple[Window, ...]
    lengths: tuple[Lengths, ...]
    recorded: Arrived | None = None

    @property
    def kind_names(self) -> tuple[str, ...]:
        """Names of the classes that occur, where lengths are told apart by class."""
        return tuple(dict.fromkeys(name for law in self.lengths for name in law.kind_names))

    @property
    def rates(self) -> Floats:
        """Rates by window [w; req/s]."""
        return np.array([w.rate for w in self.windows])

    @property
    def starts(self) -> Floats:
        """Beginnings of windows [w; s]."""
        return np.array([w.start for w in self.windows])

    @property
    def durations(self) -> Floats:
        """Durations by window [w; s]."""
        return np.array([w.duration for w in self.windows])

    @property
    def kinds(self) -> list[int]:
        """Which lengths each window has [w]."""
        return [w.kind for w in self.windows]

    def last(self, count: int) -> Load:
        """Return the last `count` windows; times count from the start of the whole."""
        first = len(self.windows) - count
        kept = None
        if self.recorded is not None:
            rows = np.flatnonzero(self.recorded.window >= first)
            kept = self.recorded[rows]
            kept = replace(kept, window=kept.window - first)
        return Load(self.windows[first:], self.lengths, kept)

    def scaled(self, factor: float) -> Load:
        """Return the load with all rates times `factor`; a recording then no longer fits."""
        windows = tuple(replace(w, rate=w.rate * factor) for w in self.windows)
        return Load(windows, self.lengths)
