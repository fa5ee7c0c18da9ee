"""Answers about prefix caches: working sets, hits that rates need, what routers and tiers bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bestserve.results.document import Document, plain
from bestserve.results.ranking import RankedStrategy

if TYPE_CHECKING:
    from bestserve.specs.problem import Problem

MATTERS = 0.03
"""Gain in goodput that is worth a word [1]: below, runs do not tell two plans apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingSet:
    """What a workload asks for again, and where it has room; all in tokens.

    tokens : of the whole service; at_each : what each instance is asked for again, under the
        problem's routing; room : of one instance's cache, beside running requests
    tiers : room of its offloading tiers; instances : how many there are; rate : [requests/s], 0
        where the set does not depend on it
    """

    tokens: float
    at_each: float
    room: float
    tiers: float
    instances: int
    rate: float

    @property
    def share(self) -> float:
        """Share of what an instance is asked for again that its own cache holds [1]."""
        return min(1.0, self.room / self.at_each) if self.at_each > 0 else 1.0

    @property
    def share_by_prefix(self) -> float:
        """The same if a router sends each prefix to one instance [1]."""
        each = self.tokens / self.instances
        return min(1.0, self.room / each) if each > 0 else 1.0

    def explain(self) -> str:
        """Return how much of it fits, as one sentence."""
        at = f" at {self.rate:g} req/s" if self.rate else ""
        told = (
            f"working set{at}: {self.tokens:,.0f} tokens are asked for again, {self.at_each:,.0f} "
            f"of them of each instance, whose cache has room for {self.room:,.0f}: {self.share:.0%}"
        )
        if self.share_by_prefix > self.share:
            told += f"; {self.share_by_prefix:.0%} if a router sent each prefix to one instance"
        if self.tiers > 0:
            both = min(1.0, (self.room + self.tiers) / max(self.at_each, 1.0))
            told += f"; {both:.0%} with its offloading tiers"
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class HitNeeded(Document):
    """The share of prompt tokens that must be cached for a strategy to carry a rate.

    share : the least [1]; 0: none is needed, None: no share is enough
    found : what its caches find [1]; None if the workload does not say what is shared
    found_rate : at which they do: the wanted rate, or what is carried without hits [requests/s]
    plain_goodput : without any hit [req/s]; goodput : at the share, by runs [req/s]
    """

    problem: Problem
    strategy: str
    wanted_rate: float
    share: float | None
    found: float | None
    found_rate: float
    plain_goodput: float
    goodput: float | None

    def content(self) -> dict[str, Any]:
        """Return all fields as plain data."""
        found: dict[str, Any] = plain(self)
        return found

    def records(self) -> list[dict[str, Any]]:
        """Return the one row."""
        return [
            {
                "strategy": self.strategy,
                "wanted_rate": self.wanted_rate,
                "hit_share_needed": self.share,
                "hit_share_found": self.found,
                "goodput_without_hits": self.plain_goodput,
                "goodput": self.goodput,
            }
        ]

    def explain(self) -> str:
        """Return the answer as a sentence."""
        rate = f"{self.wanted_rate:g} req/s"
        if self.share is None:
            return (
                f"no share of cached prompt tokens makes {self.strategy} carry {rate}: what is "
                "left of prompts, and the answers, are too much"
            )
        if self.share <= 0:
            return f"{self.strategy} carries {rate} without a prefix cache"
        told = (
            f"{self.strategy} carries {rate} if {self.share:.0%} of each prompt's tokens are found "
            f"in a cache; without any it carries {self.plain_goodput:.4g}"
        )
        if self.found is None:
            return told
        enough = "enough" if self.found >= self.share else "too few"
        return f"{told}. Its caches find {self.found:.0%} at {self.found_rate:.4g} req/s: {enough}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """A routing and tiers, with the strategy that is best under them.

    gigabytes : of host memory for each instance [10⁹ B]; hit_share : by a run at the goodput [1]
    """

    routing: str
    gigabytes: float
    best: RankedStrategy
    hit_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlans(Document):
    """The best strategy under each routing and each size of tier that was asked for.

    plans : as asked, the first is what others are compared with; failed : what has no strategy
    """

    problem: Problem
    plans: tuple[CachePlan, ...]
    failed: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """Return problem and plans as plain data."""
        return {
            "problem": plain(self.problem),
            "plans": plain(self.plans),
            "failed": list(self.failed),
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one row a plan, best first."""
        rows = sorted(self.plans, key=lambda p: -p.best.goodput)
        return [
            {
                "routing": p.routing,
                "offloading_gb": p.gigabytes,
                "strategy": p.best.strategy,
                "gpus": p.best.gpus,
                "goodput": p.best.goodput,
                "goodput_per_gpu": p.best.goodput / p.best.gpus,
                "hit_share": p.hit_share,
                "binding": p.best.binding.value,
                "trust": p.best.trust.level,
            }
            for p in rows
        ]

    def explain(self) -> str:
        """Return what the routing and the tiers bring, one sentence each."""
        lines = [*self._routers(), *self._tiers(), *self.failed]
        return "\n".join(lines)

    def _routers(self) -> list[str]:
        first = self.plans[0]
        told = []
        for plan in self.plans[1:]:
            if plan.gigabytes == first.gigabytes and plan.routing != first.routing:
                told.append(f"{plan.routing} routing {_brings(plan, first, first.routing)}")
        return told

    def _tiers(self) -> list[str]:
        told = []
        for plan in self.plans:
            least = next(p for p in self.plans if p.routing == plan.routing)
            if plan is not least:
                name = f"{least.gigabytes:g} GB"
                told.append(
                    f"{plan.gigabytes:g} GB an instance under {plan.routing} routing "
                    f"{_brings(plan, least, name)}"
                )
        return told


def _brings(plan: CachePlan, base: CachePlan, name: str) -> str:
    gain = plan.best.goodput / base.best.goodput - 1
    hits = f"finds {plan.hit_share:.0%} of the prompt tokens instead of {base.hit_share:.0%}"
    if abs(gain) < MATTERS:
        return f"brings nothing over {name} ({plan.best.goodput:.4g} req/s; {hits})"
    word = "more" if gain > 0 else "less"
    return (
        f"carries {plan.best.goodput:.4g} req/s, {abs(gain):.0%} {word} than {name}: "
        f"{plan.best.strategy} {hits}"
    )
