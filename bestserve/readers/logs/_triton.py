"""What AIPerf and GenAI-Perf, written by the same people, have in common."""

from __future__ import annotations

from typing import Any

from bestserve.errors import DataError, shown
from bestserve.readers.logs._record import MS, Record

UNITS: dict[str, float] = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}
"""Seconds in a time unit, as `unit` spells it."""
LATENCIES: dict[str, str] = {
    "ttft": "time_to_first_token",
    "tpot": "inter_token_latency",
    "e2el": "request_latency",
}
"""Metrics by our name; their inter-token latency is (e2el − ttft)/(n_out − 1), our TPOT."""
_STATS = {"avg": "mean", "std": "std"}
_SHARES = ("p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99")


def seconds_in(record: Record) -> float:
    """Seconds in the record's `unit`."""
    unit = record.text("unit")
    if unit not in UNITS:
        raise DataError(f"{record.where}: unit is {shown(unit)}: expected a time unit")
    return UNITS[unit]


def latency_figures(metrics: Record) -> dict[str, float | None]:
    """Latency statistics under tidy names [ms]."""
    out: dict[str, float | None] = {}
    for ours, theirs in LATENCIES.items():
        if theirs not in metrics:
            continue
        stats = metrics.child(theirs)
        scale = seconds_in(stats) * MS
        for stat in (*_STATS, *_SHARES):
            out[f"{ours}_{_STATS.get(stat, stat)}_ms"] = stats.number(stat, scale)
    return out


def run_fields(metrics: Record) -> dict[str, Any]:
    """Counts, throughputs and lengths of a summary, as `TidyRow` keywords."""

    def average(name: str) -> float | None:
        return metrics.child(name).number("avg")

    completed = average("request_count")
    failed = average("error_request_count")
    window = metrics.child("benchmark_duration")
    return {
        "completed": None if completed is None else int(completed),
        "failed": None if failed is None else int(failed),
        "duration": window.number("avg", seconds_in(window)) if "avg" in window else None,
        "req_throughput": average("request_throughput"),
        "out_tok_throughput": average("output_token_throughput"),
        "input_len_mean": average("input_sequence_length") or None,
        "input_len_std": metrics.child("input_sequence_length").number("std"),
        "output_len_mean": average("output_sequence_length") or None,
        "output_len_std": metrics.child("output_sequence_length").number("std"),
        "mean_concurrency": average("effective_concurrency"),
    }
