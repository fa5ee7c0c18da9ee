"""Deployments that the tests print: engines × layouts × roles × machines, on several GPUs."""

from __future__ import annotations

import itertools
from functools import lru_cache

import bestserve as bs
from bestserve.launch.deployment import Deployment
from bestserve.lowering import lower
from bestserve.specs.strategy import Strategy

ENGINES = ("vllm", "vllm-0.28", "sglang", "tensorrt-llm")

DENSE = "meta-llama/Llama-3.1-70B"
EXPERTS = "deepseek-ai/DeepSeek-V3"
EAGLE3 = {"method": "eagle3", "model": "someone/llama-3.1-70b-eagle3"}
LAYOUTS = {
    DENSE: ("1m-tp8", "4m-tp4-tokens2048", "1m-tp8-pp2", "3p1d-tp4-seqs64", "1p-tp4+1d-tp8-pp2"),
    EXPERTS: ("2m-tp8-ep8", "1m-tp1-dp16-ep16", "1p-tp8+1d-tp1-dp16-ep16", "1p1d-tp8-dp2-ep16"),
}
"""Several instances on a machine, one on several, prefill and decode apart on either."""


def deployment(
    engine: str = "vllm", strategy: str = "2m-tp4", *, hosts: tuple[str, ...] = (), **changes
) -> Deployment:
    values = {
        "model": DENSE,
        "hardware": "h200-sxm",
        "gpus": 64,
        "engine": engine,
        "workload": bs.Workload(input_len=1000, output_len=100),
        "slo": "ttft:1000 tpot:50",
    }
    problem = bs.Problem(**(values | changes))
    return Deployment(lower(problem), Strategy.parse(strategy), hosts)


@lru_cache
def deployments() -> tuple[Deployment, ...]:
    """Return one of each kind."""
    prefixes = bs.Workload(input_len=1000, output_len=100, prefix_cache_hit=0.5)
    found = [
        deployment(engine, strategy, model=model)
        for engine, (model, strategies) in itertools.product(ENGINES, LAYOUTS.items())
        for strategy in strategies
    ]
    found += [
        deployment(engine, strategy, hardware="mi300x")
        for engine in ("vllm", "sglang")
        for strategy in ("4m-tp2", "1p1d-tp4", "1m-tp8-pp2")
    ]
    found += [
        deployment(engine, "2m-tp1", model="meta-llama/Llama-3.1-8B", **changes)
        for engine in ENGINES
        for changes in (
            {"hardware": "l4", "kv_cache_dtype": "fp8"},
            {"workload": prefixes, "precision": "fp8"},
            {"routing": "least_outstanding"},
        )
    ]
    found += [
        deployment(engine, strategy, model=model, speculative_config=config)
        for engine, tables in (("vllm", True), ("sglang", False), ("tensorrt-llm", True))
        for model, strategy, config in (
            (DENSE, "2m-tp4-spec3", EAGLE3),
            (DENSE, "3p-tp4+1d-tp4-spec2", EAGLE3),
            *([(DENSE, "1m-tp8-spectable", EAGLE3)] if tables else []),
            (DENSE, "2m-tp4-spec4", {"method": "ngram", "prompt_lookup_max": 4}),
            (DENSE, "2m-tp4", {"method": "draft_model", "model": "meta-llama/Llama-3.2-1B"}),
            (EXPERTS, "1m-tp8-ep8-spec1", {"method": "mtp"}),
        )
    ]
    groups = bs.Workload(
        prefixes=bs.PrefixGroups(groups=20, prefix_len=1500), input_len=200, output_len=100
    )
    host = {"gigabytes": 200, "bandwidth": 5e10}
    found += [
        deployment(engine, strategy, workload=groups, routing=routing, kv_tiers=[host])
        for engine in ("vllm", "sglang", "tensorrt-llm")
        for strategy, routing in (
            ("2m-tp4", "prefix_aware"),
            ("2m-tp4", "session_affine"),
            ("1p1d-tp4", "prefix_aware"),
        )
    ]
    found.append(deployment("vllm-eager", "1m-tp8"))
    return tuple(found)
