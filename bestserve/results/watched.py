"""The answer to `watch`: a running server beside what the models say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bestserve.results.document import Document, plain
from bestserve.units import milliseconds

if TYPE_CHECKING:
    from bestserve.readers.metrics.histogram import Histogram
    from bestserve.readers.metrics.live import LiveMetrics
    from bestserve.specs.problem import Problem

LATENCIES = ("ttft", "tpot", "itl", "e2el")


@dataclass(frozen=True, slots=True)
class Agreement:
    """A mean as measured and as predicted [s], and where 90 % of measured runs would lie [s]."""

    metric: str
    measured: float
    predicted: float
    reach: tuple[float, float] | None

    @property
    def agrees(self) -> bool | None:
        """Whether the measured mean lies where it should; None without an interval."""
        return None if self.reach is None else self.reach[0] <= self.measured <= self.reach[1]

    def __str__(self) -> str:
        """Return both means in words."""
        seen, said = (float(f"{milliseconds(v):.3g}") for v in (self.measured, self.predicted))
        word = {True: "as predicted", False: "not as predicted", None: "predicted"}[self.agrees]
        return f"{self.metric} {seen:g} ms, {word} ({said:g} ms)"


@dataclass(frozen=True, slots=True)
class Advice:
    """A limit to change: of which role, from what to what, and what it brings [req/s]."""

    role: str
    limit: str
    now: int
    then: int
    gain: float

    def __str__(self) -> str:
        """Return the advice in words."""
        return f"{self.limit} of {self.role} from {self.now} to {self.then}: +{self.gain:.3g} req/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed(Document):
    """A server's figures alone, without a strategy to hold them to."""

    live: LiveMetrics

    def content(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {"live": _live(self.live)}

    def records(self) -> list[dict[str, Any]]:
        """Return one row of figures."""
        return [{k: v for k, v in _live(self.live).items() if not isinstance(v, dict | list)}]

    def explain(self) -> str:
        """Return lengths and latencies, a line each."""
        return "\n".join(_lines(self.live))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched(Document):
    """How a running server stands to its goodput.

    goodput : of the strategy under the workload seen [req/s]; binding : what stops it there
    agreement : means as measured and predicted; advice : the limit that brings most, if any does
    observed : what the server's own figures say of its limits
    """

    live: LiveMetrics
    problem: Problem
    strategy: str
    goodput: float
    binding: str
    agreement: tuple[Agreement, ...]
    advice: Advice | None
    observed: tuple[str, ...]

    @property
    def load(self) -> float:
        """The rate as a share of the goodput [1]."""
        return (self.live.request_rate or 0.0) / self.goodput

    def content(self) -> dict[str, Any]:
        """Return the answer as plain data."""
        return {
            "live": _live(self.live),
            "problem": plain(self.problem),
            "strategy": self.strategy,
            "goodput": self.goodput,
            "load": self.load,
            "binding": self.binding,
            "agreement": [{**plain(a), "agrees": a.agrees} for a in self.agreement],
            "advice": plain(self.advice),
            "observed": list(self.observed),
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one row."""
        return [
            {
                "strategy": self.strategy,
                "request_rate": self.live.request_rate,
                "goodput": self.goodput,
                "load": self.load,
                "binding": self.binding,
                "running": self.live.running,
                "waiting": self.live.waiting,
                "kv_usage": self.live.kv_usage,
            }
        ]

    def explain(self) -> str:
        """Return the answer in sentences."""
        rate = self.live.request_rate or 0.0
        how = f"at {self.load:.0%} of the {self.goodput:.4g} req/s it carries"
        will = "binds" if self.load >= 1 else "will bind"
        lines = [f"{self.strategy} serves {rate:.4g} req/s, {how}; its {self.binding} {will}"]
        lines += [f"  {a}" for a in self.agreement]
        if self.advice is not None:
            lines.append(f"  change {self.advice}")
        else:
            lines.append("  no limit halved or doubled carries 2 % more")
        lines += [f"  {said}" for said in self.observed]
        return "\n".join([*lines, *_lines(self.live)])


def _lines(live: LiveMetrics) -> list[str]:
    lines = []
    for side, found in (("prompts", live.input_len), ("answers", live.output_len)):
        if found is not None:
            lines.append(f"  {side}: mean {found.mean:,.0f} tokens, cv {found.cv():.2g}")
    for name in LATENCIES:
        found = getattr(live, name)
        if found is not None:
            tail = "".join(f", P{p} {_ms(found.percentile(p / 100))}" for p in (50, 90, 99))
            lines.append(f"  {name.upper()}: mean {_ms(found.mean)}{tail}")
    return [*lines, *(f"  {note}" for note in live.notes)]


def _ms(value: float | None) -> str:
    return "beyond its buckets" if value is None else f"{milliseconds(value):.4g} ms"


def _live(live: LiveMetrics) -> dict[str, Any]:
    """Return the figures as plain data, histograms as mean and percentiles."""
    out: dict[str, Any] = {}
    for name in live.__slots__:
        value = getattr(live, name)
        out[name] = _summary(value) if hasattr(value, "edges") else plain(value)
    return out


def _summary(found: Histogram) -> dict[str, float | None]:
    shares = {f"p{p}": found.percentile(p / 100) for p in (50, 90, 99)}
    return {"count": found.count, "mean": found.mean, **shares}
