"""Request traces: who asked for how much, and when.

Known traces are told from their columns; any other table is read with a column mapping. A trace
without arrival times gives lengths only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bestserve.arrays import Floats, Ints
from bestserve.errors import DataError, InputError, shown
from bestserve.readers.trace_schemas import (
    MOONCAKE_BLOCK,
    SCHEMAS,
    Schema,
    likely_columns,
    mapped_schema,
)
from bestserve.readers.trace_tables import Records, parquet_records, table_records
from bestserve.readers.untrusted import (
    MAX_BYTES,
    MAX_RECORDS,
    open_source,
    printable,
)

Hashes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSummary:
    """What a trace looks like; nan where a trace has no arrivals or too few requests.

    requests : count; duration : first to last arrival [s]; rate : (n − 1)/duration [req/s]
    gap_cv : coefficient of variation of the gaps; burstiness : 1/gap_cv² (1: as a Poisson stream)
    input_mean, output_mean [tokens], input_cv, output_cv, correlation of the two lengths [1]
    """

    requests: int
    duration: float
    rate: float
    gap_cv: float
    burstiness: float
    input_mean: float
    input_cv: float
    output_mean: float
    output_cv: float
    correlation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Requests in order of arrival.

    arrivals : float64[n] [s] from 0, not decreasing; None: the file has lengths only
    input_len, output_len : int64[n] [tokens], ≥ 1
    hash_ids : one tuple of prompt-block hashes a request (equal leading hashes share a prefix)
    hash_block : prompt tokens that a hash stands for [tokens]
    sessions : number of each request's conversation; later ones repeat all before them
    source : file name and format
    dropped : requests of the file without a token in or out, left out here
    """

    arrivals: Floats | None
    input_len: Ints
    output_len: Ints
    hash_ids: Hashes | None = None
    source: str = ""
    dropped: int = 0
    hash_block: int = MOONCAKE_BLOCK
    sessions: NDArray[np.int64] | None = None

    @property
    def shares(self) -> bool:
        """Whether it says which prompts share what."""
        return self.hash_ids is not None or self.sessions is not None

    def __len__(self) -> int:
        return len(self.input_len)

    def scaled(self, rate: float) -> Trace:
        """The same requests with time stretched so that they arrive at `rate` [req/s] on average.

        Gaps keep their proportions, so burstiness is kept. Raises `InputError` for a rate that is
        not positive and for a trace that has no arrivals or no duration.
        """
        if not (math.isfinite(rate) and rate > 0):
            raise InputError(f"rate is {shown(rate)}: expected a positive number of requests/s")
        if self.arrivals is None or len(self) < 2 or self.arrivals[-1] <= 0:
            raise InputError(f"{self.source}: no arrival times to scale")
        return replace(self, arrivals=self.arrivals * ((len(self) - 1) / self.arrivals[-1] / rate))

    def head(self, count: int) -> Trace:
        """The first `count` requests."""
        if count < 1:
            raise InputError(f"count is {shown(count)}: expected at least 1")
        return replace(
            self,
            arrivals=None if self.arrivals is None else self.arrivals[:count],
            input_len=self.input_len[:count],
            output_len=self.output_len[:count],
            hash_ids=None if self.hash_ids is None else self.hash_ids[:count],
            sessions=None if self.sessions is None else self.sessions[:count],
        )

    def summary(self) -> TraceSummary:
        """Moments of gaps and lengths."""
        gaps = np.zeros(0) if self.arrivals is None else np.diff(self.arrivals)
        span = float(gaps.sum()) if len(gaps) else math.nan
        gap_cv = _cv(gaps)
        with np.errstate(divide="ignore", invalid="ignore"):
            together = (
                float(np.corrcoef(self.input_len, self.output_len)[0, 1])
                if len(self) > 1 and self.input_len.std() > 0 and self.output_len.std() > 0
                else math.nan
            )
        return TraceSummary(
            requests=len(self),
            duration=span,
            rate=len(gaps) / span if span > 0 else math.nan,
            gap_cv=gap_cv,
            burstiness=1 / gap_cv**2 if gap_cv > 0 else math.nan,
            input_mean=float(self.input_len.mean()),
            input_cv=_cv(self.input_len),
            output_mean=float(self.output_len.mean()),
            output_cv=_cv(self.output_len),
            correlation=together,
        )


def _cv(values: NDArray[Any]) -> float:
    mean = float(values.mean()) if len(values) else 0.0
    return float(values.std()) / mean if mean > 0 else math.nan


