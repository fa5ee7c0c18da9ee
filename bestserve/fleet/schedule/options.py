"""What a schedule is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bestserve.errors import InputError

Objective = Literal["gpu-hours", "money", "load"]
Kv = Literal["stays", "moves"]
Sharing = Literal["apart", "shared"]
Gaps = Literal["recorded", "poisson"]
Over = Literal["window", "day"]
WORDS: dict[str, tuple[str, ...]] = {
    "objective": get_args(Objective),
    "kv": get_args(Kv),
    "pools": get_args(Sharing),
    "gaps": get_args(Gaps),
    "slo_over": get_args(Over),
}
"""What options in words may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions:
    """What a schedule is asked for.

    objective : least GPU-hours, least money, or most load on the GPUs that are there
    window : length of a window of a trace [s]; last : plan only this last part of the load [s],
        what is before it feeds forecasts; peak_rate : scale the load so that its largest window has
        this rate [req/s]
    headroom : share of the rate to spare [1]; start_time : from a start to serving [s]
    switch_time : a change of role takes that long [s]; min_stay : what was started, or changed its
        role, stays that long [s]; max_changes : starts and stops (or changes of role) at once
    reserved_price : of a GPU-hour that is paid all day [USD/h]; used with the objective money
    gpu_hours_between_failures : of one GPU, which takes its instance down [h]; repair_time : until
        that serves again [s]; availability : share of time in which enough are up [1]
    kv : of running requests when their instance stops: "stays" until they end there, or "moves"
    pools : of classes of one model with different objectives: "apart", or "shared" by all of them
    gaps : arrivals inside a window of a trace: as "recorded", or "poisson" at the same rate
    slo_over : what objectives are about: each "window", or the "day", in which windows may fall
        short of them
    simulated : whether the plan is played in the simulator
    """

    objective: Objective = "gpu-hours"
    window: float = 600.0
    last: float | None = None
    peak_rate: float | None = None
    headroom: float = 0.0
    start_time: float = 180.0
    switch_time: float = 60.0
    min_stay: float = 0.0
    max_changes: int | None = None
    reserved_price: float | None = None
    gpu_hours_between_failures: float | None = None
    repair_time: float = 1800.0
    availability: float = 0.999
    kv: Kv = "stays"
    pools: Sharing = "apart"
    gaps: Gaps = "recorded"
    slo_over: Over = "window"
    simulated: bool = True

    def __post_init__(self) -> None:
        for name, words in WORDS.items():
            value = getattr(self, name)
            if value not in words:
                known = f"{', '.join(words[:-1])} and {words[-1]}"
                raise InputError(f"{name} = {value!r:.40} is none of {known}")
        for name in (
            "headroom",
            "start_time",
            "switch_time",
            "min_stay",
            "max_changes",
            "reserved_price",
            "repair_time",
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1e9:
                raise InputError(f"{name} = {value} must be ≥ 0")
        for name in ("window", "last", "peak_rate", "gpu_hours_between_failures"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e12:
                raise InputError(f"{name} = {value} must be > 0")
        if self.slo_over == "day" and self.objective == "load":
            raise InputError(
                "slo_over = 'day' finds the cheapest instances for a day's requests; the objective "
                "load fills GPUs that are there, window by window"
            )
        if self.slo_over == "day" and self.gpu_hours_between_failures is not None:
            raise InputError(
                "spares are planned for objectives of each window: slo_over = 'window'"
            )
        if not 0 < self.availability < 1:
            raise InputError(f"availability = {self.availability} must lie between 0 and 1")
