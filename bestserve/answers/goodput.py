"""Goodput of one strategy: the formula's with a run as its witness, or simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bestserve.answers.errors import calibration, moved, own_errors, with_errors
from bestserve.answers.predict import checked_method, recorded_requests
from bestserve.answers.referee import TRACED, coverage
from bestserve.answers.saturation import AGREEMENT, apart, fills, sustained
from bestserve.answers.witness import LIMIT_ERROR, Court, Evidence
from bestserve.errors import InfeasibleError
from bestserve.lowering import Lowered
from bestserve.models.binding import Binding
from bestserve.models.goodput import Goodput, goodput
from bestserve.models.lane_arrivals import (
    known_part,
    refuse_uncovered,
    refuse_untold,
    uncovered,
)
from bestserve.models.system import System
from bestserve.results.ranking import RankedStrategy
from bestserve.simulator import Requests
from bestserve.solvers.ranking import ranked, unmet
from bestserve.specs.strategy import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The goodput of a system as it is answered.

    method : "analytic" or "simulated"; told : what runs say; None without runs
    """

    found: Goodput
    method: str = "analytic"
    told: Evidence | None = None

    def row(self, lowered: Lowered, strategy: Strategy) -> RankedStrategy:
        """Return the table row of the strategy that this is about."""
        slo = lowered.problem.slo
        assert slo is not None
        row = ranked(lowered, strategy, self.found, slo.target(), self.method)
        if self.told is None:
            return row
        return replace(
            row,
            simulated_goodput=self.told.rate,
            confirmed=self.told.confirms(row.goodput),
            errors=self.told.errors(row.goodput),
        )


def court_of(lowered: Lowered) -> Court:
    """Return the court of a problem with objectives: these, and a trace's requests."""
    slo = lowered.problem.slo
    assert slo is not None
    return Court(slo.target(), recorded_requests(lowered.problem, TRACED))


def verdict(system: System, court: Court, method: str = "auto") -> Verdict:
    """Return the goodput of a system; `method` as of `bestserve.goodput`.

    The formula's where runs bear it out, else the runs'.
    """
    method = checked_method(method)
    if method == "analytic":
        refuse_uncovered(system)
        refuse_untold(court.target)
    claim = goodput(known_part(system), court.target.for_formulas)
    hopeless = claim.rate <= 0 and claim.trust.high and not court.target.tiers
    if method == "analytic" or hopeless:
        return Verdict(found=claim)
    enough = coverage(system, court.given, court.target.strictest)
    by_runs = method == "simulated" or bool(uncovered(system) or court.target.without_formula)
    if not (enough.high or by_runs):
        return Verdict(found=replace(claim, trust=claim.trust & enough))
    told = court.settles(system, claim.rate, None if by_runs else claim.rate)
    found = told.found or claim
    method = "simulated" if told.found else "analytic"
    if told.rate > 0:
        # Behind a cache that evicts, a longer run may find less than the runs at the goodput.
        limit = sustained(system, court.given)
        if limit < found.rate:
            told, method = _capped(system, told, limit, court.given), "simulated"
            found = replace(
                found, rate=limit, low=told.low, high=told.high, binding=Binding.STABILITY
            )
        found = replace(found, at=replace(found.at, stability_rate=limit))
    trust = told.trust(claim.trust) & enough
    return Verdict(found=replace(found, trust=trust), method=method, told=told)


def _capped(system: System, told: Evidence, limit: float, given: Requests | None) -> Evidence:
    """Return what is left of runs that found more than a service sustains, `limit` [req/s].

    Runs of the usual length may end before it shows. Where prompts go first and answers have one
    length, those that begin together end together and leave their slots to others that do: a lane
    whose requests fell in step may carry half as much again, until the first jam, which stays.
    """
    if fills(system):
        return told.capped(limit, max(told.half, LIMIT_ERROR))
    off = apart(system, limit, given)
    return told.capped(limit, max(off, LIMIT_ERROR) if off <= math.log1p(AGREEMENT) else None)


def goodput_of(lowered: Lowered, strategy: Strategy, method: str = "auto") -> RankedStrategy:
    """Return one strategy's goodput and where it stands there.

    Raises InfeasibleError if it cannot be built or a request alone misses the objectives.
    """
    court = court_of(lowered)
    found = verdict(lowered.system(strategy), court, method)
    if found.found.rate <= 0:
        raise InfeasibleError(
            f"{strategy}: {unmet(lowered, str(strategy), strategy.pools, found.found).reason}"
        )
    row = found.row(lowered, strategy)
    at = moved(lowered, strategy, row.goodput)
    constants = calibration(lowered, strategy, at, court.target)
    row = replace(row, trust=row.trust & constants.trust)
    return with_errors(row, {**own_errors(row), **constants.parts})
