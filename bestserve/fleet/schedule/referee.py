"""Whether a schedule does in the simulator what its plan says, stream by stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Ints
from bestserve.fleet.schedule.capacity import Deployment
from bestserve.fleet.schedule.demand import Stream
from bestserve.fleet.schedule.load import Arrived
from bestserve.fleet.schedule.offers import Offer
from bestserve.fleet.schedule.options import ScheduleOptions
from bestserve.fleet.schedule.playing import Latencies, Manner, Played, by_window, draw, play
from bestserve.fleet.schedule.stints import Broken
from bestserve.fleet.schedule.terms import Terms
from bestserve.models.system import Target

SEED = 1


@dataclass(frozen=True, slots=True)
class Refereed:
    """What became of the requests of each stream.

    played, targets : by stream; requests : simulated; longest_drain [s]; drain_hours [GPU-h]
    """

    played: tuple[Played, ...]
    targets: tuple[Target, ...]
    requests: int
    longest_drain: float
    drain_hours: float

    def of(self, stream: int, window: int) -> tuple[dict[str, float], float, bool]:
        """Return the shares that met the objectives, their error, and whether that is enough."""
        played, target = self.played[stream], self.targets[stream]
        found, errors, enough = {}, [0.0], True
        for name in target.requirements:
            share, required = float(played.met[name][window]), target.required(name)
            n = max(int(played.counted[name][window]), 1)
            errors.append(float(np.sqrt(required * (1 - required) / n)))
            found[_told(name)] = share
            enough &= share >= required - 2 * errors[-1]
        return found, max(errors), enough

    @property
    def held(self) -> bool:
        """Whether all requests together met each objective often enough, up to twice the error."""
        return all(
            self._over_all(played, name) >= required - 2 * np.sqrt(required * (1 - required) / n)
            for played, target in zip(self.played, self.targets, strict=True)
            for name in target.requirements
            for required in [target.required(name)]
            for n in [max(int(played.counted[name].sum()), 1)]
        )

    def missing(self, stream: int, name: str) -> float:
        """Return by which share of its requests a stream missed an objective [1]; 0: met."""
        return max(
            self.targets[stream].required(name) - self._over_all(self.played[stream], name), 0.0
        )

    @staticmethod
    def _over_all(played: Played, name: str) -> float:
        counted = played.counted[name]
        if not counted.any():
            return 1.0
        return float(played.met[name] @ counted) / int(counted.sum())

    @property
    def all_day(self) -> dict[str, float]:
        """The shares that met each objective over all windows, of the stream with the least [1]."""
        found: dict[str, float] = {}
        for played, target in zip(self.played, self.targets, strict=True):
            for name in target.requirements:
                share = self._over_all(played, name)
                found[_told(name)] = min(found.get(_told(name), 1.0), share)
        return found


def _told(name: str) -> str:
    """Return what answers call a requirement."""
    return "all" if name == "joint" else name


def refereed(
    streams: tuple[Stream, ...],
    offers: tuple[Offer, ...],
    terms: Terms,
    counts: Ints,
    options: ScheduleOptions,
) -> Refereed:
    """Simulate all streams on a schedule; counts [pool, window].

    The requests of a stream find one of its offers at random, by what each can carry.
    """
    late = {"load": options.switch_time if len(offers) == 1 else options.start_time}
    played, targets, drains, seconds, total = [], [], [], 0.0, 0
    for number, stream in enumerate(streams):
        arrived = draw(stream.load, SEED + number)
        mine = [i for i, offer in enumerate(offers) if offer.stream == number]
        chosen = _chosen(terms, counts, mine, arrived)
        parts = []
        for i in mine:
            rows = np.flatnonzero(chosen == i)
            pools = np.flatnonzero(terms.pools.option == i)
            manner = Manner(
                late=late.get(options.objective, 0.0),
                moves=options.kv == "moves",
                broken=_failures(offers[i].deployment, counts[pools], stream, options),
                seed=SEED + i,
            )
            found = play(offers[i].deployment, stream.load, counts[pools], arrived[rows], manner)
            parts.append((rows, found))
            drains.append(found.draining)
            seconds += found.gpu_seconds
        target = offers[mine[0]].deployment.target
        whole = _joined(arrived.times.size, parts)
        played.append(by_window(arrived, terms.windows, whole, target, stream.load.kind_names))
        targets.append(target)
        total += arrived.times.size
    longest = float(np.max(np.concatenate(drains), initial=0.0))
    return Refereed(tuple(played), tuple(targets), total, longest, seconds / 3600.0)


def _chosen(terms: Terms, counts: Ints, options: list[int], arrived: Arrived) -> Ints:
    """Return which option each request goes to [n]."""
    if len(options) == 1:
        return np.full(arrived.times.size, options[0])
    able = np.array(
        [np.min((counts * terms.capacity)[terms.pools.option == i], axis=0) for i in options]
    )
    edges = np.cumsum(able, axis=0) / np.maximum(able.sum(axis=0), 1e-300)
    u = np.random.default_rng([SEED, 2]).random(arrived.times.size)
    which = np.sum(u[None, :] >= edges[:, arrived.window], axis=0)
    return np.array(options)[np.minimum(which, len(options) - 1)]


def _failures(
    deployment: Deployment, counts: Ints, stream: Stream, options: ScheduleOptions
) -> tuple[Broken, ...]:
    """Draw when instances of each pool are down; () where they do not fail."""
    between = options.gpu_hours_between_failures
    if between is None:
        return ()
    first, last = stream.load.windows[0], stream.load.windows[-1]
    span = first.start, last.start + last.duration
    rng = np.random.default_rng([SEED, 3])
    found = []
    for pool, row in zip(deployment.pools, counts, strict=True):
        means = between * 3600.0 / pool.gpus, max(options.repair_time, 1e-9)
        found.append(Broken.drawn(int(row.max()), means, span, rng))
    return tuple(found)


def _joined(n: int, parts: list[tuple[Ints, Latencies]]) -> Latencies:
    """Return the latencies of all requests of a stream."""
    whole = {name: np.full(n, np.inf) for name in ("ttft", "tpot", "e2el")}
    for rows, found in parts:
        for name, values in whole.items():
            values[rows] = getattr(found, name)
    draining = np.concatenate([found.draining for _, found in parts])
    return Latencies(
        ttft=whole["ttft"],
        tpot=whole["tpot"],
        e2el=whole["e2el"],
        draining=draining,
        gpu_seconds=sum(found.gpu_seconds for _, found in parts),
    )
