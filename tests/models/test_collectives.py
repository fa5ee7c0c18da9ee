"""Collectives: their α-β forms, and how they grow."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.models.collectives import (
    all_reduce,
    all_to_all,
    distinct_ranks,
    group_split,
    point_to_point,
)
from bestserve.models.device import Device


def test_all_reduce_follows_its_formula(h100: Device) -> None:
    message = 64e6
    expected = 4e-6 * (1 + 0.06 * 6) + 2 * 7 / 8 * message / (0.64 * 450e9)
    assert float(all_reduce(message, 8, h100).time) == pytest.approx(expected, rel=1e-12)
    assert float(all_reduce(message, 1, h100).time) == 0.0
    assert float(all_reduce(0.0, 8, h100).time) == 0.0


@pytest.mark.parametrize(("top_k", "ranks"), [(1, 2), (2, 2), (2, 4), (3, 3)])
def test_distinct_remote_ranks_by_enumeration(top_k: int, ranks: int) -> None:
    # Every placement of top_k experts on the ranks, equally likely; rank 0 is the sender.
    placements = list(product(range(ranks), repeat=top_k))
    mean = sum(len(set(p) - {0}) for p in placements) / len(placements)
    assert distinct_ranks(top_k, ranks) == pytest.approx(mean)


def test_a_group_beyond_the_node_uses_the_network(h100: Device) -> None:
    assert group_split(8, h100) == (8, 1)
    assert group_split(16, h100) == (8, 2)
    inside = float(all_reduce(64e6, 8, h100).time)
    across = float(all_reduce(64e6, 16, h100).time)
    # 2(n − 1)/n of an eighth of the message over 0.8 of 50 GB/s, and one latency each way.
    extra = 2 * h100.network_latency + 64e6 / 8 / (0.8 * 50e9)
    assert across == pytest.approx(inside + extra, rel=1e-12)


@given(size=st.floats(1, 1e9), factor=st.floats(1.0, 4.0), gpus=st.sampled_from([2, 4, 8, 16]))
def test_larger_messages_never_take_less(
    h100: Device, size: float, factor: float, gpus: int
) -> None:
    assert all_reduce(size * factor, gpus, h100).time >= all_reduce(size, gpus, h100).time
    one = all_to_all(size, 7168.0, 8, gpus, h100)
    two = all_to_all(size * factor, 7168.0, 8, gpus, h100)
    assert two.time >= one.time


def test_an_engine_kernel_overrides_the_prior(h100: Device) -> None:
    own = all_to_all(1024.0, 7168.0, 8, 8, h100, latency=11e-6, link=0.55)
    volume = 1024 * 7168 * distinct_ranks(8, 8)
    assert float(own.time) == pytest.approx(11e-6 + volume / (0.55 * 450e9))


def test_point_to_point(h100: Device) -> None:
    assert float(point_to_point(1e6, h100).time) == pytest.approx(
        h100.link_latency + 1e6 / (0.8 * 450e9)
    )
    assert point_to_point(1e6, h100, across_nodes=True).time > point_to_point(1e6, h100).time
