"""genai-bench (SGLang's project): one JSON a scenario and number of clients, 0.0.1 to 0.0.5.

Times are seconds unless `_time_unit` says ms; the run's length is seconds either way. Model, engine
and GPU stand beside it, in `experiment_metadata.json`.
"""

from __future__ import annotations

import re
from typing import Any

from bestserve.errors import DataError, shown
from bestserve.readers.logs._beside import settings_beside
from bestserve.readers.logs._build import arrivals_of, built, engine_name
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "genai-bench"

_SECONDS = {"s": 1.0, "ms": 1e-3}
_METRICS = {"ttft": "ttft", "tpot": "tpot", "e2el": "e2e_latency"}
_STATS = {"mean": "mean", "stddev": "std", "p50": "p50", "p75": "p75"} | {
    share: share for share in ("p90", "p95", "p99")
}


def sniff(source: Source) -> bool:
    """Whether aggregated metrics with a scenario stand beside those of each request."""
    return (
        source.kind == "json"
        and keys_of(source.value) >= {"aggregated_metrics", "individual_request_metrics"}
        and {"stats", "run_duration"} <= keys_of(source.value["aggregated_metrics"])
    )


def lacking(source: Source) -> str:
    """Return what the file of an experiment's settings lacks."""
    keys = keys_of(source.value) if source.kind == "json" else frozenset()
    if keys >= {"benchmark_version", "traffic_scenario", "api_backend"}:
        return "settings of a genai-bench experiment without figures: name its other JSON files"
    return ""


def read(source: Source) -> list[TidyRow]:
    """The one run of the file."""
    record = Record.of(source.value, source.name, source)
    unit = record.text("_time_unit") or "s"
    if unit not in _SECONDS:
        raise DataError(f"{record.where}: _time_unit is {shown(unit)}: expected s or ms")
    run = record.child("aggregated_metrics")
    stats = run.child("stats")
    figures: dict[str, float | None] = {}
    for ours, theirs in _METRICS.items():
        for key, stat in _STATS.items():
            scale = _SECONDS[unit] * MS
            figures[f"{ours}_{stat}_ms"] = stats.child(theirs).number(key, scale)
    duration = run.positive("run_duration")
    completed = run.count("num_completed_requests")
    throughput = run.positive("requests_per_second")
    concurrency = run.size("num_concurrency")
    return [
        built(
            record.where,
            NAME,
            figures,
            fields={
                "source": "genai-bench",
                "dataset_or_lengths": run.text("scenario"),
                "request_rate": float("inf") if concurrency else None,
                "concurrency": concurrency,
                "arrivals": arrivals_of(float("inf"), concurrency, None),
                "num_prompts": run.count("num_requests"),
                "completed": completed,
                "failed": run.count("num_error_requests"),
                "duration": duration,
                "req_throughput": throughput
                or (completed / duration if completed and duration else None),
                "out_tok_throughput": run.positive("mean_output_throughput_tokens_per_s"),
                **_lengths(stats),
                **_experiment(source),
            },
        )
    ]


def _lengths(stats: Record) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for side, theirs in (("input_len", "num_input_tokens"), ("output_len", "num_output_tokens")):
        section = stats.child(theirs)
        out |= {f"{side}_mean": section.positive("mean"), f"{side}_std": section.number("stddev")}
    return out


def _experiment(source: Source) -> dict[str, Any]:
    """What the file of the experiment says, if it lies beside."""
    settings = settings_beside(source, "experiment_metadata.json")
    gpus = re.match(r"\d{1,4}$", settings.text("server_gpu_count") or "")
    return {
        "model": settings.text("model") or settings.text("api_model_name"),
        "engine": engine_name(settings.text("server_engine")),
        "engine_version": settings.text("server_version"),
        "gpu": settings.text("server_gpu_type"),
        "num_gpus": int(gpus[0]) if gpus and int(gpus[0]) else None,
    }
