"""The answer to `predict`: latencies of one strategy at one rate, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bestserve.models.trust import Trust
from bestserve.results.document import AnswerStatus, Document, Summary
from bestserve.results.speculation import Speculated
from bestserve.units import milliseconds

if TYPE_CHECKING:
    from bestserve.specs.problem import Problem


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


UNTOLD = "what measured runs would show is open: the constants' uncertainty spans saturation"

VAGUE = 20.0
"""Ratio of an interval's ends from which it says nothing."""


def telling(intervals: Mapping[str, tuple[float, float]]) -> bool:
    """Return whether the intervals of both means say anything.

    >>> telling({"ttft_mean": (0.0, math.inf), "tpot_mean": (0.02, 0.03)})
    False
    """
    ends = [intervals[f"{metric}_mean"] for metric in ("ttft", "tpot")]
    return all((low > 0 and high < VAGUE * low) or high == 0 for low, high in ends)


def as_read(readers: Mapping[str, float]) -> str:
    """Return what readers meet, in words.

    >>> as_read({"wait_mean": 0.01, "wait_p99": 0.3, "stall_mean": 0.02, "stall_p99": 0.2,
    ...          "itl_p50": 0.02, "itl_p99": 0.08, "itl_max": 0.15, "fluidity_mean": 0.98})
    'readers wait 10 ms in all (P99 300 ms), after the first token 20 ms (P99 200 ms); gaps of \
20 ms (P50), 80 ms (P99), 150 ms at most; fluidity index 0.98'
    """

    def ms(name: str) -> str:
        return f"{_three(milliseconds(readers[name]))} ms"

    parts = []
    if "wait_mean" in readers:
        parts.append(f"readers wait {ms('wait_mean')} in all (P99 {ms('wait_p99')}), ")
    if "stall_mean" in readers:
        start = "" if parts else "readers wait "
        parts.append(f"{start}after the first token {ms('stall_mean')} (P99 {ms('stall_p99')}); ")
    if "itl_p50" in readers:
        gaps = f"gaps of {ms('itl_p50')} (P50), {ms('itl_p99')} (P99), {ms('itl_max')} at most"
        parts.append(gaps)
    if "fluidity_mean" in readers:
        parts.append(f"; fluidity index {readers['fluidity_mean']:.3g}")
    return "".join(parts)


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
    by name from "ttft_mean" to "tpot_p99" [s]; empty with step times of one's own. `refused` is
    the share of requests that the KV cache cannot hold [1]: they meet no objective, and the
    latencies are those of the others. `readers` is what runs show token by token where objectives
    ask for it, by name: waits of a reader who starts when the first token is due, and after it
    (stall), gaps between messages (itl) [s], fluidity index [1].
    latencies are those of the others. `itl` is the mean time between messages to a client [s]: a
    step's tokens come in one, so that with drafts it is more than TPOT. `speculation` says what
    they do; None without.
    """

    problem: Problem
    strategy: str
    request_rate: float
    status: AnswerStatus
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
    trust: Trust = field(default_factory=lambda: Trust(True))
    bound: str = ""
    detail: str = ""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    refused: float = 0.0
    readers: Mapping[str, float] = field(default_factory=dict)
    itl: float | None = None
    speculation: Speculated | None = None

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
            said = expected(self.intervals) if telling(self.intervals) else UNTOLD
            lines.append(f"  {said}")
        if self.bound:
            lines.append(f"  {self.bound}")
        if self.speculation is not None:
            lines.append(f"  {self.speculation.explain()}")
            if self.itl is not None:
                lines.append(f"  a message to the client every {self.itl * 1e3:.3g} ms (ITL)")
        if self.attainment is not None:
            each = ", ".join(f"{m.upper()} {v:.1%}" for m, v in self.attainment_by.items())
            alone = f" ({each})" if len(self.attainment_by) > 1 else ""
            lines.append(f"  {self.attainment:.1%} of requests meet all objectives{alone}")
        if self.readers:
            lines.append(f"  {as_read(self.readers)}")
        return "\n".join(lines)
