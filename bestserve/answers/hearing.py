"""The rows that may lead a ranking are held to runs until what leads is settled.

Runs of the usual length hear what formulas doubt, or what reaches the first row; longer ones settle
what leads, as `bestserve.goodput` answers it. Where formulas are in doubt about the leader, so is
their choice of its limits: the rungs beside them are held to runs, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

from bestserve.answers.goodput import Verdict, court_of, verdict
from bestserve.answers.referee import coverage
from bestserve.answers.witness import AGREEMENT
from bestserve.errors import InfeasibleError
from bestserve.lowering import Lowered
from bestserve.models.lane_arrivals import known_part, uncovered
from bestserve.results.ranking import RankedStrategy, Ranking, Rejected
from bestserve.solvers.limits import GAIN, beside
from bestserve.solvers.ranking import best_first, contained, unmet
from bestserve.specs.strategy import Strategy

Progress = Callable[[str], None]

RACED, SHOWN = 16, 4
"""Rows simulated at most where formulas told only the order, and how many of them are searched even
if they lose."""

HEARD = 8
"""Rows heard because they reach the first, at most. The first one is heard however many it takes:
where the first rows share a flaw, the table is gone through until one stands."""

POLISHED = 3
"""Leaders whose limits are looked at, at most."""


class Hearing:
    """The rows of a ranking while they are held to runs."""

    def __init__(self, lowered: Lowered, found: Ranking, progress: Progress) -> None:
        self.lowered, self.found, self.progress = lowered, found, progress
        self.court = court_of(lowered)
        self.rows, self.rejected = list(found.table), list(found.rejected)
        self.doubted = {row.strategy for row in found.table if not row.trust.high}
        self.heard: set[str] = set()
        self.settled: set[str] = set()
        self.polished: set[str] = set()
        self.low = 1.0
        """By how much the formulas told a row too little, at most: likely the rows below, too."""

    @property
    def ranking(self) -> Ranking:
        """The ranking as it stands."""
        return replace(self.found, table=tuple(self.rows), rejected=tuple(self.rejected))

    def witnessed(self) -> Ranking:
        """Hear the rows that may lead until the first one is settled and none reaches it."""
        while self.rows:
            row = self.next_row()
            if row is None and not self.polish():
                break
            if row is None:
                continue
            first = row is self.rows[0]
            sure = first and (row.strategy in self.heard or row.strategy not in self.doubted)
            self.rows.remove(row)
            (self.settle if sure else self.hear)(row)
        return self.ranking

    def next_row(self) -> RankedStrategy | None:
        """Return the row to hear or settle next: the first, or what reaches it; None: enough."""
        first = self.rows[0]
        if first.strategy not in self.settled:
            return first
        known = self.heard | self.settled
        if len(known) >= HEARD:
            return None
        least = min(first.goodput, first.simulated_goodput or first.goodput) / self.low
        return next((r for r in self.rows if r.strategy not in known and _reach(r) >= least), None)

    def settle(self, row: RankedStrategy) -> None:
        """Put the row back as `bestserve.goodput` answers it."""
        self.settled.add(row.strategy)
        self.progress(f"simulating {row.strategy} for longer")
        self.put_back(row, contained(row.strategy, self.surely, row))

    def hear(self, row: RankedStrategy) -> None:
        """Put the row back as runs of the usual length show it."""
        known = self.heard | self.settled
        floor = max((r.goodput for r in self.rows if r.strategy in known), default=0.0)
        self.heard.add(row.strategy)
        self.progress(f"simulating {row.strategy}")
        self.put_back(row, contained(row.strategy, self.roughly, row, floor))

    def put_back(self, row: RankedStrategy, again: RankedStrategy | Rejected) -> None:
        """Sort a row in after runs."""
        if isinstance(again, Rejected):
            self.rejected.append(again)
            return
        if again.method == "simulated":
            self.doubted.add(row.strategy)
        self.low = max(self.low, (again.simulated_goodput or row.goodput) / row.goodput)
        self.rows = sorted([*self.rows, again], key=best_first)

    def polish(self) -> bool:
        """Hear the limits beside a doubted leader's that hold beyond its goodput; say if any."""
        first = self.rows[0]
        done = first.strategy in self.polished or len(self.polished) >= POLISHED
        if done or first.strategy not in self.doubted:
            return False
        self.polished.add(first.strategy)
        known = {row.strategy for row in self.rows} | self.heard
        asked = (first.simulated_goodput or first.goodput) * (1 + GAIN)
        better = []
        for other in beside(self.lowered, Strategy.parse(first.strategy)):
            if str(other) not in known and self.holds(other, asked):
                row = claimed(self.lowered, other)
                better += [] if row is None else [row]
        for row in better:
            self.doubted.add(row.strategy)
            self.hear(row)
        new, least = {row.strategy for row in better}, first.goodput * (1 + GAIN)
        self.rows = [r for r in self.rows if r.strategy not in new or r.goodput >= least]
        return self.rows[0] is not first

    def holds(self, strategy: Strategy, rate: float) -> bool:
        """Return whether a run of a strategy meets the objectives at a rate [req/s]."""
        self.progress(f"simulating {strategy}")
        try:
            return self.court.reaches(self.lowered.system(strategy), rate)
        except InfeasibleError:
            return False

    def surely(self, row: RankedStrategy) -> RankedStrategy | Rejected:
        """Return the row as `bestserve.goodput` answers it."""
        strategy = Strategy.parse(row.strategy)
        again = verdict(self.lowered.system(strategy), self.court)
        if again.found.rate <= 0:
            return unmet(self.lowered, row.strategy, strategy.pools, again.found)
        return again.row(self.lowered, strategy)

    def roughly(
        self, row: RankedStrategy, floor: float, near: float | None = None
    ) -> RankedStrategy | Rejected:
        """Return the row after runs of the usual length.

        A row whose claim is below a floor that runs have shown, and that misses the objectives
        there, cannot lead: its claim stays what formulas make of it.
        floor : as in `Court.hears`; near : where to look, instead of its goodput [req/s]
        """
        strategy = Strategy.parse(row.strategy)
        system = self.lowered.system(strategy)
        enough = coverage(system, self.court.given, self.court.target.strictest)
        if not (enough.high or uncovered(system) or self.court.target.without_formula):
            return replace(row, trust=row.trust & enough)
        behind = near is None and row.goodput < floor and not uncovered(system)
        if behind and not self.court.reaches(system, floor, row.goodput):
            return row
        told = self.court.hears(system, near or row.goodput, floor)
        if told.found is None:
            trust, sure = told.trust(row.trust), told.confirms(row.goodput)
            shown = replace(row, simulated_goodput=told.rate, confirmed=sure, trust=trust)
            return replace(shown, errors=told.errors(row.goodput))
        if told.rate <= 0:
            return unmet(self.lowered, row.strategy, strategy.pools, told.found)
        limit = max(row.goodput / row.utilisation, told.rate)
        at = replace(told.found.at, stability_rate=limit)
        found = replace(told.found, trust=told.trust(row.trust) & enough, at=at)
        return Verdict(found=found, method="simulated", told=told).row(self.lowered, strategy)

    def raced(self) -> Ranking:
        """Simulate rows whose formulas told only the order; what was not simulated is left out.

        In that order, layouts in turn where hybrids are among them (routing by load is worth more
        to some), the first `SHOWN` rows are searched, and later ones that meet the objectives where
        the best one so far stops. A row so far down that it would have to gain more than all before
        it cannot win.
        """
        told, self.rows = in_turn(self.rows), []
        best, gain = 0.0, 1.0
        for place, row in enumerate(told[:RACED]):
            near = row.goodput * gain
            if place >= SHOWN:
                if near < best:
                    continue
                if not self.court.reaches(self.lowered.system(row.strategy), best, row.goodput):
                    continue
            self.progress(f"simulating {row.strategy}")
            again = contained(row.strategy, self.roughly, row, best, near)
            self.put_back(row, again)
            if isinstance(again, RankedStrategy):
                best, gain = max(best, again.goodput), max(gain, again.goodput / row.goodput)
        while self.rows and self.rows[0].strategy not in self.settled:
            self.settle(self.rows.pop(0))
        return self.ranking


def in_turn(rows: list[RankedStrategy]) -> list[RankedStrategy]:
    """Return the rows with the best of each layout first, then the second ones, and so on.

    Only where hybrids are among them: without, formulas' order stands.
    """
    groups: dict[str, list[RankedStrategy]] = {}
    for row in rows:
        groups.setdefault(Strategy.parse(row.strategy).layout, []).append(row)
    if "hybrid" not in groups:
        return rows
    turns = itertools.zip_longest(*groups.values())
    return [row for turn in turns for row in turn if row is not None]


def claimed(lowered: Lowered, strategy: Strategy) -> RankedStrategy | None:
    """Return the row of a strategy as formulas have it, as far as they know its arrivals."""
    try:
        known = verdict(known_part(lowered.system(strategy)), court_of(lowered), "analytic")
    except InfeasibleError:
        return None
    return known.row(lowered, strategy) if known.found.rate > 0 else None


def _reach(row: RankedStrategy) -> float:
    """Return what a row may carry that runs have not been asked about [req/s]."""
    return max(row.high, row.goodput * (1 + AGREEMENT / 2))
