"""What may serve a stream: an instance's layout on a GPU type, stated or as ranked best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bestserve.answers.economics import gpu_price
from bestserve.answers.ranking import ranking
from bestserve.arrays import Floats, Ints
from bestserve.errors import InfeasibleError, InputError
from bestserve.fleet.schedule.attained import daily_terms
from bestserve.fleet.schedule.bursts import carried_by_instances
from bestserve.fleet.schedule.capacity import Deployment
from bestserve.fleet.schedule.demand import Stream
from bestserve.fleet.schedule.failures import up_share
from bestserve.fleet.schedule.options import ScheduleOptions
from bestserve.fleet.schedule.terms import Budget, Pools, Prices, Reliability, Terms, Times
from bestserve.lowering import lower
from bestserve.solvers.ranking import rank_strategies
from bestserve.specs.fleet import Fleet, GpuGroup
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

MOST_RANKED = 16
"""GPUs among which the best layout of an instance is looked for: more copy the same instances."""

UNPLANNED = (
    "routing",
    "links",
    "spares",
    "deployed",
    "start_price",
    "max_started_gpus",
)
"""What a fleet's file may ask for that a schedule does not plan."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A layout that may serve a stream.

    stream : its number; gpu_type : the number of its GPU type, gpu : its name
    """

    stream: int
    gpu_type: int
    gpu: str
    deployment: Deployment

    def pool_names(self, alone: bool) -> list[str]:
        """Return what its pools are called; alone : in a plan with no other offers."""
        return [p.name if alone else f"{p.name} {self.gpu}" for p in self.deployment.pools]


def offers_of_problem(problem: Problem, strategy: str | Strategy | None) -> tuple[Offer, ...]:
    """Return the only offer of a problem: the strategy stated, or the best of its ranking."""
    if strategy is None:
        plain = tuple(layout for layout in problem.layouts if layout != "hybrid")
        strategy = _least_unit(
            Strategy.parse(
                ranking(problem.replaced(layouts=plain or problem.layouts)).best.strategy
            )
        )
    gpu = problem.hardware if isinstance(problem.hardware, str) else "gpu"
    return (Offer(0, 0, gpu, _deployment(problem, Strategy.parse(strategy))),)


def _least_unit(strategy: Strategy) -> Strategy:
    """Return a strategy with as few instances as keep their ratio: what a hybrid comes and goes in.

    >>> str(_least_unit(Strategy.parse("4p-tp1+6d-tp1-prefill")))
    '2p-tp1+3d-tp1-prefill'
    """
    common = math.gcd(*(pool.replicas for pool in strategy.pools))
    pools = (p.model_copy(update={"replicas": p.replicas // common}) for p in strategy.pools)
    return strategy.model_copy(update={"pools": tuple(pools)})


def _deployment(problem: Problem, strategy: Strategy) -> Deployment:
    if problem.slo is None:
        raise InputError("objectives are missing; give for example goodput ttft:1000 tpot:50")
    target = problem.slo.target()
    each = (target, *(tier.target for tier in target.tiers))
    if any(t.tokens is not None or t.e2el_per_token for t in each):
        raise InputError(
            "schedules know TTFT, TPOT and E2EL objectives; those on tokens, or on E2EL by length, "
            "are known to rank, goodput, predict, simulate, allocate and validate"
        )
    return Deployment(lower(problem), strategy, target)


def offers_of_fleet(
    fleet: Fleet, streams: tuple[Stream, ...], say: Callable[[str], None]
) -> tuple[Offer, ...]:
    """Return the best collocated and the best split layout of each stream on each GPU type.

    Raises InfeasibleError for a stream that none can serve.
    """
    _check_fleet(fleet)
    found = []
    for number, stream in enumerate(streams):
        reasons = []
        for t, group in enumerate(fleet.gpus):
            assert stream.model is not None
            say(f"layouts of {stream.name} on {group.label}")
            problem = _ranked_problem(fleet, group, stream)
            ranked = rank_strategies(lower(problem))
            best = {
                (strategy.disaggregated, strategy.hybrid): strategy
                for r in reversed(ranked.table)
                for strategy in [_least_unit(Strategy.parse(r.strategy))]
            }
            if not best:
                reasons.append(f"{group.label}: {ranked.why_nothing()}")
            held = problem.replaced(slo=stream.slo)
            found += [
                Offer(number, t, group.label, _deployment(held, strategy))
                for _, strategy in sorted(best.items(), key=lambda item: item[0])
            ]
        if not any(o.stream == number for o in found):
            raise InfeasibleError(f"{stream.name}: {'; '.join(reasons)}")
    return tuple(found)


def _check_fleet(fleet: Fleet) -> None:
    """Raise InputError for what a fleet's file asks for and a schedule does not plan."""
    fields = type(fleet).model_fields
    asked = [name for name in UNPLANNED if getattr(fleet, name) != fields[name].default]
    if asked:
        hint = "; for spares state --gpu-hours-between-failures" if "spares" in asked else ""
        raise InputError(f"a schedule does not plan a fleet's {asked[0]}: leave it out{hint}")


def _ranked_problem(fleet: Fleet, group: GpuGroup, stream: Stream) -> Problem:
    """Return the question which layout is best for a stream's mean mix on a GPU type."""
    assert stream.model is not None
    problem = fleet.problem(group, stream.model, stream.classes)
    return problem.replaced(slo=stream.strictest, gpus=min(max(group.count, 1), MOST_RANKED))


