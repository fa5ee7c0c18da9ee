"""From a fleet to goodput tables: which pools are possible, and what each is good for.

Every engine configuration of every model on every GPU type is lowered once; its goodput is
evaluated per recipe: each class alone, all classes of the model together, and pairs where a
model has more than two. Mixes are evaluated on the mix: adding up the loads of classes with
different objectives overstates goodput.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bestserve.errors import InputError
from bestserve.lowering import KV_TRANSFER_SETUP, Lowered, lower, lower_lengths
from bestserve.models.device import Parallelism
from bestserve.models.memory import memory_plan
from bestserve.models.system import Lane, Transfer
from bestserve.solvers.allocation.stage import ClassLoad, Measure, Stage, stage_goodput
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Demand,
    Pools,
    Requirements,
    Supply,
    Tables,
    isotone_per_instance,
)
from bestserve.solvers.enumerate import TOKEN_BUDGETS, shapes
from bestserve.specs.fleet import Fleet, FleetClass, FleetModel, GpuGroup
from bestserve.specs.strategy import Pool, Role
from bestserve.specs.workload import Workload

Floats = NDArray[np.float64]
Say = Callable[[str], None]

LETTERS: tuple[Role, Role, Role] = ("m", "p", "d")
POOLED_COUNTS = (1, 2, 4, 8, 16)
"""Lane counts at which pooling is simulated; between them goodput per lane is interpolated in
1/√k, beyond the last it stays."""
MIX_CONFIGURATIONS = 3
"""Configurations per instance size whose mixes are simulated: those whose loads, added up
(an upper bound), carry most. A screen, not a proof."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One engine configuration of one model on one GPU type, for one role."""

    gpu: int
    model: int
    role: int
    parallelism: Parallelism
    max_num_batched_tokens: int | None
    lane: Lane
    lanes_per_instance: int
    transfer: Transfer

    def pool(self, replicas: int) -> Pool:
        """Return `replicas` such instances as strategies write them."""
        p = self.parallelism
        return Pool(
            role=LETTERS[self.role],
            replicas=replicas,
            tp=p.tp,
            pp=p.pp,
            dp=p.dp,
            ep=p.ep,
            max_num_batched_tokens=self.max_num_batched_tokens,
        )


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A fleet as tables, with what stands behind every row.

    configurations : by key of `tables`; loads : by class; reasons : why nothing could be built,
    by (GPU type, model)
    """

    fleet: Fleet
    tables: Tables
    requirements: Requirements
    configurations: tuple[Configuration, ...]
    loads: tuple[ClassLoad, ...]
    reasons: dict[tuple[str, str], str]

    def stage(self, pool: int, count: int, rates: Floats | None = None) -> Stage:
        """Return a pool as the models see it, at its recipe's mix or at actual class rates [w]."""
        pools = self.tables.pools
        configuration = self.configurations[int(pools.key[pool])]
        mix = self.tables.mixes[pools.recipe[pool]] if rates is None else rates
        loads = tuple(
            replace(self.loads[w], share=float(mix[w] / mix.sum())) for w in np.flatnonzero(mix > 0)
        )
        return Stage(
            role=configuration.role,
            lane=configuration.lane,
            lanes=count * configuration.lanes_per_instance,
            loads=loads,
            transfer=configuration.transfer,
            routing=self.fleet.routing,
        )


def evaluate(fleet: Fleet, measure: Measure | None = None, say: Say | None = None) -> Evaluated:
    """Return the tables of a fleet.

    `measure` simulates what formulas cannot (mixes, pooling, low trust); without it there are no
    mixed recipes. Pairs of (GPU type, model) are evaluated in parallel through joblib, with the
    backend of the caller's `joblib.parallel_config`.

    Raises InputError, UnknownNameError, DataError as lowering does.
    """
    from joblib import Parallel, delayed

    if fleet.routing != "random" and measure is None:
        raise InputError(f"routing {fleet.routing!r} pools instances, which needs simulation")
    demand = _demand(fleet)
    mixes = _mixes(demand)
    loads = tuple(_load(c) for m in fleet.models for c in m.classes)
    pairs = [(g, m) for g in range(len(fleet.gpus)) for m in range(len(fleet.models))]
    worst = _worst_bandwidth(fleet)
    jobs = (delayed(_pair)(fleet, g, m, demand, mixes, loads, worst[g], measure) for g, m in pairs)
    results = []
    for (g, m), result in zip(pairs, Parallel(return_as="generator")(jobs), strict=True):
        results.append(result)
        if say is not None:
            say(f"{fleet.models[m].label} on {fleet.gpus[g].label}")
    reasons = {
        (fleet.gpus[g].label, fleet.models[m].label): result.reason
        for (g, m), result in zip(pairs, results, strict=True)
        if result.reason
    }
    configurations = tuple(c for result in results for c in result.configurations)
    tables = _tables(fleet, demand, mixes, results, configurations)
    required = _requirements(fleet, tables, configurations)
    return Evaluated(fleet, tables, required, configurations, loads, reasons)


