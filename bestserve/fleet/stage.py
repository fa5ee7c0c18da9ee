"""A pool as the queueing models and the simulator see it: lanes that serve a mix of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bestserve.models.goodput import decode_goodput, goodput, prefill_goodput
from bestserve.models.hybrid import balanced_share
from bestserve.models.lane_arrivals import known_part
from bestserve.models.system import Collocated, Hybrid, Lane, Lengths, Routing, Target, Transfer
from bestserve.solvers.allocation.tables import COLLOCATED, PREFILL


@dataclass(frozen=True, slots=True)
class ClassLoad:
    """One class in a mix: `share` of the requests, with its own lengths and objectives."""

    name: str
    share: float
    lengths: Lengths
    target: Target


@dataclass(frozen=True, slots=True)
class Stage:
    """A pool under a mix of classes.

    role : collocated, prefill or decode; lanes : of the whole pool; transfer : of KV from prefill,
    for decode; Poisson arrivals over the whole pool, spread by `routing`
    hybrid : what each of the lanes is, where it is a hybrid of several
    """

    role: int
    lane: Lane
    lanes: int
    loads: tuple[ClassLoad, ...]
    transfer: Transfer = field(default_factory=Transfer)
    routing: Routing = "random"
    hybrid: Hybrid | None = None


def serving(unit: Hybrid, lengths: Lengths | None, count: int) -> Hybrid:
    """Return so many units as one system, for requests of these lengths in balance.

    lengths : None keeps the share of prompts that balances all classes together
    """
    if lengths is not None:
        unit = replace(unit, lengths=lengths)
        unit = replace(unit, local_prefill_share=balanced_share(unit))
    return replace(
        unit,
        prefill_replicas=unit.prefill_replicas * count,
        decode_replicas=unit.decode_replicas * count,
    )


Measure = Callable[[Stage, float, float], float]
"""Simulates: (stage, a guess, a floor [req/s]) → highest total rate at which every class meets its
SLO; 0 where they do not at the floor."""


def stage_target(role: int, target: Target) -> Target:
    """Return the objectives that a stage answers for: TTFT is prefill's, TPOT is decode's.

    Stalls and gaps between tokens are decode's, too; what counts from arrival is no stage's alone.
    """
    if role == COLLOCATED:
        return target
    if role == PREFILL:
        return Target(ttft=target.ttft, ttft_percentile=target.ttft_percentile)
    return Target(tpot=target.tpot, tpot_percentile=target.tpot_percentile, tokens=target.tokens)


def stage_goodput(stage: Stage, measure: Measure | None = None, floor: float = 0.0) -> float:
    """Return the highest total rate of the mix at which every class meets its SLO [req/s].

    Analytic for one class under random routing, where lanes are independent and the goodput of
    the pool is that of a lane times their number; simulated for mixes, for routing that pools,
    and where the analytic answer carries low trust. Without `measure`, those are 0 (mixes and
    pooling) or analytic (low trust). What does not reach `floor` is 0, and known sooner.
    """
    pooled = stage.lanes > 1 or stage.hybrid is not None
    if len(stage.loads) > 1 or (stage.routing != "random" and pooled):
        return 0.0 if measure is None else measure(stage, floor, floor)
    load, least = stage.loads[0], floor / stage.lanes
    target = stage_target(stage.role, load.target)
    if stage.hybrid is not None:
        found = goodput(known_part(serving(stage.hybrid, load.lengths, 1)), target, floor=least)
    elif stage.role == COLLOCATED:
        system = Collocated(lane=stage.lane, replicas=1, lengths=load.lengths)
        found = goodput(system, target, floor=least)
    elif stage.role == PREFILL:
        found = prefill_goodput(stage.lane, load.lengths, target, floor=least)
    else:
        found = decode_goodput(stage.lane, load.lengths, target, stage.transfer, floor=least)
    rate = found.rate
    doubted = not found.trust.high or target.without_formula
    if doubted and measure is not None and target.asked and found.high > 0:
        rate = measure(replace(stage, lanes=1), rate, least)
    return rate * stage.lanes
