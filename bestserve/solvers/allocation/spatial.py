"""Branch and bound over intervals of instance counts (Falk and Soland 1969).

In a node every pool has an interval of counts [l, u], and its goodput is replaced by the smallest
line above it from (l, F(l)): F(l) + s·(k − l), s = max (F(k) − F(l))/(k − l). One continuous
column per pool, so a node is a linear programme of a few hundred columns, where the
multiple-choice form has tens of thousands. The pool whose line promises most above its goodput
is split at the count the relaxation chose: there both children are exact. Reduced costs shorten
intervals in every node, which lowers the lines.

Falk, J. E. and Soland, R. M., An algorithm for separable nonconvex programming problems,
Management Science 15 (1969) 550-569.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bestserve.solvers.allocation import programme as formulation
from bestserve.solvers.allocation.highs import Options, Stop, load
from bestserve.solvers.allocation.programme import Programme
from bestserve.solvers.allocation.reduction import Reduced
from bestserve.solvers.allocation.tables import Requirements, Tables

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOLERANCE = 1e-7
"""Relative violation of a line below which a node counts as exact at a pool."""


@dataclass(frozen=True, slots=True)
class Explored:
    """What the search proved: no point has a minimised value below `bound`; nodes solved.

    points : continuous counts [p] of the nodes nearest to the bound, for heuristics
    """

    bound: float
    nodes: int
    points: tuple[Floats, ...]


class Relaxation:
    """The linear programme of a node, kept in HiGHS and changed from node to node."""

    def __init__(
        self,
        tables: Tables,
        requirements: Requirements,
        reduced: Reduced,
        cap: Floats,
        cost_scale: float,
        options: Options,
    ) -> None:
        columns = formulation.slopes(reduced, np.ones(reduced.count))
        stated = formulation.state(
            tables, requirements, reduced, columns, cap, linear=True, cost_scale=cost_scale
        )
        self.stated: Programme = stated
        self.reduced = reduced
        model = stated.compiled.model.relaxed()
        place = stated.compiled.columns["x"]
        self.place, self.upper = place, model.upper
        matrix = model.matrix[:, place].tocsc()
        is_rate = np.zeros(model.upper.size, dtype=bool)
        for name in ("demand", "prefill rate", "decode rate"):
            is_rate[stated.algebra.row_slice(name)] = True
        self.is_rate = is_rate
        self.rate = [
            [
                (int(matrix.indices[i]), float(matrix.data[i]))
                for i in range(matrix.indptr[p], matrix.indptr[p + 1])
                if is_rate[matrix.indices[i]]
            ]
            for p in range(reduced.count)
        ]
        keep = is_rate[matrix.indices]
        self.rates, self.uses = matrix.copy(), matrix.copy()
        self.rates.data = np.where(keep, matrix.data, 0.0)
        self.uses.data = np.where(keep, 0.0, matrix.data)
        self.cost = model.cost[place]
        k = np.arange(1, reduced.goodput.shape[1])
        per_instance = np.where(
            k[None, :] >= reduced.fewest[:, None], reduced.goodput[:, 1:] / k, 0.0
        )
        self.ray = np.maximum.accumulate(
            np.concatenate([np.zeros((reduced.count, 1)), per_instance], axis=1), axis=1
        )
        self.low = np.full(reduced.count, -1, dtype=np.int64)
        self.high = np.full(reduced.count, -1, dtype=np.int64)
        self.slope = np.ones(reduced.count)
        self.highs = load(model, options, np.inf)
        self.highs.setOptionValue("presolve", "off")

    def set(self, low: Ints, high: Ints) -> None:
        """Make the programme that of the intervals [low, high]."""
        changed = np.flatnonzero((low != self.low) | (high != self.high))
        start = self.place.start
        for p in changed.tolist():
            slope = self._line(p, int(low[p]), int(high[p]))
            if slope != self.slope[p]:
                self.slope[p] = slope
                for row, unit in self.rate[p]:
                    self.highs.changeCoeff(row, start + p, unit * slope)
            self.highs.changeColBounds(start + p, 0.0, float(high[p] - low[p]))
        if np.any(low != self.low):
            base = self.reduced.goodput[np.arange(low.size), low]
            upper = self.upper - self.rates @ base - self.uses @ low.astype(np.float64)
            rows = np.arange(upper.size, dtype=np.int32)
            below = np.full(upper.size, -np.inf)
            self.highs.changeRowsBounds(upper.size, rows, below, upper)
        self.low, self.high = low.copy(), high.copy()

    def _line(self, p: int, low: int, high: int) -> float:
        """Return the slope of the least line above pool p's goodput on (low, high]."""
        if high <= low:
            return 0.0
        if low == 0:
            return float(self.ray[p, high])
        goodput = self.reduced.goodput[p]
        k = np.arange(low + 1, high + 1)
        return float(((goodput[low + 1 : high + 1] - goodput[low]) / (k - low)).max())

    def solve(self) -> tuple[float, Floats, Floats, Floats] | None:
        """Return (value, counts [p], reduced costs [p], row duals); None if infeasible."""
        import highspy

        self.highs.run()
        status = self.highs.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return None
        if status != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(f"HiGHS left a node unsolved: {status}")
        solution = self.highs.getSolution()
        point = np.array(solution.col_value)[self.place]
        reduced_cost = np.array(solution.col_dual)[self.place]
        value = float(self.highs.getInfo().objective_function_value)
        value += float(self.cost @ self.low)
        return value, self.low + point, reduced_cost, np.array(solution.row_dual)

    def excess(self, count: Floats, duals: Floats) -> Floats:
        """Return what each pool's line promises above its goodput, in objective terms [p]."""
        rows = np.arange(count.size)
        at = np.clip(np.round(count, 9), self.low, self.high)
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, self.reduced.most)
        part = at - below
        goodput = self.reduced.goodput
        # Between 0 and the fewest instances nothing is allowed: count the line to there as excess.
        floor = np.where((below < self.reduced.fewest) & (below == 0), 0.0, goodput[rows, below])
        true = (1 - part) * floor + part * goodput[rows, above]
        true = np.where((at > 0) & (at < self.reduced.fewest), 0.0, true)
        line = goodput[rows, self.low] + self.slope * (at - self.low)
        worth = np.abs(self.rates.T @ duals)
        fraction = 1e-9 * (part > 1e-6)
        return np.asarray(np.maximum(line - true, 0.0) * worth + fraction)


