"""`bestserve schedule`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bestserve.cli.flags import Format
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.talk import progress
from bestserve.units import parse_duration


def schedule(
    options: ProblemOptions | None = None,
    *,
    load: Path | None = None,
    window: str = "10min",
    strategy: str | None = None,
    objective: Literal["gpu-hours", "money", "load"] = "gpu-hours",
    headroom: float = 0.0,
    start_time: str = "180s",
    switch_time: str = "60s",
    reserved_price: float | None = None,
    last: str | None = None,
    simulate: bool = True,
    format: Format = "table",
) -> int:
    """Plan how many instances of each role serve a load that changes over the day.

    Parameters
    ----------
    options
        the problem; --gpus is the most at once
    load
        CSV of windows: start (seconds or HH:MM), request_rate [req/s], and optionally input_len
        and output_len; default: the problem's --trace, cut into windows
    window
        length of a window of a trace, such as 10min
    strategy
        what an instance of each pool is, such as 1m-tp2 or 1p1d-tp4; default: as ranked best
    objective
        gpu-hours: fewest; money: lowest bill (with --price-per-hour); load: most requests on all
        the GPUs, which change between prefill and decode
    headroom
        to spare in every window, as a share of its rate: 0.1 for 10 %
    start_time
        from starting an instance to its first request
    switch_time
        for which an instance that changes its role serves nobody
    reserved_price
        of a GPU-hour that is paid all day [USD/h]
    last
        plan only the last part of the load, such as 24h; what is before it feeds forecasts
    simulate
        play the schedule in the simulator
    """
    from bestserve.fleet.schedule.answer import ScheduleOptions
    from bestserve.fleet.schedule.answer import schedule as plan

    asked = ScheduleOptions(
        objective=objective,
        headroom=headroom,
        start_time=parse_duration(start_time),
        switch_time=parse_duration(switch_time),
        reserved_price=reserved_price,
        simulated=simulate,
    )
    problem = (options or ProblemOptions()).build()
    with progress("scheduling") as say:
        found = plan(
            problem,
            load,
            strategy=strategy,
            window=parse_duration(window),
            last=None if last is None else parse_duration(last),
            options=asked,
            progress=say,
        )
    emit_explained(found, format)
    return 0
