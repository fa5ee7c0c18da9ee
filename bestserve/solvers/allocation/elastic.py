"""Why no plan exists, and what least would have to give.

Every requirement gets a slack: GPUs of each type, budgets, the number of configurations, replica
minima, the rate of each class. First each requirement is relaxed alone, as little as possible;
if none suffices alone, the smallest set is sought, and then the least amounts within it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.solvers.allocation import programme as formulation
from bestserve.solvers.allocation.algebra import Algebra, Rows, Variable, compile_model
from bestserve.solvers.allocation.caps import attainable, shorten
from bestserve.solvers.allocation.columns import choices
from bestserve.solvers.allocation.highs import Options, Outcome, Stop, solve
from bestserve.solvers.allocation.reduction import (
    drop_dominated,
    from_tables,
    reduce_configurations,
)
from bestserve.solvers.allocation.tables import Requirements, Tables

MOST_GROWTH = 4
"""Extra GPUs of one type that are considered: this many times all GPUs there are."""

MOST_SHED = 0.95
"""Share of a class's rate that may be turned away; more would be another problem without it."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One requirement and by how much it must give.

    kind : "gpus", "max_gpus", "max_cost", "max_watts", "max_configurations", "min_replicas",
    "max_started_gpus", "rate"; index : GPU type, model or class; amount : in `unit`
    """

    kind: str
    index: int
    name: str
    amount: float
    unit: str

    def __str__(self) -> str:
        return {
            "gpus": f"{self.amount:g} more {self.name}",
            "max_gpus": f"a GPU budget {self.amount:g} GPUs higher",
            "max_cost": f"a cost budget {self.amount:.4g} $/h higher",
            "max_watts": f"a power budget {self.amount:.4g} W higher",
            "max_configurations": f"{self.amount:g} more distinct configurations",
            "min_replicas": f"fewer replicas of {self.name} than its minimum",
            "max_started_gpus": f"{self.amount:g} more GPUs allowed to start",
            "rate": f"{self.amount:.4g} req/s less of {self.name}",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why there is no plan.

    unreachable : classes that no configuration serves within their SLO, whatever the GPUs
    alone : requirements that suffice when relaxed alone, least relative change first
    together : a smallest set when none suffices alone
    """

    unreachable: tuple[str, ...]
    alone: tuple[Relaxation, ...]
    together: tuple[Relaxation, ...]

    def __str__(self) -> str:
        if self.unreachable:
            names = ", ".join(self.unreachable)
            return f"no configuration on any GPU type meets the SLO of {names}"
        if self.alone:
            return "any one of these would do: " + "; ".join(map(str, self.alone))
        if self.together:
            return "these together would do: " + "; ".join(map(str, self.together))
        return "no relaxation was found in the time given"


def explain(
    tables: Tables, requirements: Requirements, options: Options | None = None
) -> Explanation:
    """Return the smallest relaxation of an infeasible problem.

    Problems of "max_headroom" and "max_goodput" are read as: carry something of every class.
    """
    options = options or Options(gap=1e-3, seconds=30.0)
    reach = attainable(tables, from_tables(tables, replace(requirements, min_replicas=_none())))
    if np.any(reach <= 0):
        missing = np.flatnonzero(_unreachable(tables))
        if missing.size:
            return Explanation(tuple(tables.demand.names[w] for w in missing), (), ())
    elastic = _Elastic(tables, requirements)
    stop = Stop(options.seconds)
    alone = []
    for r, slack in enumerate(elastic.slacks):
        if stop.now:
            break
        outcome = elastic.solve(options, stop, only=r)
        if outcome.point is not None:
            found = elastic.relaxations(outcome.point)
            alone += [(elastic.relative(outcome.point), x) for x in found if x.kind == slack.kind]
    if alone:
        alone.sort(key=lambda pair: pair[0])
        return Explanation((), tuple(x for _, x in alone), ())
    return Explanation((), (), elastic.together(options, stop))


def _none() -> Ints:
    return np.zeros(0, dtype=np.int64)


def _unreachable(tables: Tables) -> Bools:
    """Return the classes that no pool, or no pair of prefill and decode pools, serves [w]."""
    serves = np.zeros((3, tables.demand.count), dtype=bool)
    able = tables.pools.goodput[:, -1] > 0
    for role in range(3):
        mine = able & (tables.pools.role == role)
        serves[role] = np.any(tables.mixes[tables.pools.recipe[mine]] > 0, axis=0)
    return np.asarray(~(serves[0] | (serves[1] & serves[2])))


@dataclass(frozen=True, slots=True)
class _Slack:
    """One requirement's slack: what it is called, its unit, its scale and its largest amount."""

    kind: str
    index: int
    name: str
    unit: str
    scale: float
    most: float
    integer: bool


