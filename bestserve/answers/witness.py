"""A claimed goodput before its witness: runs of the simulator at that rate and beside it.

One run at the rate claimed says whether the objectives hold there, a second one 3 % to the other
side whether the goodput lies between. Only where it does not, the rate is searched for. All runs,
of all strategies of a problem, see the same requests. Where no formula knows the arrivals, the
claim is one of Poisson arrivals, from which a search begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bestserve.answers.errors import MODEL
from bestserve.answers.referee import SURE, as_latencies
from bestserve.answers.simulated import (
    GAP,
    LOWER,
    Look,
    Simulated,
    bracket,
    closed_in,
    crossing,
    evicts,
    lowest,
)
from bestserve.models.binding import Binding
from bestserve.models.goodput import Goodput
from bestserve.models.lane_arrivals import uncovered
from bestserve.models.latencies import unstable
from bestserve.models.refused import REFUSABLE
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Collocated, System, Target
from bestserve.models.trust import TRUSTED, Trust
from bestserve.simulator import Limit, Requests
from bestserve.simulator.inputs import sample_lengths

AGREEMENT = 0.03
"""Relative difference of formula and simulation up to which the formula's goodput stands."""

SHORT = 0.02
"""Share of the requests that may miss an objective at a claim, beyond those allowed to, for the
claim to stand: where latency turns steep, 3 % of the rate are most of the requests."""

THOROUGH = 5
"""Times as many requests where a full cache evicts: what it loses by chance it does not regain, so
that a run of the usual length may end before it shows."""

FAIR, FAR = 0.04, 0.13
"""Width of a bracket at which the crossing is interpolated where there is no claim to hold it to,
and where it is below what matters [ln]."""

BATCHES = 16
"""Parts of a run whose scatter tells its sampling error: long beside the time a queue remembers."""

Z95 = 1.96

SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Testimony:
    """What runs say about a claimed goodput.

    rate : the goodput that they show [req/s], 0 if none; low, high : its 95 % interval
    found : what to answer instead where the claim is not within `AGREEMENT` of it, or where the
        objectives are missed by more than `SHORT` at the claim
    refused : share of the requests that no cache can hold
    """

    rate: float
    low: float
    high: float
    found: Goodput | None = None
    refused: float = 0.0

    def errors(self, claim: float) -> dict[str, float]:
        """Return the relative half-widths of what is shown by cause: sampling and model."""
        apart = abs(math.log(self.rate / claim)) if self.found is None else 0.0
        return {"sampling": self.half, "model": max(apart, MODEL)}

    @property
    def half(self) -> float:
        """The half-width of the interval [ln], 1 at most: nothing is known of what is further."""
        if self.rate <= 0:
            return 0.0
        return min(math.log(self.high / self.low) / 2, 1.0) if self.low > 0 else 1.0

    def trust(self, claimed: Trust) -> Trust:
        """Return how far the answer may be trusted, given the trust in the formula's claim.

        A run that tells the goodput well settles it, whether the formula agrees or not. One that
        tells it only roughly leaves the claim as it stands where they agree.
        """
        vague = Trust.of(f"simulated to ± {self.half:.0%} only" if self.half > SURE else None)
        kept = claimed if self.found is None and claimed.high else vague
        if self.found is not None:
            kept = kept & self.found.trust
        if self.refused > REFUSABLE:
            refused = f"{self.refused:.2%} of the requests need more KV cache than a replica has"
            kept = kept & Trust.of(f"{refused} and are refused")
        return kept


class Court:
    """Draws the requests of a problem once, so that all its strategies are held to the same."""

    def __init__(self, target: Target, given: Requests | None = None) -> None:
        self.target, self.given = target, given
        self.drawn: dict[int, Requests] = {}

    def runs(self, system: System, rate: float, times: int = 1) -> Simulated:
        """Return the runs of a system near a rate [req/s], `times` the usual number of requests."""
        if self.given is not None:
            return Simulated(system=system, given=self.given)
        runs = Simulated(
            system=system,
            share=self.target.strictest,
            times=times,
            running=self.running(system, rate),
            seed=SEED,
        )
        if runs.size not in self.drawn:
            self.drawn[runs.size] = sample_lengths(system.lengths, runs.size, SEED)
        return replace(runs, drawn=self.drawn[runs.size])

    def running(self, system: System, rate: float) -> float:
        """Return the requests that decode on a replica, by Little's law, at the TPOT objective."""
        law = system.lengths
        steps = float(law.outputs @ law.output_weights)
        lanes = system.replicas if isinstance(system, Collocated) else system.decode_replicas
        return rate / lanes * steps * (self.target.tpot or 0.0)

    def reaches(self, system: System, rate: float) -> bool:
        """Return whether a run at a rate [req/s] meets the objectives."""
        return self.runs(system, rate).look(rate, self.target).room >= 0

    def gap(self, system: System, rate: float) -> bool:
        """Return whether objectives that hold at a rate [req/s] are missed at lower ones."""
        runs = self.runs(system, rate)
        return any(runs.look(share * rate, self.target).room < -GAP for share in LOWER)

    def hears(
        self,
        system: System,
        claim: float,
        floor: float = 0.0,
        *,
        thorough: bool = True,
        throughout: bool = False,
    ) -> Testimony:
        """Return what runs of a system say about a claimed goodput [req/s].

        floor : what is less need not be known exactly [req/s]; thorough : with longer runs where a
        full cache evicts; throughout : look at a few lower rates too, where objectives may be
        missed that are met again at the claim
        """
        usual = runs = self.runs(system, claim)
        found = _beside(runs, self.target, claim)
        full = found is not None and any(map(_evicts, found)) and found[1].rate > floor
        if found is not None and full and thorough and self.given is None:
            near = crossing(*found) if uncovered(system) else claim
            runs = self.runs(system, claim, THOROUGH)
            found = _beside(runs, self.target, near)
        gap = None
        if found is not None and throughout:
            low, gap = lowest(usual, self.target, found)
            found = low if gap else found
        return _weighed(runs, self.target, claim, found, floor=floor, gap=gap)


