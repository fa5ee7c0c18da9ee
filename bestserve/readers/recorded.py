"""The recorded requests that a workload's `trace` names: a trace file, or ServeGen's clients."""

from __future__ import annotations

from pathlib import Path

from bestserve.readers.servegen import busiest_hour
from bestserve.readers.traces import Trace, read_trace


def read_recorded(path: str | Path) -> Trace:
    """Return the requests of a trace file, or the busiest hour of the ServeGen clients of a folder.

    Raises `DataError` for what cannot be read.
    """
    return busiest_hour(Path(path)) if Path(path).is_dir() else read_trace(path)