def read_trace(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    arrival_unit: str = "s",
    max_requests: int = MAX_RECORDS,
    max_bytes: int = MAX_BYTES,
) -> Trace:
    """Read a trace from CSV, JSON, JSONL or parquet.

    columns : for a table that is no known trace, {"arrival": …, "input_len": …, "output_len": …}
        (arrival may be left out); arrival_unit : "s", "ms", "us", "ns" or "date"
    max_requests : stop after so many requests
    max_bytes : refuse larger files [bytes]

    Raises `DataError` naming the record for what cannot be read, `InputError` for a mapping that
    names no column.
    """
    file = Path(path)
    mapped = None if columns is None else mapped_schema(columns, arrival_unit)
    if file.suffix == ".parquet" and file.is_file() and file.stat().st_size <= max_bytes:
        names, records = parquet_records(file, mapped)
        name = printable(file.name, 120)
    else:
        source = open_source(file, max_bytes)
        name = source.name
        names, records = table_records(source)
    schema = mapped or next((s for s in SCHEMAS if s.columns() <= names), None)
    if schema is None:
        raise DataError(
            f"{name}: no known trace; say which columns hold what: --trace-columns "
            f"{likely_columns(names)}, and --trace-unit s, ms, us, ns or date; it has "
            f"{printable(', '.join(sorted(names)), 200)}"
        )
    absent = schema.columns() - names
    if absent:
        raise InputError(f"{name}: no column {shown(min(absent))}; it has {shown(sorted(names))}")
    return _trace(name, schema, records, max_requests)


def _trace(name: str, schema: Schema, records: Records, max_requests: int) -> Trace:
    stamps: list[Any] = []
    inputs: list[int] = []
    outputs: list[int] = []
    hashes: list[tuple[int, ...]] = []
    named: list[str] = []
    dropped = 0
    for place, record in records:
        where = f"{name} record {place}"
        sizes = [_count(record, column, where) for column in (schema.input_len, schema.output_len)]
        if 0 in sizes:
            dropped += 1
            continue
        inputs.append(sizes[0])
        outputs.append(sizes[1])
        if schema.arrival:
            stamps.append(_stamp(record.get(schema.arrival), schema.unit, where, schema.arrival))
        if schema.hashes and schema.hashes in record:
            hashes.append(_hashes(record[schema.hashes], where, schema.hashes))
        if schema.session and record.get(schema.session) not in (None, ""):
            named.append(str(record[schema.session])[:200])
        if len(inputs) >= max_requests:
            break
    if not inputs:
        raise DataError(f"{name}: no request with tokens in and out")
    if hashes and len(hashes) != len(inputs):
        raise DataError(f"{name}: {schema.hashes} is missing from some records")
    if named and len(named) != len(inputs):
        raise DataError(f"{name}: {schema.session} is missing from some records")
    arrivals, order = None, np.arange(len(inputs))
    if schema.arrival:
        times = _times(stamps, schema.unit, name)
        order = np.argsort(times, kind="stable")
        arrivals = times[order] - times[order[0]]
    return Trace(
        arrivals=arrivals,
        input_len=np.array(inputs, dtype=np.int64)[order],
        output_len=np.array(outputs, dtype=np.int64)[order],
        hash_ids=tuple(hashes[i] for i in order) if hashes else None,
        source=f"{name} ({schema.name})",
        dropped=dropped,
        hash_block=schema.hash_block,
        sessions=np.unique(named, return_inverse=True)[1][order] if named else None,
    )


def _count(record: Mapping[str, Any], column: str, where: str) -> int:
    value = record.get(column)
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not number.is_integer() or not 0 <= number <= 1e9:
        column = printable(column, 40)
        raise DataError(f"{where}: {column} is {shown(value)}: expected a whole number ≥ 0")
    return int(number)


def _hashes(value: Any, where: str, column: str) -> tuple[int, ...]:
    if not isinstance(value, list) or any(
        isinstance(part, bool) or not isinstance(part, int) for part in value
    ):
        raise DataError(f"{where}: {column} is {shown(value)}: expected a list of whole numbers")
    return tuple(value)


def _stamp(value: Any, unit: float, where: str, column: str) -> Any:
    """A finite number, or the text of a date without its UTC mark."""
    problem = "expected a date" if unit == 0 else "expected a finite number"
    if unit == 0:
        if hasattr(value, "isoformat"):
            value = value.isoformat(" ")
        if isinstance(value, str) and len(value) <= 40:
            text = value.strip().removesuffix("Z").removesuffix("+00:00").removesuffix(" UTC")
            try:
                if not np.isnat(np.datetime64(text, "ns")):
                    return np.datetime64(text, "ns")
            except (ValueError, Warning):
                pass
        raise DataError(f"{where}: {printable(column, 40)} is {shown(value)}: {problem}")
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or abs(number) > 1e20:
        raise DataError(f"{where}: {printable(column, 40)} is {shown(value)}: {problem}")
    return number


def _times(stamps: list[Any], unit: float, name: str) -> Floats:
    """Arrival times [s], from the earliest for dates."""
    if unit == 0:
        dates = np.array(stamps, dtype="datetime64[ns]")
        times = (dates - dates.min()).astype(np.float64) * 1e-9
    else:
        times = np.array(stamps, dtype=np.float64) * unit
    if (times < 0).any() and unit != 0:
        raise DataError(f"{name}: negative arrival time {times.min():g} s")
    return times