class _Elastic:
    """The programme with a slack on every requirement."""

    def __init__(self, tables: Tables, requirements: Requirements) -> None:
        self.requirements = replace(requirements, objective="min_cost")
        self.slacks = _slacks(tables, requirements)
        extra = np.array([s.most if s.kind == "gpus" else 0 for s in self.slacks])
        growth = np.zeros(tables.supply.count, dtype=np.int64)
        for slack, more in zip(self.slacks, extra, strict=True):
            if slack.kind == "gpus":
                growth[slack.index] = int(more)
        self.tables = tables
        grown = _grown(tables, growth)
        loose = replace(self.requirements, min_replicas=_none())
        reduced = from_tables(grown, loose)
        reduced = reduce_configurations(reduced, grown, loose)
        reduced = shorten(grown, reduced, tables.demand.rate)
        reduced = drop_dominated(reduced, grown, loose)
        # A minimum of replicas is relaxed by column, so those pools need one per count.
        fewest = requirements.fewest(tables)[reduced.source[:, 1]]
        reduced = replace(reduced, linear=reduced.linear & (fewest == 1))
        columns = choices(reduced)
        self.algebra = formulation.state_algebra(
            grown, loose, reduced, columns, tables.demand.rate, False, 1.0
        )
        self.few = columns.count < fewest[columns.pool]
        self.model_of = tables.recipe_model()[reduced.recipe[columns.pool]]
        self.growth = growth
        self._loosen()

    def _loosen(self) -> None:
        """Add the slacks: amounts a ≥ 0 and switches z ∈ {0, 1} with a ≤ most · z."""
        old, count = self.algebra, len(self.slacks)
        new = Algebra(dict(old.variables), [], {})
        most = np.array([s.most for s in self.slacks])
        new.variables["a"] = Variable(most)
        new.variables["z"] = Variable(np.ones(count), "binary")
        whole = np.array([s.integer for s in self.slacks])
        new.variables["w"] = Variable(most[whole], "integer")
        for rows in old.rows:
            new.rows.append(self._loosened(rows))
        new.add("switch", {"a": np.eye(count), "z": -np.diag(most)}, np.zeros(count), ("",) * count)
        tie = np.eye(count)[whole]
        eye = np.eye(int(whole.sum()))
        zero = np.zeros(int(whole.sum()))
        new.add("whole", {"a": tie, "w": -eye}, zero, ("",) * zero.size)
        new.add("whole too", {"a": -tie, "w": eye}, zero, ("",) * zero.size)
        for r, slack in enumerate(self.slacks):
            if slack.kind == "min_replicas":
                takes = (self.few & (self.model_of == slack.index)).astype(np.float64)
                switch = np.zeros((1, count))
                switch[0, r] = -max(takes.sum(), 1.0)
                new.add("replicas", {"x": takes[None, :], "z": switch}, np.zeros(1), ("",))
        self.algebra = new

    def _loosened(self, rows: Rows) -> Rows:
        """Return the rows with the slacks that loosen them."""
        supply, upper = self.tables.supply, rows.upper.copy()
        give = np.zeros((rows.upper.size, len(self.slacks)))
        single = {
            "GPU budget": "max_gpus",
            "cost budget": "max_cost",
            "power budget": "max_watts",
            "configurations": "max_configurations",
            "started GPUs": "max_started_gpus",
        }
        for r, slack in enumerate(self.slacks):
            if rows.name == "GPUs" and slack.kind == "gpus":
                upper[slack.index] = supply.gpus[slack.index]
                give[slack.index, r] = -1.0
            elif rows.name == f"nodes {slack.name}" and slack.kind == "gpus":
                node = int(supply.node_size[slack.index])
                upper[0] = int(supply.gpus[slack.index]) // node
                give[0, r] = -1.0 / node
            elif rows.name == "demand" and slack.kind == "rate":
                give[slack.index, r] = -1.0 / self.tables.demand.rate[slack.index]
            elif single.get(rows.name) == slack.kind:
                give[0, r] = -1.0
        if not give.any():
            return rows
        return Rows(rows.name, {**rows.terms, "a": give}, upper, rows.labels)

    def solve(
        self, options: Options, stop: Stop, *, only: int | None = None, at_most: int | None = None
    ) -> Outcome:
        """Minimise the relative amounts, or the number of slacks when neither limit is given."""
        algebra = Algebra(dict(self.algebra.variables), list(self.algebra.rows), {})
        count = len(self.slacks)
        scale = np.array([s.scale for s in self.slacks])
        # min_replicas has no amount: its switch itself is what it costs.
        switch = np.array([1.0 if s.kind == "min_replicas" else 0.0 for s in self.slacks])
        if only is None and at_most is None:
            algebra.cost["z"] = np.ones(count)
        else:
            algebra.cost["a"], algebra.cost["z"] = 1.0 / scale, switch
        allowed = np.ones(count)
        if only is not None:
            allowed = np.eye(count)[only]
        algebra.variables["z"] = Variable(allowed, "binary")
        algebra.add("allowed", {"z": np.eye(count)}, allowed, ("",) * count)
        if at_most is not None:
            algebra.add("few", {"z": np.ones((1, count))}, np.array([float(at_most)]), ("",))
        self.compiled = compile_model(algebra)
        return solve(self.compiled.model, options, stop=stop)

    def relaxations(self, point: Floats) -> tuple[Relaxation, ...]:
        """Return the requirements that a point relaxes, and by how much."""
        amount = point[self.compiled.columns["a"]]
        switch = point[self.compiled.columns["z"]]
        found = []
        for slack, a, z in zip(self.slacks, amount, switch, strict=True):
            if slack.kind == "min_replicas":
                if z > 0.5:
                    found.append(Relaxation(slack.kind, slack.index, slack.name, 1.0, slack.unit))
            elif a > 1e-6 * slack.scale:
                value = float(np.round(a)) if slack.integer else float(a) * (1 + 1e-6)
                found.append(Relaxation(slack.kind, slack.index, slack.name, value, slack.unit))
        return tuple(found)

    def relative(self, point: Floats) -> float:
        """Return the largest relative change that a point needs."""
        amount = point[self.compiled.columns["a"]]
        return float(np.max(amount / np.array([s.scale for s in self.slacks]), initial=0.0))

    def together(self, options: Options, stop: Stop) -> tuple[Relaxation, ...]:
        """Return a smallest set of requirements with the least amounts."""
        fewest = self.solve(options, stop)
        if fewest.point is None:
            return ()
        best = self.relaxations(fewest.point)
        used = int(np.round(fewest.point[self.compiled.columns["z"]].sum()))
        least = self.solve(options, stop, at_most=used)
        return self.relaxations(least.point) if least.point is not None else best


