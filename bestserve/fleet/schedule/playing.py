"""The simulator follows a schedule: instances start, take requests at random, drain and stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.fleet.schedule.capacity import Deployment
from bestserve.fleet.schedule.instances import Instances
from bestserve.fleet.schedule.load import Arrived, Load
from bestserve.fleet.schedule.runs import ANY
from bestserve.fleet.schedule.stints import Broken, Roster, Stint, stints
from bestserve.models.met import LATENCIES, met
from bestserve.models.system import Arrivals, Target, Transfer
from bestserve.simulator import Requests, simulate
from bestserve.simulator.inputs import sample_lengths


@dataclass(frozen=True, slots=True)
class Manner:
    """How a schedule is followed.

    late : what started serves so long after its window begins [s]; moves : the KV of running
    requests moves to another instance when theirs stops, else they finish where they are
    broken : when instances of each pool are down, and on which
    """

    late: float = 0.0
    moves: bool = False
    broken: tuple[Broken, ...] = ()
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Latencies:
    """What became of requests [n]: TTFT, TPOT, E2EL [s], infinite for those that nobody finished.

    draining : for how long instances went on after they stopped taking requests [stop; s]
    gpu_seconds : that draining took
    """

    ttft: Floats
    tpot: Floats
    e2el: Floats
    draining: Floats
    gpu_seconds: float


@dataclass(frozen=True, slots=True)
class Played:
    """What the requests of each window met.

    requests : how many [window]; met : share that met each objective, and "joint" all of them, by
    name [window]; counted : of how many requests, by name [window]
    """

    requests: Ints
    met: dict[str, Floats]
    counted: dict[str, Ints]


@dataclass(frozen=True, slots=True)
class Ends:
    """Of the requests that reached a pool [n]: first and last token [s], and who was lost."""

    first: Floats
    last: Floats
    lost: Bools


def draw(load: Load, seed: int) -> Arrived:
    """Return the recorded requests of a load, or Poisson arrivals with its rates and lengths."""
    if load.recorded is not None:
        return load.recorded
    rng = np.random.default_rng([seed, 0])
    nothing = np.zeros(0, dtype=np.int64)
    parts: list[tuple[Any, ...]] = [(np.zeros(0), *[nothing] * 5)]
    names = load.kind_names
    for i, window in enumerate(load.windows):
        count = int(rng.poisson(window.rate * window.duration))
        if count == 0:
            continue
        times = window.start + np.sort(rng.random(count)) * window.duration
        drawn = sample_lengths(load.lengths[window.kind], count, seed * 10_007 + i)
        cached = np.zeros(count, dtype=np.int64) if drawn.cached is None else drawn.cached
        kind = nothing
        if names:
            assert drawn.kinds is not None
            kind = np.array([names.index(name) for name in drawn.kind_names])[drawn.kinds]
        row = times, np.full(count, i), drawn.input_len, drawn.output_len, cached, kind
        parts.append(row)
    return Arrived(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def play(
    deployment: Deployment, load: Load, counts: Ints, arrived: Arrived, manner: Manner
) -> Latencies:
    """Simulate the requests of a load on a schedule; counts [pool, window].

    An instance that stops takes no more requests. Routing is random, so that every lane is a system
    of its own. Who is on an instance that fails is lost.
    """
    rng = np.random.default_rng([manner.seed, 1])
    pools, split = deployment.pools, len(deployment.pools) == 2
    rosters = [
        Roster(load.starts, row, manner.late, manner.broken[i] if manner.broken else Broken.none())
        for i, row in enumerate(counts)
    ]
    runs = [_Pool(deployment, p, r, manner.moves, rng) for p, r in zip(pools, rosters, strict=True)]
    whole = arrived.output_len
    start = Arrived(
        arrived.times,
        arrived.window,
        arrived.input_len,
        np.ones_like(whole) if split else whole,
        arrived.cached,
    )
    ends = runs[0].follow(start)
    first, last, lost = ends.first, ends.last, ends.lost
    if split:
        transfer = deployment.transfer
        seconds = transfer.latency + (
            transfer.seconds_per_token * (1 - transfer.overlap) * arrived.input_len
        )
        more = np.flatnonzero((whole > 1) & ~lost)
        landed = (first + seconds)[more]
        order = np.argsort(landed, kind="stable")
        chosen = more[order]
        came = arrived[chosen]
        after = runs[1].follow(
            Arrived(landed[order], came.window, came.input_len, came.output_len, came.cached)
        )
        last[chosen] = after.last
        lost[chosen] |= after.lost
    steps = np.maximum(whole - 1, 1)
    draining = [r.draining for r in runs]
    return Latencies(
        ttft=np.where(lost, np.inf, first - arrived.times),
        tpot=np.where(lost, np.inf, np.where(whole > 1, (last - first) / steps, 0.0)),
        e2el=np.where(lost, np.inf, last - arrived.times),
        draining=np.concatenate(draining),
        gpu_seconds=float(sum(p.gpus * d.sum() for p, d in zip(pools, draining, strict=True))),
    )


class _Pool:
    """One pool following its roster; `draining` is known afterwards [stop; s]."""

    def __init__(
        self,
        deployment: Deployment,
        instances: Instances,
        roster: Roster,
        moves: bool,
        rng: np.random.Generator,
    ) -> None:
        self.deployment, self.instances, self.roster = deployment, instances, roster
        # prompts are done in a moment: there is nothing worth moving
        self.moves = moves and instances.role != "p"
        self.rng = rng
        self.draining: Floats = np.zeros(0)

    def follow(self, came: Arrived) -> Ends:
        """Return what becomes of requests that come to the pool."""
        where, up = self.roster.choose(came.times, self.rng)
        lane = where * self.instances.lanes + self.rng.integers(
            0, self.instances.lanes, came.times.size
        )
        follow = self._moving if self.moves else self._staying
        ends = follow(came, where, lane)
        return Ends(ends.first, ends.last, ends.lost | ~up)

    def _staying(self, came: Arrived, where: Ints, lane: Ints) -> Ends:
        first, last = np.full(came.times.size, np.nan), np.full(came.times.size, np.nan)
        lost = np.zeros(came.times.size, dtype=bool)
        for number in np.unique(lane):
            mine = np.flatnonzero(lane == number)
            ends = self._run(came[mine])
            first[mine], last[mine], lost[mine] = ends.first, ends.last, ends.lost
        lost |= self.roster.broken.hit(where, came.times, last)
        self.draining = self._drained(where, came.times, np.where(lost, came.times, last))
        return Ends(first, last, lost)

    def _drained(self, where: Ints, times: Floats, last: Floats) -> Floats:
        """Return for how long each instance went on after each of its stops [stop; s]."""
        found = []
        for stint in stints(self.roster):
            if not np.isfinite(stint.end):
                continue
            mine = (where == stint.instance) & (times >= stint.start) & (times < stint.end)
            found.append(max(float(np.max(last[mine], initial=0.0)) - stint.end, 0.0))
        return np.array(found)

    def _moving(self, came: Arrived, where: Ints, lane: Ints) -> Ends:
        """Run stint by stint in the order of their ends; who is not done goes to another instance.

        What was generated by then is taken as even between the first token and the last.
        """
        transfer = self.deployment.moving(self.instances)
        size = came.times.size
        first, last = np.full(size, np.nan), np.full(size, np.nan)
        lost = np.zeros(size, dtype=bool)
        ordered = sorted(stints(self.roster), key=lambda s: s.end)
        waiting: list[tuple[Ints, Arrived, Ints, Ints]] = []
        all_ids = np.arange(size)
        waiting.append((all_ids, came, where, lane))
        for stint in ordered:
            ids, parts, lanes = self._of(stint, waiting)
            for number in np.unique(lanes):
                mine = np.flatnonzero(lanes == number)
                own, ends = ids[mine], self._run(parts[mine])
                fresh = np.isnan(first[own])
                cut = ends.last > stint.end
                told = fresh & ~(ends.first > stint.end)
                first[own] = np.where(told, ends.first, first[own])
                last[own] = np.where(cut, last[own], ends.last)
                lost[own] |= ends.lost
                lost[own] |= self.roster.broken.hit(
                    np.full(own.size, stint.instance),
                    parts.times[mine],
                    np.minimum(ends.last, stint.end),
                )
                going = np.flatnonzero(cut & ~lost[own])
                if going.size:
                    moved = _rest(parts[mine][going], ends, going, stint, transfer)
                    there, up = self.roster.choose(moved.times, self.rng)
                    lost[own[going]] |= ~up
                    new_lane = there * self.instances.lanes + self.rng.integers(
                        0, self.instances.lanes, there.size
                    )
                    waiting.append((own[going], moved, there, new_lane))
        return Ends(first, last, lost)

    def _of(
        self, stint: Stint, waiting: list[tuple[Ints, Arrived, Ints, Ints]]
    ) -> tuple[Ints, Arrived, Ints]:
        """Return the requests that come to an instance in a stint: who, what, on which lane."""
        rows = [
            (w == stint.instance) & (a.times >= stint.start) & (a.times < stint.end)
            for _, a, w, _ in waiting
        ]
        picked = [
            (ids[r], a[np.flatnonzero(r)], lane[r])
            for (ids, a, _, lane), r in zip(waiting, rows, strict=True)
        ]
        ids = np.concatenate([p[0] for p in picked])
        lanes = np.concatenate([p[2] for p in picked])
        columns = ("times", "window", "input_len", "output_len", "cached")
        joined = Arrived(*(np.concatenate([getattr(p[1], c) for p in picked]) for c in columns))
        order = np.argsort(joined.times, kind="stable")
        return ids[order], joined[order], lanes[order]

    def _run(self, mine: Arrived) -> Ends:
        """Simulate one lane with the requests it gets."""
        system = self.instances.system(1, ANY, Arrivals(kind="trace", times=mine.times))
        # what comes to a decode pool has its prompt behind it
        cached = None if self.instances.role == "d" else mine.cached
        given = Requests(input_len=mine.input_len, output_len=mine.output_len, cached=cached)
        result = simulate(system, given=given)
        zero = mine.times[0] - result.arrival[0]
        return Ends(
            result.first_token + zero,
            np.where(result.refused, np.inf, result.last_token + zero),
            result.refused.copy(),
        )


def _rest(cut: Arrived, ends: Ends, rows: Ints, stint: Stint, transfer: Transfer) -> Arrived:
    """Return what is left of requests when their instance stops, as they reach another one."""
    first, last = ends.first[rows], ends.last[rows]
    began = first <= stint.end
    share = np.where(began, (stint.end - first) / np.maximum(last - first, 1e-9), 0.0)
    done = np.floor(np.clip(share, 0.0, 1.0) * (cut.output_len - 1)).astype(np.int64) + began
    done = np.minimum(done, cut.output_len - 1)
    context = cut.input_len + done
    hours = transfer.latency + transfer.seconds_per_token * context
    return Arrived(
        times=stint.end + np.where(began, hours, 0.0),
        window=cut.window,
        input_len=context,
        output_len=cut.output_len - done,
        cached=np.where(began, context - 1, cut.cached),
    )


def by_window(
    arrived: Arrived,
    windows: int,
    latencies: Latencies,
    target: Target,
    names: tuple[str, ...] = (),
) -> Played:
    """Return which share of each window's requests met the objectives; names : of their classes."""
    shares, counted = {}, {}
    for name, (rows, good) in _met(arrived, latencies, target, names).items():
        of = np.bincount(arrived.window[rows], minlength=windows)
        shares[name], counted[name] = _share(good, arrived.window[rows], of), of
    return Played(np.bincount(arrived.window, minlength=windows), shares, counted)


