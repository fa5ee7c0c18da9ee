"""Whether an analytic answer may be used as it stands."""

from __future__ import annotations

from dataclasses import dataclass


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
