"""What if a figure were another one: scenarios side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestserve.analysis.parameters import changed
from bestserve.answers.goodput import goodput_of
from bestserve.answers.ranking import ranking
from bestserve.errors import InfeasibleError, InputError
from bestserve.lowering import lower
from bestserve.results.drawn import Drawn
from bestserve.results.ranking import RankedStrategy
from bestserve.solvers.ranking import checked_problem
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy
from bestserve.units import milliseconds

Changes = Mapping[str, float | str]
Progress = Callable[[str], None]
AS_STATED = "as stated"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One set of changes and what becomes of the answer; `reason` says why there is none.

    answer : the best strategy under the changes, or the one that was asked about
    kept : goodput of the strategy that was best without changes [req/s]; None if it has none
    """

    name: str
    problem: Problem
    answer: RankedStrategy | None
    kept: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WhatIf(Drawn):
    """Scenarios side by side, the problem as stated first."""

    problem: Problem
    strategy: str | None
    scenarios: tuple[Scenario, ...]

    def records(self) -> list[dict[str, Any]]:
        """Return one row per scenario; `gain` is relative to the problem as stated [1]."""
        base = self.scenarios[0].answer
        rows = []
        for s in self.scenarios:
            a = s.answer
            gain = a.goodput / base.goodput - 1 if a and base else None
            rows.append(
                {
                    "scenario": s.name,
                    "strategy": a.strategy if a else None,
                    "goodput": a.goodput if a else 0.0,
                    "gain": gain,
                    "goodput_per_gpu": a.goodput_per_gpu if a else 0.0,
                    "ttft_ms": milliseconds(a.ttft) if a else None,
                    "tpot_ms": milliseconds(a.tpot) if a else None,
                    "binding": a.binding.value if a else s.reason,
                    "former_best": s.kept,
                    "trust": a.trust.level if a else None,
                }
            )
        return rows

    def explain(self) -> str:
        """Return one sentence per scenario."""
        base = self.scenarios[0].answer
        lines = []
        for s in self.scenarios:
            if s.answer is None:
                lines.append(f"{s.name}: nothing feasible: {s.reason}")
                continue
            line = f"{s.name}: {s.answer.strategy} carries {s.answer.goodput:.3g} req/s"
            if base is not None and s is not self.scenarios[0]:
                line += f" ({round(s.answer.goodput / base.goodput - 1, 2) + 0.0:+.0%})"
                if s.answer.strategy != base.strategy:
                    kept = "cannot" if s.kept is None else f"would carry {s.kept:.3g}"
                    line += f"; {base.strategy}, best before, {kept}"
            lines.append(f"{line}; it stops at its {s.answer.binding.value}")
        return "\n".join(lines)


def what_if(
    problem: Problem,
    scenarios: Sequence[Changes] | Changes,
    *,
    strategy: str | Strategy | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> WhatIf:
    """Return the best strategy (or the one named) with figures changed, side by side.

    scenarios : each a mapping of figures to values or factors, e.g.
        [{"hardware.memory_bandwidth": "x1.5"}, {"hardware": "h200"}]; "problem" is always first
    verify : simulate the answers at their goodput

    Raises InputError or UnknownNameError for changes that cannot be made.
    """
    wanted = [scenarios] if isinstance(scenarios, Mapping) else list(scenarios)
    if not wanted:
        raise InputError("nothing to change: give figures, e.g. hardware.memory_bandwidth=x1.5")
    named = [(AS_STATED, checked_problem(problem))]
    named += [(label(c), checked_problem(changed(problem, c))) for c in wanted]
    found: list[Scenario] = []
    best = None if strategy is None else str(Strategy.parse(strategy))
    for name, stated in named:
        if progress is not None:
            progress(name)
        answer, reason = _answer(stated, strategy, verify)
        if best is None and answer is not None:
            best = answer.strategy
        kept = _kept(stated, best, answer)
        found.append(Scenario(name, stated, answer, kept, reason))
    asked = None if strategy is None else str(Strategy.parse(strategy))
    return WhatIf(problem, asked, tuple(found))


def label(changes: Changes) -> str:
    """Return changes as a person writes them: "hardware.sms=144, gpus=16"."""
    return ", ".join(f"{name}={to}" for name, to in changes.items())


def _answer(
    problem: Problem, strategy: str | Strategy | None, verify: bool
) -> tuple[RankedStrategy | None, str]:
    if strategy is None:
        found = ranking(problem, verify=verify)
        return (found.best, "") if found.table else (None, found.why_nothing())
    try:
        return goodput_of(
            lower(problem), Strategy.parse(strategy), "auto" if verify else "analytic"
        ), ""
    except InfeasibleError as error:
        return None, str(error)


def _kept(problem: Problem, best: str | None, answer: RankedStrategy | None) -> float | None:
    if best is None:
        return None
    if answer is not None and answer.strategy == best:
        return answer.goodput
    try:
        return goodput_of(lower(problem), Strategy.parse(best), "analytic").goodput
    except InfeasibleError:
        return None
