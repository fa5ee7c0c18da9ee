"""The answer to `rank --by smooth`: what readers get of each strategy, less their waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bestserve.results.document import Document, plain

if TYPE_CHECKING:
    from bestserve.specs.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothRow:
    """One strategy at the rate at which its smooth goodput is highest.

    smooth_goodput, error : mean over runs that saw no choosing, and its standard error [tokens/s]
    rate : at which it is [requests/s]; wait : how long a reader waits in all there, on average [s]
    goodput : by the objectives' attainment, as the ranking has it [requests/s]
    """

    strategy: str
    gpus: int
    smooth_goodput: float
    error: float
    rate: float
    wait: float
    goodput: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothRanking(Document):
    """The leading strategies of a ranking by smooth goodput, best first.

    first, pace : when the reader starts, and time per token [s]; cost : tokens that a second of
        waiting is worth [tokens/s]; requests : of a run
    """

    problem: Problem
    table: tuple[SmoothRow, ...]
    first: float
    pace: float
    cost: float
    requests: int

    def content(self) -> dict[str, Any]:
        """Return all fields as plain data."""
        found: dict[str, Any] = plain(self)
        return found

    def records(self) -> list[dict[str, Any]]:
        """Return one row a strategy."""
        return [
            {
                "rank": rank,
                "strategy": row.strategy,
                "gpus": row.gpus,
                "smooth_tokens_per_s": row.smooth_goodput,
                "error": row.error,
                "rate": row.rate,
                "wait_ms": 1e3 * row.wait,
                "goodput": row.goodput,
            }
            for rank, row in enumerate(self.table, start=1)
        ]

    def explain(self) -> str:
        """Return what was counted, and whether the goodput picks another strategy."""
        told = [
            f"Tokens a second less {self.cost:.3g} for each second that a reader waits who starts "
            f"{1e3 * self.first:g} ms after asking and reads one in {1e3 * self.pace:g} ms; "
            f"runs of {self.requests:,} requests."
        ]
        best = self.table[0]
        other = max(self.table, key=lambda row: row.goodput)
        if other.strategy != best.strategy:
            told.append(
                f"By attainment {other.strategy} comes first ({other.goodput:.4g} against "
                f"{best.goodput:.4g} req/s); readers get {other.smooth_goodput:,.0f} tokens/s of "
                f"it, {best.smooth_goodput:,.0f} of {best.strategy}."
            )
        told.append(
            f"{best.strategy} is best at {best.rate:.4g} req/s, its goodput by attainment is "
            f"{best.goodput:.4g}."
        )
        return "\n".join(told)
