"""An SLO over the day: which share of each window's requests meets it with how many instances.

A window then may fall short of the objectives where the others have room: what counts is the share
of the day's requests. Shares come from formulas, at rates around the goodput; from runs where
classes have objectives of their own; and of a trace's own arrivals from these, played.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InputError
from bestserve.fleet.schedule.bursts import faster, of_window, played_shares
from bestserve.fleet.schedule.capacity import Deployment
from bestserve.fleet.schedule.demand import Stream
from bestserve.fleet.schedule.instances import Instances
from bestserve.fleet.schedule.load import Load
from bestserve.fleet.schedule.options import ScheduleOptions
from bestserve.fleet.schedule.runs import Run, answered_by
from bestserve.fleet.schedule.terms import Daily, Floor
from bestserve.models.attainment import attainment, marginal_attainment
from bestserve.models.latencies import Latencies
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Lengths, Target

AROUND = np.array([0.3, 0.5, 0.65, 0.78, 0.87, 0.94, 1.0, 1.04, 1.08, 1.13, 1.2, 1.3])
"""Rates at which shares are found, over what instances carry within the objectives [1]: a window
may choose among as many numbers of instances."""

SURE = 0.05
"""Part of the requests that may miss an objective which a plan leaves unused: shares by formula
are off by up to a point of 90 %, and what is played is planned again where it falls short."""

WORTH = 0.5
"""Share of a window's requests below which so few instances are not considered [1]: windows near
saturation hand their queue to the next."""


def daily_terms(
    streams: tuple[Stream, ...],
    deployments: list[Deployment],
    capacity: Floats,
    options: ScheduleOptions,
) -> Daily | None:
    """Return what the day's requests must meet, one deployment a stream; None: each window's must.

    capacity : rate that an instance carries within the objectives [pool, window; req/s]
    """
    if options.slo_over == "window":
        return None
    choices: list[Ints] = []
    floors: list[Floor] = []
    for number, (stream, deployment) in enumerate(zip(streams, deployments, strict=True)):
        _check(deployment)
        first, shares = len(choices), []
        for instances in deployment.pools:
            pool = _Pool(deployment, instances, stream.load, options)
            counts, met = pool.shares(capacity[len(choices)])
            choices.append(counts)
            shares.append(met)
        floors += _floors(deployment.target, stream.load, (number, first), shares)
    return Daily(np.array(choices), tuple(floors))


def raised(daily: Daily, missing: Callable[[int, str], float]) -> Daily:
    """Return what must be met for a plan to lose what was missing when it was played.

    missing : share of a stream's requests by which an objective was missed [1]
    """
    floors = tuple(
        replace(f, least=f.least + missing(f.stream, f.name) * float(f.weights.sum()))
        for f in daily.floors
    )
    return replace(daily, floors=floors)


def _check(deployment: Deployment) -> None:
    """Raise InputError for objectives that no pool answers for by itself."""
    answered = {
        name
        for pool in deployment.pools
        for name in answered_by(pool.role, deployment.target).asked
    }
    lost = [name for name in deployment.target.common.asked if name not in answered]
    if lost:
        raise InputError(
            f"{lost[0].upper()} over the day is planned for collocated instances and hybrids: "
            "pools apart answer for TTFT and TPOT"
        )


def _floors(
    target: Target, load: Load, place: tuple[int, int], shares: list[dict[str, Floats]]
) -> list[Floor]:
    """Return the objectives of a stream.

    place : the stream's number, and that of its first pool; shares : by name, of each of its pools
    """
    stream, first = place
    requests = load.rates * load.durations
    if target.joint and len(shares) == 2:
        # who misses either objective is at most who misses one plus who misses the other
        parts = tuple((first + i, next(iter(met.values()))) for i, met in enumerate(shares))
        least = (_surely(target.attainment) + 1.0) * float(requests.sum())
        return [Floor(stream, "joint", parts, requests, least)]
    found = []
    for i, met in enumerate(shares):
        for name, share in met.items():
            weights = requests * _of_class(load, name.rpartition(".")[0])
            least = _surely(target.required(name)) * float(weights.sum())
            found.append(Floor(stream, name, ((first + i, share),), weights, least))
    return found


def _surely(share: float) -> float:
    return share + SURE * (1.0 - share)


def _of_class(load: Load, name: str) -> Floats:
    """Return which share of each window's requests is of a class [window; 1]; "": all."""
    if not name:
        return np.ones(len(load.windows))
    by_kind = [_share_of(lengths, name) for lengths in load.lengths]
    return np.array(by_kind)[load.kinds]


