"""Answers about sensitivity: frozen, printable, with the input they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bestserve.analysis.regime import Regime
from bestserve.models.binding import Binding
from bestserve.models.trust import Trust
from bestserve.results.drawn import Drawn
from bestserve.specs.problem import Problem

SHOWN = ("mean", "p50", "p90", "p99")
"""Statistics of TTFT and TPOT whose elasticities are given."""


@dataclass(frozen=True, slots=True)
class Elasticity:
    """What one per cent more of a figure does, in per cent (∂ln y/∂ln x) [1].

    goodput : at the goodput; ttft, tpot : by statistic, at the report's rate
    chained : goodput again, through the exact derivatives of the step time; None where those do
        not know the figure
    sd : standard error of `goodput` over simulated replications; None for analytic answers
    """

    parameter: str
    value: float
    unit: str
    goodput: float
    ttft: dict[str, float]
    tpot: dict[str, float]
    chained: float | None = None
    sd: float | None = None


@dataclass(frozen=True, slots=True)
class SensitivityReport(Drawn):
    """Elasticities of one strategy to every figure, and the regime it works in.

    goodput [req/s]; request_rate : where the latency elasticities are taken [req/s]
    steepness : −∂(room)/∂ln rate at the goodput: small when the latency hardly depends on the
        rate, so that goodput is ill-defined and its elasticities large [1]
    """

    problem: Problem
    strategy: str
    goodput: float
    binding: str
    request_rate: float
    steepness: float
    rows: tuple[Elasticity, ...]
    regime: Regime | None
    method: str
    trust: Trust

    def ordered(self) -> tuple[Elasticity, ...]:
        """Return the rows by the size of their effect on goodput, largest first."""
        return tuple(sorted(self.rows, key=lambda r: -abs(r.goodput)))

    def of(self, name: str) -> Elasticity:
        """Return one figure's row. UnknownNameError if it is not there."""
        from bestserve.errors import UnknownNameError

        rows = {r.parameter: r for r in self.rows}
        if name not in rows:
            raise UnknownNameError("figure", name, rows)
        return rows[name]

    def records(self) -> list[dict[str, Any]]:
        """Return one row per figure, largest effect on goodput first."""
        return [
            {
                "parameter": r.parameter,
                "value": r.value,
                "unit": r.unit,
                "goodput": r.goodput,
                **{f"ttft_{s}": r.ttft[s] for s in SHOWN},
                **{f"tpot_{s}": r.tpot[s] for s in SHOWN},
                "chained": r.chained,
                "sd": r.sd,
            }
            for r in self.ordered()
        ]

    def explain(self) -> str:
        """Return what binds, what helps most, and where the binding resource changes."""
        lines = [
            f"{self.strategy} carries {self.goodput:.3g} req/s, "
            f"stopped by its {Binding.of(self.binding).short}.",
            f"  1 % more of a figure changes it by ({self.method}; trust {self.trust}):",
        ]
        for r in self.ordered()[:8]:
            if abs(r.goodput) >= 5e-3:
                noise = f" ± {r.sd:.2f}" if r.sd else ""
                lines.append(f"    {r.goodput:+.2f} %{noise}  {r.parameter}")
        if self.steepness < FLAT:
            lines.append(
                f"  Latency hardly depends on the rate here ({self.steepness:.2f} % per %), so "
                "small changes move the goodput far."
            )
        if self.regime is not None:
            lines += [f"  {line}" for line in self.regime.sentences()]
        return "\n".join(lines)

    def cite(self) -> str:
        """Return the sources of the methods, as BibTeX."""
        from bestserve.results.citations import bibtex

        return bibtex("prediction", self.method)


FLAT = 0.1
"""Steepness below which goodput is ill-defined: 1 % of latency is worth 10 % of rate."""
