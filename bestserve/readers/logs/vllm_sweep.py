"""`vllm bench sweep`: `summary.csv`, one line a run of `vllm bench serve`, 0.12 to 0.33.

Columns are the keys of a run's JSON and what the sweep varied (`max_num_seqs`, …); the JSON files
beside it (`run=0.json`, `summary.json`) are `vllm-bench-serve`'s.
"""

from __future__ import annotations

import math
import re
from typing import Any

from bestserve.readers.logs._record import Record
from bestserve.readers.logs.vllm import run_row
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source

NAME = "vllm-bench-sweep"

_KEYS = frozenset({"model_id", "num_prompts", "completed", "total_output_tokens", "duration"})
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def sniff(source: Source) -> bool:
    """Whether the header names what every run has, in milliseconds."""
    if source.kind != "csv" or not source.table:
        return False
    header = {cell.strip() for cell in source.table[0]}
    return header >= _KEYS and "mean_ttft_ms" in header


def read(source: Source) -> list[TidyRow]:
    """One row a line."""
    header = [cell.strip() for cell in source.table[0]]
    rows = []
    for number, cells in enumerate(source.table[1:], start=2):
        found = {
            _plain(name): value
            for name, cell in zip(header, cells, strict=False)
            if name and (value := _value(cell.strip())) is not None
        }
        record = Record(found, f"{source.name} line {number}", source)
        rows.append(run_row(record, NAME))
    return rows


def _plain(name: str) -> str:
    """Return a column's name as a key: the sweep writes options with their dashes."""
    return name.lstrip("-").replace("-", "_")


def _value(cell: str) -> Any:
    """Return a cell as JSON had it; None where the table has none (lists are left out)."""
    if cell.lower() in ("", "nan", "none") or cell.startswith("["):
        return None
    if cell.lower() in ("inf", "infinity"):
        return math.inf
    if cell.lower() in ("true", "false"):
        return cell.lower() == "true"
    if _NUMBER.fullmatch(cell):
        value = float(cell)
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    return cell
