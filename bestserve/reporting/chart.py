"""What a figure shows, whoever draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["lines", "steps", "points", "waterfall", "bars", "parts", "map"]


@dataclass(frozen=True, slots=True)
class Series:
    """One line, set of points or set of bars.

    x, y : values, in the chart's units; text : said of each point when pointed at
    low, high : ends of an interval around each value (bars and lines)
    joined : points are connected (a front)
    """

    name: str
    x: tuple[float | str, ...]
    y: tuple[float | str, ...]
    text: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold: where on which axis, and what it is called."""

    value: float
    name: str
    axis: Literal["x", "y"] = "y"


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure: its kind, words and series, and the table that says the same.

    summary : one sentence with the finding, read instead of the figure by a screen reader
    log_x, log_y : whether an axis is logarithmic
    categories : of a map, the winners by colour; `series` of a map is one with x, y and text of
        every cell
    records : rows of the table, also the CSV
    """

    key: str
    title: str
    summary: str
    kind: Kind
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    records: tuple[dict[str, Any], ...]
    limits: tuple[Limit, ...] = ()
    categories: tuple[str, ...] = ()
    log_y: bool = False
    log_x: bool = False
    notes: tuple[str, ...] = field(default=())


PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
"""Okabe and Ito's colours, distinguishable with every common colour blindness, and two more."""

DASHES = ("solid", "dash", "dot", "dashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon")
"""Colour is never the only difference between series."""


def rows(records: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return records as the tuple a chart holds."""
    return tuple(dict(r) for r in records)


def ink(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour (WCAG luminance).

    >>> ink("#0072B2"), ink("#E69F00")
    ('#ffffff', '#000000')
    """
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else "#000000"


def letter(index: int) -> str:
    """Return the letter that stands for a winner in the cells of a map."""
    return chr(ord("A") + index % 26)


def figure_text(value: float) -> str:
    """Return a number as sentences, ticks and marks have it.

    >>> figure_text(12500.0), figure_text(0.25)
    ('12,500', '0.25')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
