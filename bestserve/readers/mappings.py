"""Tables from strangers' files: problems, fleets, records, earlier answers. Never executed.

TOML, YAML and JSON say the same kind of thing, so one reader bounds them all: bytes, nesting, keys,
text and numbers. What it returns holds text, numbers, truth values, dates, lists and tables only.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from bestserve.errors import DataError
from bestserve.readers.bounded import read_text
from bestserve.readers.paths import shown
from bestserve.readers.untrusted import parse_json, parse_yaml, printable

Form = Literal["toml", "yaml", "json"]

MAX_BYTES: Mapping[Form, int] = {"toml": 1_000_000, "yaml": 250_000, "json": 512 * 2**20}
"""Largest file by form: JSON is quick to read, and answers carry all lengths of a trace; the
readers of TOML and YAML are slow."""
MAX_DEPTH = 32
"""Tables and lists inside each other; an answer has about ten."""
MAX_KEYS = 10_000
"""Keys of one table; a quantised config.json lists some thousand layers."""
MAX_KEY = 500
"""Characters of a key."""
MAX_TEXT = 100_000
"""Characters of a text; notes of a record have some hundred."""
MAX_INTEGER = 2**64
"""Whole numbers are below it; every count, and every seed, is."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_FORMS: Mapping[str, Form] = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}


def read_mapping(
    path: str | Path, what: str = "", form: Form | None = None, limit: int | None = None
) -> dict[str, Any]:
    """Return the table in a TOML, YAML or JSON file.

    what : how messages call the file; form : default: by the file's suffix, else JSON
    limit : bytes, instead of `MAX_BYTES`

    Raises DataError in one line that names the file and the place in it.
    """
    file = Path(path)
    form = form or _FORMS.get(file.suffix.lower(), "json")
    where = f"{what} {shown(file)}".strip()
    text = read_text(file, what, MAX_BYTES[form] if limit is None else limit)
    value = parse_mapping(text, form, where)
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds a {type(value).__name__}, not a table of fields")
    return value


def parse_mapping(text: str, form: Form, where: str) -> Any:
    """Return what a text of this form holds, within all bounds. Raises DataError."""
    if form == "json":
        value, constants = parse_json(text, where)
        if constants:
            raise DataError(f"{where}: NaN and Infinity are no JSON")
    elif form == "yaml":
        value = parse_yaml(text, where)
    else:
        value = _toml(text, where)
    _check(value, where, ())
    return value


def _toml(text: str, where: str) -> Any:
    if _longest_dotted(text) > MAX_DEPTH:
        raise DataError(f"{where}: a key of more than {MAX_DEPTH} dotted parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise DataError(f"{where}: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and integers of thousands of digits
        reason = printable(str(error), 160) or "unreadable"
        raise DataError(f"{where}: no valid TOML: {reason}") from None


def _longest_dotted(text: str) -> int:
    """Return the most parts of a dotted key; the standard reader's time grows with their square."""
    longest = dots = 0
    for c in _QUOTED.sub("q", text):
        if c == ".":
            dots += 1
            longest = max(longest, dots)
        elif c not in _IN_KEYS:
            dots = 0
    return longest + 1


_IN_KEYS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_- \t")
_QUOTED = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'|" r"#[^\n]*",
    re.DOTALL,
)
"""Strings and comments, inside which dots part nothing."""


def _check(value: Any, where: str, place: tuple[Any, ...]) -> None:
    """Refuse what no table of ours holds, naming its place."""
    if isinstance(value, dict):
        if len(value) > MAX_KEYS:
            raise DataError(f"{_at(where, place)}: more than {MAX_KEYS} keys in one table")
        for key, inner in value.items():
            if not isinstance(key, str):
                raise DataError(f"{_at(where, place)}: key {shown(str(key))} is no text; quote it")
            if len(key) > MAX_KEY or not _is_text(key):
                raise DataError(f"{_at(where, place)}: key {printable(key, 40)!r} is no name")
            _nested(inner, where, (*place, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _nested(inner, where, (*place, number))
    elif isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise DataError(f"{_at(where, place)}: a text of more than {MAX_TEXT} characters")
        if not _is_text(value):
            raise DataError(f"{_at(where, place)}: holds characters that no text has")
    elif isinstance(value, int):
        if abs(value) >= MAX_INTEGER:
            raise DataError(f"{_at(where, place)}: a whole number of more than 64 bits")
    elif not isinstance(value, float | datetime.date | datetime.time | None):
        raise DataError(f"{_at(where, place)}: a {type(value).__name__} is no value of a table")


def _nested(value: Any, where: str, place: tuple[Any, ...]) -> None:
    if len(place) > MAX_DEPTH:
        raise DataError(f"{where}: nested too deeply, more than {MAX_DEPTH} levels")
    _check(value, where, place)


def _at(where: str, place: tuple[Any, ...]) -> str:
    return f"{where}: {printable('.'.join(map(str, place)), 80)}" if place else where


def _is_text(text: str) -> bool:
    """Whether it has lines of characters only: no terminal's commands, no half of a pair."""
    return text.isprintable() or not _CONTROL.search(text)
