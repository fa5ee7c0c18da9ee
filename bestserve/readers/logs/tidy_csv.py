"""The tidy CSV: the columns of `TidyRow`, and any of its further fields as extra columns.

Blank means "not stated". Notes and free-text columns are read for the settings they state.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable
from typing import Any

from bestserve.errors import DataError, shown
from bestserve.readers.logs._notes import (
    settings_of_lengths,
    settings_of_notes,
    settings_of_parallelism,
)
from bestserve.readers.tidy import (
    COLUMNS,
    SETTABLE,
    Regime,
    TidyRow,
    regime_of,
    status_of,
)
from bestserve.readers.untrusted import Source, printable

NAME = "tidy-csv"
_LATENCIES = frozenset(c for c in COLUMNS if c.startswith(("ttft_", "tpot_")))
_NEEDED = frozenset({"model", "gpu", "request_rate", "concurrency"})
ALIKE = 3
"""Columns of a tidy CSV from which a table is taken for an attempt at one."""

_TYPES = typing.get_type_hints(TidyRow)
_PAIRED = ("tp", "pp")
_REGIMES = frozenset({"", *(regime.value for regime in Regime)})


def sniff(source: Source) -> bool:
    """Whether the header has the settings and at least one latency column."""
    if source.kind != "csv" or not source.table:
        return False
    header = frozenset(cell.strip() for cell in source.table[0])
    return header >= _NEEDED and bool(header & _LATENCIES)


def lacking(source: Source) -> str:
    """Return which columns a table lacks to be a tidy CSV, or "" if it is nothing like one."""
    if source.kind != "csv" or not source.table:
        return ""
    header = frozenset(cell.strip() for cell in source.table[0])
    if len(header & frozenset(COLUMNS)) < ALIKE:
        return ""
    missing = [name for name in COLUMNS if name in _NEEDED - header]
    missing += [] if header & _LATENCIES else ["ttft_mean_ms or another latency"]
    return f"as a {NAME} it lacks the columns {', '.join(missing)} (cells may be blank)"


def read(source: Source) -> list[TidyRow]:
    """One row a line; the id is the file's, or the line number.

    A cell that cannot be read costs its row, which a warning names; DataError if it costs them all.
    A regime that is not known is told from the load instead, which a warning says too.
    """
    header = [cell.strip() for cell in source.table[0]]
    doubled = {name for name in header if name and header.count(name) > 1}
    if doubled:
        raise DataError(f"{source.name}: column {shown(min(doubled))} appears twice")
    rows: list[TidyRow] = []
    unread: list[DataError] = []
    for line, cells in enumerate(source.table[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{source.name} line {line}: {len(cells)} cells, the header has {len(header)}"
            )
        named = {k: v.strip() for k, v in zip(header, cells, strict=True)}
        try:
            row = _row(named, f"{source.name} line {line}", str(line))
        except DataError as error:
            unread.append(error)
            continue
        rows.append(row)
        if (word := named.get("regime", "")) not in _REGIMES:
            source.warnings.append(
                f"row {shown(row.id)}: regime {shown(word)} is none of "
                f"{', '.join(r.value for r in Regime)}: told from the load"
            )
    if unread and not rows:
        raise unread[0]
    source.warnings += [f"row left out: {error}" for error in unread]
    return rows


def _row(cells: dict[str, str], where: str, line: str) -> TidyRow:
    name = printable(cells.get("id", ""), 80) or line
    place = f"{where} row {shown(name)}"
    own: dict[str, Any] = {}
    for field, text in cells.items():
        if text and field not in ("id", "notes", "regime", "disaggregated") and (
            field in SETTABLE and not (field in _PAIRED and text.startswith("P"))
        ):  # fmt: skip
            own[field] = _value(field, text, place)
    notes = tuple(
        piece
        for piece in (printable(part, 1000) for part in cells.get("notes", "").split(";"))
        if piece
    )
    disaggregated = cells.get("disaggregated", "")
    if disaggregated:
        own["disaggregated"] = disaggregated[0].lower() in ("y", "t", "1")
    found = {
        **settings_of_lengths(own.get("dataset_or_lengths")),
        **settings_of_notes(notes, own.get("concurrency")),
        **settings_of_parallelism(cells),
    }
    own = {**{k: v for k, v in found.items() if v is not None}, **own}
    own.setdefault("arrivals", _arrivals(own))
    ranges = _ranges(own)
    return TidyRow(
        id=name,
        notes=notes,
        regime=_regime(cells.get("regime", ""), own),
        status=status_of(
            own.get("completed"),
            own.get("ttft_mean_ms", own.get("ttft_p50_ms")),
            own.get("tpot_mean_ms", own.get("tpot_p50_ms")),
            own.get("req_throughput", own.get("out_tok_throughput")),
        ),
        origin=where,
        format=NAME,
        **{**ranges, **own},
    )


def _regime(text: str, own: dict[str, Any]) -> Regime | None:
    if text and text in _REGIMES:
        return Regime(text)
    return regime_of(own.get("request_rate"), own.get("concurrency"), own.get("req_throughput"))


def _arrivals(own: dict[str, Any]) -> str | None:
    """How requests arrived where no note says: all at once, or by a client's next-when-done."""
    if own.get("request_rate") != math.inf:
        return None
    return "burst" if own.get("concurrency") is None else "closed"


