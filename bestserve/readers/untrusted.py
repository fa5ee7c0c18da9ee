"""A file from a stranger, opened once: limits, decoding, and the kind of text it holds.

Nothing inside the file is executed, followed or unpacked. Whatever is wrong with it becomes a
`DataError` of one line that names the file and, where there is one, the record.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bestserve.errors import DataError
from bestserve.readers.bounded import decoded, opened, refuse_binary, rest_of

MAX_BYTES = 512 * 2**20
"""Largest file read [bytes]; `max_bytes` of `open_source` overrides it."""
MAX_LINE = 64 * 2**20
"""Longest line of a JSONL file [bytes]: an SGLang run with all its outputs is one line."""
MAX_CONTAINERS = 10**7
"""Most opening brackets in a document: empty ones cost 30 times their text in memory."""
MAX_YAML = 16 * 2**20
"""Largest YAML file read [bytes]; its parser is a thousand times slower than JSON's."""
MAX_YAML_DEPTH = 64
"""Most lists and tables inside each other in a YAML file."""
MAX_CELLS = 10**7
"""Most cells in a CSV file."""
MAX_RECORDS = 10**7
"""Most lines in a JSONL file."""

Kind = Literal["json", "jsonl", "csv", "yaml", "text"]


@dataclass(slots=True)
class Source:
    """An opened file.

    kind : "json": `value` is the document; "jsonl": read `records()`, `value` is its first
        record; "csv": `table` has its lines of cells; "yaml": `value`; "text": `text`
    constants : whether bare NaN or Infinity (no JSON) were met so far
    warnings : what readers want the user to know
    """

    path: Path
    kind: Kind
    value: Any = None
    table: list[list[str]] = field(default_factory=list)
    text: str = ""
    constants: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file name as it appears in messages."""
        return printable(self.path.name, 120)

    def records(self) -> Iterator[tuple[int, Any]]:
        """Yield (line number, record) of a JSONL file, or the single document of a JSON one."""
        if self.kind == "json":
            yield 1, self.value
            return
        with self.path.open("rb") as stream:
            for number in itertools.count(1):
                line = stream.readline(MAX_LINE + 1)
                if not line:
                    return
                where = f"{self.name} line {number}"
                if len(line) > MAX_LINE:
                    raise DataError(f"{where}: longer than {MAX_LINE >> 20} MiB")
                if number > MAX_RECORDS:
                    raise DataError(f"{self.name}: more than {MAX_RECORDS} lines")
                if line.strip():
                    yield number, self._json(decoded(line, where), where)

    def _json(self, text: str, where: str) -> Any:
        value, constants = parse_json(text, where)
        self.constants = self.constants or constants
        return value


def printable(text: str, width: int = 400) -> str:
    """`text` on one line without control characters, at most `width` characters."""
    clean = "".join(c if c.isprintable() else " " for c in text[: 4 * width])
    clean = " ".join(clean.split())
    return clean if len(clean) <= width else clean[: width - 3] + "..."


def parse_json(text: str, where: str) -> tuple[Any, bool]:
    """Return the document and whether it contains bare NaN or Infinity."""
    constants: list[str] = []

    def constant(word: str) -> float:
        constants.append(word)
        return float(word.replace("Infinity", "inf"))

    if text.count("[") + text.count("{") > MAX_CONTAINERS:
        raise DataError(f"{where}: more than {MAX_CONTAINERS} lists and objects")
    try:
        value = json.loads(text, parse_constant=constant)
    except json.JSONDecodeError as error:
        cut = ", perhaps cut short" if error.pos >= len(text.rstrip()) - 1 else ""
        raise DataError(
            f"{where}: not valid JSON at line {error.lineno} column {error.colno}"
            f" ({printable(error.msg, 80)}{cut})"
        ) from None
    except RecursionError:
        raise DataError(f"{where}: brackets nested too deeply") from None
    except MemoryError:
        raise DataError(f"{where}: too large for memory") from None
    except ValueError as error:  # integers of more than 4300 digits
        raise DataError(f"{where}: {printable(str(error), 100)}") from None
    return value, bool(constants)


def open_source(path: Path, max_bytes: int = MAX_BYTES) -> Source:
    """Open `path` and parse it as JSON, JSONL, CSV, YAML or text, by its content.

    Raises `DataError` for what is missing, no regular file, larger than `max_bytes`, packed,
    binary, cut short, nested too deeply or none of the five.
    """
    name = printable(path.name, 120)
    with opened(path, name, max_bytes, "raise it with max_bytes") as stream:
        head = stream.read(4096)
        refuse_binary(head, name)
        if _looks_like_jsonl(path):
            source = Source(path, "jsonl")
            source.value = next((value for _, value in source.records()), None)
            return source
        raw = head + rest_of(stream, name, max_bytes - len(head))
    text = decoded(raw, name)
    return _parsed(path, name, text)


def _looks_like_jsonl(path: Path) -> bool:
    """Whether a first line that is a whole JSON object is followed by another object."""
    with path.open("rb") as stream:
        first = stream.readline(MAX_LINE + 1).removeprefix(b"\xef\xbb\xbf").strip()
        if not (first.startswith(b"{") and first.endswith(b"}")):
            return False
        return any(line.strip().startswith(b"{") for line in _next_lines(stream))


def _next_lines(stream: io.BufferedReader) -> Iterator[bytes]:
    """Yield up to the first line that is not blank."""
    for _ in range(1000):
        line = stream.readline(MAX_LINE)
        yield line
        if not line or line.strip():
            return


def _parsed(path: Path, name: str, text: str) -> Source:
    start = text.lstrip()
    if not start:
        raise DataError(f"{name}: empty file")
    if start[0] in "{[":
        value, constants = parse_json(text, name)
        return Source(path, "json", value=value, constants=constants)
    first = start.splitlines()[0]
    if first.startswith(("====", ":::ML")):
        return Source(path, "text", text=text)
    if "," in first and not re.match(r"[\w.-]+:(\s|$)", first):
        return Source(path, "csv", table=_table(text, name))
    if re.match(r"(---|#|%|[\w\"'.-]+\s*:(\s|$))", first):
        return Source(path, "yaml", value=parse_yaml(text, name))
    raise DataError(f"{name}: neither JSON, JSONL, CSV, YAML nor a known text log")


def _table(text: str, name: str) -> list[list[str]]:
    table: list[list[str]] = []
    cells = 0
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for line in reader:
            cells += len(line)
            if cells > MAX_CELLS:
                raise DataError(f"{name} line {reader.line_num}: more than {MAX_CELLS} cells")
            table.append(line)
    except csv.Error as error:
        place = f"{name} line {reader.line_num}"
        raise DataError(f"{place}: not valid CSV ({printable(str(error), 80)})") from None
    return table


def parse_yaml(text: str, where: str) -> Any:
    """Return the document; DataError for aliases, deep nesting and everything that is no YAML."""
    import yaml

    if len(text) > MAX_YAML:
        raise DataError(f"{where}: YAML of more than {MAX_YAML >> 20} MiB")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        # Aliases let a page of text stand for gigabytes; deep nesting overruns the C stack.
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise DataError(f"{where}: YAML aliases are not accepted")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_YAML_DEPTH:
                raise DataError(f"{where}: YAML nested too deeply")
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = printable(str(getattr(error, "problem", None) or error), 100)
        raise DataError(f"{where}{line}: not valid YAML ({problem})") from None
    except RecursionError:
        raise DataError(f"{where}: YAML nested too deeply") from None
    except MemoryError:
        raise DataError(f"{where}: too large for memory") from None
    except (ValueError, TypeError, OverflowError, AttributeError, LookupError) as error:
        # impossible dates, huge integers, unhashable keys and empty tags fail in the constructor
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: not valid YAML ({printable(str(error), 100)})") from None


def keys_of(value: Any) -> frozenset[str]:
    """Text keys of a mapping; empty for anything else."""
    return (
        frozenset(k for k in value if isinstance(k, str))
        if isinstance(value, Mapping)
        else (frozenset())
    )


def listed(value: Any) -> list[Any]:
    """`value` as a list of records: itself, or what it holds."""
    return value if isinstance(value, list) else [value]
