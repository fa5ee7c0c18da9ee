"""Kinds of flags that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token
from cyclopts.validators import Number

MOST = 10_000
"""Processes, samples, points, replications, rows: more were written by mistake."""
MOST_REQUESTS = 10_000_000
"""Requests of one simulation: some gigabytes of memory."""


def whole(type_: Any, tokens: Sequence[Token]) -> Any:
    """Read whole numbers as written: 2.5 GPUs are an error, not two."""
    values = []
    for token in tokens:
        try:
            values.append(int(token.value))
        except ValueError:
            raise ValueError(f"{token.value[:40]!r} is no whole number") from None
    return values[0] if type_ is int else values


NO_VALUE = "requires one or more values"


def some(type_: Any, values: Sequence[Any] | None) -> None:
    """Refuse a flag whose values are missing: it would have no effect."""
    if values is not None and not values:
        raise ValueError(NO_VALUE)


Method = Literal["auto", "analytic", "simulated"]
"""How an answer is found."""

StrategyName = Annotated[str, Parameter(help="2m-tp4, 3p2d-tp4, 3p-tp2+2d-tp4")]
FORMS = "table, json, csv, md or html"
Format = Annotated[Literal["table", "json", "csv", "md", "html"], Parameter(help=FORMS)]

Many = Parameter(consume_multiple=True, negative="", validator=some)
Repeated = Parameter(negative="")
Whole = Parameter(converter=whole)
Wholes = Parameter(consume_multiple=True, negative="", converter=whole, validator=some)
Count = Parameter(converter=whole, validator=Number(gte=1, lte=MOST))
Requests = Parameter(converter=whole, validator=Number(gte=1, lte=MOST_REQUESTS))
