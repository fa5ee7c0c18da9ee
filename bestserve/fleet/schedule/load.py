"""What arrives over a day: windows, each with a rate and its lengths."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bestserve.arrays import Floats
from bestserve.errors import DataError, InputError
from bestserve.lowering.lengths import lower_lengths
from bestserve.models.system import Lengths
from bestserve.readers.bounded import read_text
from bestserve.readers.traces import Trace
from bestserve.specs.workload import Workload

MOST_BYTES = 64_000_000
MOST_WINDOWS = 2_016
"""A week of windows of five minutes."""

MOST_ATOMS = 512
"""Requests of a trace that stand for the lengths of a window."""

ALIKE = 0.05
"""Windows whose mean lengths differ by less than this share have lengths in common [1]."""

COLUMNS = ("start", "request_rate", "input_len", "output_len")


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
class Load:
    """Windows in order of time, without gaps, and the lengths that occur in them."""

    windows: tuple[Window, ...]
    lengths: tuple[Lengths, ...]

    @property
    def rates(self) -> Floats:
        """Rates by window [w; req/s]."""
        return np.array([w.rate for w in self.windows])

    @property
    def durations(self) -> Floats:
        """Durations by window [w; s]."""
        return np.array([w.duration for w in self.windows])

    @property
    def kinds(self) -> list[int]:
        """Which lengths each window has [w]."""
        return [w.kind for w in self.windows]

    def last(self, count: int) -> Load:
        """Return the last `count` windows."""
        return Load(self.windows[-count:], self.lengths)


def read_load(path: Path, workload: Workload) -> Load:
    """Read a CSV of windows: start [s or HH:MM], request_rate, optionally input_len, output_len.

    Lengths are numbers or laws ("lognormal:800,1"); without them those of `workload` hold. The last
    window is as long as the one before. Raises DataError naming line and column.
    """
    text = read_text(path, "load", MOST_BYTES)
    reader = csv.DictReader(io.StringIO(text))
    names = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in COLUMNS[:2] if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    if missing or unknown:
        what = f"lacks {' and '.join(missing)}" if missing else f"has unknown {unknown[0]!r:.60}"
        raise DataError(f"{path.name}: {what}; columns are {', '.join(COLUMNS)}")
    reader.fieldnames = names
    starts: list[float] = []
    rates: list[float] = []
    laws: list[tuple[str, str]] = []
    for number, row in enumerate(reader, 2):
        where = f"{path.name}, line {number}"
        if len(starts) == MOST_WINDOWS:
            raise DataError(f"{where}: more than {MOST_WINDOWS:,} windows; take longer ones")
        starts.append(_clock(row["start"], where))
        rates.append(_rate(row["request_rate"], where))
        laws.append((row.get("input_len") or "", row.get("output_len") or ""))
        if len(starts) > 1 and starts[-1] <= starts[-2]:
            raise DataError(f"{where}: windows must be in order of their start")
    if len(starts) < 2:
        raise DataError(f"{path.name}: at least two windows are needed")
    durations = np.diff([*starts, 2 * starts[-1] - starts[-2]])
    distinct = list(dict.fromkeys(laws))
    lengths = tuple(_lengths(workload, law, path.name) for law in distinct)
    windows = tuple(
        Window(start - starts[0], float(duration), rate, distinct.index(law))
        for start, duration, rate, law in zip(starts, durations, rates, laws, strict=True)
    )
    return Load(windows, lengths)


def _clock(text: str | None, where: str) -> float:
    parts = (text or "").strip().split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = [math.nan]
    if not all(math.isfinite(n) and n >= 0 for n in numbers) or len(numbers) > 3:
        raise DataError(f"{where}: start = {text!r:.40} is no time; write seconds or HH:MM")
    if len(numbers) == 1:
        return numbers[0]
    hours, minutes, *seconds = numbers
    return 3600 * hours + 60 * minutes + sum(seconds)


def _rate(text: str | None, where: str) -> float:
    try:
        rate = float(text or "")
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and 0 <= rate <= 1e9):
        raise DataError(f"{where}: request_rate = {text!r:.40} is no rate in requests/s")
    return rate


def _lengths(workload: Workload, law: tuple[str, str], name: str) -> Lengths:
    if law == ("", ""):
        return lower_lengths(workload)
    if "" in law:
        raise DataError(f"{name}: a window needs both input_len and output_len, or neither")
    try:
        return lower_lengths(Workload(input_len=law[0], output_len=law[1]))
    except ValueError as error:
        raise DataError(f"{name}: lengths {law[0]!r:.40}, {law[1]!r:.40}: {error}") from error


def windows_of(trace: Trace, width: float) -> Load:
    """Cut a trace into windows of `width` [s]; the last, incomplete one is left out.

    Windows whose mean lengths are within 5 % of an earlier one's share its lengths, drawn evenly
    from all their requests.
    """
    if trace.arrivals is None:
        raise InputError(f"{trace.source}: a trace without arrival times has no windows")
    if not (math.isfinite(width) and width > 0):
        raise InputError(f"window = {width} s must be positive")
    count = int(trace.arrivals[-1] // width)
    if not 2 <= count <= MOST_WINDOWS:
        raise InputError(
            f"{trace.source}: {trace.arrivals[-1]:,.0f} s make {count} windows of {width:,.0f} s; "
            f"between 2 and {MOST_WINDOWS:,} are planned"
        )
    edges = np.searchsorted(trace.arrivals, np.arange(count + 1) * width)
    means: list[tuple[float, float]] = []
    members: list[list[int]] = []
    windows: list[Window] = []
    for i in range(count):
        rows = np.arange(edges[i], edges[i + 1])
        if rows.size == 0:
            windows.append(Window(i * width, width, 0.0, windows[-1].kind if windows else 0))
            continue
        mean = float(trace.input_len[rows].mean()), float(trace.output_len[rows].mean())
        kind = _like(mean, means)
        if kind == len(means):
            means.append(mean)
            members.append([])
        members[kind].extend(rows.tolist())
        windows.append(Window(i * width, width, rows.size / width, kind))
    return Load(tuple(windows), tuple(_atoms(trace, rows) for rows in members))


def _like(mean: tuple[float, float], means: Sequence[tuple[float, float]]) -> int:
    for kind, known in enumerate(means):
        if all(abs(a / b - 1) < ALIKE for a, b in zip(mean, known, strict=True)):
            return kind
    return len(means)


def _atoms(trace: Trace, rows: Sequence[int]) -> Lengths:
    chosen = np.asarray(rows)[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ATOMS)).astype(int)]
    weights = np.full(chosen.size, 1.0 / chosen.size)
    return Lengths(
        inputs=trace.input_len[chosen].astype(np.float64),
        input_weights=weights,
        outputs=trace.output_len[chosen].astype(np.float64),
        output_weights=weights,
        joint=True,
    )
