"""A campaign: all points of a grid, within a time budget, resumable, with memory checked first."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bestserve.errors import InfeasibleError
from bestserve.measure.device_info import DeviceInfo
from bestserve.measure.grid import Grid, Point
from bestserve.measure.journal import Journal
from bestserve.measure.machine import FLUSH_FACTOR, CpuMachine, CudaMachine, Machine
from bestserve.measure.shapes import Format, LayerShape, MemoryNeed, memory_need

MEMORY_SHARE = 0.9
"""Of the free memory at most this much is used: allocators fragment and libraries keep scratch."""

Say = Callable[[int, int, str], None]


class Measures(Protocol):
    """Whatever turns a point into a row."""

    def measure(self, point: Point) -> dict[str, Any]:
        """Return the journal row of a point."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a campaign did.

    measured, resumed, left : points measured now, found in the journal, not reached in time
    """

    rows: list[dict[str, Any]]
    measured: int
    resumed: int
    left: int


def check_memory(shape: LayerShape, grid: Grid, fmt: Format, info: DeviceInfo) -> MemoryNeed:
    """Return what the campaign allocates; `InfeasibleError` with the arithmetic if it is short."""
    widest = max(*grid.prompts, *grid.batches, *grid.tokens)
    need = memory_need(
        shape,
        layers=grid.layers,
        fmt=fmt,
        kv_tokens=max(grid.kv_tokens, widest),
        tokens=widest,
        flush=FLUSH_FACTOR * info.cache,
    )
    allowed = MEMORY_SHARE * info.free
    if need.total > allowed:
        raise InfeasibleError(
            f"{grid.layers} layers need {need.arithmetic()}, but {info.name} has "
            f"{info.free * 1e-9:.2f} GB free, of which {MEMORY_SHARE:.0%} = "
            f"{allowed * 1e-9:.2f} GB may be used; free memory, or measure fewer --layers, a "
            "smaller --kv-tokens or a higher --tp"
        )
    return need


def header(info: DeviceInfo, model: str, tp: int, fmt: Format, shape: LayerShape) -> dict[str, Any]:
    """Return the journal header: what was measured on what."""
    return {
        "device": info.name,
        "kind": info.kind,
        "memory": info.memory,
        "processors": info.processors,
        "gpus": info.gpus,
        "capability": list(info.capability),
        "driver": info.driver,
        "versions": info.versions,
        "self_test": info.self_test,
        "date": time.strftime("%Y-%m-%d"),
        "model": model,
        "tp": tp,
        "fmt": fmt,
        "shape": dataclasses.asdict(shape),
    }


def make_machine(torch: Any, info: DeviceInfo) -> Machine:
    """Return the machine of a described device."""
    if info.kind == "cuda":
        return CudaMachine(torch, info.index)
    return CpuMachine(torch, info.cache)


def run(
    points: Sequence[Point],
    measures: Measures,
    journal: Journal,
    *,
    time_budget: float,
    say: Say | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure the points that the journal lacks until `time_budget` [s] is spent.

    Each row is written as soon as it is measured, so that an interruption loses one point and a
    second call goes on where the first ended.
    """
    end = clock() + time_budget
    todo = [p for p in points if p.key not in journal.rows]
    resumed = len(points) - len(todo)
    measured = 0
    for point in todo:
        if clock() >= end:
            break
        if say is not None:
            say(resumed + measured, len(points), point.key)
        journal.add(measures.measure(point))
        measured += 1
    rows = [journal.rows[p.key] for p in points if p.key in journal.rows]
    return Outcome(rows, measured, resumed, len(todo) - measured)