def _share_of(lengths: Lengths, name: str) -> float:
    if name not in lengths.kind_names:
        return 0.0
    mine = lengths.kinds == lengths.kind_names.index(name)
    return float(lengths.input_weights[mine].sum() / lengths.input_weights.sum())


@dataclass(frozen=True, slots=True)
class _Pool:
    """A pool of a stream, and the load that comes to it."""

    deployment: Deployment
    instances: Instances
    load: Load
    options: ScheduleOptions

    @property
    def names(self) -> tuple[str, ...]:
        """What the pool answers for."""
        target, kinds = self.deployment.target, self.load.kind_names
        return answered_by(self.instances.role, target, kinds).requirements

    def shares(self, capacity: Floats) -> tuple[Ints, dict[str, Floats]]:
        """Return numbers of instances [window, choice] and the shares met with them, by name."""
        curves: dict[int, dict[str, Floats]] = {}
        counts, rows = [], []
        for w, kind in enumerate(self.load.kinds):
            if self._recorded and self.load.windows[w].rate > 0:
                found = self._played(w, float(capacity[w]))
            else:
                if kind not in curves:
                    curves[kind] = self._curve(kind, float(capacity[w]))
                found = self._read(w, float(capacity[w]), curves[kind])
            counts.append(_padded(found[0]))
            rows.append({name: _padded(share) for name, share in found[1].items()})
        met = {name: np.array([row[name] for row in rows]) for name in self.names}
        return np.array(counts), {n: np.maximum.accumulate(m, axis=1) for n, m in met.items()}

    @property
    def _recorded(self) -> bool:
        return self.load.recorded is not None and self.options.gaps == "recorded"

    def _tried(self, window: int, capacity: float) -> Ints:
        """Return numbers of instances at which a window's load comes near the rates AROUND."""
        wanted = self.load.windows[window].rate * (1.0 + self.options.headroom)
        return np.unique(np.maximum(np.ceil(wanted / capacity / AROUND - 1e-9), 1)).astype(np.int64)

    def _read(
        self, window: int, capacity: float, curve: dict[str, Floats]
    ) -> tuple[Ints, dict[str, Floats]]:
        """Return the shares of a Poisson window."""
        counts = self._tried(window, capacity)
        wanted = self.load.windows[window].rate * (1.0 + self.options.headroom)
        at = wanted / capacity / counts
        shares = {name: np.interp(at, AROUND, curve[name], right=0.0) for name in self.names}
        return _worthwhile(counts, shares)

    def _played(self, window: int, capacity: float) -> tuple[Ints, dict[str, Floats]]:
        """Return the shares of a window's own requests."""
        mine, _ = of_window(self.load, window)
        speed, start = 1.0 + self.options.headroom, self.load.windows[window].start
        run = Run(self.instances, self.deployment.target, self.deployment.transfer)
        counts = self._tried(window, capacity)
        told = [played_shares(run, faster(mine, speed), start / speed, int(n)) for n in counts]
        return _worthwhile(counts, {name: np.array([t[name] for t in told]) for name in self.names})

    def _curve(self, kind: int, capacity: float) -> dict[str, Floats]:
        """Return the shares met at rates AROUND what an instance carries, by name."""
        lengths, target = self.load.lengths[kind], self.deployment.target
        rates = AROUND * capacity / self.instances.lanes
        if target.tiers:
            run = Run(self.instances, target, self.deployment.transfer)
            told = run.shares(lengths, rates)
            return {name: np.array([t.get(name, 1.0) for t in told]) for name in self.names}
        evaluate = self.deployment.latencies(self.instances, lengths)
        own = answered_by(self.instances.role, target)
        met = [_shares_met(evaluate(float(rate)), own) for rate in rates]
        return {name: np.array([m[name] for m in met]) for name in self.names}


def _shares_met(found: Latencies, target: Target) -> dict[str, float]:
    if found.status is not LatencyStatus.OK:
        return dict.fromkeys(target.requirements, 0.0)
    if target.joint:
        return {"joint": attainment(found, target)}
    return {str(name): share for name, share in marginal_attainment(found, target).items()}


def _worthwhile(counts: Ints, shares: dict[str, Floats]) -> tuple[Ints, dict[str, Floats]]:
    """Return the numbers of instances that are worth considering; of none the largest."""
    least = np.min(list(shares.values()), axis=0) if shares else np.ones(counts.size)
    keep = least >= WORTH
    keep[-1] = True
    return counts[keep], {name: share[keep] for name, share in shares.items()}


def _padded(values: Ints | Floats) -> Any:
    """Return as many values as there may be choices, the last one repeated."""
    return np.concatenate([values, np.repeat(values[-1:], AROUND.size - values.size)])
