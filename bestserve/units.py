"""SI units: the aliases that public signatures use, and the one place that reads user units.

Inside bestserve everything is seconds, bytes, FLOP/s, tokens and requests per second.
Milliseconds exist only at the edge, in names that end in `_ms` and in SLO strings.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import Field

from bestserve.errors import InputError

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, description="[s]")]
PositiveSeconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, description="[s]")]
Tokens = Annotated[int, Field(ge=1, description="[tokens]")]
RequestRate = Annotated[
    float, Field(ge=1e-9, le=1e9, allow_inf_nan=False, description="[requests/s]")
]
Name = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
"""What answers call a thing: one line, no control characters."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="[1]")]

SHORTEST, LONGEST = 1e-9, 1e9
"""Durations that are read [s]; beyond, they were written by mistake."""
_DURATION = re.compile(r"([0-9.+\-eE]+|nan|[+-]?inf)\s*(us|µs|ms|s|min|h)?", re.IGNORECASE)
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def parse_duration(text: str, default_unit: str = "ms") -> float:
    """Read "500", "500ms", "0.5 s" or "80us" as seconds; a bare number is in `default_unit`.

    Raises InputError for anything that is not a positive, finite duration.

    >>> parse_duration("500"), parse_duration("0.5s")
    (0.5, 0.5)
    """
    match = _DURATION.fullmatch(text.strip())
    value = _float(match.group(1)) if match else math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(
            f"duration {text[:60]!r} is not a positive number; write 500, 500ms or 0.5s"
        )
    unit = (match.group(2) if match else None) or default_unit
    seconds = value * _SECONDS[unit.lower()]
    if not SHORTEST <= seconds <= LONGEST:
        raise InputError(f"duration {text[:60]!r} is below a nanosecond or above thirty years")
    return seconds


_FACTOR = re.compile(r"[x×*]\s*([0-9.eE+\-]+)")
_QUANTITY = re.compile(r"([0-9.eE+\-]+)\s*(.*)")
_PREFIXES = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "P": 1e15, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


def is_factor(to: object) -> bool:
    """Say whether a change is written as a factor, "x1.5"."""
    return isinstance(to, str) and _FACTOR.fullmatch(to.strip()) is not None


def parse_change(name: str, to: float | str, unit: str, before: float | None) -> float:
    """Return what figure `name` becomes, in `unit`.

    to : a number in `unit`, text with the unit and a prefix, or a factor of `before`

    Raises InputError for anything that is not finite and ≥ 0.

    >>> parse_change("memory_bandwidth", "4.8 TB/s", "B/s", 3.35e12) / 1e12
    4.8
    >>> parse_change("sms", "x1.5", "1", 100)
    150.0
    """
    value = math.nan
    if not isinstance(to, str):
        value = float(to)
    elif is_factor(to):
        if before is None:
            raise InputError(f"{name} is not stated, so it cannot be scaled")
        value = _float(to.strip()[1:]) * before
    elif match := _QUANTITY.fullmatch(to.strip()):
        prefix = match.group(2).removesuffix(unit) if match.group(2).endswith(unit) else "?"
        scale = 1.0 if not match.group(2) else _PREFIXES.get(prefix, math.nan)
        value = _float(match.group(1)) * scale
    if not (math.isfinite(value) and value >= 0):
        raise InputError(
            f"{name}={str(to)[:40]!r} is no finite number >= 0; "
            f"write a value in {unit} or a factor such as x1.5"
        )
    return value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def milliseconds(seconds: float) -> float:
    """Convert for display and for fields whose name ends in `_ms`."""
    return seconds * 1e3
