"""The `vllm bench serve` run that measures a plan: its lengths, spread, prefixes and arrivals.

Fixed and uniform lengths are options of the client's random data set. What it has no option for
(lognormal lengths, classes, traces) is a trace of requests that `write_trace` makes and the
client replays; other clients read it as well (the format is Mooncake's).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bestserve.host.writing import write_text
from bestserve.launch.process import model_argument
from bestserve.launch.prompts import BLOCK, alike_prompts, shared_prompts
from bestserve.lowering import Lowered
from bestserve.lowering.images import image_tokens
from bestserve.models.token_target import TOKEN_OBJECTIVES
from bestserve.specs.lengths import Fixed, Uniform
from bestserve.specs.slo import SLO
from bestserve.specs.strategy import Strategy
from bestserve.specs.workload import Workload

FEWEST_PROMPTS = 100
MINUTES = 5.0
"""How long the run lasts."""

TRACE = "requests.jsonl"
"""Where the command looks for the trace if none is named."""

METRICS = ("ttft", "tpot", "e2el")


def prompts(lowered: Lowered, request_rate: float | None) -> int:
    """Return how many requests the run sends."""
    arrivals = lowered.arrivals
    if arrivals.kind == "closed":
        return int(arrivals.num_prompts)
    assert request_rate is not None
    return max(FEWEST_PROMPTS, round(request_rate * 60 * MINUTES))


def needs_trace(lowered: Lowered) -> bool:
    """Whether the client's own data sets cannot draw this workload."""
    workload = lowered.problem.workload
    if workload.shares:
        return not repeats_prefixes(workload)
    laws = (workload.input_len, workload.output_len)
    return workload.trace is not None or not all(isinstance(law, Fixed | Uniform) for law in laws)


def repeats_prefixes(workload: Workload) -> bool:
    """Whether it is what the client's data set of repeated prefixes draws: groups, all alike."""
    groups = workload.prefixes
    if groups is None or workload.conversation is not None:
        return False
    laws = (workload.input_len, workload.output_len, groups.prefix_len)
    plain = groups.skew == 0 and groups.questions is None
    return plain and all(isinstance(law, Fixed) for law in laws)


def bench_command(
    lowered: Lowered,
    strategy: Strategy,
    url: str,
    model: str,
    request_rate: float | None,
    trace: str = TRACE,
) -> tuple[str, ...]:
    """Return the run that measures this plan; its log answers to `bestserve validate`.

    request_rate : [requests/s]; None in a closed loop
    trace : file of `write_trace`, where the workload needs one
    """
    workload = lowered.problem.workload
    words = ["vllm", "bench", "serve", "--base-url", url, "--model", model_argument(model)]
    if needs_trace(lowered):
        words += _trace_words(trace)
    else:
        words += _group_words(workload) if workload.shares else _random_words(lowered)
    words += ["--ignore-eos", "--num-prompts", str(prompts(lowered, request_rate))]
    if lowered.arrivals.kind == "closed":
        words += ["--max-concurrency", str(lowered.arrivals.concurrency)]
    elif needs_trace(lowered):
        words += ["--self-timed"]  # the trace says when
    else:
        words += ["--request-rate", f"{request_rate:.4g}"]
        words += ["--burstiness", f"{workload.burstiness:g}"] if workload.burstiness != 1 else []
    words += _goodput(lowered)
    words += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"]
    # Metadata makes the log describe itself: the client does not know the server's GPUs.
    words += ["--metadata", f"gpu={lowered.hardware.name}", f"engine={lowered.engine.name}"]
    words += [f"tensor_parallel_size={strategy.pools[-1].tp}", f"num_gpus={strategy.gpus}"]
    return (*words, "--save-result", "--save-detailed")


def _goodput(lowered: Lowered) -> list[str]:
    slo = lowered.problem.slo
    counted = [m for m in METRICS if not (m == "e2el" and slo is not None and slo.e2el_per_token)]
    stated = [(m, getattr(slo, m)) for m in counted if slo is not None and getattr(slo, m)]
    return ["--goodput", *(f"{m}:{value * 1e3:g}" for m, value in stated)] if stated else []


