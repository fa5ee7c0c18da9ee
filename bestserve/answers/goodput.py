"""Goodput of one strategy: the formula's with a run as its witness, or simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bestserve.answers.errors import calibration_error, moved, own_errors, with_errors
from bestserve.answers.predict import checked_method, recorded_requests
from bestserve.answers.referee import TRACED, coverage, simulated_goodput
from bestserve.answers.saturation import sustained
from bestserve.answers.simulated import goodput as searched
from bestserve.answers.witness import Court
from bestserve.errors import InfeasibleError
from bestserve.lowering import Lowered
from bestserve.models.binding import Binding
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
    errors : relative half-widths of its interval by cause, as far as runs tell
    """

    found: Goodput
    method: str = "analytic"
    simulated: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)

    def row(self, lowered: Lowered, strategy: Strategy) -> RankedStrategy:
        """Return the table row of the strategy that this is about."""
        slo = lowered.problem.slo
        assert slo is not None
        row = ranked(lowered, strategy, self.found, slo.target(), self.method)
        return replace(
            row,
            simulated_goodput=self.simulated,
            confirmed=self.simulated is not None,
            errors=self.errors,
        )


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
    # Behind a cache that evicts, a longer run may find less than the runs at the goodput.
    limit = sustained(system, court.given)
    less = limit < found.rate
    if less:
        found = replace(found, rate=limit, binding=Binding.STABILITY)
    return Verdict(
        found=replace(
            found,
            trust=testimony.trust(claim.trust),
            at=replace(found.at, stability_rate=limit),
        ),
        method="simulated" if testimony.found or less else "analytic",
        simulated=min(testimony.rate, limit) if less else testimony.rate,
        errors=testimony.errors(claim.rate),
    )


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
    calibration = calibration_error(at, court.target)
    return with_errors(row, {**own_errors(row), "calibration": calibration})
