"""Readers of measured logs, one a file, found by their existence.

A reader is a module with

    NAME : str                          how messages and `TidyRow.format` call the format
    BARE_CONSTANTS : bool (optional)    whether its client writes bare NaN and Infinity
    sniff(source) -> bool               whether the keys are this format's; never raises
    read(source) -> list[TidyRow]       raises `DataError` for what cannot be read
    lacking(source) -> str (optional)   what a log that is almost this format's lacks

Other packages add readers through the entry-point group `bestserve.log_formats`.
"""

from __future__ import annotations

import glob
import importlib
import itertools
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from bestserve.errors import DataError, InputError, nearest_names
from bestserve.readers.logs._build import arrivals_of
from bestserve.readers.logs._hits import BESIDE
from bestserve.readers.tidy import SETTABLE, TidyRow, regime_of
from bestserve.readers.untrusted import MAX_BYTES, Source, open_source, printable

ENTRY_POINTS = "bestserve.log_formats"


class Reader(Protocol):
    """What a reader module provides."""

    NAME: str

    def sniff(self, source: Source) -> bool:
        """Whether `source` is in this format, by its keys."""

    def read(self, source: Source) -> list[TidyRow]:
        """The runs in `source`."""


@dataclass(frozen=True, slots=True)
class LogRead:
    """What was read: the rows, the format's name and what the user should know."""

    rows: tuple[TidyRow, ...]
    format: str
    warnings: tuple[str, ...] = ()


@cache
def readers() -> Mapping[str, Reader]:
    """All readers by name: this package's modules, then other packages' entry points."""
    found: dict[str, Reader] = {}
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            module = cast(Reader, importlib.import_module(f"{__name__}.{info.name}"))
            found[module.NAME] = module
    for entry in entry_points(group=ENTRY_POINTS):
        reader = cast(Reader, entry.load())
        found.setdefault(reader.NAME, reader)
    return found


def read_log(path: str | Path, *, max_bytes: int = MAX_BYTES, **stated: Any) -> LogRead:
    """Read one measured log, whatever format it is in.

    path : a file; its format is told from its keys, not from its name
    max_bytes : refuse larger files [bytes]
    stated : settings by `TidyRow` field that the log does not state (gpu="h100-sxm", tp=4,
        engine="vLLM", …); where the log states another value, yours wins and a note says so

    Raises `DataError` when the file cannot be read as any known format, `InputError` for a
    setting that is no field of the row.
    """
    for name in stated:
        if name not in SETTABLE:
            near = ", ".join(nearest_names(name, SETTABLE))
            raise InputError(f"no setting {name!r} of a log row{f'; nearest: {near}' * bool(near)}")
    source = open_source(Path(path), max_bytes)
    reader = next((reader for reader in readers().values() if reader.sniff(source)), None)
    if reader is None:
        hints = [hint for r in readers().values() if (hint := _lacking(r, source))]
        known = f"in none of the known formats ({', '.join(sorted(readers()))})"
        raise DataError(f"{source.name}: {'; '.join(hints) or known}")
    with np.errstate(all="ignore"):  # what overflows is refused by the row it ends up in
        rows = reader.read(source)
    if source.constants and not getattr(reader, "BARE_CONSTANTS", False):
        raise DataError(f"{source.name}: bare NaN or Infinity, which {reader.NAME} does not write")
    if not rows:
        raise DataError(f"{source.name}: a {reader.NAME} log without any run")
    rows = [_with(row, stated) for row in rows]
    source.warnings += _disordered(source.name, rows)
    return LogRead(tuple(rows), reader.NAME, tuple(dict.fromkeys(source.warnings)))


def _lacking(reader: Reader, source: Source) -> str:
    """Return what a log lacks to be in a reader's format, where the reader can tell."""
    tell = getattr(reader, "lacking", None)
    return "" if tell is None else str(tell(source))


def _with(row: TidyRow, stated: Mapping[str, Any]) -> TidyRow:
    """`row` with the caller's settings, noting each that contradicts the log."""
    given = {name: value for name, value in stated.items() if value is not None}
    if not given:
        return row
    notes = tuple(
        printable(f"{name} {value} given by the user; the log says {getattr(row, name)}")
        for name, value in given.items()
        if getattr(row, name) not in (None, value)
    )
    out = replace(row, notes=row.notes + notes, stated=tuple(given), **given)
    if not {"request_rate", "concurrency"} & given.keys():
        return out
    return replace(
        out,
        regime=regime_of(out.request_rate, out.concurrency, out.req_throughput),
        arrivals=out.arrivals or arrivals_of(out.request_rate, out.concurrency, None),
    )


def _disordered(name: str, rows: Sequence[TidyRow]) -> list[str]:
    """Return a warning if percentiles fall where they must rise, naming the first such row."""
    found = []
    for row in rows:
        for metric in ("ttft", "tpot"):
            stated = [(p, getattr(row, f"{metric}_p{p}_ms")) for p in (50, 90, 99)]
            known = [(p, value) for p, value in stated if value is not None]
            for (low, small), (high, large) in itertools.pairwise(known):
                if large < SLIP * small:
                    found.append(
                        f"{name} {printable(row.id, 60)}: P{high} {metric.upper()} {large:.4g} ms "
                        f"is below P{low} {small:.4g} ms"
                    )
    return [] if not found else [found[0] + (f", and {len(found) - 1} more" * (len(found) > 1))]


SLIP = 0.999
"""Percentiles that fall by less were rounded."""


def find_logs(patterns: Iterable[str | Path]) -> list[Path]:
    """Files named by paths, folders (all files directly and below) and globs, each once, sorted.

    Of a folder, hidden files, links out of it and what servers wrote beside results are left out.
    Raises `DataError` for a pattern that names nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            here = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.is_symlink()]
            here = [p for p in here if not p.name.startswith(".") and p.name not in BESIDE]
        elif path.exists():
            here = [path]
        else:
            here = sorted(Path(p) for p in glob.glob(str(pattern), recursive=True))
            here = [p for p in here if p.is_file()]
        if not here:
            raise DataError(f"{printable(str(pattern), 160)}: no such file, folder or pattern")
        found.update(dict.fromkeys(here))
    return list(found)


def read_logs(
    patterns: Iterable[str | Path], *, max_bytes: int = MAX_BYTES, **stated: Any
) -> list[LogRead]:
    """Read every log that the paths, folders and globs name.

    A single file named outright that cannot be read raises `DataError`; among several, one that
    cannot be read is a `LogRead` without rows whose warning says why.
    """
    names = list(patterns)
    paths = find_logs(names)
    if len(paths) == 1:
        return [read_log(paths[0], max_bytes=max_bytes, **stated)]
    out: list[LogRead] = []
    for path in paths:
        try:
            out.append(read_log(path, max_bytes=max_bytes, **stated))
        except DataError as error:
            out.append(LogRead((), "unreadable", (str(error),)))
    return out
