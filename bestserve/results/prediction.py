"""Frozen answers: what was found, how sure it is, and the sentence that explains it."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from bestserve._version import __version__
from bestserve.units import milliseconds

if TYPE_CHECKING:
    import pandas as pd

    from bestserve.specs.problem import Problem

SCHEMA_VERSION = 1
"""Of every JSON document bestserve writes; raised when a field changes its meaning."""


class Status(StrEnum):
    """What became of a question; the value is the sentence the user reads."""

    OK = "predicted"
    UNSTABLE = "the queue grows without bound at this rate: lower the rate or add replicas"
    INFEASIBLE_SLO = "a lone request already misses the objective: no rate can meet it"
    INFEASIBLE_MEMORY = "the model does not fit: raise tp or pp, quantise, or take larger GPUs"
    INFEASIBLE_SHAPE = "this parallelism cannot be built"
    NO_CAPACITY = "the KV cache holds no single request of this workload"


class Binding(StrEnum):
    """What stops the goodput from being higher."""

    TTFT = "TTFT objective"
    TPOT = "TPOT objective"
    E2EL = "E2EL objective"
    JOINT = "joint attainment"
    STABILITY = "capacity: the queue would become unstable"
    NONE = "nothing"


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and percentiles of one latency [s]."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float

    def ms(self) -> dict[str, float]:
        """Return the same figures in milliseconds, keyed mean, p50, …"""
        return {f.name: milliseconds(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True, slots=True)
class Confidence:
    """Whether a number can be relied on, and what speaks against it."""

    high: bool
    reasons: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        """ "high" or "low"."""
        return "high" if self.high else "low"

    def __str__(self) -> str:
        if self.high and not self.reasons:
            return self.level
        return self.level + (", but " if self.high else ": ") + "; ".join(self.reasons)


class Document:
    """Serialisation shared by all answers: JSON with its input, frames, HTML."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain data, with `schema_version` and the package version."""
        return {
            "schema_version": SCHEMA_VERSION,
            "bestserve_version": __version__,
            "kind": type(self).__name__.lower(),
            **self.content(),
        }

    def content(self) -> dict[str, Any]:
        """Return the fields of the answer as plain data, seconds and requests/s throughout."""
        fields_of_answer: dict[str, Any] = plain(self)
        return fields_of_answer

    def to_json(self, indent: int | None = 2) -> str:
        """Return the answer as a JSON document that `bestserve rerun` reproduces."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def records(self) -> list[dict[str, Any]]:
        """Return the answer as flat rows, milliseconds in fields that end in `_ms`."""
        raise NotImplementedError

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame (needs `pip install bestserve[frame]`)."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install 'bestserve[frame]'") from None
        return pandas.DataFrame(self.records())

    def _repr_html_(self) -> str:
        return html_table(self.records())


def expected(intervals: Mapping[str, tuple[float, float]]) -> str:
    """Return where 90 % of measured means would lie, in words.

    >>> expected({"ttft_mean": (0.1, 0.4), "tpot_mean": (0.02, math.inf)})
    '90 % of measured runs would have a mean TTFT of 100 to 400 ms, TPOT of 20 ms or more'
    """
    said = []
    for metric in ("ttft", "tpot"):
        low, high = (milliseconds(end) for end in intervals[f"{metric}_mean"])
        reach = f"to {_three(high)} ms" if math.isfinite(high) else "ms or more"
        said.append(f"{metric.upper()} of {_three(low)} {reach}")
    return f"90 % of measured runs would have a mean {', '.join(said)}"


def _three(value: float) -> str:
    """Return three significant digits without an exponent."""
    return f"{float(f'{value:.3g}'):.12g}"


@dataclass(frozen=True, slots=True)
class Prediction(Document):
    """Latencies of one strategy at one rate.

    method is "analytic" or "simulated"; ttft_flavour "steady" (stationary arrivals) or "benchmark"
    (a client's finite run, its initial burst included); `attainment` is the share of requests that
    meet all objectives together [1], `attainment_by` those that meet each, `stability_limit` the
    highest sustainable rate [requests/s]. `intervals` says where 90 % of measured runs would lie,
    by name from "ttft_mean" to "tpot_p99" [s]; empty with step times of one's own.
    """

    problem: Problem
    strategy: str
    request_rate: float
    status: Status
    ttft: Summary | None = None
    tpot: Summary | None = None
    e2el: Summary | None = None
    utilisation: float | None = None
    stability_limit: float | None = None
    mean_batch: float | None = None
    attainment: float | None = None
    attainment_by: Mapping[str, float] = field(default_factory=dict)
    method: str = "analytic"
    ttft_flavour: str = "steady"
    trust: Confidence = field(default_factory=lambda: Confidence(True))
    bound: str = ""
    detail: str = ""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def binding(self) -> str:
        """Which resource a typical step waits for, with its share."""
        return self.bound

    def records(self) -> list[dict[str, Any]]:
        """Return one row per latency."""
        rows = []
        for name in ("ttft", "tpot", "e2el"):
            summary: Summary | None = getattr(self, name)
            if summary is not None:
                row = {f"{k}_ms": v for k, v in summary.ms().items()}
                rows.append({"strategy": self.strategy, "metric": name.upper(), **row})
        return rows

    def explain(self) -> str:
        """Return what was predicted, how, and how far it can be trusted."""
        lines = [f"{self.strategy} at {self.request_rate:.4g} req/s: {self.status.value}"]
        if self.detail:
            lines.append(f"  {self.detail}")
        if self.ttft is None:
            return "\n".join(lines)
        lines.append(f"  method: {self.method}; TTFT: {self.ttft_flavour}; trust {self.trust}")
        if self.utilisation is not None:
            limit = self.stability_limit
            saturates = "" if limit is None else f"; saturates at {limit:.3g} req/s"
            lines.append(f"  utilisation {self.utilisation:.0%}{saturates}")
        if self.intervals:
            lines.append(f"  {expected(self.intervals)}")
        if self.bound:
            lines.append(f"  {self.bound}")
        if self.attainment is not None:
            each = ", ".join(f"{m.upper()} {v:.1%}" for m, v in self.attainment_by.items())
            alone = f" ({each})" if len(self.attainment_by) > 1 else ""
            lines.append(f"  {self.attainment:.1%} of requests meet all objectives{alone}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class RankedStrategy(Document):
    """One strategy with its goodput and where it stands at that rate.

    goodput, low, high : [requests/s], the interval of the estimate
    goodput_per_dollar : requests per dollar, if the hardware record has a price
    ttft, tpot : at the percentile of the objective, at the goodput [s]
    """

    strategy: str
    gpus: int
    goodput: float
    low: float
    high: float
    goodput_per_gpu: float
    goodput_per_dollar: float | None
    ttft: float
    tpot: float
    utilisation: float
    binding: Binding
    trust: Confidence
    method: str

    def records(self) -> list[dict[str, Any]]:
        """Return the one row, latencies in milliseconds."""
        return [
            {
                "strategy": self.strategy,
                "gpus": self.gpus,
                "goodput": self.goodput,
                "goodput_low": self.low,
                "goodput_high": self.high,
                "goodput_per_gpu": self.goodput_per_gpu,
                "goodput_per_dollar": self.goodput_per_dollar,
                "ttft_ms": milliseconds(self.ttft),
                "tpot_ms": milliseconds(self.tpot),
                "utilisation": self.utilisation,
                "binding": self.binding.value,
                "trust": self.trust.level,
                "method": self.method,
            }
        ]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A strategy, or a family of them, that was not ranked, and why."""

    strategy: str
    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class Ranking(Document):
    """All strategies that fit, best goodput first, with the rejected ones and their reasons.

    `intervals` says where 90 % of measured runs of the best strategy at its goodput would lie, as
    in `Prediction`.
    """

    problem: Problem
    table: tuple[RankedStrategy, ...]
    rejected: tuple[Rejected, ...]
    considered: int
    seconds: float
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Return problem, strategies (best first) and the rejected ones as plain data."""
        return {
            "problem": plain(self.problem),
            "strategies": plain(self.table),
            "rejected": plain(self.rejected),
            "considered": self.considered,
            "seconds": self.seconds,
            "intervals": plain(dict(self.intervals)),
        }

    @property
    def best(self) -> RankedStrategy:
        """The strategy with the highest goodput. InfeasibleError if none is feasible."""
        if not self.table:
            from bestserve.errors import InfeasibleError

            raise InfeasibleError(self.why_nothing())
        return self.table[0]

    def why_nothing(self) -> str:
        """Return, in one line, why no strategy is feasible and what to try."""
        # Of each status the last one: the largest instances come closest.
        nearest = {r.status: r.reason for r in self.rejected}
        said = [f"{s.value} ({why})" if why != s.value else why for s, why in nearest.items()]
        shown = "; ".join(said) or "no strategy fits the GPU budget"
        count = self.problem.gpus
        return f"no strategy is feasible on {count} GPU{'s' if count > 1 else ''}: {shown}"

    def records(self) -> list[dict[str, Any]]:
        """Return one row per ranked strategy."""
        return [
            {"rank": rank, **row}
            for rank, strategy in enumerate(self.table, start=1)
            for row in strategy.records()
        ]

    def explain(self, losers: int = 4) -> str:
        """Return why the winner wins, why the next ones lose, and what was rejected."""
        from bestserve.explaining import explain_ranking

        return explain_ranking(self, losers)

    def pareto(self, metric: str = "ttft") -> tuple[RankedStrategy, ...]:
        """Return the strategies no other beats in both goodput per GPU and `metric` [s]."""
        from bestserve.frontier import pareto_front

        points = [(s.goodput_per_gpu, -float(getattr(s, metric))) for s in self.table]
        return tuple(self.table[i] for i in pareto_front(points))

    def cite(self) -> str:
        """Return the sources of the methods this ranking used, as BibTeX."""
        from bestserve.results.citations import bibtex

        return bibtex("ranking", *{s.method for s in self.table})


def html_table(records: list[dict[str, Any]]) -> str:
    """Return rows as an HTML table; numbers with four digits, text escaped."""
    if not records:
        return "<p>nothing to show</p>"
    head = "".join(f"<th>{html.escape(str(k))}</th>" for k in records[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(v))}</td>" for v in row.values()) + "</tr>"
        for row in records
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """Reduce dataclasses, specs, enums and arrays to JSON types; what is not finite is null."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Confidence):
        return {"level": value.level, "reasons": list(value.reasons)}
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value