@dataclass(frozen=True, slots=True)
class _Pair:
    """What one model can do on one GPU type: rows are (configuration, recipe, goodput by count)."""

    configurations: tuple[Configuration, ...]
    rows: tuple[tuple[int, int, Floats], ...]
    supply: tuple[float, float]
    kv_bytes: float
    reason: str


def _pair(
    fleet: Fleet,
    g: int,
    m: int,
    demand: Demand,
    mixes: Floats,
    loads: tuple[ClassLoad, ...],
    bandwidth: float,
    measure: Measure | None,
) -> _Pair:
    """Evaluate one model on one GPU type; runs in any process."""
    from threadpoolctl import threadpool_limits

    group, model = fleet.gpus[g], fleet.models[m]
    with threadpool_limits(limits=1, user_api="blas"):
        lowered = lower(fleet.problem(group, model, model.classes))
        configurations, reason = _configurations(lowered, group, model, g, m, bandwidth)
        kv_bytes = _kv_bytes_per_token(lowered)
        configurations, rows = _goodputs(
            fleet, group, configurations, demand, mixes, loads, m, measure
        )
    if configurations and not rows:
        reason = "no configuration meets the objectives of any class, even with one request"
    power = lowered.hardware.power
    price = lowered.hardware.price_per_hour
    supply = (price.value if price else np.nan, power.value if power else np.nan)
    return _Pair(tuple(configurations), tuple(rows), supply, kv_bytes, "" if rows else reason)


def _configurations(
    lowered: Lowered, group: GpuGroup, model: FleetModel, g: int, m: int, bandwidth: float
) -> tuple[list[Configuration], str]:
    """Return the configurations that can be built, and why the last one could not."""
    found, reason = [], ""
    roles = [COLLOCATED] if "collocated" in model.layouts else []
    if "disaggregated" in model.layouts and bandwidth > 0:
        roles += [PREFILL, DECODE]
    transfer = Transfer(
        latency=KV_TRANSFER_SETUP,
        seconds_per_token=_kv_bytes_per_token(lowered) / bandwidth if bandwidth > 0 else 0.0,
    )
    own = lowered.engine.max_num_batched_tokens
    for role in roles:
        budgets: list[int | None] = list(model.max_num_batched_tokens)
        if not budgets:
            budgets = [None, *(b for b in TOKEN_BUDGETS[LETTERS[role]] if b != own)]
        if role == DECODE:
            budgets = [None]
        for shape in shapes(lowered):
            if shape.gpus > group.count:
                continue
            for budget in budgets:
                built = lowered.lane(shape, max_num_batched_tokens=budget)
                if built.lane is None:
                    reason = built.reason
                    break
                found.append(
                    Configuration(
                        gpu=g,
                        model=m,
                        role=role,
                        parallelism=shape,
                        max_num_batched_tokens=budget,
                        lane=built.lane,
                        lanes_per_instance=built.lanes_per_instance,
                        transfer=transfer if role == DECODE else Transfer(),
                    )
                )
    return found, reason


def _kv_bytes_per_token(lowered: Lowered) -> float:
    """Return the KV cache of one token over all layers [B]."""
    plan = memory_plan(
        lowered.model.architecture, lowered.device, Parallelism(), lowered.formats, lowered.engine
    )
    return float(plan.kv_bytes_per_token_total)


