"""A number that knows its unit, how it came to be known, and where it stands."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from bestserve.specs.base import Spec

FigureKind = Literal["datasheet", "measured", "derived", "assumed", "secondary"]
"""datasheet: stated by the vendor; measured: read off the device or a benchmark; derived: computed
from other figures; secondary: taken from somebody else's collection; assumed: a plausible value
that nothing at hand supports."""

KINDS: tuple[FigureKind, ...] = get_args(FigureKind)


class Figure(Spec):
    """One figure of a record.

    value : in `unit`, finite and not negative
    unit : checked by whoever holds the figure, never converted
    kind : how the value is known
    source : document, table or reasoning that a reader can check
    date : when it held, for what changes (prices), as YYYY-MM or YYYY-MM-DD
    """

    value: float = Field(ge=0, le=1e30, allow_inf_nan=False, strict=True)
    unit: str = Field(min_length=1, max_length=40)
    kind: FigureKind
    source: str = Field(min_length=1, max_length=1000)
    date: str = Field(default="", max_length=40)