def uncounted(slo: SLO | None) -> str:
    """Return what to say of objectives that the client has no word for, or nothing."""
    if slo is None:
        return ""
    single = [name for name in TOKEN_OBJECTIVES if getattr(slo, name) is not None]
    others = ["e2el that grows with the answer"] if slo.e2el_per_token else []
    others += ["objectives of single classes"] if slo.tiers else []
    said = f"the benchmark counts no {', '.join([*single, *others])}"
    if single:
        return f"{said}; bestserve validate --goodput reads {', '.join(single)} off its log"
    return said if others else ""


def _random_words(lowered: Lowered) -> list[str]:
    workload = lowered.problem.workload
    inputs, outputs = (round(x) for x in lowered.mean_lengths)
    words = ["--dataset-name", "random"]
    if lowered.images:
        inputs -= image_tokens(lowered)
        words = _image_words(workload)
    cached = round(workload.prefix_cache_hit * inputs)
    words += ["--random-prefix-len", str(cached)] if cached else []
    words += ["--random-input-len", str(inputs - cached)]
    words += ["--random-output-len", str(outputs)]
    ratios = [_half_width(law) for law in (workload.input_len, workload.output_len)]
    if ratios[0] == ratios[1]:
        return [*words, "--random-range-ratio", f"{ratios[0]:.6g}"]
    both = json.dumps({"input": round(ratios[0], 6), "output": round(ratios[1], 6)})
    return [*words, "--random-range-ratio", both]


def _group_words(workload: Workload) -> list[str]:
    groups = workload.prefixes
    assert groups is not None
    assert workload.input_len is not None
    assert workload.output_len is not None
    words = ["--dataset-name", "prefix_repetition"]
    for name, tokens in (
        ("num-prefixes", groups.groups),
        ("prefix-len", groups.prefix_len.mean_tokens),
        ("suffix-len", workload.input_len.mean_tokens),
        ("output-len", workload.output_len.mean_tokens),
    ):
        words += [f"--prefix-repetition-{name}", str(round(tokens))]
    return words


def _image_words(workload: Workload) -> list[str]:
    width, height = workload.pixels
    most = json.dumps({"image": workload.images_per_request, "video": 0})
    return [
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
        *("--dataset-name", "random-mm"),
        *("--random-mm-base-items-per-request", str(workload.images_per_request)),
        *("--random-mm-limit-mm-per-prompt", most),
        *("--random-mm-bucket-config", f"{{({height}, {width}, 1): 1.0}}"),
    ]


def _half_width(law: object) -> float:
    """Return half the width of a law over its mean: the client draws mean·(1 ± ratio)."""
    return (law.high - law.low) / (law.high + law.low) if isinstance(law, Uniform) else 0.0


def _trace_words(trace: str) -> list[str]:
    words = ["--dataset-name", "timed_trace", "--dataset-path", trace]
    words += ["--timed-trace-chunk-hash-size", str(BLOCK)]
    return [*words, "--timed-trace-sec-multiplier", "0.001"]


def write_trace(path: Path, lowered: Lowered, request_rate: float | None, *, seed: int = 0) -> int:
    """Write the run's requests as a Mooncake trace and return how many there are.

    One JSON object a line: timestamp [ms], input_length, output_length [tokens] and hash_ids,
    one a block of `BLOCK` tokens; equal leading hashes are a shared prefix: what the workload's
    prompts share, or as long as its cache hits. Without a rate (a closed loop) all are there at
    once. A session's next request comes its pause after the one before, as if answers took no time.
    """
    from bestserve.simulator.inputs import arrival_stream

    count = prompts(lowered, request_rate)
    drawn = shared_prompts if lowered.problem.workload.shares else alike_prompts
    requests = drawn(lowered, count, seed)
    times = np.zeros(count)
    if request_rate is not None and lowered.arrivals.kind != "closed":
        heads = int((requests.follows < 0).sum())
        begins = arrival_stream(lowered.arrivals, heads, seed).at(request_rate * heads / count)
        times[:heads] = begins - begins[0]
    for i, before in enumerate(requests.follows):
        if before >= 0:
            times[i] = times[before] + requests.pause[i]
    lines = [
        json.dumps(
            {
                "timestamp": round(float(times[i]) * 1e3, 3),
                "input_length": int(requests.inputs[i]),
                "output_length": int(requests.outputs[i]),
                "hash_ids": requests.hashes[i],
            }
        )
        for i in np.argsort(times, kind="stable")
    ]
    write_text(path, "\n".join(lines) + "\n")
    return count