def _beside(runs: Simulated, target: Target, claim: float) -> tuple[Look, Look] | None:
    """Return looks at a claim, or as near as it takes, that the goodput lies between."""
    return bracket(lambda rate: runs.look(rate, target), claim, math.inf)


def _weighed(
    runs: Simulated,
    target: Target,
    claim: float,
    found: tuple[Look, Look] | None,
    *,
    floor: float,
    gap: str | None,
) -> Testimony:
    """Return what the looks say, after a search where they do not say what is claimed.

    floor : as in `Court.hears`; gap : what is to be said of rates that miss the objectives below
    rates that meet them
    """
    refused = float(np.mean(runs.prepared.refused))
    if found is None:
        nothing = _nothing(Limit.REFUSED if refused == 1.0 else Limit.INFEASIBLE)
        return Testimony(rate=0.0, low=0.0, high=0.0, found=nothing, refused=refused)
    below, above = found
    rate = crossing(below, above)
    stands = _near(rate, claim) and (above.rate > claim or _short(above, target) <= SHORT)
    stands = stands and gap is None and not uncovered(runs.system)
    if uncovered(runs.system):
        close = FAIR if above.rate > floor else FAR
        below, above = closed_in(lambda rate: runs.look(rate, target), below, above, close)
        rate = crossing(below, above)
    elif not stands:
        below, above = closed_in(lambda rate: runs.look(rate, target), below, above)
        rate = below.rate
    spread = math.exp(Z95 * _error(below, above, target))
    low, high = rate / spread, rate * spread
    shown = rate if uncovered(runs.system) else below.rate
    instead = None if stands else _instead(runs, claim, (low, shown, high), below, above)
    if instead is not None and gap is not None:
        instead = replace(instead, trust=instead.trust & Trust.of(gap))
    return Testimony(rate=rate, low=low, high=high, found=instead, refused=refused)


def _near(rate: float, claim: float) -> bool:
    return abs(math.log(rate / claim)) <= math.log1p(AGREEMENT)


def _evicts(look: Look) -> bool:
    return look.result is not None and evicts(look.result)


def _short(look: Look, target: Target) -> float:
    """Return by which share of the requests a run misses its worst objective [1]."""
    return 1.0 if look.result is None else -min(look.result.margins(target).values())


def _instead(
    runs: Simulated, claim: float, found: tuple[float, float, float], below: Look, above: Look
) -> Goodput:
    """Return the simulated goodput that takes the place of a claim; saturation is left open.

    found : the rate between the ends of its interval [req/s]
    """
    assert below.result is not None
    low, rate, high = found
    said: tuple[str, ...] = ()
    if not uncovered(runs.system) and not _near(rate, claim):
        said = (f"the formula says {claim:.4g} req/s and simulation, which is shown, {rate:.4g}",)
    return Goodput(
        rate=rate,
        low=low,
        high=high,
        binding=above.binding,
        at=as_latencies(below.result, rate, math.nan),
        trust=Trust(True, said),
        status=LatencyStatus.OK,
    )


def _nothing(limit: Limit) -> Goodput:
    """Return the verdict that no rate meets the objectives."""
    return Goodput(
        rate=0.0,
        low=0.0,
        high=0.0,
        binding=Binding.INFEASIBLE,
        at=unstable(0.0, 0.0, LatencyStatus.INFEASIBLE),
        trust=TRUSTED,
        status=LatencyStatus.INFEASIBLE,
        detail=limit.value,
    )


def _error(below: Look, above: Look, target: Target) -> float:
    """Return the standard error of ln(goodput): that of the share met, over its slope."""
    if below.result is None or above.result is None:
        return 0.0
    margins = above.result.margins(target)
    name = min(margins, key=lambda m: margins[m])
    fall = below.result.margins(target)[name] - margins[name]
    slope = fall / math.log(above.rate / below.rate)
    share = below.result.met(target)[name]
    each = share[: share.size - share.size % BATCHES].reshape(BATCHES, -1).mean(axis=1)
    error = float(each.std(ddof=1)) / math.sqrt(BATCHES)
    return error / slope if slope > 0 else math.inf
