"""Rows as text, CSV and HTML that are safe to open, whatever names they quote."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from typing import Any

from bestserve.results.headings import heading, shown

Record = dict[str, Any]

FORMULA = ("=", "+", "-", "@")
"""How a cell begins that spreadsheets compute instead of showing."""


def printed(value: Any) -> Any:
    """Return text on one line without control characters, everything else as it is.

    Names of models, classes and GPUs may come from a stranger's file; a terminal obeys what is
    no character.

    >>> printed("a\\x1b[31m\\nb"), printed(3)
    ('a [31m b', 3)
    """
    if not isinstance(value, str) or value.isprintable():
        return value
    return " ".join("".join(c if c.isprintable() else " " for c in value).split())


def csv_text(records: Sequence[Record]) -> str:
    """Return rows as CSV with a header; text that looks like a formula starts with a quote."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _shown(value) for name, value in row.items()} for row in records)
    return out.getvalue()


def _shown(value: Any) -> Any:
    text = printed(value)
    return f"'{text}" if isinstance(text, str) and text.startswith(FORMULA) else text


def html_table(records: Sequence[Record]) -> str:
    """Return rows as an HTML table; numbers with four digits, text escaped."""
    if not records:
        return "<p>nothing to show</p>"
    head = "".join(f"<th>{html.escape(str(k))}</th>" for k in records[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(v))}</td>" for v in row.values()) + "</tr>"
        for row in records
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(printed(value))


def cell(value: Any) -> str:
    """Return a value as a person reads it: four digits, SI prefixes, blanks for what is absent.

    >>> cell(3.35e12), cell(12.3456), cell(None)
    ('3.35 T', '12.35', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}"
    if isinstance(value, int):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


MOST_ROWS = 20
"""Rows that a printed answer shows."""


def text_table(records: Sequence[Record]) -> str:
    """Return rows as plain text, a line each; columns that are blank throughout are left out."""
    names = {n: None for row in records for n, value in row.items() if value is not None}
    lines = [[heading(name) for name in names]]
    lines += [[cell(printed(shown(n, row.get(n)))) for n in names] for row in records[:MOST_ROWS]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numeric = [all(isinstance(row.get(n), int | float | None) for row in records) for n in names]
    out = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    ]
    if len(records) > MOST_ROWS:
        out.append(f"… and {len(records) - MOST_ROWS} more rows: records(), to_frame()")
    return "\n".join(out)