def explore(
    relaxation: Relaxation,
    cutoff: float,
    stop: Stop,
    *,
    nodes: int = 1_000_000,
    seconds: float = float("inf"),
    tell: Callable[[float], None] | None = None,
) -> Explored:
    """Return a bound: `cutoff` if nothing below it exists, else that of the open nodes."""
    reduced, budget = relaxation.reduced, Stop(seconds)
    low = np.zeros(reduced.count, dtype=np.int64)
    root = (-np.inf, 0, low, reduced.most.copy())
    open_nodes = [root]
    made, solved, points = 0, 0, []
    stuck = np.inf
    while open_nodes:
        value, _, low, high = open_nodes[0]
        if stop.now or budget.now or solved >= nodes:
            return Explored(min(value, stuck), solved, tuple(points))
        heapq.heappop(open_nodes)
        relaxation.set(low, high)
        solution = relaxation.solve()
        solved += 1
        if tell is not None and solved % 50 == 0:
            tell(min(value, stuck))
        if solution is None or solution[0] >= cutoff - TOLERANCE * abs(cutoff):
            continue
        value, count, costs, duals = solution
        high = _shorten(reduced, low, high, costs, cutoff - value)
        score = relaxation.excess(count, duals)
        score[high <= low] = 0.0
        p = int(np.argmax(score))
        if score[p] <= 0:
            # Exact everywhere and still below the cut-off: a point that good may exist.
            stuck = min(stuck, value)
            points.append(count)
            continue
        for child_low, child_high in _split(reduced, p, float(count[p]), low, high):
            made += 1
            heapq.heappush(open_nodes, (value, made, child_low, child_high))
    return Explored(min(cutoff, stuck), solved, tuple(points))


def _shorten(reduced: Reduced, low: Ints, high: Ints, costs: Floats, room: float) -> Ints:
    """Return upper ends that reduced costs leave: more instances would reach the cut-off [p]."""
    reach = np.full(low.size, np.inf)
    positive = costs > 1e-12
    reach[positive] = np.floor(room / costs[positive] + 1e-6)
    shorter = np.minimum(high, low + np.minimum(reach, 1e9).astype(np.int64))
    return np.where((shorter < reduced.fewest) & (low == 0), 0, shorter)


def _split(
    reduced: Reduced, p: int, count: float, low: Ints, high: Ints
) -> list[tuple[Ints, Ints]]:
    """Return the intervals of the two children that split pool p at `count`."""
    fewest = int(reduced.fewest[p])
    at = int(np.floor(count + 1e-9))
    if at < fewest:
        left, right = 0, max(fewest, int(low[p]))
    else:
        left, right = at, at + 1
    if left >= high[p]:
        left, right = int(high[p]) - 1, int(high[p])
    if left < low[p]:
        left, right = int(low[p]), int(low[p]) + 1
    if 0 < left < fewest:
        left = 0
    children = []
    if left >= low[p]:
        shorter = high.copy()
        shorter[p] = left
        children.append((low.copy(), shorter))
    if right <= high[p]:
        longer = low.copy()
        longer[p] = right
        children.append((longer, high.copy()))
    return children
