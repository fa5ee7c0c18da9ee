"""How much more a deployment takes, and how many GPUs a rate needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bestserve.results.document import Document, plain
from bestserve.results.ranking import RankedStrategy

if TYPE_CHECKING:
    from bestserve.specs.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom(Document):
    """How far the load of a strategy may grow within the objectives.

    request_rate : today's [req/s]; best : the strategy at its goodput
    """

    problem: Problem
    request_rate: float
    best: RankedStrategy

    @property
    def headroom(self) -> float:
        """By how much the rate may grow, as a share of today's; negative: the objectives are missed
        today [1].
        """
        return self.best.goodput / self.request_rate - 1.0

    def content(self) -> dict[str, Any]:
        """Return problem, rate, headroom and the strategy as plain data."""
        return {
            "problem": plain(self.problem),
            "request_rate": self.request_rate,
            "headroom": self.headroom,
            "strategy": plain(self.best),
        }

    def records(self) -> list[dict[str, Any]]:
        """Return the one row."""
        return [
            {
                "strategy": self.best.strategy,
                "gpus": self.best.gpus,
                "request_rate": self.request_rate,
                "goodput": self.best.goodput,
                "headroom": self.headroom,
                "binding": self.best.binding.value,
                "trust": self.best.trust.level,
                "confirmed": self.best.confirmed,
            }
        ]

    def explain(self) -> str:
        """Return the answer as a sentence."""
        s = self.best
        if self.headroom < 0:
            return (
                f"{s.strategy} carries {s.goodput:.4g} req/s within the objectives, so "
                f"{self.request_rate:.4g} req/s is {-self.headroom:.0%} too much: "
                f"{s.binding.value}; trust {s.trust}"
            )
        return (
            f"{s.strategy} takes {s.goodput - self.request_rate:.4g} req/s more than "
            f"{self.request_rate:.4g} (+{self.headroom:.0%}) before its {s.binding.value} stops it "
            f"at {s.goodput:.4g} req/s; trust {s.trust}"
        )


@dataclass(frozen=True, slots=True)
class Tried:
    """A number of GPUs that was looked at, with its best strategy, and whether it carries the rate.

    strategy is None where nothing fits.
    """

    gpus: int
    strategy: RankedStrategy | None
    enough: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Size(Document):
    """The fewest GPUs that carry a rate within the objectives.

    headroom : by which the goodput exceeds the rate at least, as asked [1]
    tried : what was looked at, fewest first; best : the strategy on the fewest that are enough
    """

    problem: Problem
    request_rate: float
    headroom: float
    best: RankedStrategy
    tried: tuple[Tried, ...]

    @property
    def gpus(self) -> int:
        """GPUs needed."""
        return self.best.gpus

    def content(self) -> dict[str, Any]:
        """Return problem, rate, GPUs, the strategy and all sizes tried as plain data."""
        return {
            "problem": plain(self.problem),
            "request_rate": self.request_rate,
            "headroom": self.headroom,
            "gpus": self.gpus,
            "strategy": plain(self.best),
            "tried": plain(self.tried),
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one row per number of GPUs that was looked at."""
        return [
            {
                "gpus": t.gpus,
                "strategy": None if t.strategy is None else t.strategy.strategy,
                "goodput": None if t.strategy is None else t.strategy.goodput,
                "enough": t.enough,
                "binding": None if t.strategy is None else t.strategy.binding.value,
                "trust": None if t.strategy is None else t.strategy.trust.level,
            }
            for t in self.tried
        ]

    def explain(self) -> str:
        """Return the answer as a sentence, with what it costs."""
        s = self.best
        room = f" with {self.headroom:.0%} to spare" if self.headroom else ""
        count = f"{s.gpus} GPU{'s' * (s.gpus > 1)}"
        said = (
            f"{count} carry {self.request_rate:.4g} req/s{room}: {s.strategy} reaches "
            f"{s.goodput:.4g} req/s (its {s.binding.value} stops it); trust {s.trust}"
        )
        return said if s.economics is None else f"{said}\n  at its goodput {s.economics.explain()}"
