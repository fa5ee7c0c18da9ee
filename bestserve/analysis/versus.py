"""Why one strategy beats another, in sentences with numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bestserve.analysis.operating import AT_ONCE, operate, rooms
from bestserve.analysis.waterfall import Explanation, Waterfall, explanation
from bestserve.results.document import Document
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Versus(Document):
    """Two strategies side by side; `first` carries more.

    at_rate : P-latencies of both at the goodput of `first` [s], None where that is unstable
    """

    first: Explanation
    second: Explanation
    at_rate: dict[str, tuple[float, float | None]]

    @property
    def problem(self) -> Problem:
        """What both serve."""
        return self.first.problem

    def content(self) -> dict[str, Any]:
        """Return both explanations and the comparison as plain data."""
        from bestserve.results.document import plain

        return {
            "problem": plain(self.problem),
            "strategies": [self.first.strategy, self.second.strategy],
            "first": {k: v for k, v in self.first.content().items() if k != "problem"},
            "second": {k: v for k, v in self.second.content().items() if k != "problem"},
            "at_rate": plain(self.at_rate),
        }

    def records(self) -> list[dict[str, Any]]:
        """Return the parts of both waterfalls side by side [ms]."""
        rows = []
        for metric in ("ttft", "tpot"):
            a, b = self.first.waterfall(metric), self.second.waterfall(metric)
            for x, y in zip(_stages(a), _stages(b), strict=True):
                rows.append(
                    {
                        "metric": metric,
                        "part": x[0],
                        f"{self.first.strategy}_ms": x[1] * 1e3,
                        f"{self.second.strategy}_ms": y[1] * 1e3,
                    }
                )
        return rows

    def explain(self) -> str:
        """Return why the first beats the second."""
        a, b = self.first, self.second
        more = a.goodput / b.goodput - 1
        gpus = Strategy.parse(a.strategy).gpus, Strategy.parse(b.strategy).gpus
        per_gpu = (a.goodput / gpus[0]) / (b.goodput / gpus[1]) - 1
        lines = [
            f"{a.strategy} carries {a.goodput:.3g} req/s, {b.strategy} {b.goodput:.3g}: "
            f"{more:.0%} more on {gpus[0]} against {gpus[1]} GPUs ({per_gpu:+.0%} per GPU)."
        ]
        capacity = a.capacity / b.capacity - 1
        use = a.goodput / a.capacity, b.goodput / b.capacity
        lines.append(
            f"  Capacity: it saturates at {a.capacity:.3g} against {b.capacity:.3g} req/s "
            f"({capacity:+.0%}), and its objectives let it use {use[0]:.0%} against {use[1]:.0%}. "
            + _dominant(math.log(a.capacity / b.capacity), math.log(use[0] / use[1]))
        )
        for metric, (mine, other) in self.at_rate.items():
            limit = a.waterfall(metric).threshold if metric in ("ttft", "tpot") else None
            allowed = "" if limit is None else f" (objective {limit * 1e3:.0f})"
            there = "beyond saturation" if other is None else f"{other * 1e3:.0f} ms"
            lines.append(
                f"  At {a.goodput:.3g} req/s its {metric.upper()} is {mine * 1e3:.0f} ms, "
                f"the other's {there}{allowed}."
            )
        for metric in ("ttft", "tpot"):
            lines.append(f"  {self._largest(metric)}")
        lines += [f"  {e.strategy}: {e.verdict()}" for e in (a, b)]
        if abs(more) < 0.03:
            lines.append("  Both are within 3 %, which is less than the models are sure of.")
        return "\n".join(lines)

    def _largest(self, metric: str) -> str:
        pairs = list(
            zip(
                _stages(self.first.waterfall(metric)),
                _stages(self.second.waterfall(metric)),
                strict=True,
            )
        )
        (name, mine), (_, other) = max(pairs, key=lambda p: abs(p[0][1] - p[1][1]))
        return (
            f"{metric.upper()} at their own goodput differs most in {name}: "
            f"{mine * 1e3:.0f} against {other * 1e3:.0f} ms."
        )


def _dominant(capacity: float, use: float) -> str:
    if capacity > 0 and use > 0:
        return "Both count for it."
    if capacity > 0:
        return "Its capacity decides."
    return "How much of its capacity the objectives leave usable decides."


def _stages(w: Waterfall) -> list[tuple[str, float]]:
    """Fold the parts of a decode step into one, so that two waterfalls have the same stages."""
    seconds = [p.seconds for p in w.parts]
    if w.metric == "ttft":
        names = ["front end", "the own prompt alone", "waiting", "the spread to the percentile"]
        return list(zip(names, seconds, strict=True))
    names = ["the decode step", "what lengthens it", "the spread to the percentile"]
    return list(zip(names, [sum(seconds[:-2]), *seconds[-2:]], strict=True))


def versus(problem: Problem, one: str | Strategy, other: str | Strategy) -> Versus:
    """Return why the better of two strategies beats the other.

    Raises as `explanation`.
    """
    found = sorted((explanation(problem, s) for s in (one, other)), key=lambda e: -e.goodput)
    first, second = found
    here, there = (operate(problem, s, "auto") for s in (first.strategy, second.strategy))
    asked = [m for m in rooms(here.found.at, here.target) if m in ("ttft", "tpot", "e2el")]
    moved = AT_ONCE.latencies(there.system, first.goodput)
    at_rate: dict[str, tuple[float, float | None]] = {}
    for metric in asked or ["ttft", "tpot"]:
        p = getattr(here.target, f"{metric}_percentile")
        theirs = getattr(moved, metric).quantile(p)
        mine = getattr(here.found.at, metric).quantile(p)
        at_rate[metric] = (mine, theirs if math.isfinite(theirs) else None)
    return Versus(first, second, at_rate)
