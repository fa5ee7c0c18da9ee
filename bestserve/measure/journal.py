"""The campaign's journal: one JSON line per measured point, so an interruption loses one point."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bestserve.errors import DataError, InputError
from bestserve.host.writing import write_text
from bestserve.readers.bounded import read_text
from bestserve.readers.untrusted import parse_json

VERSION = 1
LIMIT = 50_000_000
"""Bytes; a full campaign writes about 0.1 MB."""


class Journal:
    """A JSONL file: a header that says what is measured where, then one row per point.

    With `path` None nothing is written and nothing resumed.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.path = path
        self.header: dict[str, Any] = {"journal": VERSION, **header}
        self.rows: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        if path.exists():
            self._resume(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(self.header)

    def _resume(self, path: Path) -> None:
        header, rows = read_journal(path)
        for name in ("journal", "device", "driver", "versions", "model", "tp", "fmt", "shape"):
            if header.get(name) != json.loads(json.dumps(self.header.get(name))):
                raise InputError(
                    f"{path} was measured with {name} = {header.get(name)}, now it is "
                    f"{self.header.get(name)}; give another --output or delete the file"
                )
        self.rows = {row["key"]: row for row in rows}
        # A line cut off by the interruption is rewritten whole, so that the file stays readable.
        lines = [self.header, *rows]
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def add(self, row: dict[str, Any]) -> None:
        """Record a measured point."""
        self.rows[row["key"]] = row
        if self.path is not None:
            self._append(row)

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self.path is not None
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def read_journal(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return header and rows of a journal; the last line may be cut off by an interruption.

    Raises DataError for anything that is no journal.
    """
    parsed: list[dict[str, Any]] = []
    lines = read_text(path, "journal", LIMIT).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value, _ = parse_json(line, f"line {number}")
        except DataError:
            if number == len(lines):
                break
            raise DataError(
                f"journal {path}: line {number} is no JSON; restore or delete it"
            ) from None
        if not isinstance(value, dict) or (parsed and not isinstance(value.get("key"), str)):
            raise DataError(f"journal {path}: line {number} is no measured point")
        parsed.append(value)
    if not parsed or parsed[0].get("journal") != VERSION:
        raise DataError(f"journal {path}: the first line is no header of version {VERSION}")
    return parsed[0], parsed[1:]
