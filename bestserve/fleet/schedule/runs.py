"""Runs of one pool by itself: which of its requests meet what the pool answers for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Bools, Floats
from bestserve.fleet.referee import LEAST, TRIM, closed_in
from bestserve.fleet.schedule.instances import Instances
from bestserve.models.system import Arrivals, Lengths, Target, Transfer
from bestserve.simulator import Requests, saturation_rate, simulate
from bestserve.simulator.inputs import sample_lengths
from bestserve.simulator.prepared import prepare
from bestserve.simulator.run import run_prepared

REQUESTS = 20_000
"""Requests of a run that looks for a goodput."""

SEED = 7
"""Capacities and the simulation of a plan draw differently: luck does not confirm itself."""

ONE = np.ones(1)
ANY = Lengths(inputs=ONE, input_weights=ONE, outputs=ONE, output_weights=ONE)


def answered_by(role: str, target: Target, kinds: tuple[str, ...] = ()) -> Target:
    """Return what a pool answers for: TTFT is prefill's, TPOT is decode's.

    A joint target's thresholds count at its attainment, which no pool can miss. kinds : classes
    that come to the pool; objectives of others are left out.
    """
    own = replace(target, tiers=())
    if role == "p":
        own = Target(ttft=target.ttft, ttft_percentile=target.required("ttft"))
    elif role == "d":
        own = Target(tpot=target.tpot, tpot_percentile=target.required("tpot"))
    tiers = [
        replace(tier, target=answered_by(role, tier.target))
        for tier in target.tiers
        if tier.name in kinds
    ]
    return replace(own, tiers=tuple(tier for tier in tiers if tier.target.asked))


@dataclass(frozen=True, slots=True)
class Run:
    """Runs of one pool; transfer : of the KV that comes to a decode pool."""

    instances: Instances
    target: Target
    transfer: Transfer

    def requests(self, given: Requests) -> Requests:
        """Return requests as the pool meets them: prefill answers with one token."""
        if self.instances.role != "p":
            return given
        return replace(given, output_len=np.ones_like(given.output_len))

    def goodput(self, lengths: Lengths) -> float:
        """Return the highest Poisson rate at which a lane meets its objectives [req/s]; 0: none."""
        target = answered_by(self.instances.role, self.target, lengths.kind_names)
        given = self.requests(sample_lengths(lengths, REQUESTS, SEED))
        system = self.instances.system(1, lengths, Arrivals(), self.transfer)
        limit = saturation_rate(system, seed=SEED, given=given)
        prepared = prepare(system, len(given), SEED, given)

        def margin(rate: float) -> float:
            if not target.asked:
                return 1.0
            return min(run_prepared(prepared, rate, TRIM).margins(target).values())

        if margin(LEAST * limit) < 0:
            return 0.0
        return closed_in(margin, LEAST * limit, limit, 0.7 * limit)

    def shares(self, lengths: Lengths, rates: Floats) -> list[dict[str, float]]:
        """Return which share of a lane's Poisson arrivals meets what, at each rate [req/s]."""
        target = answered_by(self.instances.role, self.target, lengths.kind_names)
        given = self.requests(sample_lengths(lengths, REQUESTS, SEED))
        system = self.instances.system(1, lengths, Arrivals(), self.transfer)
        prepared = prepare(system, len(given), SEED, given)
        return [run_prepared(prepared, float(rate), TRIM).meeting(target) for rate in rates]

    def met(
        self, given: Requests, times: Floats, lanes: int, *, seed: int, after: float
    ) -> dict[str, Bools]:
        """Return which requests met what, of those that came at `times` [s] from `after` [s] on."""
        target = answered_by(self.instances.role, self.target, given.kind_names)
        arrivals = Arrivals(kind="trace", times=times)
        system = self.instances.system(lanes, ANY, arrivals, self.transfer)
        result = simulate(system, given=self.requests(given), seed=seed, warmup=0.0, cooldown=0.0)
        found = result.met_by(np.flatnonzero(times >= after), target)
        return {name: np.asarray(found[name]) for name in target.requirements}
