"""The frame of a picture: scales, ticks, axes and legend, so that no text meets another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from bestserve.reporting.chart import PALETTE

SIZE = 12
"""Height of the text [px]."""
CHARACTER = 0.6
"""Width of a character over the height of the text, at most (system fonts: 0.5 to 0.58)."""
LINE = 17
"""From one line of text to the next [px]."""


def width_of(text: str) -> float:
    """Return the width of a text, rather too large than too small [px]."""
    return CHARACTER * SIZE * len(text)


def shortened(text: str, room: float) -> str:
    """Return a text that fits, its middle left out where it must."""
    most = max(int(room / (CHARACTER * SIZE)), 5)
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


@dataclass(frozen=True, slots=True)
class Scale:
    """Where values of an axis are drawn: `low` at `start`, `high` at `end` [px]."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value [px]; on a logarithmic axis at its end what lies below."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return at most so many round values."""
        return log_ticks(self.low, self.high, most) if self.log else even(self.low, self.high, most)


def even(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` multiples of 1, 2 or 5 times a power of ten.

    >>> even(0.0, 9.0, 5)
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    for step in _steps((high - low) / max(most, 1)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [round(i * step, 12) for i in range(first, last + 1)]
    return [low]


def _steps(least: float) -> list[float]:
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return [f * power for f in (1, 2, 5, 10, 20, 50, 100)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Return at most `most` of 1, 2, 5, 10, … or of the powers of ten.

    >>> log_ticks(30.0, 400.0, 5)
    [50.0, 100.0, 200.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [float(f"{d}e{p}") for p in powers for d in digits]
        found = [t for t in found if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
        if 0 < len(found) <= most:
            return found
    every = -(-len(found) // most) if found else 1
    return found[::every] or [low]


def span(values: Sequence[float], log: bool, zero: bool) -> tuple[float, float]:
    """Return what an axis covers: all values, and zero where that is meant."""
    kept = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if not kept:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(kept), max(kept)
    if log:
        return low / 1.15, high * 1.15 if high > low else high * 2
    low = min(low, 0.0) if zero else low
    room = 0.05 * (high - low) or abs(high) or 1.0
    return (low if zero and low == 0 else low - room), high + room


@dataclass(slots=True)
class Canvas:
    """What has been drawn so far, and the picture's size [px]."""

    width: int
    height: float
    parts: list[str] = field(default_factory=list)

    def add(self, markup: str) -> None:
        """Draw something."""
        self.parts.append(markup)

    def text(self, x: float, y: float, text: str, anchor: str = "start", weight: str = "") -> None:
        """Write a text with its baseline at y."""
        bold = f' font-weight="{weight}"' if weight else ""
        self.add(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{bold}>{escape(text)}</text>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, faint: bool = True) -> None:
        """Draw a line of the frame."""
        opacity = 0.16 if faint else 0.6
        self.add(
            f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="currentColor" '
            f'stroke-opacity="{opacity}" fill="none"/>'
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the legend: markup of its mark, centred on (0, 0), and what it is called."""

    mark: str
    name: str


def legend(canvas: Canvas, entries: Sequence[Entry], top: float, draw: bool = True) -> float:
    """Write a legend in as many lines as it takes; return where it ends [px].

    draw : False to measure only
    """
    x, y, gap = 4.0, top, 18.0
    for entry in entries:
        name = shortened(entry.name, canvas.width - 40)
        need = 24 + width_of(name)
        if x > 4 and x + need > canvas.width:
            x, y = 4.0, y + LINE
        if draw:
            canvas.add(f'<g transform="translate({x + 10:.1f} {y + 8:.1f})">{entry.mark}</g>')
            canvas.text(x + 24, y + 12, name)
        x += need + gap
    return y + LINE if entries else top


def colour(index: int) -> str:
    """Return the class and the colour of a series; the page has others for the class if dark."""
    i = index % len(PALETTE)
    return f'class="c{i}" color="{PALETTE[i]}"'


MARKS = (
    '<circle r="4" fill="currentColor"/>',
    '<rect x="-3.6" y="-3.6" width="7.2" height="7.2" fill="currentColor"/>',
    '<path d="M0-5L5 0L0 5L-5 0Z" fill="currentColor"/>',
    '<path d="M0-5L4.6 3.6H-4.6Z" fill="currentColor"/>',
    '<path d="M-4-4L4 4M-4 4L4-4" stroke="currentColor" stroke-width="2.2" fill="none"/>',
    '<path d="M-5 0H5M0-5V5" stroke="currentColor" stroke-width="2.2" fill="none"/>',
    '<circle r="3.6" fill="none" stroke="currentColor" stroke-width="2"/>',
    '<rect x="-3.4" y="-3.4" width="6.8" height="6.8" fill="none" stroke="currentColor" '
    'stroke-width="2"/>',
)
"""A mark for each series, so that colour is never the only difference."""

DASHES = ("", "7 4", "2 3", "8 3 2 3")


def mark(index: int) -> str:
    """Return the mark of a series around (0, 0)."""
    return f"<g {colour(index)}>{MARKS[index % len(MARKS)]}</g>"


def swatch(index: int) -> str:
    """Return a filled square around (0, 0), for areas."""
    shape = 'x="-7" y="-7" width="14" height="14" rx="2"'
    return f'<rect {colour(index)} {shape} fill="currentColor"/>'


def stroke(index: int) -> str:
    """Return the dash of a series' line."""
    dash = DASHES[index % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""
