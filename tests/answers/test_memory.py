"""bs.memory: its figures against the plan, its inverse against itself, start-up logs read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bestserve as bs
from bestserve.errors import DataError, InputError
from bestserve.readers.startup_log import GIB, read_startup_log
from bestserve.results.document import AnswerStatus

LOG = """
(Worker pid=1) INFO 09-18 14:02:10 [gpu_model_runner.py:4879] Model loading took 14.99 GiB memory
INFO 09-18 14:02:31 [gpu_worker.py:456] Available KV cache memory: 57.50 GiB
INFO 09-18 14:02:31 [kv_cache_utils.py:1314] GPU KV cache size: 471,040 tokens
INFO 14:02:31 [kv_cache_utils.py:1319] Maximum concurrency for 8,192 tokens per request: 57.50x
"""
OLD = """
INFO 03-21 20:15:45 [worker.py:267] the current vLLM instance can use total_gpu_memory (79.19GiB) x
gpu_memory_utilization (0.90) = 71.27GiB
model weights take 12.55GiB; non_torch_memory takes 0.16GiB; PyTorch activation peak memory takes
2.38GiB; the rest of the memory reserved for KV Cache is 56.18GiB.
"""


def problem(model: str = "meta-llama/Llama-3.1-8B", **changes: object) -> bs.Problem:
    given = {"hardware": "h100-sxm", "gpu_memory_utilization": 0.95, **changes}
    workload = bs.Workload(input_len=2000, output_len=500)
    return bs.Problem(model=model, workload=workload, **given)  # type: ignore[arg-type]


def test_the_parts_add_up() -> None:
    found = bs.memory(problem(), "1m-tp1", max_model_len=8192)
    assert sum(found.weights.values()) == pytest.approx(found.weights_bytes)
    left = found.gpu_memory_utilization * found.memory_bytes - found.kv_cache_bytes
    held = found.weights_bytes + found.activation_bytes + found.reserve_bytes
    assert left == pytest.approx(held)
    assert found.kv_tokens == pytest.approx(found.kv_cache_bytes / found.kv_bytes_per_token)
    assert found.concurrency == pytest.approx(found.kv_tokens / 8192)
    assert found.concurrency_at_workload == pytest.approx(found.kv_tokens / 2500)
    assert found.longest_context == 131072


def test_windows_hold_more_long_requests_than_tokens_say() -> None:
    gemma = problem("google/gemma-3-27b-it")
    found = bs.memory(gemma, "1m-tp1", max_model_len=65536)
    assert found.concurrency_at_workload < found.concurrency * 65536 / 2500
    assert not any("cache size" in line for line in found.startup)
    assert any(line.startswith("Maximum concurrency for 65,536") for line in found.startup)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
@pytest.mark.parametrize(("requests", "length"), [(20, 8192), (3, 60_000)])
def test_the_inverse_is_one(engine: str, requests: int, length: int) -> None:
    asked = problem(engine=engine, gpu_memory_utilization=None)
    wanted = bs.memory(asked, "1m-tp1", concurrency=requests, context=length).wanted
    assert wanted is not None
    assert wanted.utilization is not None
    enough = asked.replaced(gpu_memory_utilization=wanted.utilization)
    held = bs.memory(enough, "1m-tp1", max_model_len=length)
    assert held.concurrency == pytest.approx(requests, rel=1e-6)


def test_the_least_gpus_hold_what_is_wanted_and_fewer_do_not() -> None:
    big = problem("meta-llama/Llama-3.1-70B")
    wanted = bs.memory(big, "1m-tp4", concurrency=64, context=8192).wanted
    assert wanted is not None
    replicas, tp = wanted.strategy.split("m-tp")
    assert int(replicas) * int(tp) == wanted.gpus
    held = bs.memory(big, f"1m-tp{tp}", max_model_len=8192).concurrency
    assert int(held) * int(replicas) >= 64
    for fewer in (1, 2, 4, 8):
        if fewer < wanted.gpus:
            one = int(bs.memory(big, f"1m-tp{fewer}", max_model_len=8192).concurrency)
            assert one * (wanted.gpus // fewer) < 64 or fewer * -(-64 // max(one, 1)) >= wanted.gpus


def test_what_does_not_fit_says_so() -> None:
    tight = bs.memory(problem("meta-llama/Llama-3.1-70B"), "1m-tp1", max_model_len=8192)
    assert tight.status is AnswerStatus.INFEASIBLE_MEMORY
    assert tight.kv_tokens == tight.longest_context == 0
    assert "do not fit" in tight.explain()
    short = bs.memory(problem(gpu_memory_utilization=0.4), "1m-tp1")
    assert short.status is AnswerStatus.NO_CAPACITY
    assert "larger than the available KV cache memory" in short.startup[-1]
    assert 0 < short.longest_context < 131072
    json.dumps(tight.to_dict(), allow_nan=False)


def test_versions_and_settings_of_the_engine() -> None:
    def tokens(**settings: object) -> float:
        return bs.memory(problem(), "1m-tp1", max_model_len=8192, **settings).kv_tokens  # type: ignore[arg-type]

    assert tokens(engine_version="0.15.1") < tokens(engine_version="0.19")
    assert tokens(engine_version="0.22") < tokens(engine_version="0.19")
    assert tokens(engine_version="0.22", enforce_eager=True) == tokens(engine_version="0.19")
    fp8 = bs.memory(problem(kv_cache_dtype="fp8"), "1m-tp1", max_model_len=8192).kv_tokens
    assert fp8 == pytest.approx(2 * tokens())
    fp4 = bs.memory(problem(kv_cache_dtype="nvfp4"), "1m-tp1", max_model_len=8192).kv_tokens
    assert fp4 == pytest.approx(2 / 0.5625 * tokens())


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"reads at most 131,072; set rope_scaling"):
        bs.memory(problem(), "1m-tp1", max_model_len=200_000)
    with pytest.raises(InputError, match="must be at least 1"):
        bs.memory(problem(), "1m-tp1", max_model_len=0)
    with pytest.raises(InputError, match="does not divide"):
        bs.memory(problem(), "1m-tp3")
    with pytest.raises(InputError, match="must be positive"):
        bs.memory(problem(), "1m-tp1", concurrency=0)


def test_a_log_calibrates_the_reserve(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(LOG)
    plain = bs.memory(problem(), "1m-tp1", max_model_len=8192)
    found = bs.memory(problem(), "1m-tp1", max_model_len=8192, startup_log=str(log))
    assert found.kv_cache_bytes == pytest.approx(57.5 * GIB)
    assert found.calibrated_reserve == pytest.approx(found.reserve_bytes)
    assert found.reserve_bytes > plain.reserve_bytes
    compared = {line.what: (line.printed, line.predicted) for line in found.compared}
    assert compared["weights"] == pytest.approx((14.99, 14.96), abs=0.01)
    assert compared["kv_tokens"][0] == 471_040
    assert compared["concurrency"][0] == 57.5
    assert found.concurrency == pytest.approx(57.5, rel=1e-3)


def test_logs_of_older_versions(tmp_path: Path) -> None:
    log = tmp_path / "old.log"
    log.write_text(OLD)
    found = read_startup_log(log)
    assert found.total == pytest.approx(79.19 * GIB)
    assert found.utilization == 0.9
    assert found.weights == pytest.approx(12.55 * GIB)
    assert (found.outside, found.activations) == pytest.approx((0.16 * GIB, 2.38 * GIB))
    assert found.kv_cache == pytest.approx(56.18 * GIB)


@pytest.mark.parametrize("text", ["", "nothing here", "GPU KV cache size: 99999999999999 tokens"])
def test_logs_without_memory_are_refused(text: str, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(text)
    with pytest.raises(DataError, match=r"start-up log .*server.log"):
        read_startup_log(log)


def test_a_draft_head_takes_weights_and_a_layer_of_cache() -> None:
    """Llama-3.1-8B with EAGLE on one H100, vLLM 0.9: 410,128 tokens.

    From vLLM's issue 'Overhead of SD with PC is 30-40% higher than baseline' (June 2025).
    """
    asked = problem(gpu_memory_utilization=0.9)
    plain = bs.memory(asked, "1m-tp1", engine_version="0.9")
    drafted = bs.memory(
        asked, "1m-tp1", engine_version="0.9", speculative_config={"method": "eagle"}
    )
    assert drafted.kv_bytes_per_token == pytest.approx(plain.kv_bytes_per_token * 33 / 32)
    assert drafted.kv_tokens == pytest.approx(410_128, rel=0.02)
    assert "drafting by eagle" in drafted.notes[-1]
    small = bs.memory(asked, "1m-tp1", speculative_config={"model": "meta-llama/Llama-3.2-1B"})
    own = bs.memory(problem("meta-llama/Llama-3.2-1B"), "1m-tp1")
    base = bs.memory(asked, "1m-tp1")
    assert small.weights_bytes - base.weights_bytes == pytest.approx(own.weights_bytes, rel=0.01)
    assert small.kv_bytes_per_token - base.kv_bytes_per_token == pytest.approx(
        own.kv_bytes_per_token
    )
    assert bs.memory(asked, "1m-tp1", speculative_config='{"method": "ngram"}').kv_tokens == (
        base.kv_tokens
    )


def test_multi_token_prediction_loads_the_checkpoints_own_layers() -> None:
    asked = problem("deepseek-ai/DeepSeek-V3", hardware="h200-sxm", gpus=8)
    plain = bs.memory(asked, "1m-tp8")
    drafted = bs.memory(asked, "1m-tp8", speculative_config={"method": "deepseek_mtp"})
    layer = 11.5e9 / 8  # one layer of experts in FP8, on one of eight GPUs
    assert drafted.weights_bytes - plain.weights_bytes == pytest.approx(layer, rel=0.05)
    assert drafted.kv_bytes_per_token == pytest.approx(plain.kv_bytes_per_token * 62 / 61)
    assert any("multi-token" in note for note in plain.notes)
    assert not any("multi-token" in note for note in drafted.notes)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "JSON object"),
        ("[1]", "JSON object"),
        ({"method": "eagel"}, "'eagel' is not known; eagle"),
        ({"method": "mtp"}, "no layers for multi-token prediction"),
        ({"method": "draft_model"}, "needs a model"),
        ({"method": "eagle", "model": 3}, "model: must be text"),
    ],
)
def test_odd_drafts_are_refused(config: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        bs.memory(problem(), "1m-tp1", speculative_config=config)  # type: ignore[arg-type]


def test_windows_hold_one_steps_tokens_while_serving_not_one_for_each_request() -> None:
    from bestserve.lowering import lower
    from bestserve.models.step.device import Parallelism

    def plan(model: str, **changes: object):
        return lower(problem(model, **changes)).lane(Parallelism()).plan

    windowed = plan("openai/gpt-oss-120b")
    # half of the layers have windows of 128 tokens, far below a request's 2,500
    assert 1.7 < windowed.kv_serving_tokens / windowed.kv_capacity_tokens < 2.0
    full = plan("meta-llama/Llama-3.1-8B")
    assert full.kv_serving_tokens == full.kv_capacity_tokens
    # an engine that reports its cache to the router holds every layer's full context
    reporting = plan("openai/gpt-oss-120b", routing="prefix_aware")
    assert reporting.kv_serving_tokens == pytest.approx(reporting.kv_capacity_tokens)
    assert reporting.kv_serving_tokens < 0.6 * windowed.kv_serving_tokens


def test_drafts_need_a_drafter_and_none_are_kept_where_none_are_drawn() -> None:
    with pytest.raises(InputError, match="-spec3 drafts tokens by speculative_config"):
        bs.memory(problem(), "1m-tp1-spec3")
    asked = {"speculative_config": {"method": "eagle"}}
    drafted, not_drafted = (
        bs.memory(problem(), f"1m-tp1-spec{n}", **asked)  # type: ignore[arg-type]
        for n in (3, 0)
    )
    assert not_drafted.weights_bytes == bs.memory(problem(), "1m-tp1").weights_bytes
    assert drafted.weights_bytes > not_drafted.weights_bytes


def test_of_split_pools_it_says_whose_memory_it_is() -> None:
    asked = problem(gpus=4)
    assert "of a decode instance: bestserve memory 1m-tp2" in (
        bs.memory(asked, "2p-tp1+1d-tp2").explain()
    )
    assert not any("decode instance" in note for note in bs.memory(asked, "2p2d-tp1").notes)
