"""The recorded requests that a workload's `trace` names: a trace file, or ServeGen's clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bestserve.readers.servegen import busiest_hour
from bestserve.readers.traces import Trace, read_trace
from bestserve.specs.workload import Workload


def recorded(workload: Workload) -> Trace:
    """Return the requests that a workload replays. Raises `DataError` for what cannot be read."""
    assert workload.trace is not None
    columns = workload.trace_columns
    named = None if columns is None else {str(name): column for name, column in columns.items()}
    return read_recorded(workload.trace, named, workload.trace_unit)


def read_recorded(
    path: str | Path, columns: Mapping[str, str] | None = None, arrival_unit: str = "s"
) -> Trace:
    """Return the requests of a trace file, or the busiest hour of the ServeGen clients of a folder.

    columns, arrival_unit : as `read_trace` takes them

    Raises `DataError` for what cannot be read.
    """
    if Path(path).is_dir():
        return busiest_hour(Path(path))
    return read_trace(path, columns=columns, arrival_unit=arrival_unit)
