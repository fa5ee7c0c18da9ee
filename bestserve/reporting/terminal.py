"""Pictures in a terminal: one row of blocks a quantity."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Strip:
    """A row: its name, values over time, and what stands at its lower and upper end."""

    name: str
    values: tuple[float, ...]
    low: float
    high: float


def strips(
    rows: Sequence[Strip], spans: Sequence[float], ends: tuple[str, str], width: int = 80
) -> str:
    """Return rows of blocks below each other, with the times of their ends.

    spans : how long each value lasts; where several fall into one block it shows the largest, or
    the smallest where a row does not begin at 0 and so is about what is missing

    >>> print(strips([Strip("load", (1.0, 4.0), 0.0, 4.0)], (1, 2), ("00:00", "03:00"), 30))
    load  ▃▃▃▃▃███████████  0 to 4
          00:00      03:00
    """
    names = max(len(r.name) for r in rows)
    scales = [f"{r.low:.4g} to {r.high:.4g}" for r in rows]
    columns = max(width - names - 4 - max(map(len, scales)), 12)
    lines = [
        f"{r.name:<{names}}  {''.join(_block(r, v) for v in _fitted(r, spans, columns))}  {scale}"
        for r, scale in zip(rows, scales, strict=True)
    ]
    gap = max(columns - len(ends[0]) - len(ends[1]), 1)
    return "\n".join([*lines, f"{'':<{names}}  {ends[0]}{' ' * gap}{ends[1]}"])


def _fitted(strip: Strip, spans: Sequence[float], columns: int) -> list[float]:
    """Return a value for each column, all as long; shorter values share one."""
    edges = list(accumulate(spans, initial=0.0))
    step = edges[-1] / columns
    pick = min if strip.low > 0 else max
    found = []
    for column in range(columns):
        # from the value in which the column's middle lies if it is long, else all that begin in it
        first = bisect_right(edges, (column + 0.5) * step) - 1
        begun = range(bisect_left(edges, column * step), bisect_left(edges, (column + 1) * step))
        inside = [i for i in begun if i < len(spans) and spans[i] < step]
        found.append(pick(strip.values[i] for i in {min(first, len(spans) - 1), *inside}))
    return found


def _block(strip: Strip, value: float) -> str:
    span = strip.high - strip.low
    share = (value - strip.low) / span if span > 0 else 1.0
    return BLOCKS[min(max(int(share * len(BLOCKS)), 0), len(BLOCKS) - 1)]
