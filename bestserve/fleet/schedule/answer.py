"""Ask for a schedule: load, capacities, plan, other policies, simulation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InfeasibleError
from bestserve.fleet.schedule.accounts import bill, gpu_hours, started, stopped
from bestserve.fleet.schedule.attained import raised
from bestserve.fleet.schedule.demand import Stream, streams_of
from bestserve.fleet.schedule.failures import at_least
from bestserve.fleet.schedule.forecasts import SHARE, ForecastValue, forecasts, worth
from bestserve.fleet.schedule.offers import (
    Offer,
    gpu_prices,
    offers_of_fleet,
    offers_of_problem,
    terms_of,
)
from bestserve.fleet.schedule.options import ScheduleOptions
from bestserve.fleet.schedule.policies import Policy, compared, compared_splits, sized
from bestserve.fleet.schedule.programme import Planned, cheapest, most_carried
from bestserve.fleet.schedule.ratio import rule
from bestserve.fleet.schedule.reading import Rows
from bestserve.fleet.schedule.referee import Refereed, refereed
from bestserve.fleet.schedule.splits import best_split
from bestserve.fleet.schedule.terms import Prices, Terms, carried_rate, up_instances
from bestserve.results.schedule import (
    ComparedPolicy,
    Draining,
    ForecastWorth,
    Schedule,
    ScheduledPool,
    ScheduledStream,
    ScheduledWindow,
)
from bestserve.specs.fleet import Fleet
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

DAY = 86_400.0

AGAIN = 3
"""How often a day that misses its objectives when played is planned again for what it missed."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is planned: who asks, who may serve, on which terms.

    priced : the same terms with the prices of a GPU-hour, None where one is not known
    """

    asked: Problem | Fleet
    options: ScheduleOptions
    streams: tuple[Stream, ...]
    offers: tuple[Offer, ...]
    terms: Terms
    priced: Terms | None

    @property
    def names(self) -> list[str]:
        """What the pools are called [pool]."""
        alone = len(self.offers) == 1
        found = []
        for offer in self.offers:
            stream = self.streams[offer.stream].name
            prefix = f"{stream} " if stream else ""
            found += [f"{prefix}{name}" for name in offer.pool_names(alone)]
        return found


def schedule(
    problem: Problem | Fleet,
    load: str | Path | Rows | None = None,
    *,
    strategy: str | Strategy | None = None,
    options: ScheduleOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> Schedule:
    """Plan how many instances of each role serve a load that changes over the day.

    problem : one service, or a fleet of GPU types, models and classes; its GPUs are the most
        at once
    load : CSV of windows, or its rows; default: the problem's trace, cut into windows
    strategy : what an instance of each pool is; its counts are ignored. Default: as ranked best
    options : objective, times, limits; default: fewest GPU-hours

    Raises InputError, DataError (the load), InfeasibleError where a window cannot be carried.
    """
    say = progress or (lambda text: None)
    source = Path(load) if isinstance(load, str) else load
    return answer(
        case_of(problem, source, strategy, options or ScheduleOptions(), say), source, say
    )


def case_of(
    asked: Problem | Fleet,
    load: Path | Rows | None,
    strategy: str | Strategy | None,
    options: ScheduleOptions,
    say: Callable[[str], None] = lambda text: None,
) -> Case:
    """Return what is planned. Raises InputError, DataError, InfeasibleError."""
    streams = streams_of(asked, load, options)
    if isinstance(asked, Fleet):
        offers = offers_of_fleet(asked, streams, say)
    else:
        say("ranking" if strategy is None else "capacity of an instance")
        offers = offers_of_problem(asked, strategy)
    say("capacity of an instance")
    terms = terms_of(asked, streams, offers, options)
    priced = terms if terms.prices is not None else None
    if priced is None:
        found = gpu_prices(asked, offers)
        if np.isfinite(found).all():
            priced = replace(terms, prices=Prices(found, np.full(found.size, np.nan)))
    return Case(asked, options, streams, offers, terms, priced)


def answer(case: Case, load: Path | Rows | None, say: Callable[[str], None]) -> Schedule:
    """Plan a case, hold it against other policies, and simulate it."""
    terms, options = case.terms, case.options
    say("schedule")
    began = time.perf_counter()
    planned = plan(case)
    seconds = time.perf_counter() - began
    played = None
    if options.simulated:
        say("simulation")
        played = refereed(case.streams, case.offers, terms, planned.counts, options)
    for _ in range(AGAIN):
        if played is None or terms.daily is None or played.held:
            break
        say("schedule, held to the simulation")
        more = replace(case, terms=replace(terms, daily=raised(terms.daily, played.missing)))
        began = time.perf_counter()
        try:
            planned = plan(more)
        except InfeasibleError:  # there are no GPUs for it: the answer says that the day misses
            break
        seconds += time.perf_counter() - began
        case, terms = more, more.terms
        played = refereed(case.streams, case.offers, terms, planned.counts, options)
    say("other policies")
    others, worths = _others(case, planned)
    is_fleet = isinstance(case.asked, Fleet)
    return Schedule(
        problem=None if is_fleet else case.asked,  # type: ignore[arg-type]
        fleet=case.asked if is_fleet else None,  # type: ignore[arg-type]
        strategy=_strategies(case, planned.counts),
        objective=options.objective,
        asked=asdict(options),
        load=None if load is None else _rows(load),
        pools=_pools(case, planned.counts),
        windows=_windows(case, planned.counts, played),
        gpu_hours=gpu_hours(terms, planned.counts),
        cost=None if case.priced is None else bill(case.priced, planned.counts).total,
        reserved={o.gpu: int(planned.reserved[o.gpu_type]) for o in case.offers},
        objective_value=planned.objective,
        bound=planned.bound,
        carried=_within(terms, planned.counts),
        spare_gpu_hours=_spare_hours(case, planned),
        availability=_availability(terms, planned.counts),
        requests=0 if played is None else played.requests,
        met={} if played is None else played.all_day,
        held=None if played is None else played.held,
        draining=None if played is None else Draining(
            kv=options.kv, longest=played.longest_drain, gpu_hours=played.drain_hours
        ),
        target=_target(case),
        policies=tuple(_told(case, p) for p in others),
        forecasts=tuple(
            ForecastWorth(
                name=f.name, share=SHARE, median=f.median, p90=f.p90,
                margin=f.margin, gpu_hours=f.gpu_hours, saved=f.saved,
            )
            for f in worths
        ),
        seconds=seconds,
    )  # fmt: skip


def plan(case: Case) -> Planned:
    """Return the best schedule: dynamic programming for a split on given GPUs, else a MIP."""
    terms = case.terms
    if case.options.objective != "load":
        return cheapest(terms)
    if _splits(case):
        split = best_split(terms, int(case.asked.gpus))  # type: ignore[arg-type]
        none = np.zeros(terms.pools.types, dtype=np.int64)
        return Planned(split.counts, split.carried, split.carried, none)
    if len(case.offers) == 1:
        raise InfeasibleError(
            "the objective load moves GPUs between pools: give a split strategy such as 1p1d-tp4, "
            "or a fleet; a collocated fleet of fixed size has nothing to change"
        )
    return most_carried(terms)


def _splits(case: Case) -> bool:
    """Return whether all GPUs are divided between the prefill and decode of one offer."""
    return len(case.offers) == 1 and case.terms.pools.gpus.size == 2


def _others(case: Case, planned: Planned) -> tuple[tuple[Policy, ...], tuple[ForecastValue, ...]]:
    """Return other policies on the same load, and what forecasts of it are worth."""
    terms, first = case.terms, case.streams[0]
    ratio = _ratio(case)
    if case.options.objective == "load":
        if not _splits(case):
            return (), ()
        gpus = int(case.asked.gpus)  # type: ignore[arg-type]
        return compared_splits(terms, gpus, planned.counts, ratio), ()
    history = np.array([s.history.rates for s in case.streams])
    day = max(round(DAY / float(np.median(first.load.durations))), 1)
    expected = forecasts(history, day, terms.windows)
    others = compared(terms, planned.counts, expected, ratio)
    if not terms.pools.single:
        return others, ()  # each margin would be a programme
    plain = replace(terms, headroom=0.0)
    return others, worth(terms, expected, lambda rates: sized(plain, rates))


def _ratio(case: Case) -> Floats | None:
    """Return the rates that DOPD's rule counts on, for the one split offer of the one stream."""
    if not _splits(case) or len(case.streams) > 1:
        return None
    load = case.streams[0].load
    return rule(case.offers[0].deployment, load.lengths, load.kinds)


