"""Loads that users state: a CSV of windows, with one rate or one of each class."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bestserve.arrays import Floats
from bestserve.errors import DataError, nearest_names
from bestserve.fleet.schedule.load import MOST_WINDOWS, Load, Window
from bestserve.lowering.lengths import lower_lengths
from bestserve.models.system import Lengths
from bestserve.readers.bounded import read_text
from bestserve.specs.workload import RequestClass, Workload

MOST_BYTES = 64_000_000
DAY = 86_400.0
LAWS = ("input_len", "output_len")
SHARES = 20
"""Mixes of classes are told apart to this fraction of the requests."""

Rows = Sequence[Mapping[str, str]]
"""A CSV's lines by column, as an answer carries them."""


@dataclass(frozen=True, slots=True)
class Table:
    """Windows as stated: beginnings and durations [s], and what the columns say.

    name : of the file; starts count from the midnight before the first window
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    starts: Floats
    durations: Floats

    def rates(self, column: str) -> Floats:
        """Return a column's rates [window; req/s]. Raises DataError naming the line."""
        return np.array(
            [
                _rate(row[column], column, f"{self.name}, line {number}")
                for number, row in enumerate(self.rows, 2)
            ]
        )


def read_table(source: Path | Rows) -> Table:
    """Read a CSV of windows, or the rows of one. Raises DataError naming line and column.

    The last window is as long as the one before. Times count from the midnight before the first
    window, where dates with an offset say so at that of the first.
    """
    name, columns, rows = _cells(source)
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise DataError(f"{name}: column {twice[0]!r:.60} appears twice")
    if "start" not in columns:
        split = "; separate columns by commas" if ";" in "".join(columns) else ""
        raise DataError(
            f"{name}: lacks start; columns are start and rates, such as request_rate{split}"
        )
    starts: list[float] = []
    for number, row in enumerate(rows, 2):
        where = f"{name}, line {number}"
        if len(starts) == MOST_WINDOWS:
            raise DataError(f"{where}: more than {MOST_WINDOWS:,} windows; take longer ones")
        starts.append(_clock(row["start"], where))
        if len(starts) > 1 and starts[-1] <= starts[-2]:
            raise DataError(
                f"{where}: windows must be in order of their start; past midnight go on counting "
                "(24:00), or write dates, with their offset where clocks change"
            )
    if len(starts) < 2:
        raise DataError(f"{name}: at least two windows are needed")
    durations = np.diff([*starts, 2 * starts[-1] - starts[-2]])
    ahead = _offset(rows[0]["start"])
    midnight = DAY * ((starts[0] + ahead) // DAY) - ahead
    return Table(name, columns, rows, np.array(starts) - midnight, durations)


def _cells(source: Path | Rows) -> tuple[str, tuple[str, ...], tuple[dict[str, str], ...]]:
    if isinstance(source, Path):
        reader = csv.DictReader(io.StringIO(read_text(source, "load", MOST_BYTES)))
        names = tuple(name.strip() for name in reader.fieldnames or ())
        reader.fieldnames = list(names)
        rows = (dict(row) for row in reader)
        name = source.name
    else:
        names = tuple(dict.fromkeys(key for row in source for key in row))
        rows, name = (dict(row) for row in source), "load"
    found: list[dict[str, str]] = []
    for number, row in enumerate(rows, 2):
        if None in row or len(found) > MOST_WINDOWS:
            what = "more cells than the header" if None in row else "too many windows"
            raise DataError(f"{name}, line {number}: {what}")
        found.append({column: (row.get(column) or "").strip() for column in names})
    return name, names, tuple(found)


def _clock(text: str, where: str) -> float:
    """Return a beginning [s]: seconds, HH:MM, or a date, whose offset keeps clock changes apart."""
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = [math.nan]
    if len(numbers) == 1 and math.isfinite(numbers[0]) and numbers[0] >= 0:
        return numbers[0]
    if 2 <= len(numbers) <= 3 and numbers[0] >= 0 and all(0 <= n < 60 for n in numbers[1:]):
        hours, minutes, *seconds = numbers
        return 3600 * hours + 60 * minutes + sum(seconds)
    try:
        date = datetime.fromisoformat(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise DataError(
            f"{where}: start = {text!r:.40} is no time; write seconds, HH:MM, or a date such as "
            "2026-03-29T09:00+01:00"
        ) from None


def _offset(text: str) -> float:
    """Return how far ahead of UTC a date is [s]; 0 for other times."""
    try:
        ahead = datetime.fromisoformat(text).utcoffset() if "-" in text else None
    except ValueError:
        ahead = None
    return 0.0 if ahead is None else ahead.total_seconds()


def _rate(text: str, column: str, where: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and 0 <= rate <= 1e9):
        raise DataError(f"{where}: {column} = {text!r:.40} is no rate in requests/s")
    return rate


def load_of(table: Table, workload: Workload) -> Load:
    """Return the load of one service.

    Columns: request_rate, and optionally input_len and output_len (numbers or laws,
    "lognormal:800,1"); or a rate for each class of `workload`, under its name. What is left out
    holds as `workload` says. Raises DataError naming line and column.
    """
    names = [c.name for c in workload.classes]
    mixed = [name for name in names if name in table.columns]
    rate = [] if mixed else ["request_rate"]
    allowed = ["start", *rate, *([] if mixed else LAWS), *names]
    _check_columns(table, required=rate, allowed=allowed)
    if mixed:
        return mixed_load(table, workload.classes, {n: table.rates(n) for n in mixed}, workload)
    laws = [(row.get("input_len", ""), row.get("output_len", "")) for row in table.rows]
    distinct = list(dict.fromkeys(laws))
    lengths = tuple(_lengths(workload, law, table.name) for law in distinct)
    kinds = [distinct.index(law) for law in laws]
    return Load(_windows(table, table.rates("request_rate"), kinds), lengths)


def _check_columns(table: Table, *, required: Sequence[str], allowed: Sequence[str]) -> None:
    missing = [name for name in required if name not in table.columns]
    unknown = [name for name in table.columns if name not in allowed]
    if unknown and not (missing and len(unknown) > len(missing)):
        near = nearest_names(unknown[0], list(allowed))
        hint = f"; nearest: {', '.join(near)}" if near else ""
        lacks = f"lacks {' and '.join(missing)}, and " if missing else ""
        what = f"{lacks}has unknown {unknown[0]!r:.60}{hint}"
    elif missing:
        what = f"lacks {' and '.join(missing)}"
    else:
        return
    # in quotes, because a column is no flag, even where one has its name
    columns = ", ".join(repr(name) for name in allowed)
    raise DataError(f"{table.name}: {what}; columns are {columns}")


def mixed_load(
    table: Table, classes: Sequence[RequestClass], rates: Mapping[str, Floats], workload: Workload
) -> Load:
    """Return the load of classes that share their instances, from the rate of each.

    Windows whose shares are alike to 1/SHARES have lengths in common.
    """
    each = np.array([rates.get(c.name, np.zeros(table.starts.size)) for c in classes])
    total = each.sum(axis=0)
    mixes: list[tuple[int, ...]] = []
    kinds = []
    for w in range(total.size):
        parts = each[:, w] if total[w] > 0 else each.sum(axis=1) + 1e-9
        mix = _rounded(parts / parts.sum())
        if mix not in mixes:
            mixes.append(mix)
        kinds.append(mixes.index(mix))
    lengths = tuple(_mixture(classes, mix, workload.prefix_cache_hit) for mix in mixes)
    return Load(_windows(table, total, kinds), lengths)


def _rounded(shares: Floats) -> tuple[int, ...]:
    """Return shares in whole SHARES-ths that add up: the largest remainders are rounded up.

    >>> _rounded(np.array([0.51, 0.24, 0.25]))
    (10, 5, 5)
    """
    parts = shares * SHARES
    whole = np.floor(parts + 1e-9).astype(int)
    for i in np.argsort(whole - parts)[: SHARES - int(whole.sum())]:
        whole[i] += 1
    return tuple(int(n) for n in whole)


def _mixture(classes: Sequence[RequestClass], mix: tuple[int, ...], hit: float) -> Lengths:
    kept = [
        RequestClass(name=c.name, share=n / SHARES, input_len=c.input_len, output_len=c.output_len)
        for c, n in zip(classes, mix, strict=True)
        if n
    ]
    if len(kept) == 1:
        only = kept[0]
        alone = Workload(input_len=only.input_len, output_len=only.output_len, prefix_cache_hit=hit)
        found = lower_lengths(alone)
        of_one = np.zeros(found.inputs.size, dtype=np.int64)
        return replace(found, kinds=of_one, kind_names=(only.name,))
    return lower_lengths(Workload(classes=tuple(kept), prefix_cache_hit=hit))


def _windows(table: Table, rates: Floats, kinds: Sequence[int]) -> tuple[Window, ...]:
    return tuple(
        Window(float(start), float(duration), float(rate), kind)
        for start, duration, rate, kind in zip(
            table.starts, table.durations, rates, kinds, strict=True
        )
    )


def _lengths(workload: Workload, law: tuple[str, str], name: str) -> Lengths:
    if law == ("", ""):
        return lower_lengths(workload)
    if "" in law:
        raise DataError(f"{name}: a window needs both input_len and output_len, or neither")
    hit = workload.prefix_cache_hit
    try:
        stated = Workload(input_len=law[0], output_len=law[1], prefix_cache_hit=hit)
    except ValueError as error:
        raise DataError(f"{name}: lengths {law[0]!r:.40}, {law[1]!r:.40}: {error}") from error
    return lower_lengths(stated)
