"""The SymPy derivation against the numeric code, and exact derivatives against differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import sympy as sp

from bestserve.catalog import load_engine, load_model
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.breakdown import step_breakdown
from bestserve.models.step.closed_form import closed_form
from bestserve.models.step.constants import DEFAULT
from bestserve.models.step.derivatives import step_elasticities
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.step_work import StepWork

TP = 8
PROMPT = 2000.0


@pytest.fixture(scope="module")
def derive(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("models/derive_step_time.py")


def values(derive: ModuleType, arch: Architecture, device: Device) -> dict[sp.Symbol, float]:
    """The symbols of the derivation with the numbers that the code takes, bf16 throughout."""
    c = DEFAULT
    (group,) = arch.groups
    attention, ffn = group.attention, group.ffn
    numbers = {
        "P": device.flops_bf16,
        "P_a": device.flops_bf16,
        "W": device.memory_bandwidth,
        "W_link": device.link_bandwidth,
        "S": device.sms,
        "L": group.count,
        "H": arch.hidden_size,
        "h": attention.num_heads,
        "h_kv": attention.num_kv_heads,
        "d": attention.head_dim,
        "f": ffn.intermediate_size,
        "V": arch.vocab_size,
        "g": TP,
        "b_w": 2.0,
        "b_x": 2.0,
        "b_v": 2.0,
        "b_kv": 2.0,
        "e_c": c.gemm.compute_bf16,
        "e_v": c.gemm.compute_bf16,
        "e_m": c.gemm.memory,
        "t_g": c.gemm.launch,
        "A_g": c.gemm.area_per_sm,
        "e_a": c.prefill.compute * (attention.head_dim / 128) ** c.prefill.head_dim_exponent,
        "t_a": c.prefill.launch,
        "s_0": c.prefill.query_offset,
        "A_a": c.prefill.rows_per_sm,
        "e_d": c.decode.memory,
        "t_d": c.decode.launch,
        "n_e": c.elementwise.launches,
        "t_e": c.elementwise.launch,
        "e_e": c.elementwise.memory,
        "p_h": c.elementwise.hidden_passes,
        "p_f": c.elementwise.ffn_passes,
        "alpha": c.collective.allreduce_latency,
        "delta": c.collective.allreduce_growth,
        "e_l": c.collective.allreduce_link,
        "launch": 1.0,
    }
    symbols = (*derive.HARDWARE, *derive.MODEL, *derive.DEPLOYMENT, *derive.CONSTANTS)
    return {symbol: float(numbers[symbol.name]) for symbol in symbols}


def test_the_identity_behind_shares(derive: ModuleType) -> None:
    derive.euler_shares()


def test_coefficients_equal_the_code(
    derive: ModuleType, h100: Device, bare: EngineConstants, llama70b: Architecture
) -> None:
    prompt = sp.symbols("l", positive=True)
    numbers = values(derive, llama70b, h100)
    code = closed_form(
        llama70b,
        h100,
        Parallelism(tp=TP),
        Formats(),
        bare,
        input_len=PROMPT,
        output_len=300.0,
    )
    for name, expression in derive.coefficients(prompt).items():
        derived = float(expression.subs(numbers).evalf())
        assert derived == pytest.approx(getattr(code, name), rel=1e-6), name


STEPS = {
    "decode": StepWork.grid(context=3000, decodes=64),
    "prefill": StepWork.grid(chunk=4096, prompts=1),
}


def _work(derive: ModuleType, work: StepWork) -> dict[sp.Symbol, float]:
    amounts = {
        "T": work.tokens[0],
        "A": work.pairs[0],
        "K": work.context_tokens[0],
        "Q": work.prompt_tokens[0],
        "N": work.emitting[0],
        "q_max": work.longest_chunk[0],
    }
    return {symbol: float(amounts[symbol.name]) for symbol in derive.WORK}


@pytest.mark.parametrize("phase", STEPS)
def test_step_time_and_its_derivatives_equal_the_code(
    derive: ModuleType,
    h100: Device,
    bare: EngineConstants,
    llama70b: Architecture,
    phase: str,
) -> None:
    work = STEPS[phase]
    numbers = {**values(derive, llama70b, h100), **_work(derive, work)}
    # A kernel without work is not launched: the symbols have no such switch.
    absent = "attention.prefill" if phase == "decode" else "attention.decode"
    kernels = [k for k in derive.operators() if k.name != absent]
    if phase == "prefill":
        assert numbers[derive.K] == 0
    time = sum(k.count * k.time for k in kernels)
    scale = sp.symbols("scale", positive=True)
    code = step_elasticities(llama70b, h100, Parallelism(tp=TP), Formats(), bare, work)
    total = step_breakdown(llama70b, h100, Parallelism(tp=TP), Formats(), bare, work).total[0]
    assert float(time.subs(numbers)) == pytest.approx(total, rel=1e-9)

    def elasticity(*symbols: sp.Symbol) -> float:
        scaled = time.subs({s: s * scale for s in symbols})
        slope = sp.diff(scaled, scale).subs({**numbers, scale: 1})
        return float(slope.evalf()) / total

    assert code.peak[0] == pytest.approx(elasticity(derive.P, derive.P_a), rel=1e-9)
    assert code.memory_bandwidth[0] == pytest.approx(elasticity(derive.W), rel=1e-9)
    assert code.link_bandwidth[0] == pytest.approx(elasticity(derive.W_link), rel=1e-9)
    assert code.launch[0] == pytest.approx(elasticity(derive.launch), rel=1e-9)


FIGURES = {
    "peak": ("flops_bf16", "flops_fp8", "flops_int8", "flops_fp4"),
    "memory_bandwidth": ("memory_bandwidth",),
    "link_bandwidth": ("link_bandwidth", "network_bandwidth"),
}


@pytest.mark.parametrize("engine_name", ["vllm", "vllm-eager"])
@pytest.mark.parametrize(
    ("name", "parallel"),
    [
        ("meta-llama/Llama-3.1-70B", Parallelism(tp=4, pp=2)),
        ("deepseek-ai/DeepSeek-V3", Parallelism(dp=8, ep=8)),
        ("Qwen/Qwen3-235B-A22B", Parallelism(tp=8)),
    ],
)
def test_elasticities_equal_central_differences(
    h100: Device, name: str, parallel: Parallelism, engine_name: str
) -> None:
    model, engine = load_model(name), load_engine(engine_name)
    # 777 rather than 768 tokens: away from the knots where the skew of experts changes its branch.
    work = StepWork.grid(
        chunk=[0, 4000, 500], prompts=[0, 1, 1], context=[2000, 0, 900], decodes=[64, 0, 277]
    )

    def total(device: Device, used: EngineConstants = engine) -> np.ndarray:
        return step_breakdown(
            model.architecture, device, parallel, model.formats(), used, work
        ).total

    exact = step_elasticities(model.architecture, h100, parallel, model.formats(), engine, work)
    step = 1e-6

    def difference(up: np.ndarray, down: np.ndarray) -> np.ndarray:
        return (np.log(up) - np.log(down)) / (np.log1p(step) - np.log1p(-step))

    for field, figures in FIGURES.items():
        up, down = (
            replace(h100, **{f: getattr(h100, f) * (1 + s) for f in figures}) for s in (step, -step)
        )
        numeric = difference(total(up), total(down))
        np.testing.assert_allclose(getattr(exact, field), numeric, atol=1e-5, err_msg=field)
    hosts = [
        replace(
            engine,
            a_step=engine.a_step * (1 + s),
            a_step_moe=engine.a_step_moe * (1 + s),
            a_seq=engine.a_seq * (1 + s),
            a_seq_moe=engine.a_seq_moe * (1 + s),
        )
        for s in (step, -step)
    ]
    np.testing.assert_allclose(exact.host, difference(*(total(h100, e) for e in hosts)), atol=1e-5)
    launches = [replace(h100, launch_time=h100.launch_time * (1 + s)) for s in (step, -step)]
    np.testing.assert_allclose(
        exact.host_launch, difference(*(total(d) for d in launches)), atol=1e-5
    )
    # Euler: everything that the time is made of.
    parts = (
        -exact.peak
        - exact.memory_bandwidth
        - exact.link_bandwidth
        - exact.activation_rate
        + exact.launch
        + exact.host_launch
        + exact.host
    )
    np.testing.assert_allclose(parts, 1.0, rtol=1e-9)


def test_the_formula_prints(derive: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    derive.main()
    assert "t = launches + [w^3 + (c T)^3]^(1/3) + e T + a A + k K" in capsys.readouterr().out
