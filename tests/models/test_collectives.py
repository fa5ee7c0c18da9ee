"""Collectives: their α-β forms, and how they grow."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.catalog import load_engine, load_hardware
from bestserve.models.step.collectives import (
    all_reduce,
    all_to_all,
    distinct_ranks,
    group_split,
    point_to_point,
)
from bestserve.models.step.device import Device


def test_all_reduce_follows_its_formula(h100: Device) -> None:
    message = 64e6
    expected = 4e-6 * (1 + 0.06 * 6) + 2 * 7 / 8 * message / (0.64 * 450e9)
    assert float(all_reduce(message, 8, h100).time) == pytest.approx(expected, rel=1e-12)
    assert float(all_reduce(message, 1, h100).time) == 0.0
    assert float(all_reduce(0.0, 8, h100).time) == 0.0


def test_one_shot_all_reduce_until_the_ring_is_faster(h100: Device) -> None:
    ring, link = 2.7e-6, 0.64 * 450e9
    small, large = 512 * 1024.0, 32 * 2.0**20
    one_shot = 4e-6 * (1 + 0.06 * 6) + 7 * small / link
    assert float(all_reduce(small, 8, h100, ring=ring).time) == pytest.approx(one_shot)
    around = 8 * ring + 2 * 7 / 8 * large / link
    assert float(all_reduce(large, 8, h100, ring=ring).time) == pytest.approx(around)
    # Two GPUs send the same in one shot as in two.
    assert all_reduce(large, 2, h100, ring=ring).time == all_reduce(large, 2, h100).time


def test_an_engine_keeps_to_one_shot_up_to_its_own_size(h100: Device) -> None:
    ring, link, megabyte = 2.7e-6, 0.64 * 450e9, 2.0**20
    kept = all_reduce(2 * megabyte, 8, h100, ring=ring, latency=2.8e-6, whole_bytes=4.2e6)
    assert float(kept.time) == pytest.approx(2.8e-6 + 7 * 2 * megabyte / link)
    free = all_reduce(2 * megabyte, 8, h100, ring=ring, latency=2.8e-6)
    assert float(free.time) < 0.7 * float(kept.time)
    larger = all_reduce(8 * megabyte, 8, h100, ring=ring, whole_bytes=4.2e6)
    assert larger.time == all_reduce(8 * megabyte, 8, h100, ring=ring).time
    four = all_reduce(2 * megabyte, 4, h100, ring=ring, whole_bytes=4.2e6)
    assert four.time == all_reduce(2 * megabyte, 4, h100, ring=ring).time


def test_the_small_messages_of_an_engine_fit_its_measured_table(shared: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    engine, errors = load_engine("tensorrt-llm"), {}
    for gpu, record in (("h100_sxm", "h100-sxm"), ("h200_sxm", "h200-sxm")):
        file = f"{gpu}/custom_allreduce.trtllm-1.3.0rc20.parquet"
        device = load_hardware(record).device()
        for row in parquet.read_table(shared / "measured" / "operators" / file).to_pylist():
            if 2.0 * row["message_size"] <= 2**18:
                for latency in (None, engine.allreduce_hopper):
                    time = all_reduce(
                        2.0 * row["message_size"], row["num_gpus"], device,
                        ring=engine.allreduce_ring, latency=latency,
                    ).time  # fmt: skip
                    error = abs(float(time) / (1e-3 * row["latency"]) - 1)
                    errors.setdefault(latency, []).append(error)
    assert median(errors[engine.allreduce_hopper]) < 0.12
    assert median(errors[None]) > 0.4


def test_the_ring_fits_the_measured_table_of_its_engine(shared: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    ring = load_engine("tensorrt-llm").allreduce_ring
    for gpu, record in (("h100_sxm", "h100-sxm"), ("b200_sxm", "b200-sxm")):
        file = f"{gpu}/custom_allreduce.trtllm-1.3.0rc20.parquet"
        table = parquet.read_table(shared / "measured" / "operators" / file).to_pydict()
        rows = [  # lengths are counted in elements of two bytes, times in milliseconds
            (2.0 * size, 1e-3 * latency)
            for size, latency, gpus in zip(
                table["message_size"], table["latency"], table["num_gpus"], strict=True
            )
            if gpus == 8 and 2048 <= size <= 2**25
        ]
        device = load_hardware(record).device()
        errors = {
            r: median(abs(float(all_reduce(m, 8, device, ring=r).time) / t - 1) for m, t in rows)
            for r in (0.0, ring)
        }
        assert errors[ring] < 0.22
        assert errors[ring] < 0.6 * errors[0.0]


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
