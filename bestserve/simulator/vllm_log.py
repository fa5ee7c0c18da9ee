"""A simulated run in the words of `vllm bench serve --save-detailed`.

Whatever reads measured logs reads simulated ones. Fields as vLLM 0.10 writes them: latencies in
milliseconds in the summary, in seconds per request; TPOT over requests with two or more output
tokens; refused requests are failed ones.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bestserve.arrays import Floats

if TYPE_CHECKING:
    from bestserve.simulator.result import SimulationResult

PERCENTILES = (50, 90, 95, 99)


def inter_token_latencies(result: SimulationResult, interval: int = 1) -> list[list[float]]:
    """Return, per request, the gaps between its messages [s].

    interval : output tokens per message; with drafts a message has all tokens of a step. Exact for
    runs with `record_steps=True`; otherwise, and for requests that were evicted on the way, the
    gaps of a request are equal. They always add up to e2el − ttft.
    """
    gaps: list[list[float]] = []
    for i in range(len(result)):
        # a message a step, which is a token without drafts
        output = int(result.steps[i]) + 1
        if result.refused[i] or output < 2 or interval >= output:
            gaps.append([])
            continue
        first, last = float(result.first_token[i]), float(result.last_token[i])
        marks = [*range(interval, output, interval), output]
        if result.step_ends and result.preemptions[i] == 0:
            shift = float(result.front_end[i])
            lane = result.decode_replica[i] if len(result.pools) > 1 else result.replica[i]
            ends = result.step_ends[-1][lane]
            at = int(np.searchsorted(ends, last - shift - 1e-9))
            # Steps of tokens 2 … output; token 1 came from the prefill.
            tokens = np.concatenate([[first], ends[at - output + 2 : at + 1] + shift])
            times = tokens[np.array(marks) - 1]
            times[0], times[-1] = first, last
            gaps.append([float(g) for g in np.diff(times)])
        else:
            share = (last - first) / (output - interval)
            gaps.append([share * (b - a) for a, b in pairwise(marks)])
    return gaps


def to_vllm_detailed(
    result: SimulationResult, *, model_id: str = "simulated", date: str = ""
) -> dict[str, Any]:
    """Return the run as the JSON object that vLLM's client saves.

    date : "YYYYMMDD-HHMMSS", as the file's own; empty: none
    """
    served = ~result.refused
    ttft, tpot, e2el = result.ttft[served], result.tpot[served], result.e2el[served]
    itls = inter_token_latencies(result, result.stream_interval)
    flat = np.array([gap for request in itls for gap in request])
    duration = result.duration
    inputs = int(result.input_len[served].sum())
    outputs = int(result.output_len[served].sum())
    capped = result.concurrency > 0
    log: dict[str, Any] = {
        "date": date,
        "endpoint_type": "simulated",
        "backend": "bestserve",
        "label": None,
        "model_id": model_id,
        "tokenizer_id": model_id,
        "num_prompts": len(result),
        "request_rate": result.rate if np.isfinite(result.rate) else "inf",
        "burstiness": result.burstiness,
        "max_concurrency": result.concurrency if capped else None,
        "duration": duration,
        "completed": result.completed,
        "failed": int(np.count_nonzero(result.refused)),
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": result.throughput,
        "request_goodput": None,
        "output_throughput": result.output_throughput,
        "total_token_throughput": (inputs + outputs) / duration if duration > 0 else 0.0,
        "input_lens": [int(v) for v in result.input_len],
        "output_lens": [
            int(v) if ok else 0 for v, ok in zip(result.output_len, served, strict=True)
        ],
        "ttfts": [float(v) if ok else 0.0 for v, ok in zip(result.ttft, served, strict=True)],
        "itls": itls,
        "start_times": [float(v) for v in result.arrival],
        "generated_texts": [""] * len(result),
        "errors": [
            "" if ok else "refused: needs more KV cache than one replica has" for ok in served
        ],
    }
    for name, values in (
        ("ttft", ttft),
        ("tpot", tpot[np.isfinite(tpot)]),
        ("itl", flat),
        ("e2el", e2el),
    ):
        log.update(_statistics(name, values))
    return log


def _statistics(name: str, seconds: Floats) -> dict[str, float]:
    if len(seconds) == 0:
        seconds = np.zeros(1)
    ms = 1000.0 * seconds
    out = {
        f"mean_{name}_ms": float(ms.mean()),
        f"median_{name}_ms": float(np.median(ms)),
        f"std_{name}_ms": float(ms.std()),
    }
    for p, value in zip(PERCENTILES, np.percentile(ms, PERCENTILES), strict=True):
        out[f"p{p}_{name}_ms"] = float(value)
    return out