def _met(
    arrived: Arrived, latencies: Latencies, target: Target, names: tuple[str, ...]
) -> dict[str, tuple[Ints, Bools]]:
    """Return whose requests each objective is about [k], and which of them met it [k]."""
    values = {name: getattr(latencies, name) for name in LATENCIES}
    found = met(values, arrived.output_len - 1, None, target)
    everyone = np.arange(arrived.times.size)
    joint = np.asarray(found.pop("joint"), dtype=bool)
    told = {name: (everyone, np.asarray(good, dtype=bool)) for name, good in found.items()}
    for tier in target.tiers:
        kind = names.index(tier.name) if tier.name in names else -1
        mine = np.flatnonzero(arrived.kind == kind)
        of_mine = {name: each[mine] for name, each in values.items()}
        own = met(of_mine, arrived.output_len[mine] - 1, None, tier.target)
        joint[mine] &= np.asarray(own["joint"], dtype=bool)
        for name in tier.asked:
            told[name] = mine, np.asarray(own[name.rpartition(".")[2]], dtype=bool)
    return {**told, "joint": (everyone, joint)}


def _share(good: Bools, window: Ints, counts: Ints) -> Floats:
    found = np.bincount(window, weights=good.astype(float), minlength=counts.size)
    share: Floats = np.divide(found, counts, out=np.ones(counts.size), where=counts > 0)
    return share
