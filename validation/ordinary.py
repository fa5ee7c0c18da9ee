"""Ordinary questions: what people ask, drawn at random from eleven models and six GPUs.

Poisson arrivals that are routed at random, 90th percentiles. `questions.py` draws from the whole
catalogue and every regime instead.
"""

from __future__ import annotations

import math

import numpy as np

import bestserve as bs

MODELS = (
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-70B",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-30B-A3B",
    "openai/gpt-oss-120b",
    "openai/gpt-oss-20b",
    "mistralai/Mixtral-8x7B-v0.1",
    "deepseek-ai/DeepSeek-V3",
    "google/gemma-3-27b-it",
    "Qwen/Qwen3-235B-A22B",
    "mistralai/Mistral-Small-24B-Base-2501",
)
GPUS = ("h100-sxm", "h200-sxm", "a100-80gb-sxm", "l40s", "b200-sxm", "mi300x")
ENGINES = ("vllm", "sglang", "tensorrt-llm")


def ordinary(seed: int, number: int) -> bs.Problem:
    """Return one question; the same for ever."""
    rng = np.random.default_rng([seed, number])
    model, gpu, engine = (str(rng.choice(names)) for names in (MODELS, GPUS, ENGINES))
    if gpu == "mi300x" and engine == "tensorrt-llm":
        engine = "vllm"
    gpus = int(rng.choice([1, 2, 4, 8, 16]))
    workload = bs.Workload(input_len=_lengths(rng, 30, 10_000), output_len=_lengths(rng, 6, 1000))
    slo = f"ttft:{_between(rng, 200, 10_000):.0f} tpot:{_between(rng, 16, 126):.0f}"
    return bs.Problem(
        model=model, hardware=gpu, gpus=gpus, engine=engine, workload=workload, slo=slo
    )


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _lengths(rng: np.random.Generator, low: float, high: float) -> str:
    mean = max(round(_between(rng, low, high)), 2)
    kind = str(rng.choice(["fixed:{}", "lognormal:{},1", "lognormal:{},0.4", "geometric:{}"]))
    return kind.format(mean)
