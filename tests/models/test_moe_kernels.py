"""Routing skew and the grouped expert GEMM."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.models.step.constants import DEFAULT
from bestserve.models.step.device import Device
from bestserve.models.step.moe import MoeKernel, active_experts, grouped_experts, imbalance

DEEPSEEK = {"hidden": 7168, "num_experts": 256, "top_k": 8}


@pytest.mark.parametrize(
    ("q", "share"), [(0.125, 0.11), (0.5, 0.33), (2, 0.67), (8, 0.89), (32, 0.97), (256, 1.0)]
)
def test_active_experts_match_the_published_column(q: float, share: float) -> None:
    # E q/(1 + q) over E, beside power-law routing .08 .31 .71 .84 .91 .96 at the same q.
    assert float(active_experts(q * 256, 256.0)) / 256 == pytest.approx(share, abs=0.006)


@given(st.floats(1e-6, 1e6), st.integers(1, 512))
def test_no_more_experts_than_there_are_or_than_rows(rows: float, experts: int) -> None:
    active = float(active_experts(rows, float(experts)))
    assert active <= min(rows, experts) * (1 + 1e-12)


@pytest.mark.parametrize(("ranks", "factor"), [(1, 1.0), (2, 1.1), (4, 1.2), (8, 1.4)])
def test_imbalance_of_large_batches(ranks: int, factor: float) -> None:
    assert float(imbalance(1e6, ranks)) == pytest.approx(factor)


def test_imbalance_of_small_batches_is_chance() -> None:
    # The fullest of 8 uniform ranks, by simulation: 8 and 128 rows.
    rng = np.random.default_rng(7)
    for rows in (8, 128):
        counts = rng.multinomial(rows, [1 / 8] * 8, size=4000).max(axis=1).mean()
        assert float(imbalance(float(rows), 8)) >= counts / (rows / 8) * 0.95
    assert float(imbalance(1.0, 8)) <= 8.0


def _layer(device: Device, tokens: float, ranks: int = 1, **changes: object) -> float:
    kernel = MoeKernel(**changes) if changes else None
    return float(
        grouped_experts(
            tokens, ranks=ranks, intermediate=2048, device=device, kernel=kernel, **DEEPSEEK
        ).time
    )


def test_one_token_reads_its_experts(h100: Device) -> None:
    # 8 rows over 256 experts touch 7.76 of them, each 3·7168·2048 bf16 weights at 0.86 W;
    # filling their tiles costs under 3 % more.
    expected = 30e-6 + 3 * 7168 * 2048 * 2 * float(active_experts(8.0, 256.0)) / (0.86 * 3.35e12)
    assert _layer(h100, 1.0) == pytest.approx(expected, rel=0.03)


def test_keeping_masked_rows_costs_where_experts_are_spread(h100: Device) -> None:
    own = _layer(h100, 8192.0, ranks=8, path="L", rate=16e9)
    everything = _layer(h100, 8192.0, ranks=8, path="G", rate=16e9)
    assert everything > own
    assert _layer(h100, 8192.0, path="L", rate=16e9) == _layer(h100, 8192.0, path="G", rate=16e9)


@given(tokens=st.floats(1, 1e5), factor=st.floats(1.0, 2.0))
def test_more_tokens_never_take_less(h100: Device, tokens: float, factor: float) -> None:
    for ranks in (1, 8):
        assert _layer(h100, tokens * factor, ranks) >= _layer(h100, tokens, ranks) * (1 - 1e-9)


def test_a_calibrated_constant_reaches_the_kernel(h100: Device) -> None:
    slow = replace(DEFAULT, moe=replace(DEFAULT.moe, memory=0.43))
    arguments = (64.0, 7168, 2048, 256, 8, 1, h100)
    fast = grouped_experts(*arguments)
    assert float(grouped_experts(*arguments, constants=slow).memory) == 2 * float(fast.memory)


def test_a_lone_prompt_reads_every_expert(h100: Device) -> None:
    # 2,000 tokens of top-8 routing over 384 experts: 42 rows each, less than a tile.
    cost = grouped_experts(2000.0, 7168.0, 256.0, 384, 8, 1, h100, "fp8_block")
    everything = 384 * 3 * 7168 * 256 / (DEFAULT.moe.memory * h100.memory_bandwidth)
    assert 0.97 * everything < float(cost.memory) < everything
    useful = float(cost.flops) / (DEFAULT.moe.compute_fp8 * h100.flops_fp8)
    assert float(cost.compute) > 1.5 * useful  # tiles that are not full


def test_padding_every_expert_makes_small_batches_as_dear_as_large_ones(h100: Device) -> None:
    def time(tokens: float, tile: int) -> float:
        kernel = MoeKernel(tile=tile)
        return float(
            grouped_experts(tokens, 4096, 1536, 128, 8, 1, h100, "fp8_block", kernel).overlapped
        )

    assert time(1, 128) == pytest.approx(time(200, 128))
    assert time(8, 128) > 4 * time(8, 0)
    assert time(0, 128) == 0.0
    assert time(65536, 128) == pytest.approx(time(65536, 0), rel=0.05)


MARLIN = MoeKernel(
    compute=0.267,
    memory=0.91,
    launch=58e-6,
    rate=11.3e9,
    unpack=19.1e9,
    heights=(8, 16, 32, 48, 64),
)


@pytest.mark.parametrize(
    ("tokens", "height"), [(1, 8), (228, 8), (231, 16), (460, 16), (462, 32), (1383, 64), (9e4, 64)]
)
def test_tiles_are_as_high_as_experts_have_rows(h100: Device, tokens: float, height: int) -> None:
    """The lowest height of which rows per expert fill less than 0.9, top-4 of 128: T/32 rows."""

    def padded(kernel: MoeKernel, tile: float) -> float:
        constants = replace(DEFAULT, moe=replace(DEFAULT.moe, tile=tile))
        cost = grouped_experts(tokens, 2880, 2880, 128, 4, 1, h100, "mxfp4", kernel, constants)
        return float(cost.compute)

    plain = replace(MARLIN, unpack=None, heights=())
    assert padded(replace(MARLIN, unpack=None), 64.0) == pytest.approx(padded(plain, height))


@given(tokens=st.floats(1, 1e5), factor=st.floats(1.0, 2.0))
def test_higher_tiles_never_take_less(h100: Device, tokens: float, factor: float) -> None:
    def time(count: float) -> float:
        return float(grouped_experts(count, 2880, 2880, 128, 4, 1, h100, "mxfp4", MARLIN).time)

    assert time(tokens * factor) >= time(tokens) * (1 - 1e-9)


def test_unpacking_takes_as_long_on_a_board_with_more_bandwidth(h100: Device) -> None:
    wide = replace(h100, memory_bandwidth=1.43 * h100.memory_bandwidth)

    def time(device: Device, kernel: MoeKernel) -> float:
        return float(grouped_experts(8, 3584, 3072, 896, 16, 1, device, "mxfp4", kernel).time)

    # The measured table: 0.889 ms on H100, 0.875 on H200.
    assert time(wide, MARLIN) == pytest.approx(time(h100, MARLIN), rel=0.1)
    assert time(h100, MARLIN) == pytest.approx(0.889e-3, rel=0.15)
    assert time(wide, MARLIN) > 1.3 * time(wide, replace(MARLIN, unpack=None))
