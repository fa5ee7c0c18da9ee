"""Write the table of universal constants into docs/models/step-time.md.

    python docs/constants_table.py

`tests/docs/test_constants_table.py` fails while page and `bestserve.models.constants` differ.
"""

from __future__ import annotations

from pathlib import Path

from bestserve.models.constants import FITTED, ConstantRecord, describe

PAGE = Path(__file__).parent / "models" / "step-time.md"
BEGIN, END = "<!-- constants: begin -->", "<!-- constants: end -->"


def table() -> str:
    """Return the constants as Markdown, one row each, in the order of the code."""
    lines = ["| constant | value | unit | kind | source |", "| --- | --- | --- | --- | --- |"]
    lines += [row(record) for record in describe()]
    return f"**A** = {FITTED}.\n\n" + "\n".join(lines)


def row(record: ConstantRecord) -> str:
    """Return one line of the table; times in µs, as people say them."""
    value, unit = record.value, record.unit
    source = record.source.replace(FITTED, "A")
    if unit == "s":
        value, unit = value * 1e6, "µs"
    elif unit == "B/s/SM":
        value, unit = value / 1e9, "GB/s/SM"
    return f"| `{record.name}` | {value:.4g} | {unit} | {record.kind} | {source} |"


def split(text: str) -> tuple[str, str, str]:
    """Return the page before, between and after the markers."""
    before, _, rest = text.partition(BEGIN)
    between, _, after = rest.partition(END)
    return before, between.strip("\n"), after


def main() -> None:
    """Replace what is between the markers."""
    before, _, after = split(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
