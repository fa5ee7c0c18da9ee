"""Launch commands carry the plan's parallelism and limits."""

from __future__ import annotations

import shlex

import pytest
import yaml

import bestserve as bs
from bestserve.errors import InputError
from bestserve.launch import bench_command, engine_family, launch_pools, manifest
from bestserve.lowering import lower
from bestserve.specs.strategy import Strategy


def lowered(engine: str = "vllm", **changes):
    values = {
        "model": "meta-llama/Llama-3.1-70B",
        "hardware": "h100-sxm",
        "gpus": 16,
        "engine": engine,
        "workload": bs.Workload(input_len=1000, output_len=100),
        "slo": "ttft:1000 tpot:50",
    }
    return lower(bs.Problem(**(values | changes)))


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("vllm", "--max-model-len"),
        ("sglang", "--context-length"),
        ("tensorrt-llm", "--max_seq_len"),
    ],
)
def test_the_context_is_limited_where_the_cache_cannot_hold_the_models_own(engine, name):
    small = lowered(engine, model="meta-llama/Llama-3.1-8B", hardware="l4")
    (pool,) = launch_pools(small, Strategy.parse("1m-tp1"))
    plan = small.lane(Strategy.parse("1m-tp1").pools[0].parallelism).plan
    assert 1100 < int(flag(pool.command, name)) < plan.kv_capacity_tokens < 131_072
    (large,) = launch_pools(lowered(engine), Strategy.parse("1m-tp8"))
    assert name not in large.command


ENGINES = ["vllm", "sglang", "tensorrt-llm"]


def flag(words: tuple[str, ...], name: str) -> str:
    return words[words.index(name) + 1]


def test_vllm_gets_the_limits_of_the_plan():
    (pool,) = launch_pools(lowered(), Strategy.parse("2m-tp4-seqs128-tokens2048"))
    assert pool.instances == 2
    assert flag(pool.command, "--tensor-parallel-size") == "4"
    assert flag(pool.command, "--max-num-seqs") == "128"
    assert flag(pool.command, "--max-num-batched-tokens") == "2048"


def test_vllm_gets_no_more_slots_than_tokens():
    """Else it stops: max_num_batched_tokens must be greater than or equal to max_num_seqs."""
    assert lowered().engine.max_num_seqs > 512
    (pool,) = launch_pools(lowered(), Strategy.parse("2m-tp4-tokens512"))
    assert flag(pool.command, "--max-num-seqs") == "512"


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_states_parallelism_and_budget(engine):
    (pool,) = launch_pools(lowered(engine), Strategy.parse("2m-tp4-tokens4096"))
    assert "meta-llama/Llama-3.1-70B" in pool.command
    assert "4096" in pool.command
    assert "4" in pool.command
    assert shlex.split(str(pool)) == list(pool.command)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_disaggregated_pools_know_their_roles(engine):
    prefill, decode = launch_pools(lowered(engine), Strategy.parse("3p1d-tp4"))
    assert (prefill.role, decode.role) == ("prefill", "decode")
    assert prefill.command != decode.command


@pytest.mark.parametrize("engine", ENGINES)
def test_manifest_asks_for_the_gpus_of_the_plan(engine):
    pools = launch_pools(lowered(engine), Strategy.parse("2m-tp4"))
    documents = list(yaml.safe_load_all(manifest(pools, engine)))
    assert [d["kind"] for d in documents] == ["Deployment", "Service"]
    spec = documents[0]["spec"]
    assert spec["replicas"] == 2
    limits = spec["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 4


def test_the_benchmark_run_has_the_objectives_and_the_rate():
    words = bench_command(lowered(), Strategy.parse("2m-tp4"), 8.0)
    assert flag(words, "--request-rate") == "8"
    at = words.index("--goodput")
    assert words[at + 1 : at + 3] == ("ttft:1000", "tpot:50")
    assert flag(words, "--random-input-len") == "1000"
    assert "gpu=h100-sxm" in words


def test_an_engine_without_translation_is_refused():
    with pytest.raises(InputError, match="no launch command"):
        engine_family("my-engine")


def test_an_engine_of_one_maker_is_refused_on_anothers_gpus():
    with pytest.raises(InputError, match="NVIDIA GPUs, mi300x is made by AMD"):
        lowered("tensorrt-llm", hardware="mi300x")
    assert lowered("vllm", hardware="mi300x").engine.vendor == ""
