"""Ask for a schedule: load, capacities, plan, other policies, simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from bestserve.answers.economics import gpu_price
from bestserve.answers.ranking import ranking
from bestserve.arrays import Ints
from bestserve.errors import InfeasibleError, InputError
from bestserve.fleet.schedule.capacity import Deployment
from bestserve.fleet.schedule.load import Load, read_load, windows_of
from bestserve.fleet.schedule.planning import (
    Terms,
    best_split,
    cheapest,
    cost,
    gpu_hours,
    static_split,
)
from bestserve.fleet.schedule.playing import Played, play
from bestserve.fleet.schedule.policies import Policy, compared, judged
from bestserve.lowering import lower
from bestserve.models.system import Target
from bestserve.results.schedule import ComparedPolicy, Schedule, ScheduledWindow
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

Objective = Literal["gpu-hours", "money", "load"]
DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions:
    """What a schedule is asked for.

    objective : least GPU-hours, least money, or most load on the problem's GPUs (split pools)
    headroom : share of the rate to spare [1]; start_time : from a start to serving [s]
    switch_time : a change of role takes that long [s]
    reserved_price : of a GPU-hour that is paid all day [USD/h]; used with the objective money
    simulated : whether the plan is played in the simulator
    """

    objective: Objective = "gpu-hours"
    headroom: float = 0.0
    start_time: float = 180.0
    switch_time: float = 60.0
    reserved_price: float | None = None
    simulated: bool = True

    def __post_init__(self) -> None:
        if self.objective not in ("gpu-hours", "money", "load"):
            raise InputError(
                f"objective = {self.objective!r:.40} is none of gpu-hours, money and load"
            )
        for name in ("headroom", "start_time", "switch_time", "reserved_price"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1e9:
                raise InputError(f"{name} = {value} must be ≥ 0")


def schedule(
    problem: Problem,
    load: str | Path | None = None,
    *,
    strategy: str | Strategy | None = None,
    window: float = 600.0,
    last: float | None = None,
    options: ScheduleOptions = ScheduleOptions(),
    progress: Callable[[str], None] | None = None,
) -> Schedule:
    """Plan how many instances of each role serve a load that changes over the day.

    load : CSV of windows (`read_load`); default: the problem's trace in windows of `window` [s]
    strategy : what an instance of each pool is; its counts are ignored. Default: as ranked best
    last : plan only this last part of the load [s]; what is before it feeds forecasts
    `problem.gpus` is the most at once.

    Raises InputError, DataError (the load), InfeasibleError where a window cannot be carried.
    """
    say = progress or (lambda text: None)
    if load is not None:
        whole = read_load(Path(load), problem.workload)
    elif problem.workload.trace is not None:
        from bestserve.readers.recorded import recorded

        whole = windows_of(recorded(problem.workload), window)
    else:
        raise InputError("a load is missing; give a CSV of windows (--load), or a trace to cut")
    planned = whole
    if last is not None:
        ends = np.cumsum(whole.durations)
        planned = whole.last(max(int(np.sum(ends > ends[-1] - last + 1e-9)), 1))
    if strategy is None:
        say("ranking")
        strategy = ranking(problem).best.strategy
    price, _ = gpu_price(problem)
    return schedule_of(
        problem,
        planned,
        Strategy.parse(strategy),
        options,
        history=whole,
        price=price,
        say=say,
    )


def schedule_of(
    problem: Problem,
    load: Load,
    strategy: Strategy,
    options: ScheduleOptions,
    *,
    history: Load | None = None,
    price: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Schedule:
    """Return the schedule of a load.

    strategy : what an instance of each pool is; its counts are ignored
    history : the load with what came before it, for forecasts; default: the load itself
    price : of a GPU-hour [USD/h]

    Raises InfeasibleError where no number of instances, or of the problem's GPUs, carries a window.
    """
    if problem.slo is None:
        raise InputError("objectives are missing; give for example goodput ttft:1000 tpot:50")
    if options.objective == "money" and price is None:
        raise InputError("the objective money needs a price; give price_per_hour")
    deployment = Deployment(lower(problem), strategy, problem.slo.target())
    say("capacity of an instance")
    per_kind = deployment.per_instance(load)
    gpus = np.array([i.gpus for i in deployment.pools], dtype=np.int64)
    terms = Terms(
        capacity=per_kind[:, load.kinds],
        rates=load.rates,
        durations=load.durations,
        gpus=gpus,
        headroom=options.headroom,
        start_time=options.start_time,
        switch_time=options.switch_time,
        most_gpus=problem.gpus,
        price=price if options.objective == "money" else None,
        reserved_price=options.reserved_price if options.objective == "money" else None,
    )
    say("schedule")
    if options.objective == "load":
        counts, reserved, value, bound, others = _most_load(terms, problem.gpus)
    else:
        planned = cheapest(terms)
        counts, reserved = planned.counts, planned.reserved
        value, bound = planned.objective, planned.bound
        others = compared(terms, (history or load).rates, _windows_a_day(load))
    played = None
    if options.simulated:
        say("simulation")
        late = options.switch_time if options.objective == "load" else 0.0
        played = play(deployment, load, counts, late)
    carried = judged("", terms, counts, late=False).carried
    return Schedule(
        problem=problem,
        strategy=str(strategy),
        objective=options.objective,
        windows=_windows(load, terms, counts, deployment, played),
        gpu_hours=gpu_hours(terms, counts),
        cost=None if price is None else cost(replace(terms, price=price), counts),
        reserved=reserved,
        objective_value=value,
        bound=bound,
        carried=value if options.objective == "load" else carried,
        policies=tuple(
            ComparedPolicy(
                name=p.name, gpu_hours=p.gpu_hours, carried=p.carried, worst_window=p.worst
            )
            for p in others
        ),
    )


def _windows_a_day(load: Load) -> int:
    return max(round(DAY / float(np.median(load.durations))), 1)


def _most_load(terms: Terms, gpus: int) -> tuple[Ints, int, float, float, tuple[Policy, ...]]:
    """Return counts, none reserved, share carried, the share without losses, the static split."""
    if terms.gpus.size != 2:
        raise InfeasibleError(
            "the objective load moves GPUs between prefill and decode: give a split strategy such "
            "as 1p1d-tp4; a collocated fleet of fixed size has nothing to change"
        )
    moving, fixed = best_split(terms, gpus), static_split(terms, gpus)
    ideal = best_split(replace(terms, switch_time=0.0), gpus).carried
    kept = judged("best split that never changes", terms, fixed.counts, late=False)
    return moving.counts, 0, moving.carried, ideal, (kept,)


def _windows(
    load: Load, terms: Terms, counts: Ints, deployment: Deployment, played: Played | None
) -> tuple[ScheduledWindow, ...]:
    before = np.roll(counts, 1, axis=1)
    capacity = np.min(counts * terms.capacity, axis=0)
    rows = []
    for w, window in enumerate(load.windows):
        met, error, holds = _met(deployment.target, played, w)
        rows.append(
            ScheduledWindow(
                start=window.start,
                duration=window.duration,
                request_rate=window.rate,
                instances={
                    i.name: int(n) for i, n in zip(deployment.pools, counts[:, w], strict=True)
                },
                gpus=int(terms.gpus @ counts[:, w]),
                capacity=float(capacity[w]),
                starts=int(np.maximum(counts[:, w] - before[:, w], 0).sum()),
                stops=int(np.maximum(before[:, w] - counts[:, w], 0).sum()),
                met=met,
                error=error,
                holds=holds,
            )
        )
    return tuple(rows)


def _met(
    target: Target, played: Played | None, w: int
) -> tuple[dict[str, float], float, bool | None]:
    if played is None:
        return {}, 0.0, None
    met = {name: float(getattr(played, name)[w]) for name in target.asked}
    required = {name: target.required(name) for name in target.asked}
    if target.joint:
        met, required = {"all": float(played.together[w])}, {"all": target.attainment}
    n = max(int(played.requests[w]), 1)
    share = max(required.values())
    error = float(np.sqrt(share * (1 - share) / n))
    holds = all(met[name] >= required[name] - 2 * error for name in met)
    return met, error, holds
