"""What an answer rests on: every figure it used, how it is known, and from where."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bestserve.catalog.engines import engine_record
from bestserve.errors import BestserveError
from bestserve.lowering import Lowered
from bestserve.models.step.constants import describe
from bestserve.models.step.engine import EngineConstants

SURE = ("datasheet", "measured", "derived", "calibrated")
"""Kinds that something at hand supports; the others are "secondary" and "assumed"."""


def assumption_rows(lowered: Lowered) -> list[dict[str, Any]]:
    """Return the figures of GPU, engine and operator models: what, value, unit, kind, source."""
    problem = lowered.problem
    if problem.step_time is not None:
        return [
            _row("step time", name, getattr(problem.step_time, name), "s", "given", "the problem")
            for name in ("w", "c", "e", "a", "k", "a_step", "a_seq", "phi")
        ]
    found = [
        _row(lowered.hardware.name, name, f.value, f.unit, f.kind, f.source)
        for name, f in lowered.hardware.figures().items()
    ]
    found += _engine_rows(lowered)
    found += [
        _row("operators", c.name, c.value, c.unit, c.kind, c.source)
        for c in describe(lowered.constants)
    ]
    return found


def _engine_rows(lowered: Lowered) -> list[dict[str, Any]]:
    stated, used = lowered.problem.engine, lowered.engine
    name = stated.name if isinstance(stated, EngineConstants) else stated
    try:
        rows = engine_record(name).rows
    except BestserveError:
        rows = ()
    found = []
    for row in rows:
        value = getattr(used, row.field, row.value)
        own = row.kind and isinstance(value, int | float) and float(value) != float(row.value)
        kind, source = (row.kind, row.source) if not own else ("calibrated", "set by the problem")
        found.append(_row(f"engine {used.name}", row.field, value, row.unit, kind, source))
    return found


def _row(
    part: str, figure: str, value: float | str, unit: str, kind: str, source: str
) -> dict[str, Any]:
    return {
        "part": part,
        "figure": figure,
        "value": value,
        "unit": unit,
        "kind": kind or "setting",
        "source": source,
    }


def kinds(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return how many figures are of each kind, most first; settings are not counted."""
    counts = Counter(r["kind"] for r in rows if r["kind"] != "setting")
    return counts.most_common()


def sentence(rows: list[dict[str, Any]]) -> str:
    """Say how many figures there are and how many of them are assumed."""
    counts = kinds(rows)
    total = sum(n for _, n in counts)
    parts = ", ".join(f"{n} {kind}" for kind, n in counts)
    assumed = dict(counts).get("assumed", 0)
    return f"The answer rests on {total} figures: {parts}. {assumed} of them are assumed."
