"""Whether a plan really keeps every rule, checked on the tables by other means than the solver's.

Nothing here is shared with the programme: node packing is tried out exhaustively, flows are
added up pool by pool, and goodput is looked up.
"""

from __future__ import annotations

import numpy as np

from bestserve.solvers.allocation.packing import fits
from bestserve.solvers.allocation.plan import Plan, used_rate
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    ROLES,
    Requirements,
    Tables,
)

RELATIVE = 1e-6
"""Sums of rates may miss by this much of themselves: the solvers' own tolerance."""


def violations(tables: Tables, requirements: Requirements, plan: Plan) -> list[str]:
    """Return a sentence for each rule that the plan breaks; empty if it keeps them all."""
    return [
        *_counts(tables, requirements, plan),
        *_nodes(tables, plan),
        *_budgets(tables, requirements, plan),
        *_rates(tables, plan),
        *_pairs(tables, plan),
        *_network(tables, plan),
        *_served(tables, requirements, plan),
    ]


def _counts(tables: Tables, requirements: Requirements, plan: Plan) -> list[str]:
    """Instance counts: whole, known, and enough replicas; a pool appears once."""
    wrong = []
    if len(set(plan.pool.tolist())) != plan.pool.size:
        wrong.append("a pool appears twice")
    fewest = requirements.fewest(tables)
    for p, k in zip(plan.pool.tolist(), plan.count.tolist(), strict=True):
        if not 1 <= k < tables.pools.goodput.shape[1]:
            wrong.append(f"pool {p} has {k} instances, outside its table")
        if k < fewest[p]:
            wrong.append(f"pool {p} has {k} instances, fewer than {fewest[p]}")
    return wrong


def _nodes(tables: Tables, plan: Plan) -> list[str]:
    """Every instance has a place on the nodes of its GPU type."""
    wrong = []
    for g, name in enumerate(tables.supply.names):
        counts: dict[int, int] = {}
        for p, k in zip(plan.pool.tolist(), plan.count.tolist(), strict=True):
            if tables.pools.gpu[p] == g:
                size = int(tables.pools.size[p])
                counts[size] = counts.get(size, 0) + k
        gpus, node = int(tables.supply.gpus[g]), int(tables.supply.node_size[g])
        if sum(size * k for size, k in counts.items()) > gpus:
            wrong.append(f"more {name} used than there are")
        elif not fits(counts, gpus, node):
            wrong.append(f"the instances do not fit the nodes of {name}")
    return wrong


def _budgets(tables: Tables, requirements: Requirements, plan: Plan) -> list[str]:
    """GPUs, money, power, configurations and GPUs started."""
    used = {
        "GPUs": (float(plan.gpus(tables).sum()), requirements.max_gpus),
        "$/h": (plan.cost(tables, requirements), requirements.max_cost),
        "W": (plan.watts(tables), requirements.max_watts),
        "configurations": (
            float(len(set(tables.pools.key[plan.pool].tolist()))),
            requirements.max_configurations,
        ),
        "GPUs started": (
            plan.started_gpus(tables, requirements),
            requirements.max_started_gpus,
        ),
    }
    return [
        f"{amount:g} {unit} used, {limit:g} allowed"
        for unit, (amount, limit) in used.items()
        if limit is not None and amount > limit * (1 + RELATIVE)
    ]


def _rates(tables: Tables, plan: Plan) -> list[str]:
    """No pool carries more of its mix than its goodput."""
    wrong = []
    total = used_rate(tables, plan.pool, plan.rates)
    outside = (tables.mixes[tables.pools.recipe[plan.pool]] == 0) & (plan.rates > 0)
    goodput = plan.goodput(tables)
    for i, p in enumerate(plan.pool.tolist()):
        if outside[i].any():
            wrong.append(f"pool {p} serves a class that its recipe does not hold")
        if total[i] > goodput[i] * (1 + RELATIVE):
            wrong.append(f"pool {p} carries {total[i]:g} req/s, its goodput is {goodput[i]:g}")
    return wrong


def _pairs(tables: Tables, plan: Plan) -> list[str]:
    """What prefill pools emit is what flows carry is what decode pools take."""
    wrong = []
    for role, end in ((PREFILL, 0), (DECODE, 1)):
        for g, name in enumerate(tables.supply.names):
            mine = (tables.pools.role[plan.pool] == role) & (tables.pools.gpu[plan.pool] == g)
            have = plan.rates[mine].sum(axis=0)
            for w, label in enumerate(tables.demand.names):
                at = (plan.pairs[:, end] == g) & (plan.pairs[:, 2] == w)
                moved = float(plan.flows[at].sum())
                if abs(moved - have[w]) > RELATIVE * max(moved, float(have[w]), 1e-9):
                    wrong.append(f"{ROLES[role]} of {label} on {name} does not match its flows")
    return wrong


def _network(tables: Tables, plan: Plan) -> list[str]:
    """KV transfers stay within the share of the network cards and of the fabric."""
    wrong, supply = [], tables.supply
    moved = tables.demand.kv_bytes[plan.pairs[:, 2]] * plan.flows
    for role, end in ((PREFILL, 0), (DECODE, 1)):
        for g, name in enumerate(supply.names):
            mine = (tables.pools.role[plan.pool] == role) & (tables.pools.gpu[plan.pool] == g)
            cards = float((tables.pools.size[plan.pool] * plan.count)[mine].sum())
            load = float(moved[plan.pairs[:, end] == g].sum())
            if load > 0 and load > supply.network_share * supply.nic[g] * cards * (1 + RELATIVE):
                wrong.append(f"KV transfers exceed the network cards of {ROLES[role]} on {name}")
    for g, h in {(int(a), int(b)) for a, b, _ in plan.pairs.tolist()}:
        load = float(moved[(plan.pairs[:, 0] == g) & (plan.pairs[:, 1] == h)].sum())
        if load > supply.network_share * supply.fabric[g, h] * (1 + RELATIVE):
            wrong.append(f"KV transfers exceed the fabric {supply.names[g]} → {supply.names[h]}")
    return wrong


def _served(tables: Tables, requirements: Requirements, plan: Plan) -> list[str]:
    """Classes get what the plan says, and the plan says what was asked."""
    wrong = []
    collocated = tables.pools.role[plan.pool] == COLLOCATED
    total = plan.rates[collocated].sum(axis=0)
    np.add.at(total, plan.pairs[:, 2], plan.flows)
    for w, name in enumerate(tables.demand.names):
        if total[w] < plan.served[w] * (1 - RELATIVE):
            wrong.append(f"{name}: {plan.served[w]:g} req/s claimed, {total[w]:g} carried")
    rate = tables.demand.rate
    need = {
        "min_cost": rate,
        "max_headroom": rate * plan.objective,
        "max_goodput": np.zeros_like(rate),
    }[requirements.objective]
    for w, name in enumerate(tables.demand.names):
        if plan.served[w] < need[w] * (1 - RELATIVE):
            wrong.append(f"{name}: {plan.served[w]:g} req/s served, {need[w]:g} needed")
    if requirements.objective == "max_goodput":
        value = float(tables.demand.value @ np.minimum(plan.served, rate))
        if value < plan.objective * (1 - RELATIVE):
            wrong.append(f"goodput {plan.objective:g} claimed, {value:g} served")
    return wrong
