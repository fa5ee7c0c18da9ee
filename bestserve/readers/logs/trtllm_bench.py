"""`trtllm-bench`: TensorRT-LLM's own report (`--report_json`), 0.17 to 1.3.

The client runs in the engine's process. TTFT and TPOT are there only of streaming runs
(`--streaming`); the load is the mean number of requests in flight, which a cap
(`--concurrency`) makes nearly constant.
"""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import built
from bestserve.readers.logs._drafts import drafts
from bestserve.readers.logs._record import Record
from bestserve.readers.logs._settings import stated_settings
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "trtllm-bench"

_SHARES = ("p50", "p90", "p95", "p99")


def sniff(source: Source) -> bool:
    """Whether engine, world, requests and performance are sections of the report."""
    keys = keys_of(source.value)
    return source.kind == "json" and keys >= {
        "engine",
        "world_info",
        "request_info",
        "performance",
    }


def read(source: Source) -> list[TidyRow]:
    """The one run of the file."""
    report = Record.of(source.value, source.name, source)
    performance, requests = report.child("performance"), report.child("request_info")
    streaming = report.child("streaming_metrics")
    figures: dict[str, float | None] = {
        "e2el_mean_ms": performance.number("avg_request_latency_ms")
    }
    figures |= _shares("e2el", performance.child("request_latency_percentiles_ms"))
    for metric in ("ttft", "tpot"):
        figures[f"{metric}_mean_ms"] = streaming.number(f"avg_{metric}_ms")
        figures |= _shares(metric, streaming.child(f"{metric}_percentiles"))
    flight = requests.positive("avg_num_concurrent_requests")
    count = requests.count("num_requests")
    dataset = report.child("dataset")
    return [
        built(
            report.where,
            NAME,
            figures,
            fields={
                "source": "trtllm-bench",
                "engine": "TensorRT-LLM",
                "request_rate": None if flight is None else float("inf"),
                "concurrency": None if flight is None else max(1, round(flight)),
                "mean_concurrency": flight,
                "arrivals": None if flight is None else "closed",
                "num_prompts": count,
                "completed": count,
                "duration": performance.number("total_latency_ms", 1e-3),
                "req_throughput": performance.number("request_throughput_req_s"),
                "out_tok_throughput": performance.number("system_output_throughput_tok_s"),
                "input_len_mean": requests.positive("avg_input_length")
                or dataset.positive("avg_isl"),
                "output_len_mean": requests.positive("avg_output_length")
                or dataset.positive("avg_osl"),
                "in_process": True,
                **_drafted(report),
                **_deployed(report),
            },
        )
    ]


def _shares(metric: str, section: Record) -> dict[str, float | None]:
    return {f"{metric}_{share}_ms": section.number(share) for share in _SHARES}


NEAR_WHOLE = 0.1
"""How far from a whole number the drafts per step may come out, of means over requests."""


def _drafted(report: Record) -> dict[str, Any]:
    """Return what was drafted and accepted.

    A step accepts length − 1 tokens, which is the rate of acceptance times the drafts; both are
    means over requests.
    """
    if "decoding_stats" not in report:
        return {}
    stats = report.child("decoding_stats")
    length = stats.child("acceptance_length_percentiles").positive("average")
    rate = stats.child("draft_acceptance_rate_percentiles").positive("average")
    tokens = None
    if length is not None and rate is not None:
        tokens = (length - 1.0) / rate
        tokens = float(round(tokens)) if abs(tokens - round(tokens)) < NEAR_WHOLE else None
    return {"speculative_decoding": True, **drafts(stats.text("mode"), tokens, length)}


def _deployed(report: Record) -> dict[str, Any]:
    """What the report says of engine, split and GPU."""
    engine, world = report.child("engine"), report.child("world_info")
    out = stated_settings(world)
    algorithm = (engine.text("quantization") or "").upper()
    cache = (engine.text("kv_cache_dtype") or "").lower()
    attention = report.child("world_info").data.get("enable_attention_dp")
    out |= {
        "model": engine.text("model"),
        "engine_version": engine.text("version"),
        "gpu": report.child("machine").text("name"),
        "num_gpus": world.size("world_size"),
        "precision": _precision(algorithm, engine.text("dtype")),
        "kv_cache_dtype": cache if cache not in ("", "none", "auto") else None,
        "gpu_memory_utilization": world.positive("kv_cache_percentage"),
        "attention_dp": out.get("tp") if attention is True else None,
    }
    return {name: value for name, value in out.items() if value is not None}


def _precision(algorithm: str, dtype: str | None) -> str | None:
    for word in ("NVFP4", "FP8", "INT4", "INT8", "MXFP4"):
        if word in algorithm or (word == "INT4" and algorithm.startswith("W4A16")):
            return word.lower()
    return "bf16" if algorithm in ("", "NONE") and dtype in ("bfloat16", "float16") else None
