"""Reading records from disk as if a stranger wrote them: bounded, decoded, one-line refusals."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from bestserve.errors import DataError

JSON_LIMIT = 10_000_000
"""Bytes; the longest known config.json, quantisation lists included, has about 0.1 MB."""
TOML_LIMIT = 250_000
"""Bytes; a hardware record has about 5 kB, and the standard library's reader is slow."""
TOML_LINE_LIMIT = 10_000
"""Characters; reading a dotted key takes time quadratic in its parts."""

_LONGEST_SHOWN = 300


def shown(path: Path | str) -> str:
    """Return a path as a message may quote it: one line, not endless."""
    text = str(path)
    if not text.isprintable():
        text = ascii(text)[1:-1]
    return text if len(text) <= _LONGEST_SHOWN else "..." + text[-_LONGEST_SHOWN:]


def read_text(path: Path, what: str, limit: int) -> str:
    """Return the text of a regular UTF-8 file of at most `limit` bytes; DataError otherwise."""
    try:
        if not path.exists():
            raise DataError(f"{what} {shown(path)}: no such file; check the path")
        if not path.is_file():
            raise DataError(
                f"{what} {shown(path)}: not a regular file; give the path of the file itself"
            )
        with path.open("rb") as stream:
            raw = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{what} {shown(path)}: cannot be read: {reason}; check the path") from None
    if len(raw) > limit:
        raise DataError(
            f"{what} {shown(path)}: larger than {limit // 1000} kB, so it is no such record"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} {shown(path)}: byte {error.start} is not UTF-8 text; is it a binary file?"
        ) from None
    if "\0" in text:
        raise DataError(f"{what} {shown(path)}: contains NUL bytes; is it a binary file?")
    return text


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Return the object in a JSON file; DataError if it holds anything else."""
    text = read_text(path, what, JSON_LIMIT)
    try:
        value = json.loads(text)
    except RecursionError:
        raise DataError(f"{what} {shown(path)}: nested too deeply to be such a record") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{what} {shown(path)}: no valid JSON at line {error.lineno} "
            f"column {error.colno}: {error.msg}"
        ) from None
    except ValueError as error:  # an integer with thousands of digits
        raise DataError(f"{what} {shown(path)}: no valid JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise DataError(f"{what} {shown(path)}: holds a {type(value).__name__}, expected an object")
    return value


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the tables of a TOML file; DataError if it is none."""
    text = read_text(path, what, TOML_LIMIT)
    if max(map(len, text.splitlines()), default=0) > TOML_LINE_LIMIT:
        raise DataError(f"{what} {shown(path)}: a line longer than {TOML_LINE_LIMIT} characters")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise DataError(f"{what} {shown(path)}: nested too deeply to be such a record") from None
    except (tomllib.TOMLDecodeError, ValueError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else "unreadable"
        raise DataError(f"{what} {shown(path)}: no valid TOML: {reason}") from None


def user_path(text: str | Path) -> Path:
    """Return the path with "~" expanded where that names a home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; a string that can be no path at all is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def looks_like_path(name: str, suffix: str) -> bool:
    """Whether `name` is meant as a path: it ends so, starts like one, or is a file in a folder.

    A folder does not count: who works beside a checkout of vllm/ still means the engine.
    """
    if name.endswith(suffix) or name.startswith(("./", "../", "~/", ".\\", "..\\")):
        return True
    try:
        return ("/" in name or "\\" in name) and Path(name).is_file()
    except (OSError, ValueError):  # too long, or a NUL inside
        return False
