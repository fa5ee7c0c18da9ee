"""guidellm JSON, 0.3 (`args.strategy`) and 0.8 (`metadata.version` 2, `config.strategy`).

Its `inter_token_latency_ms` of a request is our TPOT. Its `time_per_output_token_ms` is divided by
all output tokens, and from 0.8 on includes TTFT, so it is not used. Its printed means are weighted
by tokens, so figures are recomputed from the requests where all of them are in the log.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bestserve.readers.logs._build import arrivals_of, built, log_figures, log_lengths
from bestserve.readers.logs._ramps import longest_ramp, ramped
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.tidy import RequestLog, TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "guidellm"
_METRICS = (
    ("ttft", "time_to_first_token_ms", 1.0),
    ("tpot", "inter_token_latency_ms", 1.0),
    ("e2el", "request_latency", MS),
)
_PERCENTILES = {"p01": "1", "p05": "5", "p10": "10", "p25": "25", "p75": "75", "p90": "90",
                "p95": "95", "p99": "99", "p999": "99.9"}  # fmt: skip
_ALL_AT_ONCE = ("throughput",)


def sniff(source: Source) -> bool:
    """Whether the document is a list of benchmarks with metrics and request statistics."""
    if source.kind != "json" or "benchmarks" not in keys_of(source.value):
        return False
    runs = source.value["benchmarks"]
    if not isinstance(runs, list) or not runs:
        return False
    keys = keys_of(runs[0])
    return keys >= {"metrics", "requests"} and bool(keys & {"config", "args"})


def read(source: Source) -> list[TidyRow]:
    """One row a benchmark."""
    document = Record.of(source.value, source.name, source)
    return [_row(run) for run in document.children("benchmarks")]


def _row(run: Record) -> TidyRow:
    config = run.child("config") if "config" in run else run.child("args")
    strategy = config.child("strategy")
    kind = strategy.text("type_")
    rate = strategy.positive("rate")
    streams = strategy.size("streams")
    if streams is None and kind == "synchronous":
        streams = 1
    if kind in _ALL_AT_ONCE:
        rate = float("inf")
        streams = strategy.size("max_concurrency")
    metrics = run.child("metrics")
    totals = metrics.child("request_totals") if "request_totals" in metrics else (
        run.child("request_totals")
    )  # fmt: skip
    completed, failed = totals.count("successful"), totals.count("errored")
    requests = _requests(run, completed)
    figures: dict[str, float | None] = {}
    notes: list[str | None] = []
    if requests is not None:
        figures = log_figures(requests)
    else:
        for metric, theirs, scale in _METRICS:
            figures |= _stats(metrics.child(theirs, "successful"), metric, scale)
        notes.append("mean TPOT weighted by output tokens: the log does not have every request")
    incomplete = totals.count("incomplete")
    if incomplete:
        notes.append(f"{incomplete} requests were cut off at the end of the run and left out")
    worker, backend = run.child("worker"), config.child("backend")
    lengths = _mean_lengths(metrics) if requests is None else log_lengths(requests)
    row = built(
        run.where,
        NAME,
        figures,
        fields={
            "source": "guidellm",
            "model": backend.text("model") or worker.text("backend_model"),
            "request_rate": rate,
            "concurrency": streams,
            "arrivals": arrivals_of(rate, streams, kind if kind != "async" else None),
            "mean_concurrency": metrics.child("request_concurrency", "successful").number("mean"),
            "num_prompts": totals.count("total"),
            "completed": completed,
            "failed": failed,
            "duration": run.number("duration"),
            "req_throughput": _rate(run, metrics, completed, "requests_per_second"),
            "out_tok_throughput": metrics.child("output_tokens_per_second", "successful").number(
                "mean"
            ),
            "requests": requests,
            **lengths,
        },
        notes=tuple(notes),
    )
    return ramped(row, longest_ramp(config.data))


def _rate(run: Record, metrics: Record, completed: int | None, name: str) -> float | None:
    duration = run.positive("duration")
    if completed and duration:
        return completed / duration
    return metrics.child(name, "successful").number("mean")


def _stats(stats: Record, metric: str, scale: float) -> dict[str, float | None]:
    """Figures of one statistics object as tidy names [ms]."""
    if stats.count("count") == 0:
        return {}
    shares = stats.child("percentiles")
    out = {
        f"{metric}_mean_ms": stats.number("mean", scale),
        f"{metric}_p50_ms": stats.number("median", scale),
        f"{metric}_std_ms": stats.number("std_dev", scale),
    }
    for theirs, share in _PERCENTILES.items():
        out[f"{metric}_p{share}_ms"] = shares.number(theirs, scale)
    return out


def _mean_lengths(metrics: Record) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for side, theirs in (("input_len", "prompt_token_count"), ("output_len", "output_token_count")):
        stats = metrics.child(theirs, "successful")
        out |= {f"{side}_mean": stats.positive("mean"), f"{side}_std": stats.number("std_dev")}
    return out


def _requests(run: Record, completed: int | None) -> RequestLog | None:
    """Per-request arrays where the log has every completed request; it may hold a sample."""
    rows = list(run.child("requests").children("successful"))
    if not rows or len(rows) != completed:
        return None
    columns: dict[str, list[float]] = {name: [] for name in ("in", "out", "ttft", "tpot", "e2e")}
    starts: list[float] = []
    for row in rows:
        found = (
            row.count("prompt_tokens"),
            row.count("output_tokens"),
            row.number("time_to_first_token_ms", 1 / MS),
            row.number("inter_token_latency_ms", 1 / MS),
            row.number("request_latency"),
        )
        for name, value in zip(columns, found, strict=True):
            columns[name].append(float("nan") if value is None else value)
        start = row.number("request_start_time")
        start = row.number("start_time") if start is None else start
        starts.append(float("nan") if start is None else start)
    values = {name: np.array(column) for name, column in columns.items()}
    if any(np.isnan(values[name]).any() for name in ("in", "out", "ttft", "e2e")):
        return None
    begin = np.array(starts)
    return RequestLog(
        input_len=values["in"].astype(np.int64),
        output_len=values["out"].astype(np.int64),
        ttft=values["ttft"],
        tpot=np.where(values["out"] > 1, values["tpot"], np.nan),
        e2el=values["e2e"],
        start=None if np.isnan(begin).any() else begin - begin.min(),
    )
