"""Typed access to one record of a log: every refusal names the file, the record and the key."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import DataError, shown
from bestserve.readers.untrusted import Source, printable

Figures = dict[str, float]
MS = 1e3
"""Milliseconds in a second."""
PERCENTILES: tuple[str, ...] = ("p50", "p90", "p99")
"""Percentiles that are tidy columns; others go to `TidyRow.more`."""


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping inside a log, and the place to name when something in it is wrong."""

    data: Mapping[str, Any]
    where: str
    source: Source

    @classmethod
    def of(cls, value: Any, where: str, source: Source) -> Record:
        """Wrap `value`, which must be a mapping."""
        if not isinstance(value, Mapping):
            raise DataError(f"{where}: expected an object, found {shown(value)}")
        return cls(value, where, source)

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def fail(self, key: str, problem: str) -> DataError:
        """The error to raise about `key`."""
        value = shown(self.data.get(key))
        return DataError(f"{self.where}: {printable(key, 80)} is {value}: {problem}")

    def child(self, *keys: str) -> Record:
        """The mapping at this path; empty where the path ends early."""
        here: Any = self.data
        for depth, key in enumerate(keys):
            here = here.get(key)
            if here is None:
                here = {}
            if not isinstance(here, Mapping):
                place = ".".join(keys[: depth + 1])
                raise DataError(f"{self.where}: {place} is {shown(here)}: expected an object")
        return Record(here, f"{self.where} {'.'.join(keys)}", self.source)

    def children(self, key: str) -> Iterator[Record]:
        """The mappings in the list under `key`; none if it is absent."""
        values = self.data.get(key)
        if values is None:
            return
        if not isinstance(values, list):
            raise self.fail(key, "expected a list")
        for index, value in enumerate(values):
            yield Record.of(value, f"{self.where} {key}[{index}]", self.source)

    def number(self, key: str, scale: float = 1.0, *, inf: bool = False) -> float | None:
        """The figure under `key` times `scale`, ≥ 0; None if absent or null.

        A bare NaN or Infinity in a log of a client that writes them means "no value" and leaves a
        warning; anywhere else it is refused. With `inf`, infinity (or "inf") is a value.
        """
        value = self.data.get(key)
        if value is None:
            return None
        if inf and (value == math.inf or (isinstance(value, str) and value.lower() == "inf")):
            return math.inf
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(key, "expected a number")
        try:
            figure = float(value) * scale
        except OverflowError:
            raise self.fail(key, "too large") from None
        if math.isfinite(figure):
            if figure < 0:
                raise self.fail(key, "must not be negative")
            return figure
        if self.source.constants:
            self.source.warnings.append(f"{self.where}: {key} is {value}, taken as not stated")
            return None
        raise self.fail(key, "must be finite")

    def positive(self, key: str, scale: float = 1.0, *, inf: bool = False) -> float | None:
        """As `number`, but zero means "not stated"."""
        return self.number(key, scale, inf=inf) or None

    def count(self, key: str) -> int | None:
        """The whole number ≥ 0 under `key`; None if absent or null."""
        value = self.number(key)
        if value is None:
            return None
        if value != int(value) or value > 1e15:
            raise self.fail(key, "expected a whole number")
        return int(value)

    def size(self, key: str) -> int | None:
        """As `count`, but zero means "not stated"."""
        return self.count(key) or None

    def text(self, key: str) -> str | None:
        """The text under `key`, cleaned for printing; None if absent, null or blank."""
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, (Mapping, list)):
            raise self.fail(key, "expected text")
        if isinstance(value, (datetime.date, datetime.datetime)):  # YAML reads dates
            value = value.isoformat()
        return printable(value if isinstance(value, str) else shown(value)) or None

    def flag(self, key: str) -> bool | None:
        """The truth value under `key`, also spelled "true"/"false"/"n"; None if not stated."""
        value = self.data.get(key)
        if value is None or isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) else value
        if word in ("true", "yes", "y", "on", "1", 1):
            return True
        if word in ("false", "no", "n", "off", "none", "0", 0):
            return False
        if word in ("", "n/a"):
            return None
        raise self.fail(key, "expected true or false")

    def array(self, key: str) -> Floats | None:
        """The list of numbers ≥ 0 under `key` as float64[n]; None if absent."""
        values = self.data.get(key)
        if values is None:
            return None
        if not isinstance(values, list):
            raise self.fail(key, "expected a list of numbers")
        for index, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise DataError(
                    f"{self.where}: {key}[{index}] is {shown(value)}: expected a number"
                )
        try:
            array = np.asarray(values, dtype=np.float64)
        except (OverflowError, ValueError):
            raise self.fail(key, "holds a number that is too large") from None
        bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
        if bad.size:
            place = f"{key}[{bad[0]}]"
            raise DataError(
                f"{self.where}: {place} is {array[bad[0]]}: must be finite and not negative"
            )
        return array


def summarised(name: str, values: Sequence[float] | Floats, scale: float = MS) -> Figures:
    """Mean, percentiles and spread of per-request `values` [s] under tidy names [ms].

    nan values (a TPOT of a one-token answer) are left out; no values give no figures.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)] * scale
    if not array.size:
        return {}
    out = {f"{name}_mean_ms": float(array.mean()), f"{name}_std_ms": float(array.std())}
    for p in (50, 75, 90, 95, 99):
        out[f"{name}_p{p}_ms"] = float(np.percentile(array, p))
    return out


def placed(figures: Mapping[str, float | None]) -> dict[str, Any]:
    """Split figures by tidy name into `TidyRow` keywords: columns, and `more` for the others."""
    columns: dict[str, Any] = {}
    more: Figures = {}
    for name, value in figures.items():
        if value is None:
            continue
        metric, _, rest = name.partition("_")
        stat = rest.removesuffix("_ms")
        if metric in ("ttft", "tpot", "e2el") and stat in ("mean", *PERCENTILES):
            columns[name] = value
        else:
            more[name] = value
    return {**columns, "more": more}


def lengths(values: Floats, record: Record, key: str) -> Ints:
    """Token counts as int64[n]; raises `DataError` where one is not whole."""
    bad = np.flatnonzero((values != np.floor(values)) | (values > 1e12))
    if bad.size:
        raise DataError(
            f"{record.where}: {key}[{bad[0]}] is {values[bad[0]]}: expected a whole number"
        )
    return values.astype(np.int64)


def per_token(e2el: Floats, ttft: Floats, output_len: Ints) -> Floats:
    """TPOT [s] = (e2el − ttft)/(n_out − 1) per request; nan below two output tokens."""
    gaps = output_len - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(gaps > 0, np.maximum(e2el - ttft, 0.0) / gaps, np.nan)
