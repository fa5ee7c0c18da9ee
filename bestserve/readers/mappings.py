"""Reading problem files and earlier answers: strangers' files, so bounded and never executed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from bestserve.errors import DataError

MAX_BYTES = 1_000_000


def read_mapping(path: str) -> dict[str, Any]:
    """Read a TOML, YAML or JSON file that holds a mapping. Raises DataError in one line."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{path}: {'not a file' if file.exists() else 'no such file'}")
    if file.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES:,} bytes, so not a problem file")
    try:
        text = file.read_text(encoding="utf-8")
        value = _parse(text, file.suffix.lower())
    except (ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: cannot be read as {file.suffix or 'JSON'}: {first[:160]}"
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a {type(value).__name__}, not a table of fields")
    return value


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".toml":
        return tomllib.loads(text)
    if suffix in (".yaml", ".yml"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    return json.loads(text)