def _ranges(own: dict[str, Any]) -> dict[str, Any]:
    """Uniform length ranges from the nominal lengths and the range ratio of the client."""
    ratio = own.get("range_ratio")
    if ratio is None:
        return {}
    out: dict[str, Any] = {}
    for side in ("input_len", "output_len"):
        highest = own.get(f"{side}_asked")
        if highest and ratio <= 1 and own.get("ignore_eos") is not False:
            out[f"{side}_range"] = (max(1.0, ratio * highest), highest)
    return out


def _value(field: str, text: str, place: str) -> Any:
    """`text` as the type of `field`; range checks are `TidyRow`'s."""
    kinds = _members(_TYPES[field])
    try:
        if int in kinds:
            number = float(text)
            if not number.is_integer():
                raise ValueError
            return int(number)
        if float in kinds and tuple not in kinds:
            return float(text)
    except (ValueError, OverflowError):
        wanted = "a whole number" if int in kinds else "a number"
        raise DataError(f"{place}: {field} is {shown(text)}: expected {wanted}") from None
    if bool in kinds:
        word = {"true": True, "y": True, "1": True, "false": False, "n": False, "0": False}
        if text.lower() not in word:
            raise DataError(f"{place}: {field} is {shown(text)}: expected true or false")
        return word[text.lower()]
    if tuple in kinds:
        low, _, high = text.partition("-")
        try:
            return (float(low), float(high or low))
        except ValueError:
            raise DataError(f"{place}: {field} is {shown(text)}: expected low-high") from None
    return printable(text, 1000)


def _members(annotation: Any) -> tuple[Any, ...]:
    if isinstance(annotation, types.UnionType):
        return tuple(typing.get_origin(a) or a for a in annotation.__args__)
    return (typing.get_origin(annotation) or annotation,)


def to_records(rows: Iterable[TidyRow]) -> list[dict[str, str]]:
    """Rows as text under the tidy CSV's columns, then every further field that any row states.

    `read` gives the same rows back, apart from what the CSV has no place for (`requests`, `more`,
    `status`, `origin`, `format`).
    """
    listed = list(rows)
    extra = [
        f.name
        for f in dataclasses.fields(TidyRow)
        if f.name in SETTABLE
        and f.name not in COLUMNS
        and any(getattr(row, f.name) is not None for row in listed)
    ]
    return [{name: _cell(row, name) for name in (*COLUMNS, *extra)} for row in listed]


def _cell(row: TidyRow, name: str) -> str:
    value = getattr(row, name)
    if value is None:
        return ""
    if name == "disaggregated":
        pd = row.prefill_workers and row.decode_workers
        return f"y {row.prefill_workers}P{row.decode_workers}D" if pd else "y" if value else "n"
    if isinstance(value, Regime):
        return value.value
    if name == "notes":
        return "; ".join(value)
    if isinstance(value, tuple):
        return f"{value[0]:g}-{value[1]:g}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)
