"""What a schedule must do and what it costs, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.fleet.schedule.failures import totals

LEAST = 1e-3
"""Share of an instance that a window without requests still asks for: something always answers."""


@dataclass(frozen=True, slots=True)
class Pools:
    """Who may serve what.

    Pools of one option serve a request one after the other (prefill, then decode); options of one
    stream divide its requests among them.

    gpus : of an instance [pool]; option : of each pool [pool]; stream : of each option [option]
    gpu_type : of each pool [pool]
    """

    gpus: Ints
    option: Ints
    stream: Ints
    gpu_type: Ints

    @classmethod
    def alone(cls, *gpus: int) -> Pools:
        """Return the pools of the only option of the only stream, by GPUs of an instance."""
        none = np.zeros(len(gpus), dtype=np.int64)
        return cls(np.array(gpus, dtype=np.int64), none, none[:1], none)

    @property
    def single(self) -> bool:
        """Whether each stream has one option."""
        return np.unique(self.stream).size == self.stream.size

    @property
    def types(self) -> int:
        """How many GPU types there are."""
        return int(self.gpu_type.max()) + 1

    def by_type(self, per_pool: Floats | Ints) -> Floats:
        """Return GPUs of each type [type, …] of instances [pool, …]."""
        sums = np.zeros((self.types, *per_pool.shape[1:]))
        np.add.at(sums, self.gpu_type, per_pool * self.gpus.reshape(-1, *[1] * (per_pool.ndim - 1)))
        return sums


@dataclass(frozen=True, slots=True)
class Times:
    """How long changes take [s].

    start : from starting an instance to its first request, paid; switch : an instance that changes
    its role serves nobody; stay : what was started, or changed its role, stays that long
    """

    start: float = 180.0
    switch: float = 60.0
    stay: float = 0.0


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a GPU-hour [USD/h], by GPU type: on demand, and paid all day (NaN: not to be had)."""

    on_demand: Floats
    reserved: Floats


@dataclass(frozen=True, slots=True)
class Reliability:
    """How instances fail.

    up : share of time that an instance is up [pool]; availability : share of time in which each
    pool has as many up as its load needs [1]
    """

    up: Floats
    availability: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What GPUs in use at once may take together: per_gpu, by type; most."""

    name: str
    per_gpu: Floats
    most: float


@dataclass(frozen=True, slots=True)
class Floor:
    """Requests of the day that must meet an objective, which is `name` of a stream.

    parts : pools whose shares add up to that of the requests, and the share of each window's
    requests that meets it with each choice of instances [window, choice; 1]
    weights : requests [window]; least : what the weighted sum of all parts must be
    """

    stream: int
    name: str
    parts: tuple[tuple[int, Floats], ...]
    weights: Floats
    least: float


@dataclass(frozen=True, slots=True)
class Daily:
    """Objectives over the day instead of each window.

    choices : numbers of instances, rising, of which shares are known [pool, window, choice]; more
    instances than the largest meet what it meets, fewer than the least are none
    """

    choices: Ints
    floors: tuple[Floor, ...]

    def kept(self, counts: Ints) -> bool:
        """Whether counts [pool, window] meet all objectives."""
        choice = np.sum(self.choices <= counts[:, :, None], axis=2) - 1
        if np.any(choice < 0):
            return False
        windows = np.arange(counts.shape[1])
        return all(
            sum(floor.weights @ shares[windows, choice[pool]] for pool, shares in floor.parts)
            >= floor.least * (1 - 1e-6)
            for floor in self.floors
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a schedule must do and what it costs. The day repeats itself.

    capacity : rate an instance carries [pool, window; req/s]; rates [stream, window; req/s]
    durations [window; s]; headroom : share of the rate to spare [1]
    most_gpus : at once, by type; most_changes : starts and stops at the beginning of a window
    prices : None: GPU-hours are counted; reliability : None: instances do not fail
    daily : None: every window carries its rate
    budgets : of GPUs in use at once; least : instances of a pool [pool], of one that is used
    most_pools : pools that are used, over the day
    """

    capacity: Floats
    rates: Floats
    durations: Floats
    pools: Pools
    headroom: float = 0.0
    times: Times = field(default_factory=Times)
    most_gpus: Ints | None = None
    most_changes: int | None = None
    prices: Prices | None = None
    reliability: Reliability | None = None
    daily: Daily | None = None
    budgets: tuple[Budget, ...] = ()
    least: Ints | None = None
    most_pools: int | None = None

    @property
    def windows(self) -> int:
        """How many windows there are."""
        return self.durations.size

    @property
    def starts(self) -> Floats:
        """When windows begin [window; s]."""
        return np.cumsum(self.durations) - self.durations

    @property
    def wanted(self) -> Floats:
        """Rate to be carried, with headroom and never quite nothing [stream, window; req/s]."""
        least = np.full_like(self.rates, np.inf)
        streams = self.pools.stream[self.pools.option]
        np.minimum.at(least, streams, LEAST * self.capacity)
        return np.maximum(self.rates * (1.0 + self.headroom), least)

    @property
    def working(self) -> Ints:
        """Instances that each window needs, where streams have one option each [pool, window]."""
        wanted = self.wanted[self.pools.stream[self.pools.option]] / self.capacity
        least = 1 if self.least is None else self.least[:, None]
        return np.maximum(np.ceil(wanted - 1e-9), least).astype(np.int64)

    def beyond(self, used: Floats) -> Bools:
        """Return in which windows GPUs in use [type, window] are more than there may be."""
        over = np.zeros(used.shape[1], dtype=bool)
        if self.most_gpus is not None:
            over |= np.any(used > self.most_gpus[:, None], axis=0)
        for budget in self.budgets:
            over |= budget.per_gpu @ used > budget.most * (1 + 1e-9)
        return over

    @property
    def needed(self) -> Ints:
        """The same with spares for those that fail [pool, window]."""
        return with_spares(self, self.working)

    def recent(self, window: int) -> list[int]:
        """Return the windows at whose beginning a start still binds in `window`, itself first."""
        period, starts = float(self.durations.sum()), self.starts
        found = [window]
        for back in range(1, self.windows):
            other = (window - back) % self.windows
            if (starts[window] - starts[other]) % period >= self.times.stay - 1e-9:
                break
            found.append(other)
        return found


def with_spares(terms: Terms, working: Ints) -> Ints:
    """Return how many instances must be there so that so many are up [pool, window]."""
    if terms.reliability is None:
        return working
    r = terms.reliability
    rows = [
        totals(float(up), r.availability, int(row.max()))[row]
        for up, row in zip(r.up, working, strict=True)
    ]
    return np.array(rows, dtype=np.int64)


def up_instances(terms: Terms, counts: Ints) -> Ints:
    """Return how many instances are up as often as required [pool, window]."""
    if terms.reliability is None:
        return counts
    rows = []
    for up, row in zip(terms.reliability.up, counts, strict=True):
        table = totals(float(up), terms.reliability.availability, int(row.max()))
        rows.append(np.searchsorted(table, row, side="right") - 1)
    return np.array(rows, dtype=np.int64)


def carried_rate(terms: Terms, instances: Ints) -> Floats:
    """Return the rate that serving instances carry [stream, window; req/s]."""
    pools = terms.pools
    by_option = np.full((pools.stream.size, terms.windows), np.inf)
    np.minimum.at(by_option, pools.option, instances * terms.capacity)
    by_stream = np.zeros_like(terms.rates)
    np.add.at(by_stream, pools.stream, by_option)
    return by_stream
