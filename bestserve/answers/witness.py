"""A goodput before its witness: runs of the simulator at that rate and beside it.

One run at the rate claimed says whether the objectives hold there, a second one 3 % to the other
side whether the goodput lies between. Only where it does not, the rate is searched for. Runs grow
until their own error is small, where the answer is to be sure. All runs, of all strategies of a
problem, see the same requests. Where no formula knows the arrivals, the claim is one of Poisson
arrivals, from which a search begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bestserve.answers.crossing import CLOSE, HALFWAY, Crossing, bracket, closed_in, lowest
from bestserve.answers.errors import MODEL
from bestserve.answers.intervals import Z90
from bestserve.answers.referee import as_latencies, mean_batch
from bestserve.answers.simulated import Look, Simulated
from bestserve.errors import InputError
from bestserve.models.binding import Binding
from bestserve.models.goodput import Goodput
from bestserve.models.lane_arrivals import uncovered
from bestserve.models.latencies import unstable
from bestserve.models.latency import stability_rate
from bestserve.models.refused import REFUSABLE
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Collocated, System, Target
from bestserve.models.trust import TRUSTED, Trust
from bestserve.simulator import Requests
from bestserve.simulator.prepared import sample_requests
from bestserve.simulator.run_length import TURNOVERS, replicas

AGREEMENT = 0.03
"""Relative difference of formula and simulation up to which the formula's goodput stands."""

SHORT = 0.02
"""Share of the requests that may miss an objective at a claim, beyond those allowed to, for the
claim to stand: where latency turns steep, 3 % of the rate are most of the requests."""

PRECISE = 0.03
"""Half-width of a 95 % interval at which a run is long enough [ln]."""

CONFIRMED = 0.04
"""What is shown is confirmed if it is no further than this from the goodput, at 95 % [ln]."""

SURE = 0.05
"""Half-width of its 95 % interval up to which a simulated goodput is trusted [ln]."""

FULL = 5
"""Times as many requests where a full cache evicts: what it loses by chance it does not regain, so
that a run of the usual length may end before it shows."""

MOST_TIMES, MOST_REQUESTS = 32, 800_000
"""Times as many requests as usual, and requests of a run, up to which runs grow."""

SCREENED, CLEARLY = 0.25, 0.1
"""Part of the usual requests of a run that may show a row to be out, and by how much it must miss
its objectives there: more than such a run errs [1, ln]."""

LEAST_GROWTH = 2.5
"""Times as many requests in the next run, at least."""

FAIR, FAR = 0.04, 0.13
"""Width of a bracket at which the crossing is interpolated where there is no claim to hold it to,
and where it is below what matters [ln]."""

LIMIT_ERROR = 0.012
"""Half-width of the 95 % interval of a rate at which a cache that evicts lets the queue grow [ln]:
that of the arrivals in its runs, and the width at which they end."""

Z95 = 1.96

SEED = 0

