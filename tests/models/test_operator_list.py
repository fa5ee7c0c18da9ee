"""The operators of a step: what they must count, and how steps must respond."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.catalog import load_model
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.breakdown import prefill_factor, step_breakdown
from bestserve.models.step.device import WEIGHT_BYTES, Device, Formats, Parallelism, Precision
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.operators import operator_list
from bestserve.models.step.parameters import parameter_counts
from bestserve.models.step.sharding import attention_matrices, ffn_matrices
from bestserve.models.step.step_work import StepWork

MODELS = (
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-70B",
    "Qwen/Qwen3-235B-A22B",
    "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3.2",
    "google/gemma-3-27b-it",
    "openai/gpt-oss-120b",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
)


@pytest.mark.parametrize("name", MODELS)
def test_matrices_account_for_the_parameters(name: str) -> None:
    """Projections and dense matrices of one GPU, against the exact count with biases and norms."""
    arch = load_model(name).architecture
    for group, counts in zip(arch.groups, parameter_counts(arch).groups, strict=True):
        attention = sum(
            m.elements for m in attention_matrices(group.attention, arch.hidden_size, 1)
        )
        assert attention == pytest.approx(counts.attention, rel=2e-3)
        if group.ffn.kind == "dense":
            width = group.ffn.intermediate_size
            matrices = ffn_matrices(width, group.ffn.gated, arch.hidden_size, 1)
            assert sum(m.elements for m in matrices) == pytest.approx(counts.dense_ffn, rel=2e-3)


def test_prefill_multiplies_every_weight_twice(
    h100: Device, bare: EngineConstants, llama70b: Architecture
) -> None:
    tokens = 4096.0
    work = StepWork.grid(chunk=tokens, prompts=1)
    operators = operator_list(llama70b, h100, Parallelism(tp=8), Formats(), bare, work)
    gemms = sum(8 * float(np.sum(o.flops)) for o in operators if o.kind == "gemm")
    counts = parameter_counts(llama70b)
    matrices = counts.attention + counts.dense_ffn
    assert gemms == pytest.approx(2 * tokens * matrices + 2 * counts.lm_head, rel=1e-3)


def test_decode_reads_every_weight_once(
    h100: Device, bare: EngineConstants, llama70b: Architecture
) -> None:
    work = StepWork.grid(context=0.0, decodes=1)
    operators = operator_list(llama70b, h100, Parallelism(tp=8), Formats(), bare, work)
    read = sum(float(np.sum(o.traffic)) for o in operators if o.kind == "gemm")
    counts = parameter_counts(llama70b)
    weights = counts.attention + counts.dense_ffn + counts.lm_head
    assert 8 * read == pytest.approx(2 * weights, rel=0.01)


def test_attention_of_a_prompt_in_chunks_costs_the_same_pairs(
    h100: Device, bare: EngineConstants, llama8b: Architecture
) -> None:
    whole = StepWork.single(prompts=[(4096, 0)])
    parts = [StepWork.single(prompts=[(1024, p)]) for p in (0, 1024, 2048, 3072)]
    assert sum(float(p.pairs[0]) for p in parts) == float(whole.pairs[0])

    def flops(work: StepWork) -> float:
        operators = operator_list(llama8b, h100, Parallelism(), Formats(), bare, work)
        return sum(float(np.sum(o.flops)) for o in operators if o.name == "attention.prefill")

    assert sum(map(flops, parts)) == pytest.approx(flops(whole))


def test_kv_heads_are_replicated_beyond_their_number(
    h100: Device, bare: EngineConstants, llama8b: Architecture
) -> None:
    device = replace(h100, gpus_per_node=32)
    work = StepWork.grid(context=4096, decodes=64)

    def kv_time(tp: int) -> float:
        operators = operator_list(llama8b, device, Parallelism(tp=tp), Formats(), bare, work)
        return sum(float(np.sum(o.cost.memory)) for o in operators if o.name == "attention.decode")

    assert kv_time(8) == pytest.approx(kv_time(1) / 8, rel=1e-6)
    assert kv_time(16) == pytest.approx(kv_time(8), rel=0.01)


def test_latent_caches_gain_nothing_from_tensor_parallelism(
    h100: Device, bare: EngineConstants, deepseek: Architecture
) -> None:
    work = StepWork.grid(context=8192, decodes=64)

    def memory(parallel: Parallelism) -> float:
        operators = operator_list(deepseek, h100, parallel, Formats(), bare, work)
        return sum(float(np.sum(o.cost.memory)) for o in operators if o.name == "attention.decode")

    assert memory(Parallelism(tp=8)) > 0.8 * memory(Parallelism(tp=1))
    # Data-parallel attention does divide it.
    assert memory(Parallelism(dp=8, ep=8)) == pytest.approx(memory(Parallelism()) / 8, rel=1e-6)


def test_windows_cap_what_a_layer_reads(h100: Device, bare: EngineConstants) -> None:
    arch = load_model("google/gemma-3-27b-it").architecture
    work = StepWork.grid(context=[1024.0, 65536.0], decodes=8)
    operators = operator_list(arch, h100, Parallelism(), Formats(), bare, work)
    for operator in operators:
        if operator.name == "attention.decode":
            window = arch.groups[operator.group].attention.window
            short, long = np.asarray(operator.cost.memory)
            if window:
                assert long == pytest.approx(short, rel=1e-6)
            else:
                assert long > 50 * short


def test_expert_parallel_attention_sends_tokens_instead_of_reducing(
    h100: Device, bare: EngineConstants, deepseek: Architecture
) -> None:
    work = StepWork.grid(context=1000, decodes=256)

    def names(parallel: Parallelism) -> set[str]:
        operators = operator_list(deepseek, h100, parallel, Formats(), bare, work)
        return {o.name for o in operators if o.kind == "communication"}

    assert names(Parallelism(tp=8)) == {"attention.all_reduce", "ffn.all_reduce"}
    assert names(Parallelism(dp=8, ep=8)) == {"experts.dispatch", "experts.combine"}
    assert names(Parallelism(dp=8)) == {"experts.reduce"}
    assert "pipeline.send" in names(Parallelism(tp=4, pp=2))


def test_lm_head_is_computed_for_emitted_tokens_only(
    h100: Device, bare: EngineConstants, llama8b: Architecture
) -> None:
    work = StepWork.grid(chunk=2048, prompts=4, finishing=[0.0, 4.0])
    operators = operator_list(llama8b, h100, Parallelism(), Formats(), bare, work)
    (head,) = (o for o in operators if o.name == "lm_head")
    assert np.asarray(head.time)[0] == 0.0
    assert np.asarray(head.flops)[1] == 2 * 4 * 128256 * 4096


@pytest.mark.parametrize("name", MODELS)
def test_shares_add_up_and_elements_bind(name: str, h100: Device, vllm: EngineConstants) -> None:
    model = load_model(name)
    work = StepWork.grid(
        chunk=[0, 4096, 512], prompts=[0, 1, 1], context=[2000, 0, 500], decodes=[32, 0, 8]
    )
    parallel = Parallelism(tp=8)
    result = step_breakdown(model.architecture, h100, parallel, model.formats(), vllm, work)
    parts = result.compute + result.memory + result.dispatch + result.communication
    np.testing.assert_allclose(parts, result.total, rtol=1e-12)
    times = sum(np.asarray(o.time) for o in result.operators)
    factor = prefill_factor(model.architecture, vllm, model.formats(), h100)
    phi = np.array([1.0, factor, factor])
    host = vllm.a_step_moe if model.architecture.is_moe else vllm.a_step
    each = vllm.a_seq_moe if model.architecture.is_moe else vllm.a_seq
    expected = phi * times + host + each * work.sequences
    np.testing.assert_allclose(result.total, expected, rtol=1e-9)
    assert result.binding(0) in ("memory", "dispatch", "compute", "communication")
    assert all(o.bound(1) for o in result.operators)


FASTER = ("flops_bf16", "flops_fp8", "memory_bandwidth", "link_bandwidth", "network_bandwidth")
steps = st.builds(
    lambda chunk, prompts, context, decodes: StepWork.grid(
        chunk=chunk, prompts=prompts, context=context, decodes=decodes
    ),
    st.integers(1, 8192),
    st.integers(0, 4),
    st.integers(1, 32768),
    st.integers(1, 256),
)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(MODELS),
    figure=st.sampled_from(FASTER),
    factor=st.floats(1.0, 8.0),
    work=steps,
    parallel=st.sampled_from([Parallelism(tp=2), Parallelism(tp=8), Parallelism(tp=2, pp=2)]),
)
def test_faster_hardware_never_hurts(
    h100: Device,
    vllm: EngineConstants,
    name: str,
    figure: str,
    factor: float,
    work: StepWork,
    parallel: Parallelism,
) -> None:
    model = load_model(name)
    faster = replace(h100, **{figure: getattr(h100, figure) * factor})
    before = step_breakdown(model.architecture, h100, parallel, model.formats(), vllm, work)
    after = step_breakdown(model.architecture, faster, parallel, model.formats(), vllm, work)
    assert after.total[0] <= before.total[0] * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(MODELS), work=steps, more=st.integers(1, 64))
def test_more_work_never_takes_less(
    h100: Device, vllm: EngineConstants, name: str, work: StepWork, more: int
) -> None:
    model = load_model(name)
    larger = replace(work, decodes=work.decodes + more)
    arguments = (model.architecture, h100, Parallelism(tp=8), model.formats(), vllm)
    assert step_breakdown(*arguments, larger).total[0] >= step_breakdown(*arguments, work).total[
        0
    ] * (1 - 1e-9)


@settings(max_examples=20, deadline=None)
@given(chunk=st.integers(2048, 16384), tp=st.sampled_from([1, 2, 4]))
def test_tensor_parallelism_shortens_large_steps(
    h100: Device, bare: EngineConstants, llama70b: Architecture, chunk: int, tp: int
) -> None:
    work = StepWork.grid(chunk=chunk, prompts=1)
    one = step_breakdown(llama70b, h100, Parallelism(tp=tp), Formats(), bare, work)
    two = step_breakdown(llama70b, h100, Parallelism(tp=2 * tp), Formats(), bare, work)
    # Never by more than the ideal factor of two.
    assert 0.5 * one.total[0] < two.total[0] < one.total[0]


def test_narrower_weights_shorten_decode(
    h100: Device, bare: EngineConstants, llama70b: Architecture
) -> None:
    work = StepWork.grid(context=1000, decodes=4)
    total = [
        step_breakdown(llama70b, h100, Parallelism(tp=4), Formats(weights=p), bare, work).total[0]
        for p in ("bf16", "fp8", "int4")
    ]
    assert total == sorted(total, reverse=True)
    assert WEIGHT_BYTES["fp8"] == 1.0


def test_a_kernel_has_its_own_factor_on_prompts(h100: Device, vllm: EngineConstants) -> None:
    gpt, qwen = load_model("openai/gpt-oss-120b"), load_model("Qwen/Qwen3-235B-A22B")
    dense = load_model("meta-llama/Llama-3.1-8B")
    assert prefill_factor(gpt.architecture, vllm, gpt.formats(), h100) < vllm.phi_moe
    assert prefill_factor(qwen.architecture, vllm, qwen.formats(), h100) == vllm.phi_moe
    assert prefill_factor(dense.architecture, vllm, dense.formats(), h100) == vllm.phi


def test_a_kernel_of_its_own_that_quantises_starts_before_each_fp8_matrix(
    h100: Device, bare: EngineConstants, llama70b: Architecture
) -> None:
    work = StepWork.grid(context=1000, decodes=4)
    apart = replace(bare, quantise_launch=3e-6)

    def total(weights: Precision, engine: EngineConstants) -> float:
        formats = Formats(weights=weights)
        found = step_breakdown(llama70b, h100, Parallelism(tp=4), formats, engine, work)
        return float(found.total[0])

    # Four matrices in each of 80 layers.
    assert total("fp8", apart) - total("fp8", bare) == pytest.approx(4 * 80 * 3e-6)
    assert total("bf16", apart) == total("bf16", bare)
