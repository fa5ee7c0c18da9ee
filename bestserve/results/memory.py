"""The answer to "what fits": where a GPU's memory goes and what the cache holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bestserve.results.caching import WorkingSet
from bestserve.results.document import AnswerStatus, Document, plain
from bestserve.specs.problem import Problem

GB = 1e9


@dataclass(frozen=True, slots=True)
class Printed:
    """One figure of a server's start-up log beside the prediction; unit "GiB", "tokens" or "x"."""

    what: str
    printed: float
    predicted: float
    unit: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a wanted concurrency or context takes.

    concurrency requests of `length` tokens at once; gpus : least number (0: none found), as
    `strategy`; utilization : the share of memory that the asked strategy needs (None: above 1)
    """

    length: float
    concurrency: float
    gpus: int
    strategy: str
    utilization: float | None


@dataclass(frozen=True)
class Memory(Document):
    """Memory of one GPU of an instance [B] and what its cache holds.

    weights : by part [B]: attention, feed-forward, experts, embedding, rest
    kv_tokens : requests of max_model_len at once × max_model_len, per instance [tokens]
    concurrency : requests of max_model_len at once; concurrency_at_workload : of its mean length
    longest_context : longest request that the cache holds [tokens], at most the model's
    startup : the lines that the engine will print
    compared : a start-up log's figures beside the predictions
    calibrated_reserve : the reserve that makes the log's cache come out [B]
    """

    strategy: str
    model: str
    hardware: str
    engine: str
    status: AnswerStatus
    reason: str
    memory_bytes: float
    gpu_memory_utilization: float
    weights_bytes: float
    weights: dict[str, float]
    activation_bytes: float
    reserve_bytes: float
    kv_cache_bytes: float
    kv_bytes_per_token: float
    max_model_len: float
    kv_tokens: float
    concurrency: float
    mean_length: float
    concurrency_at_workload: float
    longest_context: float
    startup: tuple[str, ...]
    wanted: Wanted | None = None
    compared: tuple[Printed, ...] = ()
    calibrated_reserve: float | None = None
    working_set: WorkingSet | None = None
    notes: tuple[str, ...] = ()
    problem: Problem | None = field(default=None, repr=False)

    def content(self) -> dict[str, Any]:
        """Return all fields as plain data: bytes and tokens."""
        found: dict[str, Any] = plain(self)
        return found

    def records(self) -> list[dict[str, Any]]:
        """Return one row a figure: what, value, unit."""
        rows: list[tuple[str, Any, str]] = [
            ("memory", self.memory_bytes / GB, "GB"),
            ("gpu_memory_utilization", self.gpu_memory_utilization, "1"),
            ("weights", self.weights_bytes / GB, "GB"),
            *((f"weights, {part}", size / GB, "GB") for part, size in self.weights.items()),
            ("activations", self.activation_bytes / GB, "GB"),
            ("reserve", self.reserve_bytes / GB, "GB"),
            ("kv_cache", self.kv_cache_bytes / GB, "GB"),
            ("kv_cache per token", self.kv_bytes_per_token / 1e3, "kB"),
            ("max_model_len", self.max_model_len, "tokens"),
            ("kv_tokens", self.kv_tokens, "tokens"),
            ("concurrency at max_model_len", self.concurrency, "requests"),
            (
                f"concurrency at {self.mean_length:,.0f} tokens",
                self.concurrency_at_workload,
                "requests",
            ),
            ("longest_context", self.longest_context, "tokens"),
        ]
        if self.wanted is not None:
            want = self.wanted
            name = f"for {want.concurrency:g} of {want.length:,.0f} tokens"
            rows.append((f"least GPUs {name}", want.gpus or "none found", want.strategy))
            share = want.utilization
            rows.append((f"utilization {name}", "above 1" if share is None else share, "1"))
        for line in self.compared:
            rows.append((f"{line.what}, printed", line.printed, line.unit))
            rows.append((f"{line.what}, predicted", line.predicted, line.unit))
        if self.working_set is not None:
            asked = self.working_set
            rows.append(("working set of prefixes", asked.tokens, "tokens"))
            rows.append(("of it wanted of an instance", asked.at_each, "tokens"))
            rows.append(("which its cache holds", asked.share, "1"))
        if self.calibrated_reserve is not None:
            rows.append(("reserve by the log", self.calibrated_reserve / GB, "GB"))
        return [
            {"figure": what, "value": _rounded(value), "unit": unit} for what, value, unit in rows
        ]

    def explain(self) -> str:
        """Return the arithmetic, what the engine will print, and what was left out."""
        lines = [self.reason or self.status.value] if self.status is not AnswerStatus.OK else []
        if self.startup:
            lines += [f"{self.engine} will print at start-up:", *(f"  {s}" for s in self.startup)]
        if self.working_set is not None:
            lines.append(self.working_set.explain())
        return "\n".join([*lines, *self.notes])


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")