MISSED = "the objectives are missed even at almost no load"
REFUSED = "the KV cache of one replica cannot hold more than one request in 10,000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What runs say about a claimed goodput.

    rate : the goodput that they show [req/s], 0 if none; low, high : its 95 % interval
    found : what to answer instead of the claim, if it does not stand; None: it stands
    refused : share of the requests that no cache can hold; said : why another rate is shown than
    the claim, or than runs found
    """

    rate: float
    low: float
    high: float
    found: Goodput | None = None
    refused: float = 0.0
    said: str = ""

    @property
    def half(self) -> float:
        """Half-width of the interval [ln], 1 at most: nothing is known of what is further."""
        return min(math.log(self.high / self.low) / 2, 1.0) if self.rate > 0 else 0.0

    def capped(self, limit: float, half: float | None) -> Evidence:
        """Return what is left where the queue grows from a lower rate on [req/s].

        half : half-width of its 95 % interval as runs show it [ln]; None: only a formula says so,
        and what runs showed beyond it stays possible
        """
        around = math.exp(max(self.half, LIMIT_ERROR) if half is None else half)
        high = max(limit * around, self.rate) if half is None else limit * around
        said = (
            f"the objectives hold up to {self.rate:.4g} req/s, but the queue grows from "
            f"{limit:.4g} req/s on, which is shown"
        )
        return replace(self, rate=limit, low=limit / around, high=high, said=said)

    def confirms(self, shown: float) -> bool:
        """Return whether a goodput [req/s] is within `CONFIRMED` of the true one."""
        return self.rate > 0 and abs(math.log(shown / self.rate)) + self.half <= CONFIRMED

    def errors(self, shown: float) -> dict[str, float]:
        """Return the relative half-widths, at 90 %, of what is shown: sampling and model."""
        apart = abs(math.log(self.rate / shown)) if self.rate > 0 else 0.0
        return {"sampling": self.half * Z90 / Z95, "model": max(apart, MODEL)}

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
        return kept & Trust(True, (self.said,) if self.said else ())


class Court:
    """Draws the requests of a problem once, so that all its strategies are held to the same."""

    def __init__(self, target: Target, given: Requests | None = None, seed: int = SEED) -> None:
        self.target, self.given, self.seed = target, given, seed
        self.drawn: dict[int, Requests] = {}

    def runs(self, system: System, rate: float, times: float = 1) -> Simulated:
        """Return the runs of a system near a rate [req/s], `times` the usual number of requests."""
        if self.given is not None:
            return Simulated(
                system=system, given=self.given, seed=self.seed, reader=self.target.reader
            )
        runs = Simulated(
            system=system,
            share=self.target.strictest,
            times=times,
            running=self.running(system, rate),
            seed=self.seed,
            reader=self.target.reader,
        )
        if runs.size not in self.drawn:
            self.drawn[runs.size] = sample_requests(system, runs.size, self.seed)
        return replace(runs, drawn=self.drawn[runs.size])

    def running(self, system: System, rate: float) -> float:
        """Return the requests that decode on a replica, by Little's law, at the TPOT objective."""
        law = system.lengths
        steps = float(law.outputs @ law.output_weights)
        lanes = system.replicas if isinstance(system, Collocated) else system.decode_replicas
        return rate / lanes * steps * (self.target.tpot or 0.0)

    def reaches(self, system: System, rate: float, near: float = math.inf) -> bool:
        """Return whether a run at a rate [req/s] meets the objectives.

        near : the goodput as far as known [req/s]: where it is less, a short run says so first
        """
        if near < rate and self.given is None:
            short = self._short(system, rate)
            if short.look(rate, self.target).room < -CLEARLY:
                return False
        return self.runs(system, rate).look(rate, self.target).room >= 0

    def hears(self, system: System, claim: float, floor: float = 0.0) -> Evidence:
        """Return what runs of the usual length say about a claimed goodput [req/s].

        floor : what is less need not be known exactly [req/s]
        """
        if uncovered(system) or self.target.without_formula:
            return self._searched(system, claim, floor)
        runs = self.runs(system, claim)
        ends = self._beside(runs, claim)
        if ends is None:
            return _none(runs)
        if self._stands(ends, claim):
            return self._told(runs, ends, claim)
        return self._told(runs, self._closer(runs, ends), claim)

    def _searched(self, system: System, near: float, floor: float) -> Evidence:
        """Return what runs say of a goodput near a guess; floor : as in `hears` [req/s]."""
        ends = self._placed(system, near)
        if ends is not None and ends.rate < floor * math.exp(-CLEARLY):
            return self._told(self._short(system, near), ends, None)
        near = near if ends is None else ends.rate
        runs = self.runs(system, near)
        ends = self._beside(runs, near)
        if ends is None:
            return _none(runs)
        close = FAIR if ends.above.rate > floor else FAR
        return self._told(runs, self._closer(runs, ends, close), None)

    def _placed(self, system: System, near: float) -> Crossing | None:
        """Return where short runs find the goodput; None where they do not, or are not to be had.

        Where there is no claim to hold to runs, a guess may be far off, and most looks far from it.
        """
        if self.given is not None or not near > 0:
            return None
        runs = self._short(system, near)
        ends = self._beside(runs, near)
        return None if ends is None else self._closer(runs, ends, FAIR)

    def settles(
        self, system: System, near: float | None = None, claim: float | None = None
    ) -> Evidence:
        """Return the goodput of a system, from runs that grow until they tell it.

        near : a guess [req/s]; claim : what a formula says [req/s], which stands where runs agree

        Objectives that are missed below a rate at which they hold count: the lowest crossing does.
        Raises InputError for closed loops, which set their own rate.
        """
        if system.arrivals.kind == "closed":
            raise InputError("a closed loop sets its own rate: goodput needs open arrivals")
        limit = stability_rate(system)
        near = min(near or HALFWAY * limit, limit)
        if uncovered(system) or self.target.without_formula:
            place = self._placed(system, near)
            near = near if place is None else place.rate
        usual = runs = self.runs(system, near)
        times: int | None = 1
        ends = None
        while times is not None:
            runs = self.runs(system, near, times)
            ends = self._beside(runs, near) if near > 0 else None
            if ends is None:
                return _none(runs)
            if not (claim and self._stands(ends, claim)):
                ends = self._closer(runs, ends)
            near, times = ends.rate, self._longer(runs, ends, times)
        assert ends is not None
        low, gap = lowest(usual, self._short(system, near), self.target, ends)
        return self._told(runs, low, None if gap else claim, gap)

    def _short(self, system: System, rate: float) -> Simulated:
        """Return short runs near a rate [req/s], for which saturation is the formulas'."""
        return replace(self.runs(system, rate, SCREENED), saturated=stability_rate(system))

    def _beside(self, runs: Simulated, near: float) -> Crossing | None:
        """Return looks at a rate, or as near as it takes, that the goodput lies between."""
        return None if runs.refuses else bracket(lambda rate: runs.look(rate, self.target), near)

    def _closer(self, runs: Simulated, ends: Crossing, close: float = CLOSE) -> Crossing:
        """Return the looks made as close as `closed_in` says."""
        return closed_in(lambda rate: runs.look(rate, self.target), ends, close)

    def _stands(self, ends: Crossing, claim: float) -> bool:
        """Whether a claim is what runs show, and misses few requests where it is above."""
        if abs(math.log(ends.rate / claim)) > math.log1p(AGREEMENT):
            return False
        return ends.above.rate > claim or _short(ends.above, self.target) <= SHORT

    def _longer(self, runs: Simulated, ends: Crossing, times: int) -> int | None:
        """Return how many times the usual requests tell the rate precisely; None: enough."""
        if self.given is not None:
            return None
        half = Z95 * ends.error(self.target)
        wanted = times * (half / PRECISE) ** 2 if half > PRECISE else times
        if ends.evicts:
            wanted = max(wanted, FULL)
        if ends.below.result is not None and not self.target.tpot:
            # no objective bounds how many run at a time, which a run is to replace many times
            running = mean_batch(ends.below.result) * replicas(runs.smaller[0])
            wanted = max(wanted, times * TURNOVERS * running / runs.size)
        if wanted <= times:
            return None
        # Rather more than needed, so that the next length is the last one.
        most = min(MOST_TIMES, times * MOST_REQUESTS // runs.size)
        grown = math.ceil(min(max(1.3 * wanted, LEAST_GROWTH * times), most))
        return grown if grown > times else None

    def _told(
        self, runs: Simulated, ends: Crossing, claim: float | None, gap: str | None = None
    ) -> Evidence:
        """Return the evidence of the looks; a claim stands as far as they bear it out."""
        spread = math.exp(min(Z95 * ends.error(self.target), 10.0))
        rate = ends.rate
        told = Evidence(rate=rate, low=rate / spread, high=rate * spread, refused=runs.refused)
        if claim and self._stands(ends, claim) and (told.confirms(claim) or told.half > PRECISE):
            return told
        said = ""
        if claim and abs(math.log(told.rate / claim)) > math.log1p(AGREEMENT):
            said = f"the formula says {claim:.4g} req/s and simulation, which is shown, {rate:.4g}"
        return replace(told, found=self._instead(told, ends, gap), said=said)

    def _instead(self, told: Evidence, ends: Crossing, gap: str | None) -> Goodput:
        """Return the simulated goodput that takes the place of a claim; saturation is left open."""
        assert ends.below.result is not None
        return Goodput(
            rate=told.rate,
            low=told.low,
            high=told.high,
            binding=ends.binding,
            at=as_latencies(ends.below.result, told.rate, math.nan),
            trust=Trust.of(gap),
            status=LatencyStatus.OK,
        )


def measured_goodput(
    system: System, target: Target, *, near: float | None = None, given: Requests | None = None
) -> Goodput:
    """Return the goodput that runs show, with the 95 % interval of their length.

    near : a guess [req/s], which saves runs; given : the requests to run instead of sampling

    Raises InputError for closed loops, which set their own rate.
    """
    told = Court(target, given).settles(system, near)
    assert told.found is not None
    return told.found


def _none(runs: Simulated) -> Evidence:
    """Return the evidence that no rate meets the objectives, or that requests do not fit."""
    status = LatencyStatus.SOME_REFUSED if runs.refuses else LatencyStatus.INFEASIBLE
    if runs.refused == 1.0:
        status = LatencyStatus.NO_SLOT
    nothing = Goodput(
        rate=0.0,
        low=0.0,
        high=0.0,
        binding=Binding.INFEASIBLE,
        at=unstable(0.0, 0.0, status),
        trust=TRUSTED,
        status=status,
        detail=REFUSED if runs.refuses else MISSED,
    )
    return Evidence(rate=0.0, low=0.0, high=0.0, found=nothing, refused=runs.refused)


def _short(look: Look, target: Target) -> float:
    """Return by which share of the requests a run misses its worst objective [1]."""
    return 1.0 if look.result is None else -min(look.result.margins(target).values())
