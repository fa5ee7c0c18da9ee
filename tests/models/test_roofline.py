"""The kernel cost: limits, shares, formats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.models.step.attention import decode_attention, prefill_attention
from bestserve.models.step.constants import DEFAULT, OperatorConstants, describe
from bestserve.models.step.device import Device
from bestserve.models.step.roofline import (
    Cost,
    compute_format,
    elementwise,
    gemm,
    gemm_efficiency,
    p_norm,
    peak,
    quantise,
)

positive = st.floats(1e-9, 1e3)


@given(positive, positive, st.floats(1.0, 8.0))
def test_p_norm_lies_between_maximum_and_sum(a: float, b: float, p: float) -> None:
    value = float(p_norm(a, b, p))
    assert max(a, b) * (1 - 1e-12) <= value <= (a + b) * (1 + 1e-12)


@given(a=positive, b=positive)
def test_p_norm_of_three_equals_the_general_form(a: float, b: float) -> None:
    assert float(p_norm(a, b)) == pytest.approx(float(p_norm(a, b, 3.0 + 1e-12)), rel=1e-9)


@given(st.tuples(*[st.floats(0, 1.0)] * 5))
def test_shares_add_up_to_the_time(parts: tuple[float, ...]) -> None:
    fixed, compute, memory, activation, link = parts
    cost = Cost(fixed=fixed, compute=compute, memory=memory, activation=activation, link=link)
    assert float(sum(cost.shares())) == pytest.approx(float(cost.time), rel=1e-12, abs=1e-300)
    assert all(float(s) >= -1e-15 for s in cost.shares())


def test_a_large_gemm_reaches_its_share_of_the_peak(h100: Device) -> None:
    # 2mnk / (0.80 · 989.5 TFLOP/s), see the list of constants; waves and memory cost under 1 %.
    m, n, k = 32768.0, 16384.0, 16384.0
    expected = 2 * m * n * k / (0.80 * 989.5e12)
    assert float(gemm(m, n, k, h100).time) == pytest.approx(expected, rel=0.01)


def test_a_single_row_gemm_reads_its_weights(h100: Device) -> None:
    n, k = 28672.0, 8192.0
    expected = 3.3e-6 + 2 * n * k / (0.84 * 3.35e12)
    assert float(gemm(1.0, n, k, h100).time) == pytest.approx(expected, rel=0.01)


def test_no_rows_no_kernel(h100: Device) -> None:
    assert float(gemm(0.0, 4096, 4096, h100).time) == 0.0
    assert float(elementwise(0.0, 4096, 1024, h100).time) == 0.0


@given(m=st.floats(1, 65536), more=st.floats(1, 4096))
def test_more_rows_never_take_less(h100: Device, m: float, more: float) -> None:
    assert gemm(m + more, 4096, 4096, h100).time >= gemm(m, 4096, 4096, h100).time


@pytest.mark.parametrize("figure", ["flops_bf16", "memory_bandwidth"])
@given(m=st.floats(1, 65536), factor=st.floats(1.0, 10.0))
def test_faster_hardware_never_hurts(h100: Device, figure: str, m: float, factor: float) -> None:
    faster = replace(h100, **{figure: getattr(h100, figure) * factor})
    assert gemm(m, 5120, 3072, faster).time <= gemm(m, 5120, 3072, h100).time * (1 + 1e-12)


def test_formats_fall_back_to_bf16_where_the_device_lacks_them(
    h100: Device, a100: Device, b200: Device
) -> None:
    assert compute_format(a100, "fp8") == "bf16"
    assert compute_format(h100, "fp8_block") == "fp8"
    assert compute_format(h100, "nvfp4") == "bf16"
    assert compute_format(b200, "nvfp4") == "nvfp4"
    assert peak(a100, "fp8") == a100.flops_bf16
    # The weights still arrive in fewer bytes.
    assert gemm(1.0, 8192, 8192, a100, "fp8").time < gemm(1.0, 8192, 8192, a100, "bf16").time


def test_a_board_reaches_its_own_share_of_the_peak(h100: Device) -> None:
    """`compute_reach` scales compute only, of GEMMs and of prompt attention alike."""
    half = replace(h100, compute_reach=0.5)
    assert gemm_efficiency(half, "bf16")[0] == pytest.approx(0.5 * gemm_efficiency(h100, "bf16")[0])
    assert gemm_efficiency(half, "bf16")[1] == gemm_efficiency(h100, "bf16")[1]
    args = (5e7, 1e4, 1e4, 32.0, 128.0, 128.0)
    ratio = prefill_attention(*args, half).compute / prefill_attention(*args, h100).compute
    assert ratio == pytest.approx(2.0)


def test_volta_reads_its_cache_slowly(h100: Device) -> None:
    args = (1e6, 10.0, 32.0, 8.0, 128.0, 128.0, 2.0)
    volta = replace(h100, generation="volta")
    ratio = decode_attention(*args, h100).memory / decode_attention(*args, volta).memory
    assert ratio == pytest.approx(DEFAULT.decode.volta_memory)


def test_every_constant_says_unit_kind_and_source() -> None:
    records = describe()
    assert len(records) > 50
    assert len({r.name for r in records}) == len(records)
    for record in records:
        assert record.unit
        assert record.kind in ("measured", "secondary", "derived", "assumed")
        assert len(record.source) > 5
        assert np.isfinite(record.value)
        assert record.value > 0


def test_a_replaced_constant_is_listed_as_calibrated() -> None:
    changed = replace(DEFAULT, gemm=replace(DEFAULT.gemm, launch=5e-6))
    kinds = {r.name: r.kind for r in describe(changed)}
    assert kinds["gemm.launch"] == "calibrated"
    assert kinds["gemm.memory"] == "measured"
    assert OperatorConstants() == DEFAULT


@pytest.mark.parametrize(
    ("n", "reached"), [(1024, 0.265), (2048, 0.393), (4096, 0.515), (16384, 0.697)]
)
def test_quantising_costs_narrow_fp8_matrices_most(h100: Device, n: float, reached: float) -> None:
    # Shares of the fp8 peak in the table of TensorRT-LLM 1.3 on H100.
    m, k = 16384.0, 8192.0
    time = float(quantise(m, k, h100, "fp8").time + gemm(m, n, k, h100, "fp8").time)
    assert 2 * m * n * k / time / h100.flops_fp8 == pytest.approx(reached, rel=0.1)


def test_sixteen_bit_inputs_are_not_quantised(h100: Device) -> None:
    assert float(quantise(4096.0, 8192.0, h100, "bf16").time) == 0.0
    assert float(quantise(4096.0, 8192.0, h100, "int4").time) == 0.0
    assert float(quantise(0.0, 8192.0, h100, "fp8").time) == 0.0
