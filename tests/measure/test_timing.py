"""Timing on a virtual clock: what is measured is what was put in."""

from __future__ import annotations

import pytest

from bestserve.measure.simulated import SimulatedMachine
from bestserve.measure.timing import (
    kernel_time,
    step_time,
    submission_time,
    summarise,
    sync_time,
)


def test_summary_is_median_and_quantiles() -> None:
    timing = summarise([float(i) for i in range(11)])
    assert (timing.median, timing.low, timing.high, timing.repeats) == (5.0, 1.0, 9.0, 11)
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


@pytest.mark.parametrize(("host", "device"), [(5e-6, 2e-6), (5e-6, 80e-6), (5e-6, 5e-3)])
@pytest.mark.parametrize("flush", [False, True])
def test_kernel_time_hides_the_launches(host: float, device: float, flush: bool) -> None:
    machine = SimulatedMachine()
    cycle = [machine.op("gemm", host, device) for _ in range(4)]
    timing = kernel_time(machine, cycle, budget=0.05, flush=flush)
    assert timing.median == pytest.approx(device, rel=1e-9)


@pytest.mark.parametrize("depth", [0, 1000])
def test_submission_time_is_the_hosts_even_with_a_slow_device(depth: int) -> None:
    machine = SimulatedMachine(queue_depth=depth)
    ops = [machine.op("x", 4e-6, 1e-4) for _ in range(20)]
    assert submission_time(machine, ops).median == pytest.approx(80e-6, rel=1e-9)


def test_a_full_queue_would_block_the_host() -> None:
    # The reason for MAX_IN_FLIGHT: with a short queue the host's time becomes the device's.
    machine = SimulatedMachine(queue_depth=10)
    ops = [machine.op("x", 4e-6, 1e-4) for _ in range(200)]
    assert submission_time(machine, ops).median > 0.9 * 190 * 1e-4


def test_step_time_ends_with_the_device_and_counts_the_synchronisation() -> None:
    machine = SimulatedMachine(sync=7e-6)
    ops = [machine.op("x", 10e-6, 3e-6) for _ in range(5)]
    assert step_time(machine, ops).median == pytest.approx(50e-6 + 3e-6 + 7e-6, rel=1e-9)
    assert sync_time(machine).median == pytest.approx(7e-6, rel=1e-9)


def test_a_graph_costs_one_launch() -> None:
    machine = SimulatedMachine(graph_launch=12e-6, sync=0.0)
    graph = machine.capture([machine.op("x", 10e-6, 3e-6) for _ in range(100)])
    assert graph is not None
    assert step_time(machine, [graph]).median == pytest.approx(12e-6 + 300e-6, rel=1e-9)