def _told(case: Case, policy: Policy) -> ComparedPolicy:
    return ComparedPolicy(
        name=policy.name,
        gpu_hours=policy.gpu_hours,
        cost=None if case.priced is None else bill(case.priced, policy.counts).total,
        carried=policy.carried.share,
        worst_window=policy.carried.worst,
        without_backlog=policy.carried.without_backlog,
    )


def _strategies(case: Case, counts: Ints) -> str:
    """Return one instance of each pool; of a fleet, of the offers that are used, and for whom."""
    told = []
    for i, offer in enumerate(case.offers):
        name = offer.deployment.label
        if not isinstance(case.asked, Fleet):
            return name
        if counts[case.terms.pools.option == i].any():
            told.append(f"{case.streams[offer.stream].name} {name} on {offer.gpu}")
    return "; ".join(told)


def _rows(load: Path | Rows) -> tuple[dict[str, str], ...]:
    from bestserve.fleet.schedule.reading import read_table

    return read_table(load).rows


def _pools(case: Case, counts: Ints) -> tuple[ScheduledPool, ...]:
    """Return the pools that are used."""
    found = []
    offered = [(o, p) for o in case.offers for p in o.deployment.pools]
    for i, (offer, instances) in enumerate(offered):
        if not counts[i].any():
            continue
        found.append(
            ScheduledPool(
                name=case.names[i],
                role=instances.role,
                strategy=instances.label,
                gpu=offer.gpu,
                gpus=instances.gpus,
                stream=case.streams[offer.stream].name,
                rate_per_instance=float(case.terms.capacity[i].min()),
            )
        )
    return tuple(found)


