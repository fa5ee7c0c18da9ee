"""Simulate the pools of a fleet: goodput of mixes and pooled lanes, and checks of finished plans.

Requests carry their class, so every class is held to its own objectives. A prefill pool is
simulated with requests of one output token; a decode pool behind a prefill that takes no time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.fleet.stage import ClassLoad, Stage, serving, stage_target
from bestserve.models.refused import REFUSABLE
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import (
    Collocated,
    Disaggregated,
    Lane,
    Lengths,
    System,
    Target,
    Transfer,
)
from bestserve.models.token_times import Reader, readers
from bestserve.simulator import Requests, saturation_rate
from bestserve.simulator.inputs import sample_lengths
from bestserve.simulator.prepared import prepare
from bestserve.simulator.result import SimulationResult
from bestserve.simulator.run import OPEN_COOLDOWN, OPEN_WARMUP, run_prepared
from bestserve.solvers.allocation.tables import COLLOCATED, DECODE, PREFILL

BATCHES = 20
"""Parts of a run whose means tell its error."""
REQUESTS = 20_000
"""Requests per run and four lanes: goodput to about 1.5 % (coefficient of variation)."""

MOST_INDEPENDENT, MOST_POOLED = 8, 64
"""Lanes simulated at most, under random routing and any other. Lanes are alike: under random
routing each is a system of its own, so a few at the rate of each stand for all; behind a router
that looks at load, goodput per lane has stopped rising by then."""

TOLERANCE = 2e-3
"""Relative width at which bisection stops: below the noise of a run."""

TABLE_SEED, CHECK_SEED = 1, 1001
"""Tables and checks draw different requests: a lucky table does not confirm itself."""

TRIM = (OPEN_WARMUP, OPEN_COOLDOWN)

LEAST = 1e-3
"""Share of saturation below which a goodput counts as none."""

INSTANT = Lane(
    step=StepTime(w=1e-9, c=0.0, e=0.0, a=0.0, k=0.0),
    max_num_seqs=100_000,
    max_num_batched_tokens=100_000,
)
"""A lane that takes no time worth mentioning."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Requests of a mix in random order, and the class of each [n]."""

    requests: Requests
    labels: Ints


@dataclass(frozen=True, slots=True)
class ClassCheck:
    """How one class fared on one objective: the share that met it, and the share required.

    error : standard error of the share, from means of consecutive batches [1]
    """

    name: str
    metric: str
    share: float
    required: float
    error: float

    @property
    def margin(self) -> float:
        """Share that met the objective above what was required [1]."""
        return self.share - self.required


@lru_cache(maxsize=4)
def labelled_requests(loads: tuple[ClassLoad, ...], n: int, seed: int, role: int) -> Labelled:
    """Draw n requests of a mix; classes in the exact proportions of their shares.

    Kept for the mix at hand, so that all its configurations meet the same.
    """
    shares = np.array([load.share for load in loads])
    counts = np.maximum(np.round(shares / shares.sum() * n).astype(int), 1)
    parts = [
        sample_lengths(load.lengths, int(count), seed * 101 + w)
        for w, (load, count) in enumerate(zip(loads, counts, strict=True))
    ]
    order = np.random.default_rng([seed, 7]).permutation(int(counts.sum()))
    labels = np.repeat(np.arange(len(loads)), counts)[order]
    outputs = np.concatenate([p.output_len for p in parts])[order]
    cached = [p.cached if p.cached is not None else np.zeros(len(p), np.int32) for p in parts]
    requests = Requests(
        input_len=np.concatenate([p.input_len for p in parts])[order],
        output_len=np.ones_like(outputs) if role == PREFILL else outputs,
        cached=np.concatenate(cached)[order],
    )
    return Labelled(requests, labels)


