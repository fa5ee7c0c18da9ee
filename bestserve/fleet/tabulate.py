"""From a fleet to goodput tables: which pools are possible, and what each is good for.

Every engine configuration of every model on every GPU type is lowered once; its goodput is
evaluated per recipe: each class alone, all classes of the model together, and pairs where a
model has more than two and the fleet is not large beside its classes. Mixes are evaluated on the
mix: adding up the loads of classes with different objectives overstates goodput.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from time import perf_counter

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InputError
from bestserve.fleet.configurations import (
    Buildable,
    Configuration,
    buildable,
    deployed_counts,
    name,
    slowest_feeds,
)
from bestserve.fleet.contest import NEAR, Rules, contest
from bestserve.fleet.stage import ClassLoad, Measure, Stage
from bestserve.lowering import lower_lengths
from bestserve.models.system import Target
from bestserve.solvers.allocation.caps import rounding_loss
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Demand,
    Pools,
    Requirements,
    Supply,
    Tables,
)
from bestserve.specs.fleet import Fleet, FleetClass
from bestserve.specs.workload import Workload

SMALL_LOSS = 0.05
"""Share of the fleet that rounding every class up to whole instances may cost for pairs of classes
not to be tried: mixes carry no more than their loads added up, so rounding is all they can save,
half of it on average, and the full mix of every model is tried in any case."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A fleet as tables, with what stands behind every row.

    configurations : by key of `tables`; loads : by class; reasons : why nothing could be built,
    by (GPU type, model); priced : whether the price of each GPU type is known; seconds : it took
    """

    fleet: Fleet
    tables: Tables
    requirements: Requirements
    configurations: tuple[Configuration, ...]
    loads: tuple[ClassLoad, ...]
    reasons: dict[tuple[str, str], str]
    priced: tuple[bool, ...]
    seconds: float

    def stage(self, pool: int, count: int, rates: Floats | None = None) -> Stage:
        """Return a pool as the models see it, at its recipe's mix or at actual class rates [w].

        Its spares are down: what it carries then, it carries always.
        """
        pools = self.tables.pools
        configuration = self.configurations[int(pools.key[pool])]
        mix = self.tables.mixes[pools.recipe[pool]] if rates is None else rates
        loads = tuple(
            replace(self.loads[w], share=float(mix[w] / mix.sum())) for w in np.flatnonzero(mix > 0)
        )
        return Stage(
            role=configuration.role,
            lane=configuration.lane,
            lanes=max(count - self.fleet.spares, 1) * configuration.lanes_per_instance,
            loads=loads,
            transfer=configuration.transfer,
            routing=self.fleet.routing,
            hybrid=configuration.hybrid,
        )


@dataclass(frozen=True, slots=True)
class _Task:
    """One model on one GPU type in one role under one recipe: configurations that compete."""

    pair: int
    role: int
    recipe: int
    members: tuple[int, ...]
    loads: tuple[ClassLoad, ...]


def evaluate(fleet: Fleet, measure: Measure | None = None, say: Say | None = None) -> Evaluated:
    """Return the tables of a fleet.

    `measure` simulates what formulas cannot (mixes, pooling, low trust); without it there are no
    mixed recipes. Tables are made in parallel through joblib, with the backend of the caller's
    `joblib.parallel_config`.

    Raises InputError, UnknownNameError, DataError as lowering does.
    """
    from joblib import Parallel, delayed

    began = perf_counter()
    if fleet.routing != "random" and measure is None:
        raise InputError(f"routing {fleet.routing!r} pools instances, which needs simulation")
    demand = _demand(fleet)
    mixes = _mixes(demand)
    loads = tuple(_load(c) for m in fleet.models for c in m.classes)
    pairs = [(g, m) for g in range(len(fleet.gpus)) for m in range(len(fleet.models))]
    feeds = slowest_feeds(fleet)
    built = [buildable(fleet, g, m, feeds[g]) for g, m in pairs]
    running = _running(fleet, built)

    def raced(tasks: Sequence[_Task]) -> list[_Row]:
        """Return the rows that the tasks give, and tell how many are done."""
        jobs = (
            delayed(_raced)(fleet, pairs[t.pair], built[t.pair], t, measure, running) for t in tasks
        )
        done = Parallel(return_as="generator")(jobs)
        rows: list[_Row] = []
        for n, (task, found) in enumerate(zip(tasks, done, strict=True), start=1):
            rows += [(task.pair, i, task.recipe, table) for i, table in found]
            if say is not None:
                g, m = pairs[task.pair]
                say(f"{n} of {len(tasks)}: {fleet.models[m].label} on {fleet.gpus[g].label}")
        return rows

    def evaluated(rows: list[_Row]) -> Evaluated:
        """Return the rows as tables, however the work was divided."""
        rows.sort(key=lambda row: row[:3])
        used = list(dict.fromkeys((pair, i) for pair, i, _, _ in rows))
        configurations = tuple(built[pair].configurations[i] for pair, i in used)
        key = {at: n for n, at in enumerate(used)}
        numbered = [(key[pair, i], recipe, table) for pair, i, recipe, table in rows]
        return Evaluated(
            fleet,
            _tables(fleet, demand, mixes, built, configurations, numbered),
            _requirements(fleet, [running[pair][i] for pair, i in used]),
            configurations,
            loads,
            _reasons(fleet, pairs, built, {pair for pair, _ in used}),
            tuple(p is not None for p in _prices(fleet, built[:: len(fleet.models)])),
            perf_counter() - began,
        )

    whole = [q for q in range(len(mixes)) if measure is not None or q < demand.count]
    pairwise = [q for q in whole if 1 < np.count_nonzero(mixes[q]) < _classes(demand, mixes[q])]
    first = [q for q in whole if q not in pairwise]
    rows = raced(_tasks(demand, mixes, loads, pairs, built, first))
    if pairwise:
        known = evaluated(rows)
        if rounding_loss(known.tables, known.requirements) > SMALL_LOSS:
            rows += raced(_tasks(demand, mixes, loads, pairs, built, pairwise))
    return evaluated(rows)


_Row = tuple[int, int, int, Floats]
"""Pair of model and GPU type, configuration of the pair, recipe, F."""


def _classes(demand: Demand, mix: Floats) -> int:
    """Return how many classes the model of a mix has."""
    return int(np.sum(demand.model == demand.model[np.argmax(mix > 0)]))


def _tasks(
    demand: Demand,
    mixes: Floats,
    loads: tuple[ClassLoad, ...],
    pairs: Sequence[tuple[int, int]],
    built: Sequence[Buildable],
    recipes: Sequence[int],
) -> list[_Task]:
    """Return the contests of some recipes, the longest ones (of mixes) first."""
    tasks = []
    for q in sorted(recipes, reverse=True):
        parts = np.flatnonzero(mixes[q] > 0)
        mixed = tuple(replace(loads[w], share=float(mixes[q, w])) for w in parts)
        whole = any(counts_from_arrival(load.target) for load in mixed)
        for n, (_, m) in enumerate(pairs):
            if m != demand.model[parts[0]]:
                continue
            # What counts from arrival to the last token cannot be split between two pools.
            for role in (COLLOCATED,) if whole else (COLLOCATED, PREFILL, DECODE):
                configurations = built[n].configurations
                members = tuple(i for i, c in enumerate(configurations) if c.role == role)
                if members:
                    tasks.append(_Task(n, role, q, members, mixed))
    return tasks


def counts_from_arrival(target: Target) -> bool:
    """Whether prefill and decode answer for an objective together."""
    return target.e2el is not None or (target.tokens is not None and target.tokens.whole)


def _raced(
    fleet: Fleet,
    pair: tuple[int, int],
    built: Buildable,
    task: _Task,
    measure: Measure | None,
    running: Sequence[Sequence[int]],
) -> list[tuple[int, Floats]]:
    """Return (configuration of the pair, F) of one contest; runs in any process."""
    from bestserve.host.threads import one_blas_thread

    deployed = running[task.pair]
    limited = fleet.max_configurations is not None
    rules = Rules(
        across=not limited,
        near=NEAR if limited else 1.0,
        exempt=tuple(deployed[i] > 0 for i in task.members),
        node=built.node,
    )
    members = [built.configurations[i] for i in task.members]
    with one_blas_thread():
        found = contest(members, task.loads, built.reach, fleet.routing, measure, rules)
    return [(task.members[i], table) for i, table in found]


def _running(fleet: Fleet, built: Sequence[Buildable]) -> list[list[int]]:
    """Return the instances that run today of every configuration [pair][configuration]."""
    every = [c for b in built for c in b.configurations]
    counts = iter(deployed_counts(fleet, every))
    return [[next(counts) for _ in b.configurations] for b in built]


def _reasons(
    fleet: Fleet,
    pairs: Sequence[tuple[int, int]],
    built: Sequence[Buildable],
    useful: set[int],
) -> dict[tuple[str, str], str]:
    """Return why a model has no pool on a GPU type, by their labels."""
    reasons = {}
    for n, (g, m) in enumerate(pairs):
        if n in useful:
            continue
        reason = built[n].reason
        if built[n].configurations:
            reason = "no configuration meets the objectives of any class, even with one request"
        if reason:
            reasons[fleet.gpus[g].label, fleet.models[m].label] = reason
    return reasons


def _demand(fleet: Fleet) -> Demand:
    """Return the classes of all models, their rates with the fleet's headroom; a share of the mix
    counts as a rate.
    """
    classes = [(m, c) for m, model in enumerate(fleet.models) for c in model.classes]
    several = len(fleet.models) > 1
    return Demand(
        names=tuple(f"{fleet.models[m].label} {c.name}" if several else c.name for m, c in classes),
        models=tuple(m.label for m in fleet.models),
        model=np.array([m for m, _ in classes], dtype=np.int64),
        rate=np.array([c.rate or c.share for _, c in classes]) * (1.0 + fleet.headroom),
        value=np.array([c.value for _, c in classes]),
        kv_bytes=np.zeros(len(classes)),
    )


def _mixes(demand: Demand) -> Floats:
    """Return the recipes: every class alone, every model's full mix, and pairs of three or more."""
    rows = [np.eye(demand.count)[w] for w in range(demand.count)]
    for m in range(len(demand.models)):
        mine = np.flatnonzero(demand.model == m)
        groups = [tuple(mine)] if mine.size > 1 else []
        groups += list(combinations(mine, 2)) if mine.size > 2 else []
        for group in groups:
            row = np.zeros(demand.count)
            row[list(group)] = demand.rate[list(group)] / demand.rate[list(group)].sum()
            rows.append(row)
    return np.array(rows)


