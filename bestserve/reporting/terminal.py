"""Pictures in a terminal: one row of blocks a quantity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Strip:
    """A row: its name, values over time, and what stands at its lower and upper end."""

    name: str
    values: tuple[float, ...]
    low: float
    high: float


def strips(rows: Sequence[Strip], ends: tuple[str, str], width: int = 80) -> str:
    """Return rows of blocks below each other, with the times of their ends.

    Of what does not fit, neighbours share a block: their largest, or their smallest where a row
    does not begin at 0 and so is about what is missing.

    >>> print(strips([Strip("load", (1.0, 2.0, 4.0), 0.0, 4.0)], ("00:00", "03:00"), 30))
    load  ▂▂▂▂▄▄▄▄████  0 to 4
          00:00  03:00
    """
    names = max(len(r.name) for r in rows)
    scales = [f"{r.low:.4g} to {r.high:.4g}" for r in rows]
    room = max(width - names - 4 - max(map(len, scales)), 12)
    columns = room if len(rows[0].values) >= room else _multiple(len(rows[0].values), room)
    lines = [
        f"{r.name:<{names}}  {''.join(_block(r, v) for v in _fitted(r, columns))}  {scale}"
        for r, scale in zip(rows, scales, strict=True)
    ]
    gap = max(columns - len(ends[0]) - len(ends[1]), 1)
    return "\n".join([*lines, f"{'':<{names}}  {ends[0]}{' ' * gap}{ends[1]}"])


def _multiple(count: int, room: int) -> int:
    return count * max(room // count, 1)


def _fitted(strip: Strip, columns: int) -> list[float]:
    values = strip.values
    if columns >= len(values):
        return [v for v in values for _ in range(columns // len(values))]
    edges = [round(i * len(values) / columns) for i in range(columns + 1)]
    pick = min if strip.low > 0 else max
    return [pick(values[a : max(b, a + 1)]) for a, b in pairwise(edges)]


def _block(strip: Strip, value: float) -> str:
    span = strip.high - strip.low
    share = (value - strip.low) / span if span > 0 else 1.0
    return BLOCKS[min(max(int(share * len(BLOCKS)), 0), len(BLOCKS) - 1)]
