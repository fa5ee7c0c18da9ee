"""Attention kernels and the work of a step, against their formulas and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.models.step.attention import (
    decode_attention,
    linear_attention,
    mla_decode,
    prefill_attention,
    sparse_indexer,
)
from bestserve.models.step.device import Device
from bestserve.models.step.step_work import StepWork


def test_prefill_of_one_prompt_follows_its_formula(h100: Device) -> None:
    q, h, d = 4096.0, 8.0, 128.0
    # t0 + 2dq[h(q + s0) + A·S]/(e_c·P) with s0 = 1100, A = 92, S = 132, e_c = 0.65.
    expected = 12.5e-6 + 2 * d * q * (h * (q + 1100) + 92 * 132) / (0.65 * 989.5e12)
    cost = prefill_attention(q * q / 2, q, q, h, d, d, h100)
    assert float(cost.time) == pytest.approx(expected, rel=1e-12)


def test_decode_reads_the_cache_once(h100: Device) -> None:
    context, b, h, kv, d = 64 * 2048.0, 64.0, 8.0, 1.0, 128.0
    expected = 12e-6 + (2 * context * kv * 2 * d + 4 * b * h * d) / (0.85 * 3.35e12)
    cost = decode_attention(context, b, h, kv, d, d, 2.0, h100)
    assert float(cost.time) == pytest.approx(expected, rel=1e-12)


def test_latent_cache_traffic_does_not_shrink_with_heads(h100: Device) -> None:
    # DeepSeek-V3: 576 numbers per token whatever tensor parallelism leaves of the 128 heads.
    few = mla_decode(1e6, 0.0, 16, 512, 64, 2.0, h100)
    many = mla_decode(1e6, 0.0, 128, 512, 64, 2.0, h100)
    assert float(few.traffic) == float(many.traffic) == 576 * 2e6
    assert float(few.flops) < float(many.flops)


def test_linear_attention_reads_a_state_of_fixed_size(h100: Device) -> None:
    cost = linear_attention(0.0, 4.0, 32, 128, 128, h100)
    assert float(cost.traffic) == 2 * 4 * 32 * 128 * 128 * 4  # read and write, fp32
    assert float(cost.compute) == 0.0


def test_indexer_scores_every_pair(h100: Device) -> None:
    cost = sparse_indexer(1e6, 0.0, 64, 128, h100)
    assert float(cost.flops) == 2 * 64 * 128 * 1e6


chunks = st.tuples(st.integers(1, 40), st.integers(0, 40))


@given(st.lists(chunks, max_size=4), st.integers(0, 30))
def test_window_pairs_agree_with_an_integral(prompts: list[tuple[int, int]], window: int) -> None:
    work = StepWork.single(prompts=prompts)
    # ∫ min(x, window) dx in 64 midpoints per token: exact away from the kink, 1e-4 at it.
    total = 0.0
    for chunk, offset in prompts:
        x = offset + (np.arange(chunk * 64) + 0.5) / 64
        total += float(np.minimum(x, window if window else np.inf).sum() / 64)
    assert work.window_pairs(float(window))[0] == pytest.approx(total, rel=1e-3, abs=1e-2)


@given(
    st.lists(chunks, max_size=4),
    st.lists(st.integers(1, 100), max_size=5),
    st.integers(1, 50),
)
def test_work_counts(prompts: list[tuple[int, int]], contexts: list[int], window: int) -> None:
    work = StepWork.single(prompts=prompts, contexts=contexts)
    assert work.tokens[0] == sum(q for q, _ in prompts) + len(contexts)
    assert work.context_tokens[0] == sum(contexts)
    assert work.window_context(float(window))[0] == sum(min(c, window) for c in contexts)
    assert work.sequences[0] == len(prompts) + len(contexts)
    assert work.pairs[0] == pytest.approx(sum(q * p + q * q / 2 for q, p in prompts))
    assert work.longest_chunk[0] == max((q for q, _ in prompts), default=0)
    assert work.emitting[0] == len(prompts) + len(contexts)


def test_a_grid_of_equal_sequences_equals_single_steps() -> None:
    grid = StepWork.grid(chunk=[0, 512], prompts=[0, 2], context=[1000, 300], decodes=[8, 3])
    for i, single in enumerate(
        (
            StepWork.single(contexts=[1000] * 8),
            StepWork.single(prompts=[(512, 0)] * 2, contexts=[300] * 3),
        )
    ):
        for name in ("tokens", "pairs", "context_tokens", "longest_chunk", "prompt_reach"):
            assert getattr(grid, name)[i] == getattr(single, name)[0], name


def test_spreading_over_ranks_divides_sequences_and_keeps_lengths() -> None:
    work = StepWork.grid(chunk=512, prompts=8, context=100, decodes=16).spread(8)
    assert work.tokens[0] == 512 + 2
    assert work.longest_chunk[0] == 512