def terms_of(
    asked: Problem | Fleet,
    streams: tuple[Stream, ...],
    offers: tuple[Offer, ...],
    options: ScheduleOptions,
) -> Terms:
    """Return a schedule's terms. Raises InfeasibleError for what no instance can serve."""
    if options.slo_over == "day" and len(offers) > len(streams):
        raise InputError(
            "an SLO over the day is planned where a stream has one layout on one GPU type: name "
            "one in the fleet's file"
        )
    capacity = [
        row
        for offer in offers
        for load in [streams[offer.stream].load]
        for row in carried_by_instances(offer.deployment, load, options.gaps)
    ]
    sizes = [len(o.deployment.pools) for o in offers]
    pools = Pools(
        gpus=np.array([p.gpus for o in offers for p in o.deployment.pools], dtype=np.int64),
        option=np.repeat(np.arange(len(offers)), sizes),
        stream=np.array([o.stream for o in offers], dtype=np.int64),
        gpu_type=np.repeat([o.gpu_type for o in offers], sizes),
    )
    daily = daily_terms(streams, [o.deployment for o in offers], np.array(capacity), options)
    counts = [g.count for g in asked.gpus] if isinstance(asked, Fleet) else [asked.gpus]
    headroom = max(options.headroom, asked.headroom if isinstance(asked, Fleet) else 0.0)
    return Terms(
        capacity=np.array(capacity),
        rates=np.array([s.load.rates for s in streams]),
        durations=streams[0].load.durations,
        pools=pools,
        headroom=headroom,
        times=Times(options.start_time, options.switch_time, options.min_stay),
        most_gpus=np.array(counts[: pools.types], dtype=np.int64),
        most_changes=options.max_changes,
        prices=_prices(asked, offers, options) if options.objective == "money" else None,
        reliability=_reliability(pools, options),
        daily=daily,
        budgets=_budgets(asked, offers) if isinstance(asked, Fleet) else (),
        least=_least(streams, offers),
        most_pools=asked.max_configurations if isinstance(asked, Fleet) else None,
    )


def _budgets(fleet: Fleet, offers: tuple[Offer, ...]) -> tuple[Budget, ...]:
    """Return the fleet's budgets. Raises InputError where a GPU type has no such figure."""
    ones = np.ones(len(fleet.gpus))
    limits = (
        ("max_gpus", fleet.max_gpus, ones, ""),
        ("max_cost", fleet.max_cost, gpu_prices(fleet, offers), "price_per_hour"),
        ("max_power", fleet.max_power, _watts(fleet, offers), "power"),
    )
    found = []
    for name, most, per_gpu, field in limits:
        if most is None:
            continue
        used = per_gpu[: max(o.gpu_type for o in offers) + 1]
        if np.isnan(used).any():
            raise InputError(f"{name} needs the {field} of every GPU type: give it in [[gpus]]")
        found.append(Budget(name, used, float(most)))
    return tuple(found)


def _watts(fleet: Fleet, offers: tuple[Offer, ...]) -> Floats:
    """Return the power of a GPU by type [W], NaN where none is known."""
    found = np.full(len(fleet.gpus), np.nan)
    for offer in offers:
        record, stated = offer.deployment.lowered.hardware.power, fleet.gpus[offer.gpu_type].power
        found[offer.gpu_type] = stated or (np.nan if record is None else record.value)
    return found


def _least(streams: tuple[Stream, ...], offers: tuple[Offer, ...]) -> Ints | None:
    """Return the least instances of each pool, None where the fleet's file asks for one."""
    models = [streams[offer.stream].model for offer in offers]
    least = [
        1 if model is None else model.min_replicas
        for model, offer in zip(models, offers, strict=True)
        for _ in offer.deployment.pools
    ]
    return np.array(least, dtype=np.int64) if max(least) > 1 else None


def gpu_prices(asked: Problem | Fleet, offers: tuple[Offer, ...]) -> Floats:
    """Return the price of a GPU-hour by type [USD/h], NaN where none is known."""
    types = max(o.gpu_type for o in offers) + 1
    found = np.full(types, np.nan)
    for t in range(types):
        of_type = [o.deployment.lowered.problem for o in offers if o.gpu_type == t]
        price = gpu_price(of_type[0])[0] if of_type else 0.0
        if isinstance(asked, Fleet) and asked.gpus[t].price_per_hour is not None:
            price = asked.gpus[t].price_per_hour
        found[t] = np.nan if price is None else price
    return found


def _prices(asked: Problem | Fleet, offers: tuple[Offer, ...], options: ScheduleOptions) -> Prices:
    on_demand = gpu_prices(asked, offers)
    if np.isnan(on_demand).any():
        raise InputError("the objective money needs a price of every GPU type; give price_per_hour")
    reserved = np.full(on_demand.size, np.nan)
    if isinstance(asked, Fleet):
        for t in range(on_demand.size):
            stated = asked.gpus[t].reserved_price
            reserved[t] = np.nan if stated is None else stated
    elif options.reserved_price is not None:
        reserved[:] = options.reserved_price
    return Prices(on_demand, reserved)


def _reliability(pools: Pools, options: ScheduleOptions) -> Reliability | None:
    """Return how instances fail; an option's pools have the availability together."""
    between = options.gpu_hours_between_failures
    if between is None:
        return None
    up = np.array([up_share(int(g), between, options.repair_time) for g in pools.gpus])
    together = int(np.bincount(pools.option).max())
    return Reliability(up, options.availability ** (1.0 / together))
