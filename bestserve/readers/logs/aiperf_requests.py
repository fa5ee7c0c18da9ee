"""AIPerf per-request records (`profile_export.jsonl`): warm-up, cancelled and failed ones apart.

The file has no settings: neither model nor load.
"""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.readers.logs._build import built, log_figures, log_lengths
from bestserve.readers.logs._drafts import MOST, drafts_of_steps
from bestserve.readers.logs._record import Record, per_token
from bestserve.readers.logs._triton import seconds_in
from bestserve.readers.tidy import RequestLog, TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "aiperf-requests"
_NANO = 1e-9


def sniff(source: Source) -> bool:
    """Whether records pair metadata with metrics and the metadata has AIPerf's time stamps."""
    keys = keys_of(source.value)
    return (
        source.kind in ("json", "jsonl")
        and keys >= {"metadata", "metrics"}
        and "request_start_ns" in keys_of(source.value["metadata"])
    )


def read(source: Source) -> list[TidyRow]:
    """One row for the file."""
    columns: dict[str, list[float]] = {
        k: [] for k in ("in", "out", "ttft", "e2el", "start", "end", "cached")
    }
    warmup = failed = cancelled = 0
    steps: dict[str, float] = {}
    drafted = 0.0
    for line, value in source.records():
        record = Record.of(value, f"{source.name} line {line}", source)
        meta = record.child("metadata")
        if (meta.text("benchmark_phase") or "profiling") != "profiling":
            warmup += 1
        elif meta.data.get("was_cancelled") is True:
            cancelled += 1
        elif record.data.get("error"):
            failed += 1
        else:
            for name, found in _request(record, meta).items():
                columns[name].append(found)
            accepted = record.child("spec_decode_acceptance")
            drafted = max(drafted, accepted.number("num_spec_tokens") or 0.0)
            histogram = accepted.child("acceptance_histogram")
            for name in list(histogram.data)[: 2 * MOST]:
                steps[name] = steps.get(name, 0.0) + (histogram.number(name) or 0.0)
    values = {name: np.array(column) for name, column in columns.items()}
    done = len(columns["e2el"])
    out = values["out"]
    whole = bool(done) and not np.isnan(values["in"]).any() and not np.isnan(out).any()
    log = RequestLog(
        input_len=values["in"].astype(np.int64) if whole else None,
        output_len=out.astype(np.int64) if whole else None,
        ttft=values["ttft"],
        e2el=values["e2el"],
        tpot=per_token(values["e2el"], values["ttft"], out.astype(np.int64)) if whole else None,
        start=(values["start"] - values["start"].min()) * _NANO if done else None,
        cached=_cached(values["in"], values["cached"]) if whole else None,
    )
    hit = None
    if log.cached is not None and log.input_len is not None:
        hit = float(log.cached.sum() / log.input_len.sum())
    duration = float(values["end"].max() - values["start"].min()) * _NANO if done else None
    return [
        built(
            source.name,
            NAME,
            log_figures(log),
            fields={
                "source": "AIPerf",
                "completed": done,
                "failed": failed,
                "num_prompts": done + failed + cancelled,
                "duration": duration,
                "req_throughput": done / duration if duration else None,
                "out_tok_throughput": float(out.sum()) / duration if duration and whole else None,
                "requests": log if done else None,
                "prefix_hit": hit,
                **drafts_of_steps(steps, drafted),
                **log_lengths(log),
            },
            notes=(
                f"{warmup} warm-up requests left out" if warmup else None,
                f"{cancelled} cancelled requests left out" if cancelled else None,
            ),
        )
    ]


def _cached(inputs: Floats, cached: Floats) -> Ints | None:
    """Return the prompt tokens that servers found [n]; None where a request's do not say.

    At most all but the last, which an engine computes in any case.
    """
    if np.isnan(cached).any():
        return None
    return np.minimum(cached, np.maximum(inputs - 1, 0)).astype(np.int64)


def _request(record: Record, meta: Record) -> dict[str, float]:
    metrics = record.child("metrics")
    found: dict[str, float | None] = {
        "in": metrics.child("input_sequence_length").count("value"),
        "out": metrics.child("output_sequence_length").count("value"),
        "cached": metrics.child("usage_prompt_cache_read_tokens").count("value"),
        "start": meta.number("request_start_ns"),
        "end": meta.number("request_end_ns"),
    }
    for name, theirs in (("ttft", "time_to_first_token"), ("e2el", "request_latency")):
        stats = metrics.child(theirs)
        found[name] = stats.number("value", seconds_in(stats)) if "value" in stats else None
    for name in ("start", "end", "e2el"):
        if found[name] is None:
            raise record.fail("metadata", f"no {name} of this request")
    return {name: float("nan") if value is None else float(value) for name, value in found.items()}
