"""Whether an analytic answer may be used as it stands.

The conditions and their thresholds come from 560 random settings compared with the simulator
(`validation/agreement.py`, seeds below 1000); the report's seeds are others.
"""

from __future__ import annotations

from dataclasses import dataclass

COARSE_BATCH = 1.3
"""Mean running sequences below which TPOT percentiles fall between requests that met no prompt
and requests that met one: a sum of few large stalls, which smooth laws misplace."""

COARSE_TAIL = 1.7
"""Factor on `COARSE_BATCH` for percentiles above 95."""

FLAT = 0.10
"""Relative change of goodput for 2 % of a threshold above which a point estimate misleads."""

HIGH_LOAD = 0.85
"""Share of the saturated rate above which decodes and waiting prompts move together."""

LARGE_PROMPTS = 0.2
"""Share of prompts above half the budget from which packing of whole prompts is too coarse."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Verdict on one analytic answer.

    `high` is true when no condition known to break the model holds; otherwise `reasons` names
    every condition that does, and the answer should be simulated.
    """

    high: bool
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, *reasons: str | None) -> Trust:
        """Return high trust unless some reason is given; `None` and repeats drop out."""
        kept = tuple(dict.fromkeys(r for r in reasons if r))
        return cls(not kept, kept)

    def __and__(self, other: Trust) -> Trust:
        """Return the verdict on an answer that rests on both."""
        return Trust.of(*self.reasons, *other.reasons)
