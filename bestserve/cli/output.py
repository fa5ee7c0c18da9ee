"""How answers are printed: table, json, csv, md or html on stdout."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bestserve.cli.flags import Format
from bestserve.results.document import Document, plain
from bestserve.results.headings import derived, fewer, heading
from bestserve.results.headings import shown as as_shown
from bestserve.results.rows import cell, csv_text, html_table, printed

if TYPE_CHECKING:
    from rich.table import Table

    from bestserve.cli.question import Question

Record = dict[str, Any]

WIDEST = 240
"""Characters up to which a table outside a terminal breaks no cell."""
LONG_NAME = 44
"""Characters up to which a name in a table is never broken,"""
BROKEN = 24
"""and those from which a strategy of two pools takes two lines where a terminal is narrow."""


def emit(
    answer: Document,
    form: Format,
    title: str = "",
    columns: Sequence[str] = (),
    question: Question | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Print an answer; `columns` selects and orders what the table and md forms show.

    question : what was asked; the JSON form carries it, so that `bestserve rerun` can ask again
    extra : what else the JSON form says
    """
    if form == "json":
        import json

        asked = {} if question is None else {"question": plain(question)}
        document = {**answer.to_dict(), **plain(dict(extra or {})), **asked}
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    emit_records(answer.records(), form, title, columns)


def emit_explained(
    answer: Document,
    form: Format,
    title: str = "",
    columns: Sequence[str] = (),
    question: Question | None = None,
) -> None:
    """Print an answer as `emit` does, and below what a person reads, what explains it."""
    emit(answer, form, title, columns, question)
    if form in ("table", "md"):
        print(f"\n{answer.explain()}")


def emit_records(
    records: list[Record], form: Format, title: str = "", columns: Sequence[str] = ()
) -> None:
    """Print rows in any form but JSON documents; `form` "json" prints the bare list.

    What is not finite is absent, as in JSON.
    """
    records = [{k: _known(v) for k, v in row.items()} for row in records]
    chosen = [c for c in columns if any(c in r for r in records)] or list(_names(records))
    shown = [{c: as_shown(c, r.get(c)) for c in chosen} for r in records]
    if form == "table":
        print_table(shown, title)
    elif form == "csv":
        print(csv_text(records), end="")
    elif form == "md":
        print_markdown(shown)
    elif form == "html":
        print(html_table(records))
    else:
        import json

        print(json.dumps(records, indent=2, allow_nan=False, default=str))


def _names(records: list[Record]) -> dict[str, None]:
    """Return the columns that any row fills, in order; a column of blanks says nothing."""
    return {name: None for row in records for name, value in row.items() if value is not None}


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else printed(value)


def print_table(records: list[Record], title: str = "") -> None:
    """Print rows for a person, as wide as the terminal or COLUMNS; what has no room is named."""
    from rich.console import Console

    # Outside a terminal the width is ours to choose, unless it is stated: nothing may be cut.
    bounded = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    console = Console(width=None if bounded else 160, highlight=False)
    names, narrow = list(records[0]) if records else [], False
    unlimited = console.options.update(width=10_000)
    while True:
        table = _table(records, names, title, console.width, narrow)
        wanted = console.measure(table, options=unlimited)
        if not bounded or len(names) < 2 or wanted.minimum <= console.width:
            break
        if derived(names) or narrow:
            names = fewer(names)
        else:
            narrow = True
    if not bounded:
        console.width = max(console.width, wanted.minimum, min(wanted.maximum, WIDEST))
    console.print(table)
    if records and len(names) < len(records[0]):
        left_out = ", ".join(heading(n) for n in records[0] if n not in names)
        print(f"(no room for {left_out}; widen the terminal, or take --format csv)")


def _narrow(row: Record) -> Record:
    """Return a row with the pools of a long strategy on lines of their own, "TTFT" as binding."""
    name, binding = (str(row.get(field) or "") for field in ("strategy", "binding"))
    narrow = {"binding": binding.removesuffix(" objective")}
    if len(name) > BROKEN:
        narrow["strategy"] = name.replace("+", "+\n")
    return {**row, **{field: text for field, text in narrow.items() if field in row}}


def _table(records: list[Record], names: list[str], title: str, width: int, narrow: bool) -> Table:
    from rich.markup import escape
    from rich.table import Table

    if narrow:
        records = [_narrow(row) for row in records]
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column, name in enumerate(names):
        numeric = all(isinstance(r[name], int | float | None) for r in records)
        head = heading(name)
        head = head.replace(" ", "\n") if numeric and width < 120 else head
        cells = [line for r in records for line in cell(r[name]).split("\n")]
        # Numbers, and what the reader types next, stay whole; other columns give way.
        named = (column == 0 and not narrow) or name == "strategy"
        named = named and max(map(len, cells)) <= LONG_NAME
        whole = numeric or named
        table.add_column(
            escape(head),
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=whole,
            min_width=max(map(len, [*cells, *head.splitlines()])) if whole else None,
        )
    for record in records:
        table.add_row(*(escape(cell(record[n])) for n in names))
    return table


def print_markdown(records: list[Record]) -> None:
    """Print rows as a Markdown table."""
    if not records:
        return
    print("| " + " | ".join(heading(name) for name in records[0]) + " |")
    print("|" + " --- |" * len(records[0]))
    for record in records:
        print("| " + " | ".join(_marked(cell(v)) for v in record.values()) + " |")


def _marked(text: str) -> str:
    """Return text that Markdown shows as it is: no cell, no element, no link begins in it."""
    for mark, shown in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("[", "\\["), ("`", "\\`")):
        text = text.replace(mark, shown)
    return text