def _goodputs(
    fleet: Fleet,
    group: GpuGroup,
    configurations: Sequence[Configuration],
    demand: Demand,
    mixes: Floats,
    loads: tuple[ClassLoad, ...],
    m: int,
    measure: Measure | None,
) -> tuple[list[Configuration], list[tuple[int, int, Floats]]]:
    """Return the configurations worth keeping and their (configuration, recipe, F) rows."""
    mine = np.flatnonzero(demand.model == m)
    single: dict[tuple[int, int], Floats] = {}
    for i, c in enumerate(configurations):
        most = group.count // c.parallelism.gpus
        for w in mine.tolist():
            if c.role != COLLOCATED and loads[w].target.e2el is not None:
                continue  # an end-to-end objective cannot be split between two pools
            table = _table(fleet, c, (replace(loads[w], share=1.0),), most, measure)
            if table[-1] > 0:
                single[i, w] = table
    rows = [(i, w, table) for (i, w), table in single.items()]
    if measure is not None:
        for q in range(demand.count, len(mixes)):
            parts = np.flatnonzero(mixes[q] > 0)
            if demand.model[parts[0]] == m:
                rows += _mixed(fleet, group, configurations, mixes[q], q, single, loads, measure)
    used = sorted({i for i, _, _ in rows})
    place = {i: n for n, i in enumerate(used)}
    return [configurations[i] for i in used], [(place[i], q, table) for i, q, table in rows]


def _mixed(
    fleet: Fleet,
    group: GpuGroup,
    configurations: Sequence[Configuration],
    mix: Floats,
    recipe: int,
    single: dict[tuple[int, int], Floats],
    loads: tuple[ClassLoad, ...],
    measure: Measure,
) -> list[tuple[int, int, Floats]]:
    """Return the rows of one mixed recipe: its most promising configurations, simulated."""
    parts = np.flatnonzero(mix > 0).tolist()
    promise: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for i, c in enumerate(configurations):
        if all((i, w) in single for w in parts):
            added = 1.0 / sum(mix[w] / single[i, w][1] for w in parts if single[i, w][1] > 0)
            promise.setdefault((c.role, c.parallelism.gpus), []).append((added, i))
    rows = []
    for ranked in promise.values():
        for _, i in sorted(ranked, reverse=True)[:MIX_CONFIGURATIONS]:
            c = configurations[i]
            mixed = tuple(replace(loads[w], share=float(mix[w])) for w in parts)
            most = group.count // c.parallelism.gpus
            table = _table(fleet, c, mixed, most, measure)
            if table[-1] > 0:
                rows.append((i, recipe, table))
    return rows


def _table(
    fleet: Fleet,
    c: Configuration,
    loads: tuple[ClassLoad, ...],
    most: int,
    measure: Measure | None,
) -> Floats:
    """Return F(0 … most) of one configuration for one mix."""
    k = np.arange(most + 1)
    per = c.lanes_per_instance

    def rate(lanes: int, near: float) -> float:
        routing = fleet.routing if lanes > 1 else "random"
        stage = Stage(c.role, c.lane, lanes, loads, c.transfer, routing)
        if lanes > 1 and measure is not None:
            return measure(stage, near)
        return stage_goodput(stage, measure)

    alone = rate(1, 0.0)
    if fleet.routing == "random" or (alone <= 0 and len(loads) == 1):
        return np.asarray(alone * per * k)
    counts = [n for n in POOLED_COUNTS if n < 2 * most * per]
    found = [alone]
    for n in counts[1:]:
        found.append(rate(n, found[-1] / counts[len(found) - 1] * n))
    slope = np.array(found) / counts
    # Pooling loss falls as 1/√k, so goodput per lane is interpolated on that scale.
    at = 1.0 / np.sqrt(np.maximum(k * per, 1))
    each = np.interp(-at, -1.0 / np.sqrt(np.array(counts)), slope)
    return isotone_per_instance((each * k * per)[None, :])[0]


