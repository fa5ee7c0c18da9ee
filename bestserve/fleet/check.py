"""Is a plan as good as its tables say? Simulate its pools, and correct the tables where not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from bestserve.answers.goodput import verdict
from bestserve.answers.witness import Court
from bestserve.fleet.answer import pool_name
from bestserve.fleet.referee import checked, checked_tandem, measured_goodput
from bestserve.fleet.result import Verified
from bestserve.fleet.stage import Stage
from bestserve.fleet.tabulate import Evaluated
from bestserve.models.system import Collocated
from bestserve.solvers.allocation.plan import Plan
from bestserve.solvers.allocation.tables import COLLOCATED

Say = Callable[[str], None]

TOLERANCE = 0.015
"""Share of requests that may miss an objective beyond its percentile in the check: queueing
formulas are about 1 to 2 % off in rate, and near saturation that moves attainment so much."""

SECOND_SEED = 2002
"""Seed of the simulations that tell by how much a table flatters: neither the table's nor the
check's."""

SAFETY = 0.99
"""A corrected table is this share of what the simulation measured, so that it holds next time."""


RESOLVED = 2e-3
"""Relative difference of two goodputs below which they are one: what searches resolve."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What is simulated at once: a row of the plan, or a prefill row and the decode row it feeds.

    stages : at the actual mix of each row; rate [req/s]
    """

    name: str
    rows: tuple[int, ...]
    stages: tuple[Stage, ...]
    rate: float


def verified(
    tables: Evaluated, plan: Plan, progress: Say | None = None
) -> tuple[tuple[Verified, ...], dict[tuple[int, int], float]]:
    """Simulate every pool at its rates and mix; return the checks, and for failing pools the
    share of their rate that they carry in simulation, by (pool, instances).

    A prefill and a decode pool that only feed each other are simulated as one system. Runs
    through joblib, so the backend is that of the caller's `joblib.parallel_config`.
    """
    from joblib import Parallel, delayed

    parts = _parts(tables, plan)
    jobs = (delayed(_simulated)(part) for part in parts)
    checks: list[Verified] = []
    measured: dict[tuple[int, int], float] = {}
    for part, (found, carried) in zip(parts, Parallel(return_as="generator")(jobs), strict=True):
        if progress is not None:
            progress(f"simulated {part.name}")
        checks += found
        for row, share in zip(part.rows, carried, strict=False):
            measured[int(plan.pool[row]), int(plan.count[row])] = share
    return tuple(checks), measured


def _parts(tables: Evaluated, plan: Plan) -> list[_Part]:
    """Return what of a plan is simulated at once."""
    tandems = lone_tandems(tables, plan)
    parts = []
    for i in range(plan.pool.size):
        rate = float(plan.rates[i].sum())
        if rate <= 0 or i in tandems.values():
            continue
        rows = (i, tandems[i]) if i in tandems else (i,)
        pools = [(int(plan.pool[r]), int(plan.count[r])) for r in rows]
        stages = tuple(
            tables.stage(p, k, plan.rates[r]) for r, (p, k) in zip(rows, pools, strict=True)
        )
        name = " → ".join(pool_name(tables, p, k) for p, k in pools)
        parts.append(_Part(name, rows, stages, rate))
    return parts


def _simulated(part: _Part) -> tuple[list[Verified], list[float]]:
    """Return how the classes of a part fared and, if some missed, what each of its rows carries."""
    if len(part.stages) == 2:
        found = checked_tandem(*part.stages, part.rate)
    else:
        found = checked(part.stages[0], part.rate)
    rows = [
        Verified(
            pool=part.name,
            request_class=c.name,
            metric=c.metric,
            share=c.share,
            required=c.required,
            error=c.error,
            tolerance=TOLERANCE,
            ok=c.margin >= -TOLERANCE,
        )
        for c in found
    ]
    if all(row.ok for row in rows):
        return rows, []
    carried = [measured_goodput(stage, part.rate, seed=SECOND_SEED) for stage in part.stages]
    return rows, [min(rate / part.rate, 1.0) for rate in carried]


def lone_tandems(tables: Evaluated, plan: Plan) -> dict[int, int]:
    """Return prefill rows of the plan that feed exactly one decode row and are its only source."""
    pools, roles = tables.tables.pools, tables.tables.pools.role[plan.pool]
    found = {}
    for m in range(len(tables.fleet.models)):
        model = tables.tables.recipe_model()[pools.recipe[plan.pool]]
        prefills = np.flatnonzero((roles == 1) & (model == m))
        decodes = np.flatnonzero((roles == 2) & (model == m))
        if prefills.size == 1 and decodes.size == 1:
            found[int(prefills[0])] = int(decodes[0])
    return found


def settled(tables: Evaluated, plan: Plan, known: Collection[int]) -> dict[int, float]:
    """Return how many times the goodput in the tables `bestserve.goodput` answers, by pool.

    Of the plan's collocated pools of one class, which that is asked about with the same words,
    except those already `known`; 1 where the difference is below what searches resolve.
    """
    pools, alone = tables.tables.pools, 1 + tables.fleet.spares
    shares = {}
    for p in set(plan.pool.tolist()) - set(known):
        stage = tables.stage(p, alone)
        alike = stage.role == COLLOCATED and stage.hybrid is None
        if not alike or len(stage.loads) > 1 or stage.routing != "random":
            continue
        load, claimed = stage.loads[0], float(pools.goodput[p, alone])
        system = Collocated(lane=stage.lane, replicas=stage.lanes, lengths=load.lengths)
        share = verdict(system, Court(load.target)).found.rate / claimed
        shares[p] = share if abs(share - 1) > RESOLVED else 1.0
    return shares


def scaled(tables: Evaluated, shares: Mapping[int, float]) -> Evaluated:
    """Return tables in which pools have these many times their goodput."""
    pools = tables.tables.pools
    goodput = pools.goodput.copy()
    for p, share in shares.items():
        goodput[p] *= share
    lowered = replace(tables.tables, pools=replace(pools, goodput=goodput))
    return replace(tables, tables=lowered)


def tightened(tables: Evaluated, measured: dict[tuple[int, int], float]) -> Evaluated:
    """Return tables in which failing pools claim no more than the simulation found.

    What would take their place, instances of other sizes and limits of the same type, role and
    recipe, is simulated too: the same formula flatters it as much.
    """
    return scaled(tables, _suspects(tables, measured))


def _suspects(tables: Evaluated, measured: dict[tuple[int, int], float]) -> dict[int, float]:
    """Return by how much to lower the tables of failing pools and of those in their place."""
    from joblib import Parallel, delayed

    pools, alone = tables.tables.pools, 1 + tables.fleet.spares
    shares: dict[int, float] = {}
    for (pool, _), share in measured.items():
        shares[pool] = min(SAFETY * share, SAFETY, shares.get(pool, 1.0))
    others = [
        p
        for p in range(pools.count)
        if p not in shares
        and pools.goodput[p, alone : alone + 1].sum() > 0
        and any(
            (pools.gpu[p], pools.role[p], pools.recipe[p])
            == (pools.gpu[q], pools.role[q], pools.recipe[q])
            for q in shares
        )
    ]
    claimed = [float(pools.goodput[p, alone]) for p in others]
    jobs = (
        delayed(measured_goodput)(tables.stage(p, alone), rate, seed=SECOND_SEED)
        for p, rate in zip(others, claimed, strict=True)
    )
    for p, rate, carried in zip(others, claimed, Parallel()(jobs), strict=True):
        if carried < rate:
            shares[p] = SAFETY * carried / rate
    return shares