def stage_system(stage: Stage) -> System:
    """Return the queueing system of a stage; its lengths are replaced by labelled requests."""
    nothing = Lengths(
        inputs=np.ones(1), input_weights=np.ones(1), outputs=np.ones(1), output_weights=np.ones(1)
    )
    if stage.hybrid is not None:
        one = stage.loads[0].lengths if len(stage.loads) == 1 else None
        system = serving(stage.hybrid, one, stage.lanes)
        return replace(system, lengths=nothing, routing=stage.routing)
    if stage.role == COLLOCATED:
        return Collocated(
            lane=stage.lane, replicas=stage.lanes, lengths=nothing, routing=stage.routing
        )
    prefill, decode = (stage.lane, INSTANT) if stage.role == PREFILL else (INSTANT, stage.lane)
    counts = (stage.lanes, 1) if stage.role == PREFILL else (1, stage.lanes)
    return Disaggregated(
        prefill=prefill,
        prefill_replicas=counts[0],
        decode=decode,
        decode_replicas=counts[1],
        lengths=nothing,
        transfer=stage.transfer if stage.role == DECODE else Transfer(),
        routing=stage.routing,
    )


def reader_of(loads: tuple[ClassLoad, ...], labels: Ints, role: int) -> Reader | None:
    """Return the readers of each class's requests, if there are objectives on tokens."""
    asked = [stage_target(role, load.target).tokens for load in loads]
    return readers([None if tokens is None else tokens.reader for tokens in asked], labels)


def class_checks(
    result: SimulationResult, labels: Ints, loads: tuple[ClassLoad, ...], role: int
) -> list[ClassCheck]:
    """Return the share of each class that met each of its objectives; refused ones met none."""
    counted = np.zeros(len(result), dtype=bool)
    counted[slice(*result.window)] = True
    checks = []
    for w, load in enumerate(loads):
        mine = counted & (labels == w)
        target: Target = stage_target(role, load.target)
        if not mine.any():
            continue
        good = result.met_by(mine, target)
        for metric in target.asked:
            share, error = float(good[metric].mean()), _batch_error(good[metric])
            checks.append(ClassCheck(load.name, metric, share, target.required(metric), error))
    return checks


def _batch_error(good: Bools | Floats) -> float:
    """Return the standard error of the mean: requests near each other in time fare alike."""
    batches = np.array([part.mean() for part in np.array_split(good, BATCHES) if part.size])
    return float(batches.std(ddof=1) / math.sqrt(batches.size)) if batches.size > 1 else 0.0


def run_size(stage: Stage) -> int:
    """Return how many requests to simulate: 5,000 a lane, and more for less than four lanes."""
    return REQUESTS * math.ceil(stage.lanes / 4)


def stand_in(stage: Stage) -> Stage:
    """Return the stage with as many lanes as have to be simulated."""
    most = MOST_INDEPENDENT if stage.routing == "random" else MOST_POOLED
    return replace(stage, lanes=min(stage.lanes, most))


def stand_ins(prefill: Stage, decode: Stage) -> tuple[Stage, Stage]:
    """Return two stages in tandem with as many lanes as have to be simulated.

    Their proportion is kept to within 1 %, because the rate of a lane on either side is what
    latency depends on; where it cannot be, they stay as they are.
    """
    if max(prefill.lanes, decode.lanes) <= MOST_POOLED:
        return prefill, decode
    few, many = sorted((prefill.lanes, decode.lanes))
    lanes = np.arange(1, MOST_POOLED + 1)
    fewer = np.maximum(np.rint(lanes * few / many), 1).astype(int)
    off = np.abs(fewer / lanes - few / many) / (few / many)
    close = np.flatnonzero(off <= 0.01)
    if close.size == 0:
        return prefill, decode
    best = int(close[-1])
    sizes = {few: int(fewer[best]), many: int(lanes[best])}
    return (
        replace(prefill, lanes=sizes[prefill.lanes]),
        replace(decode, lanes=sizes[decode.lanes]),
    )