def _demand(fleet: Fleet) -> Demand:
    """Return the classes of all models; a share of the mix counts as a rate."""
    classes = [(m, c) for m, model in enumerate(fleet.models) for c in model.classes]
    several = len(fleet.models) > 1
    return Demand(
        names=tuple(f"{fleet.models[m].label} {c.name}" if several else c.name for m, c in classes),
        models=tuple(m.label for m in fleet.models),
        model=np.array([m for m, _ in classes], dtype=np.int64),
        rate=np.array([c.rate or c.share for _, c in classes], dtype=np.float64),
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


def _worst_bandwidth(fleet: Fleet) -> list[float]:
    """Return, per decode GPU type, the slowest network a transfer to one instance may use [B/s].

    Transfers are charged to the network even between instances that happen to share a node.
    """
    networks = []
    for group in fleet.gpus:
        if group.network_bandwidth is not None:
            networks.append(group.network_bandwidth)
        else:
            model = fleet.models[0]
            lowered = lower(fleet.problem(group, model, model.classes[:1]))
            networks.append(lowered.device.network_bandwidth)
    worst = []
    for g, group in enumerate(fleet.gpus):
        ends = [networks[g]]
        if fleet.cross_type:
            closed = {(x.source, x.target) for x in fleet.links if x.bandwidth == 0}
            ends += [
                n
                for n, other in zip(networks, fleet.gpus, strict=True)
                if n > 0 and (other.label, group.label) not in closed
            ]
        worst.append(min(ends))
    return worst


def _tables(
    fleet: Fleet,
    demand: Demand,
    mixes: Floats,
    results: Sequence[_Pair],
    configurations: Sequence[Configuration],
) -> Tables:
    """Put the rows of all pairs into one table."""
    first = np.cumsum([0] + [len(r.configurations) for r in results])
    rows = [(int(first[n]) + i, q, f) for n, r in enumerate(results) for i, q, f in r.rows]
    known = max((f.size for _, _, f in rows), default=1)
    goodput = np.zeros((len(rows), known))
    for row, (_, _, table) in zip(goodput, rows, strict=True):
        row[: table.size] = table
        row[table.size :] = table[-1]
    count = len(fleet.models)
    kv = np.array([max(r.kv_bytes for r in results[m::count]) for m in range(count)])
    tokens = np.array([c.input_len.mean_tokens for model in fleet.models for c in model.classes])
    used = [configurations[i] for i, _, _ in rows]

    def column(values: list[int]) -> NDArray[np.int64]:
        return np.array(values, dtype=np.int64)

    return Tables(
        supply=_supply(fleet, results),
        demand=replace(demand, kv_bytes=kv[demand.model] * tokens),
        mixes=mixes,
        pools=Pools(
            gpu=column([c.gpu for c in used]),
            role=column([c.role for c in used]),
            recipe=column([q for _, q, _ in rows]),
            key=column([i for i, _, _ in rows]),
            size=column([c.parallelism.gpus for c in used]),
            goodput=goodput,
        ),
        keys=tuple(_name(fleet, c) for c in configurations),
    )


def _name(fleet: Fleet, c: Configuration) -> str:
    """Return what a configuration is called: model, role and options, GPU type."""
    pool = c.pool(1)
    return f"{fleet.models[c.model].label} {pool.role}{pool.options} on {fleet.gpus[c.gpu].label}"


def _supply(fleet: Fleet, results: Sequence[_Pair]) -> Supply:
    """Return the GPU types; prices and power from the fleet, else from the records."""
    names = tuple(g.label for g in fleet.gpus)
    models = len(fleet.models)
    known = [results[g * models].supply for g in range(len(fleet.gpus))]
    price, watts, nic, nodes = [], [], [], []
    for group, (record_price, record_watts) in zip(fleet.gpus, known, strict=True):
        price.append(record_price if group.price_per_hour is None else group.price_per_hour)
        watts.append(record_watts if group.power is None else group.power)
        model = fleet.models[0]
        device = lower(fleet.problem(group, model, model.classes[:1])).device
        nic.append(device.network_bandwidth)
        nodes.append(device.gpus_per_node)
    for needed, values, field in (
        (fleet.objective == "min_cost" or fleet.max_cost is not None, price, "price_per_hour"),
        (fleet.max_power is not None, watts, "power"),
    ):
        missing = [n for n, v in zip(names, values, strict=True) if np.isnan(v)]
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
        node_size=np.array(nodes, dtype=np.int64),
        price=np.nan_to_num(np.array(price)),
        watts=np.nan_to_num(np.array(watts)),
        nic=np.array(nic),
        fabric=fabric,
        network_share=fleet.network_share,
    )


def _requirements(
    fleet: Fleet, tables: Tables, configurations: Sequence[Configuration]
) -> Requirements:
    """Return what the plan must respect. A mix without rates asks for headroom over its shares."""
    running = np.zeros(len(configurations), dtype=np.int64)
    for d in fleet.deployed:
        for pool in d.parsed():
            matches = [
                i
                for i, c in enumerate(configurations)
                if (fleet.gpus[c.gpu].label, fleet.models[c.model].label) == (d.gpu, d.model)
                and c.pool(pool.replicas) == pool
            ]
            if matches:
                running[matches[0]] += pool.replicas
    objective = "max_headroom" if fleet.mix_only else fleet.objective
    return Requirements(
        objective=objective,
        max_gpus=fleet.max_gpus,
        max_cost=fleet.max_cost,
        max_watts=fleet.max_power,
        max_configurations=fleet.max_configurations,
        min_replicas=np.array([m.min_replicas for m in fleet.models], dtype=np.int64),
        deployed=running if fleet.deployed else np.zeros(0, dtype=np.int64),
        start_price=fleet.start_price,
        max_started_gpus=fleet.max_started_gpus,
    )
