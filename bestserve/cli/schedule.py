"""`bestserve schedule`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bestserve.cli.allocate import read_fleet
from bestserve.cli.flags import Format
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit, emit_records
from bestserve.cli.plots import Plots, check_plots, save_plots
from bestserve.cli.question import Question, Stated
from bestserve.cli.talk import progress, talk
from bestserve.errors import InputError
from bestserve.fleet.schedule.options import ScheduleOptions
from bestserve.specs.fleet import Fleet
from bestserve.specs.problem import Problem
from bestserve.units import parse_duration

if TYPE_CHECKING:
    from bestserve.results.schedule import Schedule

NARROW, WIDE = 80, 100
"""Characters of the picture in a terminal, at least and at most."""


def schedule(
    options: ProblemOptions | None = None,
    *,
    load: Path | None = None,
    fleet: Path | None = None,
    window: str = "10min",
    last: str | None = None,
    peak_rate: float | None = None,
    strategy: str | None = None,
    objective: Literal["gpu-hours", "money", "load"] = "gpu-hours",
    headroom: float = 0.0,
    start_time: str = "180s",
    switch_time: str = "60s",
    min_stay: str | None = None,
    max_changes: int | None = None,
    reserved_price: float | None = None,
    gpu_hours_between_failures: float | None = None,
    repair_time: str = "30min",
    availability: float = 0.999,
    kv: Literal["stays", "moves"] = "stays",
    pools: Literal["apart", "shared"] = "apart",
    gaps: Literal["recorded", "poisson"] = "recorded",
    slo_over: Literal["window", "day"] = "window",
    simulate: bool = True,
    controller: Literal["keda", "kubernetes", "dynamo", "llm-d"] | None = None,
    time_zone: str = "UTC",
    plot: Plots = None,
    format: Format = "table",
) -> int:
    """Plan how many instances of each role serve a load that changes over the day.

    Parameters
    ----------
    options
        the problem; --gpus is the most at once
    load
        CSV of windows: start (seconds, HH:MM or dates), request_rate [req/s], and optionally
        input_len and output_len, or a rate for each class; default: the problem's --trace, cut
        into windows
    fleet
        instead of a problem a fleet file, as for allocate: several GPU types, models and classes
    window
        length of a window of a trace, such as 10min
    last
        plan only the last part of the load, such as 24h; what is before it feeds forecasts
    peak_rate
        scale the load so that its largest window has this rate [req/s]
    strategy
        what an instance of each pool is, such as 1m-tp2 or 1p1d-tp4; default: as ranked best
    objective
        gpu-hours: fewest; money: lowest bill (with --price-per-hour); load: most requests on all
        the GPUs, which change between pools
    headroom
        to spare in every window, as a share of its rate: 0.1 for 10 %
    start_time
        from starting an instance to its first request
    switch_time
        for which an instance that changes its role serves nobody
    min_stay
        for which an instance that started, or changed its role, stays
    max_changes
        starts and stops, or changes of role, at the beginning of a window
    reserved_price
        of a GPU-hour that is paid all day [USD/h]
    gpu_hours_between_failures
        of one GPU, which takes its instance down [h]: plans spares
    repair_time
        from a failure until the instance serves again
    availability
        share of time in which as many instances are up as the load needs
    kv
        of running requests when their instance stops: it stays until they end there, or moves
    pools
        of a fleet's classes with different objectives for one model: apart, or one that is shared
    gaps
        between the arrivals of a trace, inside a window: as recorded, or poisson at the same rate
    slo_over
        what the objectives are about: the requests of each window, or all of the day's
    simulate
        play the schedule in the simulator
    controller
        print what makes a cluster follow the schedule: keda (cron triggers), kubernetes (cron
        jobs), or the nearest parameters of dynamo's planner and llm-d's autoscaler
    time_zone
        of the load's times, for controllers: a name such as Europe/Paris
    """
    asked = ScheduleOptions(
        objective=objective,
        window=parse_duration(window),
        last=None if last is None else parse_duration(last),
        peak_rate=peak_rate,
        headroom=headroom,
        start_time=parse_duration(start_time),
        switch_time=parse_duration(switch_time),
        min_stay=0.0 if min_stay is None else parse_duration(min_stay),
        max_changes=max_changes,
        reserved_price=reserved_price,
        gpu_hours_between_failures=gpu_hours_between_failures,
        repair_time=parse_duration(repair_time),
        availability=availability,
        kv=kv,
        pools=pools,
        gaps=gaps,
        slo_over=slo_over,
        simulated=simulate,
    )
    shown = Shown(controller, time_zone, plot, format)
    if fleet is None:
        problem = (options or ProblemOptions()).build()
        return _answer(problem, load, strategy, asked, shown)
    if strategy is not None:
        raise InputError("a fleet's layouts are looked for: leave out --strategy")
    return _answer(read_fleet(fleet), load, None, asked, shown)


def plan(
    *,
    asked: ScheduleOptions,
    options: Stated | None = None,
    fleet: Fleet | None = None,
    load: list[dict[str, str]] | None = None,
    strategy: str | None = None,
    format: Format = "table",
) -> int:
    """Repeat an earlier question: a problem or a fleet, the rows of its load, its options."""
    shown = Shown(None, "UTC", None, format)
    if fleet is not None:
        return _answer(fleet, load, None, asked, shown)
    assert options is not None
    return _answer(options.build(), load, strategy, asked, shown)


@dataclass(frozen=True, slots=True)
class Shown:
    """How an answer is shown: for which controller, in which time zone, drawn, printed."""

    controller: str | None
    time_zone: str
    plot: Plots
    format: Format


def _answer(
    problem: Problem | Fleet,
    load: Path | list[dict[str, str]] | None,
    strategy: str | None,
    asked: ScheduleOptions,
    shown: Shown,
) -> int:
    from bestserve.fleet.schedule.answer import schedule as ask

    check_plots(shown.plot)
    if shown.controller is not None:
        from bestserve.launch.schedules import check_controller

        check_controller(problem, shown.controller, shown.time_zone)
    with progress("scheduling") as say:
        found = ask(problem, load, strategy=strategy, options=asked, progress=say)
    if shown.controller is not None:
        from bestserve.launch.schedules import controlled

        text, remarks = controlled(found, shown.controller, shown.time_zone)
        print(text, end="")
        for remark in remarks:
            talk(remark)
    else:
        _print(found, shown.format, Question("schedule", problem, _arguments(found)))
    save_plots([found], shown.plot)
    return 0


def _arguments(found: Schedule) -> dict[str, Any]:
    """Return what `plan` repeats a question with."""
    return {"strategy": found.strategy, "load": found.load, "asked": found.asked}


def _print(found: Schedule, format: Format, question: Question) -> None:
    if format not in ("table", "md"):
        emit(found, format, question=question)
        return
    emit_records(found.stretches(), format)
    if format == "table":
        from bestserve.reporting.schedule import schedule_strips

        width = shutil.get_terminal_size((NARROW, 1)).columns
        print(f"\n{schedule_strips(found, min(max(width, NARROW), WIDE))}")
    print(f"\n{found.explain()}")
