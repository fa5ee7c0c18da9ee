"""Goodput of one strategy: the formula's with a run as its witness, or simulated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bestserve.answers.predict import checked_method, recorded_requests
from bestserve.answers.referee import TRACED, coverage, simulated_goodput
from bestserve.answers.saturation import sustained
from bestserve.answers.simulated import goodput as searched
from bestserve.answers.witness import Court
from bestserve.errors import InfeasibleError
from bestserve.lowering import Lowered
from bestserve.models.goodput import Goodput, goodput
from bestserve.models.lane_arrivals import known_part, refuse_uncovered, uncovered
from bestserve.models.system import System
from bestserve.results.ranking import RankedStrategy
from bestserve.solvers.ranking import ranked, unmet
from bestserve.specs.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The goodput of a system as it is answered.

    method : "analytic" or "simulated"; simulated : what runs show [req/s], None without runs
    """

    found: Goodput
    method: str = "analytic"
    simulated: float | None = None

    def row(self, lowered: Lowered, strategy: Strategy) -> RankedStrategy:
        """Return the table row of the strategy that this is about."""
        slo = lowered.problem.slo
        assert slo is not None
        row = ranked(lowered, strategy, self.found, slo.target(), self.method)
        return replace(row, simulated_goodput=self.simulated, confirmed=self.simulated is not None)


def court_of(lowered: Lowered) -> Court:
    """Return the court of a problem with objectives: these, and a trace's requests."""
    slo = lowered.problem.slo
    assert slo is not None
    return Court(slo.target(), recorded_requests(lowered.problem, TRACED))


def verdict(system: System, court: Court, method: str = "auto") -> Verdict:
    """Return the goodput of a system; `method` as of `bestserve.goodput`."""
    method = checked_method(method)
    if method == "analytic":
        refuse_uncovered(system)
    claim = goodput(known_part(system), court.target)
    if method == "analytic" or claim.rate <= 0:
        return Verdict(found=claim)
    if uncovered(system):
        found = searched(system, court.target, near=claim.rate, given=court.given)
        return Verdict(found=found, method="simulated", simulated=found.rate)
    enough = coverage(system, court.given, court.target.strictest)
    if not enough.high:
        return Verdict(found=replace(claim, trust=claim.trust & enough))
    if method == "simulated":
        found = simulated_goodput(system, court.target, claim, court.given)
        return Verdict(found=found, method="simulated", simulated=found.rate)
    testimony = court.hears(system, claim.rate, throughout=True)
    found = testimony.found or claim
    limit = max(sustained(system, court.given), found.rate)
    return Verdict(
        found=replace(
            found,
            trust=testimony.trust(claim.trust),
            at=replace(found.at, stability_rate=limit),
        ),
        method="simulated" if testimony.found else "analytic",
        simulated=testimony.rate,
    )


def goodput_of(lowered: Lowered, strategy: Strategy, method: str = "auto") -> RankedStrategy:
    """Return one strategy's goodput and where it stands there.

    Raises InfeasibleError if it cannot be built or a request alone misses the objectives.
    """
    found = verdict(lowered.system(strategy), court_of(lowered), method)
    if found.found.rate <= 0:
        raise InfeasibleError(
            f"{strategy}: {unmet(lowered, str(strategy), strategy.pools, found.found).reason}"
        )
    return found.row(lowered, strategy)