def _slacks(tables: Tables, requirements: Requirements) -> list[_Slack]:
    """Return a slack for every requirement that is there."""
    supply, demand = tables.supply, tables.demand
    total = int(supply.gpus.sum())
    most = float(MOST_GROWTH * max(total, int(supply.node_size.max())))
    found = [
        _Slack("gpus", g, name, "GPUs", max(float(supply.gpus[g]), 1.0), most, True)
        for g, name in enumerate(supply.names)
    ]
    limits: list[tuple[str, Any, str, bool]] = [
        ("max_gpus", requirements.max_gpus, "GPUs", True),
        ("max_cost", requirements.max_cost, "$/h", False),
        ("max_watts", requirements.max_watts, "W", False),
        ("max_configurations", requirements.max_configurations, "configurations", True),
        ("max_started_gpus", requirements.max_started_gpus, "GPUs", True),
    ]
    room = {
        "max_gpus": most + total,
        "max_cost": (most + total) * float(supply.price.max() + requirements.start_price),
        "max_watts": (most + total) * float(supply.watts.max()),
        "max_configurations": float(len(tables.keys)),
        "max_started_gpus": most + total,
    }
    for kind, limit, unit, whole in limits:
        if limit is not None:
            found.append(_Slack(kind, 0, "", unit, max(float(limit), 1.0), room[kind], whole))
    for m, fewest in enumerate(requirements.min_replicas.tolist()):
        if fewest > 1:
            name = demand.models[m]
            found.append(_Slack("min_replicas", m, name, "replicas", float(fewest), 1.0, False))
    found += [
        _Slack("rate", w, name, "req/s", rate, MOST_SHED * rate, False)
        for w, (name, rate) in enumerate(zip(demand.names, demand.rate.tolist(), strict=True))
    ]
    return found


def _grown(tables: Tables, growth: Ints) -> Tables:
    """Return tables with more GPUs, long enough to carry every class's demand on any pool."""
    grown = tables.with_supply(gpus=tables.supply.gpus + growth)
    mixes = tables.mixes[tables.pools.recipe]
    rate = np.where(mixes > 0, tables.demand.rate / np.where(mixes > 0, mixes, 1.0), 0.0)
    known = tables.pools.goodput.shape[1] - 1
    slope = tables.pools.goodput[:, -1] / max(known, 1)
    needed = np.ceil(rate.max(axis=1) / np.where(slope > 0, slope, np.inf))
    room = grown.supply.gpus[tables.pools.gpu] // tables.pools.size
    return grown.extended(int(np.minimum(needed, room).max(initial=known)))
