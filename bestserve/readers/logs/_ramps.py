"""Runs whose load rises: what clients call a ramp, and when it is more than the run's start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bestserve.readers.tidy import RowStatus, TidyRow

_RAMP = re.compile(r"ramp(_?up)?(_duration)?(_sec)?$")
LONG = 0.1
"""Share of a run from which a ramp is no mere start."""
DEEPEST = 8


def longest_ramp(config: Any, depth: int = 0) -> float:
    """Return the longest ramp among settings [s]; 0 for none. That of a warm-up does not count."""
    if isinstance(config, list) and depth < DEEPEST:
        return max((longest_ramp(item, depth + 1) for item in config), default=0.0)
    if not isinstance(config, Mapping) or depth >= DEEPEST:
        return 0.0
    longest = 0.0
    for key, value in config.items():
        name = str(key)
        if name.startswith("warmup") or str(config.get("kind")) == "warmup":
            continue
        if _RAMP.search(name):
            stated = value.get("duration") if isinstance(value, Mapping) else value
            if isinstance(stated, int | float) and not isinstance(stated, bool) and stated < 1e9:
                longest = max(longest, float(stated))
        else:
            longest = max(longest, longest_ramp(value, depth + 1))
    return longest


def ramped(row: TidyRow, seconds: float) -> TidyRow:
    """Return the row of a run that began with a ramp [s]: noted; not compared where it is long."""
    if not seconds:
        return row
    note = f"WARNING the load rises over {seconds:g} s"
    long = row.duration is None or seconds > LONG * row.duration
    told = replace(row, notes=(*row.notes, note))
    return rising(told) if long else told


def rising(row: TidyRow) -> TidyRow:
    """Return the row of a run whose load rises, which no prediction at one rate is held to."""
    return replace(row, status=RowStatus.RAMP) if row.status is RowStatus.USABLE else row
