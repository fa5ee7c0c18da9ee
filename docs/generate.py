"""Write what the code knows into the pages: universal constants, commands, public names.

    python docs/generate.py

`tests/docs/test_generated.py` fails while a page and the code differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import bestserve
from bestserve.cli import COMMANDS
from bestserve.models.step.constants import FITTED, QUANTISED, ConstantRecord, describe
from bestserve.specs.fleet import Deployed, Fleet, FleetClass, FleetModel, GpuGroup, Link

DOCS = Path(__file__).parent


def constants() -> str:
    """Return the universal constants as a table, in the order of the code."""
    lines = ["| constant | value | unit | kind | source |", "| --- | --- | --- | --- | --- |"]
    lines += [constant_row(record) for record in describe()]
    return f"**A** = {FITTED}. **B** = {QUANTISED}.\n\n" + "\n".join(lines)


def constant_row(record: ConstantRecord) -> str:
    """Return one line of the table; times in µs, as people say them."""
    value, unit = record.value, record.unit
    source = record.source.replace(FITTED, "A").replace(QUANTISED, "B")
    if unit == "s":
        value, unit = value * 1e6, "µs"
    elif unit == "B/s/SM":
        value, unit = value / 1e9, "GB/s/SM"
    return f"| `{record.name}` | {value:.4g} | {unit} | {record.kind} | {source} |"


def commands() -> str:
    """Return the commands with what they answer."""
    rows = [f"| `bestserve {name}` | {text} |" for name, text in COMMANDS.items()]
    return "\n".join(["| command | answers |", "| --- | --- |", *rows])


def names() -> str:
    """Return the public names with the first line of their docstrings."""
    public = [name for name in bestserve.__all__ if name != "__version__"]
    rows = [f"| `bestserve.{name}` | {summary(getattr(bestserve, name))} |" for name in public]
    return "\n".join(["| name | is |", "| --- | --- |", *rows])


def fleet_keys() -> str:
    """Return the keys of a fleet file, a table each, with kind, default and meaning."""
    parts = []
    for heading, spec in FLEET_TABLES.items():
        told = meanings(spec)
        rows = []
        for name, field in spec.model_fields.items():
            default = "needed" if field.is_required() else f"`{field.default!r}`"
            default = "" if field.default is None else default.replace("'", '"')
            kind = type_of(field.annotation)
            rows.append(f"| `{name}` | {kind} | {default} | {told.get(name, '')} |")
        head = ["| key | kind | default | meaning |", "| --- | --- | --- | --- |"]
        parts.append("\n".join([f"### {heading}", "", summary(spec) + ".", "", *head, *rows]))
    return "\n\n".join(parts)


def type_of(annotation: object) -> str:
    """Return a kind of value as a reader of a file calls it."""
    text = re.sub(r"Annotated\[(\w+).*", r"\1", str(annotation))
    words = {"tuple": "list", "str": "text", "int": "whole number", "float": "number",
             "bool": "true or false"}  # fmt: skip
    found = [said for word, said in words.items() if re.search(rf"\b{word}\b", text)]
    choices = re.findall(r"'(\w+)'", text)
    if choices and "Literal" in text:
        return " or ".join(f"`{c}`" for c in choices)
    return "list" if "list" in found else " or ".join(found) or "table"


def meanings(spec: type) -> dict[str, str]:
    """Return what a docstring says of each field: lines "name, name : meaning; name : …"."""
    text = re.sub(r"\n {8,}", " ", spec.__doc__ or "")
    found: dict[str, str] = {}
    for line in text.splitlines():
        for part in re.split(r"; (?=\w+(?:, \w+)* : )", line):
            names, colon, said = part.partition(" : ")
            keys = [re.sub(r"\s*[\[(].*", "", n).strip() for n in names.split(",")]
            if colon:
                said = said.strip().replace("|", "\\|")
                found |= {key: said for key in keys if key in spec.model_fields}
    return found


def summary(thing: object) -> str:
    """Return the first paragraph of a docstring on one line."""
    first = (thing.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(first.split()).replace("|", "\\|").removesuffix(".")


FLEET_TABLES = {
    "The file": Fleet,
    "`[[gpus]]`": GpuGroup,
    "`[[models]]`": FleetModel,
    "`[[models.classes]]`": FleetClass,
    "`[[links]]`": Link,
    "`[[deployed]]`": Deployed,
}
"""Tables of a fleet file -> the spec behind each."""

TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "constants": (DOCS / "models" / "step-time.md", constants),
    "commands": (DOCS / "reference.md", commands),
    "names": (DOCS / "reference.md", names),
    "fleet-keys": (DOCS / "fleet-files.md", fleet_keys),
}
"""Table -> page that shows it between `<!-- table: begin -->` and `<!-- table: end -->`, maker."""


def between(table: str) -> re.Pattern[str]:
    """Return the pattern of a table's place in a page, with the table as group 2."""
    return re.compile(rf"(<!-- {table}: begin -->\n)(.*?)(\n<!-- {table}: end -->)", re.DOTALL)


def main() -> None:
    """Rewrite every table in its page."""
    for table, (page, make) in TABLES.items():
        made = f"\n{make()}\n"
        text = page.read_text(encoding="utf-8")
        text = between(table).sub(lambda m, made=made: m[1] + made + m[3], text)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
