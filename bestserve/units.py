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
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False, description="[s]")]
Tokens = Annotated[int, Field(ge=1, description="[tokens]")]
RequestRate = Annotated[float, Field(gt=0, allow_inf_nan=False, description="[requests/s]")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, description="[1]")]

_DURATION = re.compile(r"([0-9.+\-eE]+|nan|[+-]?inf)\s*(us|µs|ms|s|min)?", re.IGNORECASE)
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}


def parse_duration(text: str, default_unit: str = "ms") -> float:
    """Read "500", "500ms", "0.5 s" or "80us" as seconds; a bare number is in `default_unit`.

    Raises InputError for anything that is not a positive, finite duration.

    >>> parse_duration("500"), parse_duration("0.5s")
    (0.5, 0.5)
    """
    match = _DURATION.fullmatch(text.strip())
    try:
        value = float(match.group(1)) if match else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(
            f"duration {text[:60]!r} is not a positive number; write 500, 500ms or 0.5s"
        )
    unit = (match.group(2) if match else None) or default_unit
    return value * _SECONDS[unit.lower()]


def milliseconds(seconds: float) -> float:
    """Convert for display and for fields whose name ends in `_ms`."""
    return seconds * 1e3