def _windows(case: Case, counts: Ints, played: Refereed | None) -> tuple[ScheduledWindow, ...]:
    terms, names = case.terms, case.names
    capacity = carried_rate(terms, up_instances(terms, counts))
    starts, stops = started(counts).sum(axis=0), stopped(counts).sum(axis=0)
    spares = (counts - up_instances(terms, counts)).sum(axis=0)
    costs = None if case.priced is None else bill(case.priced, counts).by_window
    rows = []
    for w, window in enumerate(case.streams[0].load.windows):
        streams = []
        for s, stream in enumerate(case.streams):
            met, error, holds = ({}, 0.0, None) if played is None else played.of(s, w)
            streams.append(
                ScheduledStream(
                    name=stream.name,
                    request_rate=float(terms.rates[s, w]),
                    capacity=float(capacity[s, w]),
                    met=met,
                    error=error,
                    holds=holds,
                )
            )
        rows.append(
            ScheduledWindow(
                start=window.start,
                duration=window.duration,
                instances={
                    name: int(row[w]) for name, row in zip(names, counts, strict=True) if row.any()
                },
                gpus=int(terms.pools.gpus @ counts[:, w]),
                starts=int(starts[w]),
                stops=int(stops[w]),
                spares=int(spares[w]),
                cost=None if costs is None else float(costs[w]),
                streams=tuple(streams),
            )
        )
    return tuple(rows)


def _within(terms: Terms, counts: Ints) -> float:
    served = np.minimum(terms.rates, carried_rate(terms, up_instances(terms, counts)))
    total = float((terms.rates @ terms.durations).sum())
    return float((served @ terms.durations).sum()) / total if total > 0 else 1.0


def _spare_hours(case: Case, planned: Planned) -> float:
    """Return the GPU-hours beyond those of a plan whose instances do not fail."""
    if case.terms.reliability is None or case.options.objective == "load":
        return 0.0
    sure = plan(replace(case, terms=replace(case.terms, reliability=None)))
    return gpu_hours(case.terms, planned.counts) - gpu_hours(case.terms, sure.counts)


def _availability(terms: Terms, counts: Ints) -> float | None:
    """Return the share of time in which all pools have as many up as they count on [1]."""
    if terms.reliability is None:
        return None
    up = up_instances(terms, counts)
    shares = np.array(
        [
            np.prod(
                [
                    at_least(int(k), int(n), float(share))
                    for k, n, share in zip(
                        up[:, w], counts[:, w], terms.reliability.up, strict=True
                    )
                ]
            )
            for w in range(terms.windows)
        ]
    )
    return float(shares @ terms.durations / terms.durations.sum())


def _target(case: Case) -> dict[str, float]:
    found: dict[str, float] = {}
    for offer in case.offers:
        target = offer.deployment.target
        names = {name: "all" if name == "joint" else name for name in target.requirements}
        found |= {told: target.required(name) for name, told in names.items()}
    return found
