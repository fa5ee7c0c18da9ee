"""One figure of a problem: name, value, unit; and lengths that are stretched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bestserve.errors import UnknownNameError
from bestserve.specs.lengths import Empirical, Fixed, Geometric, LengthLaw, LogNormal, Uniform


@dataclass(frozen=True, slots=True)
class Parameter:
    """One figure: full name, value in `unit`, and the bounds between which it makes sense.

    whole : it is a whole number, which moves by one at least
    """

    name: str
    value: float
    unit: str
    low: float = 0.0
    high: float = math.inf
    whole: bool = False

    @property
    def group(self) -> str:
        """What it belongs to: hardware, workload, engine, slo or step_time."""
        return self.name.partition(".")[0]


def known_figure(group: str, name: str, known: Any) -> None:
    """Raise UnknownNameError, with the nearest names, for a figure that a group lacks."""
    if name not in known:
        raise UnknownNameError("figure", f"{group}.{name}", [f"{group}.{k}" for k in known])


def stretched(law: LengthLaw, factor: float) -> LengthLaw:
    """Return a length law with all lengths multiplied, rounded where they are whole numbers.

    >>> stretched(Fixed(512), 1.5).tokens
    768
    """
    if isinstance(law, Fixed):
        return Fixed(max(1, round(law.tokens * factor)))
    if isinstance(law, Uniform):
        return Uniform(max(1, round(law.low * factor)), max(1, round(law.high * factor)))
    if isinstance(law, LogNormal):
        return LogNormal(law.mean * factor, cv=law.cv)
    if isinstance(law, Geometric):
        return Geometric(max(law.mean * factor, 1 + 1e-9))
    return Empirical(tuple(max(1, round(v * factor)) for v in law.values))