def _load(c: FleetClass) -> ClassLoad:
    """Return a class as the models see it."""
    workload = Workload(
        input_len=c.input_len, output_len=c.output_len, prefix_cache_hit=c.prefix_cache_hit
    )
    return ClassLoad(c.name, 1.0, lower_lengths(workload), c.slo.target())


def _tables(
    fleet: Fleet,
    demand: Demand,
    mixes: Floats,
    built: Sequence[Buildable],
    configurations: Sequence[Configuration],
    rows: Sequence[tuple[int, int, Floats]],
) -> Tables:
    """Put (configuration, recipe, F) rows into one table."""
    spares = fleet.spares
    known = max((f.size for _, _, f in rows), default=1)
    goodput = np.zeros((len(rows), known))
    for row, (_, _, table) in zip(goodput, rows, strict=True):
        row[: table.size] = table
        # Beyond the GPUs that there are, at the last known goodput per instance.
        row[table.size :] = table[-1] / (table.size - 1) * np.arange(table.size, known)
    # What k instances carry with the spares down is what k - spares carry.
    goodput = np.hstack((np.zeros((len(rows), min(spares, known))), goodput))[:, :known]
    count = len(fleet.models)
    kv = np.array([max(b.kv_bytes for b in built[m::count]) for m in range(count)])
    tokens = np.array([c.input_len.mean_tokens for model in fleet.models for c in model.classes])
    used = [configurations[i] for i, _, _ in rows]

    def column(values: list[int]) -> Ints:
        return np.array(values, dtype=np.int64)

    return Tables(
        supply=_supply(fleet, built[::count]),
        demand=replace(demand, kv_bytes=kv[demand.model] * tokens),
        mixes=mixes,
        pools=Pools(
            gpu=column([c.gpu for c in used]),
            role=column([c.role for c in used]),
            recipe=column([q for _, q, _ in rows]),
            key=column([i for i, _, _ in rows]),
            size=column([c.gpus for c in used]),
            goodput=goodput,
        ),
        keys=tuple(name(fleet, c) for c in configurations),
    )