def measured_goodput(
    stage: Stage, near: float = 0.0, floor: float = 0.0, *, seed: int = TABLE_SEED
) -> float:
    """Return the highest total rate at which every class meets its SLO, by secants [req/s].

    The same requests at every rate; never beyond saturation. 0 where some class does not at
    `floor`, where none does at a thousandth of saturation, and where requests are refused. Many
    lanes are simulated by some of them (`stand_in`).
    """
    whole, stage = stage.lanes, stand_in(stage)
    scale = stage.lanes / whole
    near, floor = near * scale, floor * scale
    system = stage_system(stage)
    drawn = labelled_requests(stage.loads, run_size(stage), seed, stage.role)
    prepared = prepare(system, len(drawn.requests), seed, drawn.requests)

    reader = reader_of(stage.loads, drawn.labels, stage.role)

    def margin(rate: float) -> float:
        result = run_prepared(prepared, rate, TRIM, reader=reader)
        checks = class_checks(result, drawn.labels, stage.loads, stage.role)
        return min((check.margin for check in checks), default=0.0)

    if prepared.refused.mean() > REFUSABLE or (floor > 0 and margin(floor) < 0):
        return 0.0
    limit = saturation_rate(system, seed=seed, given=drawn.requests)
    if limit <= floor or (floor <= 0 and margin(LEAST * limit) < 0):
        return 0.0
    guess = near if floor < near < limit else max(0.7 * limit, (floor + limit) / 2)
    return closed_in(margin, max(floor, LEAST * limit), limit, guess) / scale


def closed_in(margin: Callable[[float], float], low: float, high: float, guess: float) -> float:
    """Return the rate at which `margin` turns negative, known to be ≥ 0 at `low` [req/s].

    Secants where both ends have been looked at, kept inside the bracket; an end that stays twice
    counts half (Illinois).
    """
    at_low, at_high, stayed = math.nan, math.nan, ""
    while high - low > TOLERANCE * high:
        value = margin(guess)
        if value >= 0:
            low, at_low = guess, value
            at_high = at_high / 2 if stayed == "high" else at_high
            stayed = "high"
        else:
            high, at_high = guess, value
            at_low = at_low / 2 if stayed == "low" else at_low
            stayed = "low"
        part = at_low / (at_low - at_high)
        if not 0 <= part <= 1:
            guess = (low + high) / 2 if low > high / 4 else math.sqrt(low * high)
            continue
        edge = 0.45 * TOLERANCE * high
        guess = min(max(low + part * (high - low), low + edge), high - edge)
    return low


def checked(stage: Stage, rate: float, *, seed: int = CHECK_SEED) -> list[ClassCheck]:
    """Simulate a stage at a rate with fresh requests and return how each class fared."""
    part = stand_in(stage)
    drawn = labelled_requests(part.loads, run_size(part), seed, part.role)
    prepared = prepare(stage_system(part), len(drawn.requests), seed, drawn.requests)
    reader = reader_of(part.loads, drawn.labels, part.role)
    result = run_prepared(prepared, rate * part.lanes / stage.lanes, TRIM, reader=reader)
    return class_checks(result, drawn.labels, part.loads, part.role)


def checked_tandem(
    prefill: Stage, decode: Stage, rate: float, *, seed: int = CHECK_SEED
) -> list[ClassCheck]:
    """Simulate a prefill pool that feeds a decode pool and return how each class fared."""
    first, second = stand_ins(prefill, decode)
    front = stage_system(first)
    assert isinstance(front, Disaggregated)
    system = replace(
        front,
        decode=second.lane,
        decode_replicas=second.lanes,
        transfer=second.transfer,
    )
    size = max(run_size(first), run_size(second))
    drawn = labelled_requests(second.loads, size, seed, DECODE)
    prepared = prepare(system, len(drawn.requests), seed, drawn.requests)
    # Rounded proportions: the rate at which neither side has less to do than in the plan.
    share = max(first.lanes / prefill.lanes, second.lanes / decode.lanes)
    reader = reader_of(second.loads, drawn.labels, COLLOCATED)
    result = run_prepared(prepared, rate * share, TRIM, reader=reader)
    return class_checks(result, drawn.labels, second.loads, COLLOCATED)
