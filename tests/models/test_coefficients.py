"""The coefficients of the step time, held to the operator sum."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.catalog import list_models, load_engine, load_hardware, load_model
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.breakdown import step_breakdown
from bestserve.models.step.closed_form import closed_form
from bestserve.models.step.coefficients import step_time_coefficients
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.memory import memory_plan
from bestserve.models.step.step_work import StepWork

GPUS = ("a100-80gb-sxm", "h100-sxm", "h200-sxm", "b200-sxm")
DENSE = ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-32B", "meta-llama/Llama-3.1-70B")
MOE = ("Qwen/Qwen3-235B-A22B", "deepseek-ai/DeepSeek-V3", "MiniMaxAI/MiniMax-M2")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (512, 1024, 2048, 4096, 8192)
PROMPTS = (128, 256, 512, 1024, 2048, 4096, 8192)


def grid() -> StepWork:
    """Decodes by batch and context, prompts by length, mixtures: other steps than polished."""
    rows = [(0, 0, context, batch) for batch, context in itertools.product(BATCHES, CONTEXTS)]
    rows += [(prompt, 1, 0, 0) for prompt in PROMPTS]
    rows += [(2048, 4, 0, 0), (1000, 8, 0, 0)]
    rows += [(p, 1, 2048, b) for p, b in itertools.product((512, 2048, 8192), (8, 64, 256))]
    table = np.array(rows, dtype=float)
    return StepWork.grid(table[:, 0], table[:, 1], table[:, 2], table[:, 3])


def errors(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    engine: EngineConstants,
    input_len: float = 2000.0,
    output_len: float = 300.0,
) -> np.ndarray:
    """Relative errors of the coefficients over the grid [%]."""
    work = grid()
    step = step_time_coefficients(
        arch, device, parallel, formats, engine, input_len=input_len, output_len=output_len
    )
    exact = step_breakdown(arch, device, parallel, formats, engine, work).total
    fast = step(work.tokens, work.pairs, work.context_tokens, work.sequences)
    return np.abs(fast / exact - 1) * 100


def fitting(name: str, gpu: str, formats: Formats, engine: EngineConstants) -> list[Parallelism]:
    arch, device = load_model(name).architecture, load_hardware(gpu).device()
    return [
        p
        for tp in (1, 2, 4, 8)
        if memory_plan(arch, device, p := Parallelism(tp=tp), formats, engine).fits
    ]


def test_dense_models_track_the_operator_sum(
    bare: EngineConstants, capsys: pytest.CaptureFixture[str]
) -> None:
    """Median within 1.5 %, worst within 5 %, device time only (host time would dilute errors)."""
    found = []
    for name, gpu in itertools.product(DENSE, GPUS):
        device = load_hardware(gpu).device()
        kinds = [Formats()]
        if device.flops_fp8:
            kinds.append(Formats(weights="fp8", kv_bytes=1.0))
        for formats in kinds:
            for parallel in fitting(name, gpu, formats, bare):
                error = errors(load_model(name).architecture, device, parallel, formats, bare)
                found.append(
                    (name, gpu, formats.weights, parallel.tp, np.median(error), max(error))
                )
    with capsys.disabled():
        medians, worst = [f[4] for f in found], [f[5] for f in found]
        print(
            f"\n  coefficients against operator sum, {len(found)} dense deployments: median "
            f"{np.median(medians):.2f} % (largest {max(medians):.2f}), worst {max(worst):.2f} %"
        )
    assert len(found) > 60
    for *deployment, median, largest in found:
        assert median <= 1.5, deployment
        assert largest <= 5.0, deployment


def test_other_lengths_track_it_too(
    bare: EngineConstants, h100: Device, llama70b: Architecture
) -> None:
    for lengths in ((200.0, 200.0), (1000.0, 1000.0), (8000.0, 500.0)):
        error = errors(llama70b, h100, Parallelism(tp=4), Formats(), bare, *lengths)
        assert np.median(error) <= 1.5
        assert error.max() <= 5.0


def test_mixtures_of_experts_track_the_operator_sum(
    bare: EngineConstants, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = Formats(weights="fp8", experts="fp8", kv_bytes=1.0)
    layouts = (
        Parallelism(tp=8),
        Parallelism(tp=8, ep=8),
        Parallelism(dp=8, ep=8),
        Parallelism(tp=4, pp=2),
    )
    found = []
    for name, gpu, parallel in itertools.product(MOE, ("h200-sxm", "b200-sxm"), layouts):
        arch, device = load_model(name).architecture, load_hardware(gpu).device()
        error = errors(arch, device, parallel, formats, bare)
        found.append((name, gpu, parallel, np.median(error), max(error)))
    with capsys.disabled():
        medians, worst = [f[3] for f in found], [f[4] for f in found]
        print(
            f"\n  the same, {len(found)} deployments with experts: median "
            f"{np.median(medians):.2f} % (largest {max(medians):.2f}), worst {max(worst):.2f} %"
        )
    for *deployment, median, largest in found:
        assert median <= 3.0, deployment
        assert largest <= 5.0, deployment


@pytest.mark.parametrize(
    "name",
    [
        "google/gemma-3-27b-it",
        "openai/gpt-oss-120b",
        "Qwen/Qwen3.5-27B",
        "deepseek-ai/DeepSeek-V3.2",
    ],
)
def test_windows_states_and_sparse_attention_hold_near_the_typical_context(
    name: str, bare: EngineConstants, b200: Device
) -> None:
    """A linear context term cannot follow a window far from the lengths it was made for."""
    model = load_model(name)
    arguments = (model.architecture, b200, Parallelism(tp=8), model.formats(), bare)
    step = step_time_coefficients(*arguments, input_len=2000, output_len=300)
    work = StepWork.grid(context=[1500, 2150, 3000], decodes=[[1], [16], [128]])
    exact = step_breakdown(*arguments, work).total
    fast = step(work.tokens, work.pairs, work.context_tokens, work.sequences)
    np.testing.assert_allclose(fast, exact, rtol=0.06)


@pytest.mark.parametrize("name", list_models())
def test_every_bundled_model_reduces(name: str, bare: EngineConstants, b200: Device) -> None:
    """Whatever its attention and experts, the median stays within 3 % at the typical context."""
    model = load_model(name)
    arguments = (model.architecture, b200, Parallelism(), model.formats(), bare)
    step = step_time_coefficients(*arguments, input_len=2000, output_len=300)
    work = StepWork.grid(
        chunk=[0] * 9 + [500, 1000, 2000, 4000],
        prompts=[0] * 9 + [1] * 4,
        context=[1500, 2150, 2500] * 3 + [0] * 4,
        decodes=[1] * 3 + [16] * 3 + [128] * 3 + [0] * 4,
    )
    exact = step_breakdown(*arguments, work).total
    fast = step(work.tokens, work.pairs, work.context_tokens, work.sequences)
    assert np.median(np.abs(fast / exact - 1)) < 0.03
    np.testing.assert_allclose(fast, exact, rtol=0.15)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["meta-llama/Llama-3.1-8B", "openai/gpt-oss-120b", "Qwen/Qwen3.5-27B"]),
    input_len=st.floats(1, 1e6),
    output_len=st.floats(1, 1e5),
    engine=st.sampled_from(["vllm", "vllm-eager", "tensorrt-llm"]),
)
def test_any_lengths_give_a_valid_step_time(
    h100: Device, name: str, input_len: float, output_len: float, engine: str
) -> None:
    model = load_model(name)
    step = step_time_coefficients(
        model.architecture,
        h100,
        Parallelism(tp=2),
        model.formats(),
        load_engine(engine),
        input_len=input_len,
        output_len=output_len,
    )
    assert 0 < step(1, 0, input_len, 1) < step(512, 512**2 / 2, 0, 1) * 1e3


def test_polishing_stays_near_the_closed_form(
    bare: EngineConstants, h100: Device, llama70b: Architecture
) -> None:
    arguments = (llama70b, h100, Parallelism(tp=4), Formats(), bare)
    lengths = {"input_len": 2000.0, "output_len": 300.0}
    read, polished = (
        closed_form(*arguments, **lengths),
        step_time_coefficients(*arguments, **lengths),
    )
    # e takes up the memory side of the GEMMs' activations, a part of c and a in exchange.
    limits = {"w": 1.05, "c": 1.3, "e": 2.0, "a": 1.6, "k": 1.05}
    for name, limit in limits.items():
        ratio = getattr(polished, name) / getattr(read, name)
        assert 1 / limit <= ratio <= limit, name


def test_the_same_deployment_gives_the_same_coefficients(
    vllm: EngineConstants, h100: Device, deepseek: Architecture
) -> None:
    arguments = (deepseek, h100, Parallelism(tp=8), Formats(weights="fp8"), vllm)
    once, again = (
        step_time_coefficients(*arguments, input_len=1000, output_len=100) for _ in range(2)
    )
    assert once == again


def test_engine_constants_reach_the_step_time(
    vllm: EngineConstants, h100: Device, llama8b: Architecture, deepseek: Architecture
) -> None:
    lengths = {"input_len": 1000.0, "output_len": 100.0}
    dense = (llama8b, h100, Parallelism(), Formats())
    slow = replace(vllm, a_step=vllm.a_step + 1e-3, a_seq=2 * vllm.a_seq)
    one = step_time_coefficients(*dense, vllm, **lengths)
    two = step_time_coefficients(*dense, slow, **lengths)
    assert two.a_step - one.a_step == pytest.approx(1e-3)
    assert two.a_seq == pytest.approx(2 * one.a_seq)
    assert one.phi == vllm.phi
    experts = step_time_coefficients(deepseek, h100, Parallelism(tp=8), Formats(), vllm, **lengths)
    assert experts.phi == vllm.phi_moe
    assert experts.a_step == vllm.a_step_moe
    assert len(experts.moe) > 30
    assert np.all(np.diff(experts.moe) > 0)


def test_eager_engines_keep_the_floor_of_the_host(a100: Device, llama70b: Architecture) -> None:
    """The floor is right; contexts hidden behind a slow host are the form's limit (28 %)."""
    engine = load_engine("vllm-eager")
    arguments = (llama70b, a100, Parallelism(tp=8), Formats(), engine)
    step = step_time_coefficients(*arguments, input_len=500, output_len=200)
    work = StepWork.grid(context=600, decodes=[1, 4, 16])
    exact = step_breakdown(*arguments, work).total
    fast = step(work.tokens, work.pairs, work.context_tokens, work.sequences)
    np.testing.assert_allclose(fast, exact, rtol=0.05)
