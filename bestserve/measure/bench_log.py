"""Runs of the serving loop as `vllm bench serve --save-result --save-detailed` would log them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bestserve.measure.serve_loop import Run

BACKEND = "bestserve-measure"


def bench_log(
    run: Run,
    *,
    model: str,
    label: str | None = None,
    request_rate: float = math.inf,
    max_concurrency: int | None = None,
) -> dict[str, Any]:
    """Return the log of a run, in milliseconds and seconds as vLLM writes them.

    label : free text that readers show
    request_rate : offered rate of an open loop [req/s]; infinite for a closed one
    """
    served = run.served
    inputs = [s.request.input_len for s in served]
    outputs = [s.request.output_len for s in served]
    duration = run.end - run.start
    ttft = [s.ttft for s in served]
    e2el = [s.times[-1] - s.arrival for s in served]
    tpot = [(e - t) / (o - 1) for e, t, o in zip(e2el, ttft, outputs, strict=True) if o > 1]
    itls = [s.itls for s in served]
    return {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": BACKEND,
        "backend": BACKEND,
        "label": label,
        "model_id": model,
        "tokenizer_id": model,
        "num_prompts": len(served),
        "request_rate": "inf" if math.isinf(request_rate) else request_rate,
        "burstiness": 1.0,
        "max_concurrency": max_concurrency,
        "duration": duration,
        "completed": len(served),
        "failed": 0,
        "total_input_tokens": sum(inputs),
        "total_output_tokens": sum(outputs),
        "request_throughput": len(served) / duration,
        "request_goodput": None,
        "output_throughput": sum(outputs) / duration,
        "total_token_throughput": (sum(inputs) + sum(outputs)) / duration,
        "input_lens": inputs,
        "output_lens": outputs,
        "ttfts": ttft,
        "itls": itls,
        "start_times": [s.arrival - run.start for s in served],
        "generated_texts": [""] * len(served),
        "errors": [""] * len(served),
        **_statistics("ttft", ttft),
        **_statistics("tpot", tpot),
        **_statistics("itl", [gap for gaps in itls for gap in gaps]),
        **_statistics("e2el", e2el),
    }


def _statistics(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """Return the summary fields of one latency [ms], zeros where no request has it, as vLLM."""
    values = np.asarray(seconds if len(seconds) else [0.0]) * 1e3
    summary = {"mean": np.mean(values), "median": np.median(values), "std": np.std(values)}
    summary |= {f"p{p}": np.percentile(values, p) for p in (50, 90, 99)}
    return {f"{key}_{name}_ms": float(value) for key, value in summary.items()}
