"""Floors: known figures, and no answer of ours below them anywhere in the catalogue."""

from __future__ import annotations

import numpy as np
import pytest

from bestserve.catalog import (
    list_engines,
    list_hardware,
    list_models,
    load_engine,
    load_hardware,
    load_model,
)
from bestserve.models.step.coefficients import step_time_coefficients
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.floor import decode_floor, fastest_rate, prompt_floor


def test_a_decode_reads_all_weights_and_its_cache(h100: Device) -> None:
    arch = load_model("meta-llama/Llama-3.1-70B").architecture
    one = Parallelism(tp=4)
    alone = decode_floor(arch, h100, one, Formats())
    assert alone == pytest.approx(70.55e9 * 2 / (4 * h100.memory_bandwidth), rel=0.03)
    cached = decode_floor(arch, h100, one, Formats(), sequences=10, context=1000)
    assert cached - alone == pytest.approx(10 * 1000 * 327_680 / (4 * h100.memory_bandwidth))


def test_a_prompt_takes_two_operations_a_weight(h100: Device) -> None:
    arch = load_model("meta-llama/Llama-3.1-70B").architecture
    found = prompt_floor(arch, h100, Parallelism(tp=4), Formats(), 1000.0)
    assert found == pytest.approx(2 * 68.5e9 * 1000 / (4 * h100.flops_bf16), rel=0.02)


def test_mixtures_read_the_experts_of_their_tokens(h100: Device) -> None:
    arch = load_model("Qwen/Qwen3-235B-A22B").architecture
    few = decode_floor(arch, h100, Parallelism(tp=8), Formats())
    many = decode_floor(arch, h100, Parallelism(tp=8), Formats(), sequences=10_000)
    assert few < 22e9 * 2 / (8 * h100.memory_bandwidth)
    assert many == pytest.approx(235e9 * 2 / (8 * h100.memory_bandwidth), rel=0.03)


def test_narrow_weights_run_at_the_rate_of_their_width(h100: Device) -> None:
    assert fastest_rate(h100, "bf16") == h100.flops_bf16
    assert fastest_rate(h100, "int4") == h100.flops_fp8
    assert fastest_rate(h100, "nvfp4") == h100.flops_fp8  # no 4-bit units


@pytest.mark.parametrize("seed", range(40))
def test_no_step_of_ours_is_below_its_floor(seed: int) -> None:
    draw = np.random.default_rng(seed)
    model = load_model(str(draw.choice(list_models())))
    hardware = load_hardware(str(draw.choice(list_hardware())))
    engine = load_engine(str(draw.choice(list_engines())))
    arch, device = model.architecture, hardware.device()
    formats = model.formats()
    split = Parallelism(tp=int(2 ** draw.integers(0, 4)))
    step = step_time_coefficients(
        arch, device, split, formats, engine, input_len=2000.0, output_len=300.0
    )
    tokens = float(2 ** draw.integers(9, 15))
    prompt = step(T=tokens, A=tokens**2 / 2, K=0.0, n=1)
    assert prompt >= 0.95 * prompt_floor(arch, device, split, formats, tokens)
    batch, context = float(2 ** draw.integers(0, 8)), float(2 ** draw.integers(7, 14))
    decode = step(T=batch, A=0.0, K=batch * context, n=batch)
    floor = decode_floor(arch, device, split, formats, sequences=batch, context=context)
    assert decode >= 0.95 * floor
