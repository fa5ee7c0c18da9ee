"""Who asks for what over the day: streams of requests that share instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bestserve.arrays import Floats
from bestserve.errors import DataError, InputError, nearest_names
from bestserve.fleet.schedule.load import Load
from bestserve.fleet.schedule.options import ScheduleOptions
from bestserve.fleet.schedule.reading import Rows, Table, load_of, mixed_load, read_table
from bestserve.fleet.schedule.recordings import windows_of, windows_of_clients
from bestserve.models.attainment import OBJECTIVES
from bestserve.specs.fleet import Fleet, FleetClass, FleetModel
from bestserve.specs.problem import Problem
from bestserve.specs.slo import SLO
from bestserve.specs.workload import RequestClass, Workload


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests that share instances: of one model.

    name : "" for the only one; load : what is planned; history : with what came before it
    model, classes : of a fleet, None and () for a problem
    """

    name: str
    load: Load
    history: Load
    model: FleetModel | None = None
    classes: tuple[FleetClass, ...] = ()

    @property
    def slo(self) -> SLO:
        """The objectives of a fleet's classes: in common, or each class's own."""
        first, *others = (c.slo for c in self.classes)
        if all(str(slo) == str(first) for slo in others):
            return first
        return SLO(tiers={c.name: c.slo for c in self.classes})

    @property
    def strictest(self) -> SLO:
        """The strictest of the classes' thresholds, by which a layout for all of them is ranked."""
        found = self.classes[0].slo
        for c in self.classes[1:]:
            for name in OBJECTIVES:
                mine, theirs = getattr(found, name), getattr(c.slo, name)
                if theirs is not None and (mine is None or theirs < mine):
                    share = {f"{name}_percentile": c.slo.percentile_of(name)}
                    found = found.model_copy(update={name: theirs, **share})
        return found


def streams_of(
    asked: Problem | Fleet, load: Path | Rows | None, options: ScheduleOptions
) -> tuple[Stream, ...]:
    """Return the streams of a problem (one) or a fleet. Raises InputError, DataError."""
    if isinstance(asked, Fleet):
        if load is None:
            raise InputError(
                "a load is missing; give a CSV of windows (--load) with a rate for each class"
            )
        found = _of_fleet(asked, read_table(load), options)
    else:
        whole = _of_problem(asked, load, options)
        found = (Stream("", whole, whole),)
    if options.peak_rate is not None:
        total = sum(s.history.rates for s in found)
        factor = options.peak_rate / max(float(np.max(total)), 1e-12)
        found = tuple(_replaced(s, s.history.scaled(factor)) for s in found)
    if options.last is not None:
        found = tuple(replace(s, load=_last(s.history, options.last)) for s in found)
    return found


def _replaced(stream: Stream, whole: Load) -> Stream:
    return replace(stream, load=whole, history=whole)


def _last(whole: Load, seconds: float) -> Load:
    ends = np.cumsum(whole.durations)
    return whole.last(max(int(np.sum(ends > ends[-1] - seconds + 1e-9)), 1))


def _of_problem(problem: Problem, load: Path | Rows | None, options: ScheduleOptions) -> Load:
    if load is not None:
        return load_of(read_table(load), problem.workload)
    if problem.workload.trace is None:
        raise InputError("a load is missing; give a CSV of windows (--load), or a trace to cut")
    if Path(problem.workload.trace).is_dir():
        return windows_of_clients(Path(problem.workload.trace), options.window)
    from bestserve.readers.recorded import recorded

    return windows_of(recorded(problem.workload), options.window)


def _of_fleet(fleet: Fleet, table: Table, options: ScheduleOptions) -> tuple[Stream, ...]:
    """Return the streams of a fleet: classes of one model that share their instances.

    Those that have their objectives in common, or all of them, as the options ask.
    """
    named = [(_column(fleet, m, c), m, c) for m in fleet.models for c in m.classes]
    known = [name for name, _, _ in named]
    unknown = [c for c in table.columns if c != "start" and c not in known]
    if unknown:
        near = nearest_names(unknown[0], known)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise DataError(
            f"{table.name}: has unknown {unknown[0]!r:.60}{hint}; columns are start and a rate for "
            f"each class: {', '.join(known)}"
        )
    found: list[Stream] = []
    for model in fleet.models:
        groups: dict[tuple[str, float], list[FleetClass]] = {}
        for c in model.classes:
            objectives = "" if options.pools == "shared" else str(c.slo)
            groups.setdefault((objectives, c.prefix_cache_hit), []).append(c)
        for members in groups.values():
            rates = {
                c.name: _rates(table, next(n for n, m, x in named if m is model and x is c), c)
                for c in members
            }
            load = _shared(table, members, rates)
            name = "+".join(next(n for n, m, x in named if m is model and x is c) for c in members)
            found.append(Stream(name, load, load, model, tuple(members)))
    return tuple(found)


def _column(fleet: Fleet, model: FleetModel, c: FleetClass) -> str:
    """Return the column of a class: its name, behind its model's where that is not enough."""
    same = sum(x.name == c.name for m in fleet.models for x in m.classes)
    return c.name if same == 1 else f"{model.label}/{c.name}"


def _rates(table: Table, column: str, c: FleetClass) -> Floats:
    """Return the rate of a class: its column's, or its own all day."""
    if column in table.columns:
        return table.rates(column)
    if c.rate is None:
        raise DataError(f"{table.name}: lacks {column}, which has no rate in the fleet's file")
    return np.full(table.starts.size, c.rate)


def _shared(table: Table, members: Sequence[FleetClass], rates: dict[str, Floats]) -> Load:
    shares = 1.0 / len(members)
    classes = [
        RequestClass(name=c.name, share=shares, input_len=c.input_len, output_len=c.output_len)
        for c in members
    ]
    hit = members[0].prefix_cache_hit
    stated = Workload(classes=tuple(classes), prefix_cache_hit=hit)
    return mixed_load(table, classes, rates, stated)
