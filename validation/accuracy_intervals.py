"""Widths of the 90 % intervals, and the check that they hold on suites they were not taken from."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from bestserve.answers.intervals import FAMILIES, KINDS, Z90, family_of
from bestserve.answers.residuals import RESIDUAL
from bestserve.validation.comparison import RowComparison

Cell = tuple[str, str, str]
"""Kind of run, "dense" or "moe", family of figures."""

Hit = tuple[RowComparison, Cell, float, float, float]
"""Row, cell, |ln predicted/measured|, propagated variance, residual from other suites [1]."""

FEW = 30
"""Figures of a cell below which its stretch is that of its kind."""

LEAST = 30
"""Figures of a cell below which its neighbours' count too."""

MOST = 1.5
"""Largest stretch: one suite apart from all others says little about the next one."""


def variances(shipped: list[RowComparison]) -> dict[str, dict[str, float]]:
    """Return the propagated variance of each figure of each row, read back from its interval."""
    out: dict[str, dict[str, float]] = {}
    for row in shipped:
        kind = row.regime, "moe" if row.moe else "dense"
        out[row.id] = {}
        for name, (_, high) in row.intervals.items():
            width = math.log(high / row.predicted[name]) / Z90
            residual = RESIDUAL[kind][FAMILIES.index(family_of(name))]
            out[row.id][name] = max(width**2 - residual**2, 0.0)
    return out


def scores(
    rows: list[RowComparison], variance: dict[str, dict[str, float]]
) -> dict[Cell, list[tuple[float, float]]]:
    """Return (|ln predicted/measured|, propagated variance) by kind, model kind and family."""
    out: dict[Cell, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for name, error in row.errors.items():
            if error > -1:
                cell = row.regime, "moe" if row.moe else "dense", family_of(name)
                known = variance.get(row.id, {}).get(name, 0.0)
                out[cell].append((abs(math.log1p(error)), known))
    return out


def residual_of(pairs: list[tuple[float, float]]) -> float:
    """Return the residual deviation at which 90 % of the pairs lie inside their interval.

    One pair more than 90 % of n + 1, as split-conformal intervals ask.
    """
    wanted = min(1.0, math.ceil(0.9 * (len(pairs) + 1)) / len(pairs))
    low, high = 0.02, 4.0
    for _ in range(40):
        s = math.sqrt(low * high)
        inside = np.mean([e <= Z90 * math.sqrt(v + s * s) for e, v in pairs])
        low, high = (low, s) if inside >= wanted else (s, high)
    return round(high, 2)


def residuals(
    rows: list[RowComparison], variance: dict[str, dict[str, float]]
) -> dict[Cell, float]:
    """Return the residual of every cell; cells of few figures take their neighbours' too."""
    by_cell = scores(rows, variance)
    out: dict[Cell, float] = {}
    for kind in KINDS:
        for sort in ("dense", "moe"):
            for family in FAMILIES:
                pairs = list(by_cell.get((kind, sort, family), []))
                if len(pairs) < LEAST:
                    pairs += by_cell.get((kind, "moe" if sort == "dense" else "dense", family), [])
                if len(pairs) < LEAST:
                    pairs += by_cell.get((kind, sort, family.removesuffix("_tail")), [])
                if len(pairs) < LEAST:
                    pairs += by_cell.get(("open", sort, family), [])
                out[kind, sort, family] = residual_of(pairs) if len(pairs) >= 10 else 0.5
    return out


def reach(known: float, residual: float) -> float:
    """Return the half width of an interval [1, of the logarithm]."""
    return Z90 * math.sqrt(known + residual**2)


def hits(
    rows: list[RowComparison],
    variance: dict[str, dict[str, float]],
    part_of: Callable[[RowComparison], str],
) -> list[Hit]:
    """Return each figure with the residual that the rows of all other parts give it.

    Where no other part has such runs, that of every second row of its own.
    """
    out: list[Hit] = []
    for part in sorted({part_of(r) for r in rows}):
        others = [r for r in rows if part_of(r) != part]
        own = [r for r in rows if part_of(r) == part]
        width = residuals(others, variance)
        known_elsewhere = {cell for cell, pairs in scores(others, variance).items()
                           if len(pairs) >= LEAST}  # fmt: skip
        halves = [residuals(own[1 - half :: 2], variance) for half in (0, 1)]
        for number, row in enumerate(own):
            for name, error in row.errors.items():
                if error <= -1:
                    continue
                cell = row.regime, "moe" if row.moe else "dense", family_of(name)
                known = variance.get(row.id, {}).get(name, 0.0)
                reached = width if cell in known_elsewhere else halves[number % 2]
                out.append((row, cell, abs(math.log1p(error)), known, reached[cell]))
    return out


def stretches(found: list[Hit]) -> dict[Cell, float]:
    """Return the factor on each cell's residual with which 90 % of left-out suites lie inside [1].

    Suites differ more from each other than rows within them, so widths from other suites are too
    small by it; cells of few figures take the factor of their kind and family. From 1 to `MOST`.
    """
    out: dict[Cell, float] = {}
    for kind in KINDS:
        for sort in ("dense", "moe"):
            for family in FAMILIES:
                own = [h for h in found if h[1] == (kind, sort, family)]
                if len(own) < FEW:
                    own = [h for h in found if h[1][0] == kind and h[1][2] == family]
                out[kind, sort, family] = _stretch(own) if len(own) >= 10 else 1.0
    return out


def _stretch(found: list[Hit]) -> float:
    low, high = 1.0, MOST
    for _ in range(20):
        middle = math.sqrt(low * high)
        inside = np.mean([e <= reach(known, middle * w) for _, _, e, known, w in found])
        low, high = (low, middle) if inside >= 0.9 else (middle, high)
    return high


def coverage(
    found: list[tuple[RowComparison, Cell, bool]],
    classes: Mapping[str, Callable[[RowComparison], bool]],
) -> dict[str, float]:
    """Return the share of figures inside their interval [1]: by class, over all, and the mean over
    groups, in which small groups count as much as large ones."""
    by_label: dict[str, list[bool]] = defaultdict(list)
    by_group: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for row, _, inside in found:
        by_label[next(n for n, test in classes.items() if test(row))].append(inside)
        by_label["all"].append(inside)
        by_group[row.model, row.gpu, row.engine].append(inside)
    out = {label: float(np.mean(inside)) for label, inside in by_label.items()}
    out["mean over groups"] = float(np.mean([np.mean(v) for v in by_group.values()]))
    return out


def coverage_by_figure(
    found: list[tuple[RowComparison, Cell, bool]],
) -> dict[str, tuple[int, float]]:
    """Return (figures, share inside) by kind of run, model kind and family: "closed/moe/ttft"."""
    cells: dict[Cell, list[bool]] = defaultdict(list)
    for _, cell, inside in found:
        cells[cell].append(inside)
    return {"/".join(c): (len(v), round(float(np.mean(v)), 3)) for c, v in sorted(cells.items())}
