"""GPU memory: weights against parameter counts, KV bytes against published ones, what fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bestserve.catalog import list_models, load_engine, load_hardware, load_model
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.memory import kv_bytes_of_layer, memory_plan
from bestserve.models.step.parameters import parameter_counts


def _total(model: str, kv: float = 2.0, context: float = 1.0) -> float:
    arch = load_model(model).architecture
    return sum(g.count * kv_bytes_of_layer(g.attention, kv, context) for g in arch.groups)


def test_kv_bytes_per_token_of_known_models() -> None:
    # 2·layers·KV heads·128·2 B: the figures in the models' own papers and engine logs.
    assert _total("meta-llama/Llama-3.1-8B") == 131072  # 128 KiB
    assert _total("meta-llama/Llama-3.1-70B") == 327680  # 320 KiB
    assert _total("deepseek-ai/DeepSeek-V3") == 61 * 576 * 2  # 70 kB
    assert _total("meta-llama/Llama-2-7b-hf") == 524288  # multi-head: 512 KiB
    # gpt-oss-120b: half of its 36 layers keep at most 128 tokens.
    assert _total("openai/gpt-oss-120b", context=100_000) == pytest.approx(
        (18 * 100_000 + 18 * 128) * 8 * 64 * 2 * 2
    )


@pytest.mark.parametrize("name", list_models())
def test_weights_of_one_gpu_are_the_counted_parameters(
    name: str, h100: Device, vllm: EngineConstants
) -> None:
    arch = load_model(name).architecture
    plan = memory_plan(arch, h100, Parallelism(), Formats(), vllm)
    held = parameter_counts(arch).total + arch.tower_parameters
    assert plan.weights == pytest.approx(2 * held, rel=1e-6)


def test_eight_gpus_hold_an_eighth_and_a_little(
    h100: Device, vllm: EngineConstants, llama70b: Architecture, deepseek: Architecture
) -> None:
    one = memory_plan(llama70b, h100, Parallelism(), Formats(), vllm).weights
    eight = memory_plan(llama70b, h100, Parallelism(tp=8), Formats(), vllm).weights
    assert one / 8 <= eight < 1.001 * one / 8
    # Replicated down-projections of latent attention.
    one = memory_plan(deepseek, h100, Parallelism(), Formats(), vllm).weights_attention
    eight = memory_plan(deepseek, h100, Parallelism(tp=8), Formats(), vllm).weights_attention
    assert eight > 1.05 * one / 8
    # Data-parallel attention keeps all of it, and an eighth of the experts.
    spread = memory_plan(deepseek, h100, Parallelism(dp=8, ep=8), Formats(), vllm)
    assert spread.weights_attention == pytest.approx(one)
    assert spread.weights_experts == pytest.approx(
        memory_plan(deepseek, h100, Parallelism(tp=8), Formats(), vllm).weights_experts
    )


def test_the_arithmetic_is_what_explain_prints(
    h100: Device, vllm: EngineConstants, llama8b: Architecture
) -> None:
    plan = memory_plan(llama8b, h100, Parallelism(), Formats(), vllm)
    left = 0.9 * h100.visible_bytes - plan.weights - plan.activations - plan.reserve
    assert plan.kv_bytes == pytest.approx(left)
    assert plan.kv_capacity_tokens == pytest.approx(left / 131072)
    assert plan.fits
    assert f"{plan.kv_capacity_tokens:,.0f} tokens" in plan.explain()
    assert "16.1" in plan.explain()


def test_what_does_not_fit_is_data_with_a_reason(
    h100: Device, vllm: EngineConstants, llama70b: Architecture
) -> None:
    plan = memory_plan(llama70b, h100, Parallelism(), Formats(), vllm)
    assert not plan.fits
    assert plan.kv_capacity_tokens == 0
    assert "do not fit" in plan.explain()
    # Two GPUs hold the weights and a few sequences.
    tight = memory_plan(llama70b, h100, Parallelism(tp=2), Formats(), vllm, context_len=16384)
    assert not tight.fits
    assert "less than one sequence" in tight.explain()
    assert memory_plan(llama70b, h100, Parallelism(tp=4), Formats(), vllm).fits


def test_a_pipeline_divides_weights_and_capacity_over_lanes(
    h100: Device, vllm: EngineConstants, llama70b: Architecture
) -> None:
    flat = memory_plan(llama70b, h100, Parallelism(tp=4), Formats(), vllm)
    deep = memory_plan(llama70b, h100, Parallelism(tp=4, pp=2), Formats(), vllm)
    assert deep.weights == pytest.approx(flat.weights / 2, rel=0.02)
    assert deep.kv_bytes_per_token == pytest.approx(flat.kv_bytes_per_token / 2)
    assert deep.lanes == 2
    # Per GPU there is more room and half the bytes per token, shared by two lanes.
    assert deep.kv_capacity_tokens == pytest.approx(deep.kv_bytes / deep.kv_bytes_per_token / 2)


def test_rules_of_the_engines(h100: Device, llama8b: Architecture) -> None:
    parallel, formats = Parallelism(), Formats()
    trt, sgl = load_engine("tensorrt-llm"), load_engine("sglang")
    free = memory_plan(llama8b, h100, parallel, formats, trt)
    assert free.kv_bytes == pytest.approx(
        0.9 * (h100.visible_bytes - free.weights - free.activations - free.reserve)
    )
    static = memory_plan(llama8b, h100, parallel, formats, sgl)
    assert static.kv_bytes == pytest.approx(
        sgl.gpu_memory_utilization * (h100.visible_bytes - static.reserve) - static.weights
    )
    for plan in (free, static):
        assert plan.explain().startswith("per GPU 0.")


def test_narrower_caches_hold_more(
    h100: Device, vllm: EngineConstants, llama8b: Architecture
) -> None:
    wide = memory_plan(llama8b, h100, Parallelism(), Formats(kv_bytes=2.0), vllm)
    narrow = memory_plan(llama8b, h100, Parallelism(), Formats(kv_bytes=1.0), vllm)
    assert narrow.kv_capacity_tokens == pytest.approx(2 * wide.kv_capacity_tokens)


def test_recurrent_state_is_per_sequence(h100: Device, vllm: EngineConstants) -> None:
    model = load_model("Qwen/Qwen3-Next-80B-A3B-Instruct")
    arguments = (model.architecture, h100, Parallelism(tp=4), Formats(), vllm)
    short = memory_plan(*arguments, context_len=500.0)
    long = memory_plan(*arguments, context_len=50_000.0)
    assert short.kv_bytes_per_sequence == long.kv_bytes_per_sequence > 1e6
    assert long.kv_capacity_tokens > 2 * short.kv_capacity_tokens


def test_more_batched_tokens_leave_less_for_the_cache(
    h100: Device, vllm: EngineConstants, llama8b: Architecture
) -> None:
    large = replace(vllm, max_num_batched_tokens=65536)
    before = memory_plan(llama8b, h100, Parallelism(), Formats(), vllm)
    after = memory_plan(llama8b, h100, Parallelism(), Formats(), large)
    assert after.activations > before.activations
    assert after.kv_capacity_tokens < before.kv_capacity_tokens


def test_sglang_keeps_room_for_the_activations_of_a_step(h100: Device) -> None:
    engine = load_engine("sglang")
    # 8,192 tokens of 1.5 MiB, and 1.2 GB; what six runs of Qwen3-32B on one H100 hold.
    assert engine.for_device(h100).gpu_memory_utilization == pytest.approx(0.80, abs=0.01)
    smaller = replace(engine, max_num_batched_tokens=2048).for_device(h100)
    assert smaller.gpu_memory_utilization == pytest.approx(0.92, abs=0.01)
    settled = smaller.for_device(h100)
    assert settled == smaller
    assert load_engine("vllm").for_device(h100).gpu_memory_utilization == 0.9


def test_an_a100_counts_as_small_for_vllm_alone() -> None:
    a100 = load_hardware("a100-80gb-sxm").device()
    assert load_engine("sglang").for_device(a100).max_num_batched_tokens == 8192
    assert load_engine("vllm").for_device(a100).max_num_batched_tokens == 2048