def _supply(fleet: Fleet, built: Sequence[Buildable]) -> Supply:
    """Return the GPU types, one of `built` each; prices and power from the fleet or the records."""
    names = tuple(g.label for g in fleet.gpus)
    price = _prices(fleet, built)
    watts = [
        b.watts if g.power is None else g.power for g, b in zip(fleet.gpus, built, strict=True)
    ]
    for needed, values, field in (
        (fleet.objective == "min_cost" or fleet.max_cost is not None, price, "price_per_hour"),
        (fleet.max_power is not None, watts, "power"),
    ):
        missing = [n for n, v in zip(names, values, strict=True) if v is None]
        if needed and missing:
            raise InputError(f"GPU type {missing[0]!r} needs {field}: its record states none")
    fabric = np.full((len(names), len(names)), np.inf)
    if not fleet.cross_type:
        fabric[~np.eye(len(names), dtype=bool)] = 0.0
    for link in fleet.links:
        fabric[names.index(link.source), names.index(link.target)] = link.bandwidth
    return Supply(
        names=names,
        gpus=np.array([g.count for g in fleet.gpus], dtype=np.int64),
        node_size=np.array([b.node for b in built], dtype=np.int64),
        price=np.array([v or 0.0 for v in price]),
        watts=np.array([v or 0.0 for v in watts]),
        nic=np.array([b.nic for b in built]),
        fabric=fabric,
        network_share=fleet.network_share,
    )


def _prices(fleet: Fleet, built: Sequence[Buildable]) -> list[float | None]:
    """Return the price of each GPU type, of the fleet or its record [$/GPU/h]; None: unknown."""
    return [
        b.price if g.price_per_hour is None else g.price_per_hour
        for g, b in zip(fleet.gpus, built, strict=True)
    ]


def _requirements(fleet: Fleet, running: Sequence[int]) -> Requirements:
    """Return what the plan must respect; `running`: today's instances per configuration.

    A mix without rates asks for headroom over its shares.
    """
    return Requirements(
        objective="max_headroom" if fleet.mix_only else fleet.objective,
        max_gpus=fleet.max_gpus,
        max_cost=fleet.max_cost,
        max_watts=fleet.max_power,
        max_configurations=fleet.max_configurations,
        min_replicas=np.array([m.min_replicas for m in fleet.models], dtype=np.int64),
        deployed=np.array(running if fleet.deployed else [], dtype=np.int64),
        start_price=fleet.start_price,
        max_started_gpus=fleet.max_started_gpus,
    )
