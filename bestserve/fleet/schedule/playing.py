"""The simulator follows a schedule: instances start, take requests at random, drain and stop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.fleet.referee import INSTANT
from bestserve.fleet.schedule.capacity import Deployment, Instances
from bestserve.fleet.schedule.load import Load
from bestserve.models.system import Arrivals, Collocated, Disaggregated, Lengths, Target, Transfer
from bestserve.simulator import Requests, simulate
from bestserve.simulator.inputs import sample_lengths

ONE = np.ones(1)
ANY = Lengths(inputs=ONE, input_weights=ONE, outputs=ONE, output_weights=ONE)


@dataclass(frozen=True, slots=True)
class Played:
    """What the requests of each window met [window].

    requests : how many; ttft, tpot, e2el : share that met the objective; together : all of them
    """

    requests: Ints
    ttft: Floats
    tpot: Floats
    e2el: Floats
    together: Floats


@dataclass(frozen=True, slots=True)
class Drawn:
    """Requests of a day in order of arrival [n]: time [s], window, lengths [tokens]."""

    times: Floats
    window: Ints
    input_len: Ints
    output_len: Ints


def play(deployment: Deployment, load: Load, counts: Ints, late: float, seed: int = 1) -> Played:
    """Simulate a load on a schedule; counts [pool, window].

    late : seconds after a window's start from which what was started then serves [s]

    An instance that stops takes no more requests and finishes those it has. Routing is random, so
    that every lane is a system of its own.
    """
    drawn = draw(load, seed)
    rng = np.random.default_rng([seed, 1])
    pools = deployment.pools
    n = drawn.times.size
    split = len(pools) == 2
    arrived = drawn.times
    first, last, refused = _run(
        pools[0],
        arrived,
        drawn.input_len,
        np.ones_like(drawn.output_len) if split else drawn.output_len,
        _lanes(load, arrived, counts[0], pools[0].lanes, late, rng),
    )
    if split:
        transfer = deployment.transfer
        seconds = transfer.latency + (
            transfer.seconds_per_token * (1 - transfer.overlap) * drawn.input_len
        )
        more = np.flatnonzero((drawn.output_len > 1) & ~refused)
        landed = (first + seconds)[more]
        order = np.argsort(landed, kind="stable")
        chosen, landed = more[order], landed[order]
        _, ends, turned = _run(
            pools[1],
            landed,
            drawn.input_len[chosen],
            drawn.output_len[chosen],
            _lanes(load, landed, counts[1], pools[1].lanes, late, rng),
        )
        last[chosen] = ends
        refused[chosen] |= turned
    ttft = np.where(refused, np.inf, first - arrived)
    steps = np.maximum(drawn.output_len - 1, 1)
    tpot = np.where(refused, np.inf, np.where(drawn.output_len > 1, (last - first) / steps, 0.0))
    e2el = np.where(refused, np.inf, last - arrived)
    return _by_window(drawn.window, len(load.windows), (ttft, tpot, e2el), deployment.target, n)


def draw(load: Load, seed: int) -> Drawn:
    """Draw Poisson arrivals of each window's rate, with its lengths."""
    rng = np.random.default_rng([seed, 0])
    parts = []
    for i, window in enumerate(load.windows):
        count = int(rng.poisson(window.rate * window.duration))
        if count == 0:
            continue
        times = window.start + np.sort(rng.random(count)) * window.duration
        lengths = sample_lengths(load.lengths[window.kind], count, seed * 10_007 + i)
        parts.append((times, np.full(count, i), lengths.input_len, lengths.output_len))
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return Drawn(np.zeros(0), nothing, nothing, nothing)
    return Drawn(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _lanes(
    load: Load, times: Floats, counts: Ints, lanes: int, late: float, rng: np.random.Generator
) -> Ints:
    """Return the lane of each request [n]: any of those that take requests when it comes."""
    starts = np.array([w.start for w in load.windows])
    window = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, starts.size - 1)
    before = np.minimum(counts, np.concatenate([counts[:1], counts[:-1]]))
    open_now = np.where(times - starts[window] < late, before[window], counts[window])
    chosen: Ints = np.floor(rng.random(times.size) * open_now * lanes).astype(np.int64)
    return chosen


def _run(
    instances: Instances, times: Floats, input_len: Ints, output_len: Ints, lane: Ints
) -> tuple[Floats, Floats, Bools]:
    """Return first and last token [n; s] and who was refused, lane by lane."""
    first, last = np.full(times.size, np.nan), np.full(times.size, np.nan)
    refused = np.zeros(times.size, dtype=bool)
    for number in np.unique(lane):
        mine = np.flatnonzero(lane == number)
        arrivals = Arrivals(kind="trace", times=times[mine])
        if instances.pool.role == "d":
            system: Collocated | Disaggregated = Disaggregated(
                prefill=INSTANT,
                prefill_replicas=1,
                decode=instances.lane,
                decode_replicas=1,
                lengths=ANY,
                transfer=Transfer(),
                arrivals=arrivals,
            )
        else:
            system = Collocated(lane=instances.lane, replicas=1, lengths=ANY, arrivals=arrivals)
        result = simulate(
            system, given=Requests(input_len=input_len[mine], output_len=output_len[mine])
        )
        zero = times[mine[0]] - result.arrival[0]
        first[mine] = result.first_token + zero
        last[mine] = result.last_token + zero
        refused[mine] = result.refused
    return first, last, refused


def _by_window(
    window: Ints, windows: int, latencies: tuple[Floats, Floats, Floats], target: Target, n: int
) -> Played:
    counts = np.bincount(window, minlength=windows)
    limits = target.ttft, target.tpot, target.e2el
    together = np.ones(n, dtype=bool)
    shares: list[Floats] = []
    for values, limit in zip(latencies, limits, strict=True):
        met = np.ones(n, dtype=bool) if limit is None else values <= limit
        together &= met
        shares.append(_share(met, window, counts))
    ttft, tpot, e2el = shares
    return Played(counts, ttft, tpot, e2el, _share(together, window, counts))


def _share(met: Bools, window: Ints, counts: Ints) -> Floats:
    good = np.bincount(window, weights=met.astype(float), minlength=counts.size)
    share: Floats = np.divide(good, counts, out=np.ones(counts.size), where=counts > 0)
    return share
