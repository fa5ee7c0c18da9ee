"""The dispatch harness on devices whose host and device times are known."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.measure.dispatch import examine
from bestserve.measure.fit import Fit
from bestserve.measure.forms import fit_host
from bestserve.measure.machine import Op
from bestserve.measure.simulated import SimulatedMachine
from bestserve.models.step.dispatch import bounds, pipeline

times = st.floats(min_value=1e-6, max_value=1e-3)
layers_of_ops = st.lists(st.tuples(times, times), min_size=1, max_size=8)


def stack(machine: SimulatedMachine, layer: Sequence[tuple[float, float]], count: int) -> list[Op]:
    """Return `count` equal layers of operations with (host, device) times."""
    return [machine.op(f"op{i}", h, d) for _ in range(count) for i, (h, d) in enumerate(layer)]


@given(layer=layers_of_ops, count=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_prediction_from_the_parts_is_the_measured_step(
    layer: list[tuple[float, float]], count: int
) -> None:
    machine = SimulatedMachine()
    found = examine(machine, stack(machine, layer, count), layers=count, budget=1e-4)
    assert found.predicted == pytest.approx(found.eager.median, rel=1e-9)
    low, high = found.bounds
    assert low * (1 - 1e-9) <= found.eager.median <= high * (1 + 1e-9)


def test_parts_are_recovered_and_the_regime_named() -> None:
    machine = SimulatedMachine()
    slow_host = examine(machine, stack(machine, [(20e-6, 5e-6), (10e-6, 12e-6)], 3), layers=3)
    assert slow_host.host.tolist() == pytest.approx([20e-6, 10e-6] * 3, rel=1e-9)
    assert slow_host.device.tolist() == pytest.approx([5e-6, 12e-6] * 3, rel=1e-9)
    assert slow_host.dispatch_bound
    assert slow_host.graph is not None
    assert slow_host.graph.median < 0.7 * slow_host.eager.median
    slow_device = examine(machine, stack(machine, [(20e-6, 50e-6)], 6), layers=3)
    assert not slow_device.dispatch_bound


@pytest.mark.parametrize("width", [1, 4, 16])
def test_regime_changes_where_kernels_outgrow_launches(width: int) -> None:
    # Device time grows with batch · width, host time does not: the step is the launches until the
    # kernels take over, and max(Σd, ΣT) to within one operation throughout.
    machine = SimulatedMachine(sync=0.0)
    for batch in (1, 8, 64):
        device = 1e-6 * batch * width
        found = examine(machine, stack(machine, [(30e-6, device)], 12), layers=4, budget=1e-3)
        floor = max(12 * 30e-6, 12 * device)
        assert floor <= found.eager.median <= floor + max(30e-6, device) + 1e-12
        assert found.dispatch_bound == (device < 30e-6)


def dispatch_rows(per_kernel: float, per_sequence: float) -> list[dict[str, object]]:
    """Return journal rows of a host with known constants."""
    rows: list[dict[str, object]] = []
    for batch in (1, 16, 64):
        machine = SimulatedMachine()
        host = per_kernel + per_sequence * batch / 24
        ops = [machine.op("x", host, 2e-6) for _ in range(24)]
        found = examine(machine, ops, layers=4, budget=1e-3)
        rows.append({"kind": "dispatch", "batch": batch, "median_s": 1.0, **found.row()})
    return rows


def value(fit: Fit | None, name: str) -> float:
    assert fit is not None
    return fit.value(name)


def test_launch_time_is_recovered_from_the_prefixes() -> None:
    assert value(fit_host(dispatch_rows(8e-6, 0.0)), "per_kernel") == pytest.approx(8e-6, rel=1e-6)
    assert fit_host([]) is None


class ThreadDevice:
    """An asynchronous device that works in a thread of its own, on a virtual clock.

    A mark is empty until the thread has passed it: who reads it without having waited fails.
    """

    asynchronous = True

    def __init__(self) -> None:
        self._host = self._device = 0.0
        self._queue: queue.Queue[tuple[float, float, list[float]]] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            submitted, seconds, stamps = self._queue.get()
            self._device = max(self._device, submitted) + seconds
            stamps.append(self._device)
            self._queue.task_done()

    def op(self, name: str, host: float, device: float) -> Op:
        def run() -> None:
            self._host += host
            self._queue.put((self._host, device, []))

        return Op(name, run)

    def clock(self) -> float:
        return self._host

    def synchronize(self) -> None:
        self._queue.join()
        self._host = max(self._host, self._device)

    def mark(self) -> list[float]:
        stamps: list[float] = []
        self._queue.put((self._host, 0.0, stamps))
        return stamps

    def elapsed(self, start: list[float], end: list[float]) -> float:
        return end[0] - start[0]

    def capture(self, ops: Sequence[Op]) -> Op | None:
        return None

    def flush(self) -> None:
        pass


def test_a_device_in_another_thread_follows_the_pipeline() -> None:
    device = ThreadDevice()
    ops = [device.op("small", 6e-3, 2e-3), device.op("large", 2e-3, 7e-3)] * 3
    found = examine(device, ops, layers=3, budget=0.05)
    assert found.host.sum() == pytest.approx(24e-3, rel=1e-9)
    exact = float(pipeline(np.array([6e-3, 2e-3] * 3), np.array([2e-3, 7e-3] * 3)))
    assert found.eager.low == pytest.approx(exact, rel=1e-9)
    low, high = bounds(np.array([6e-3, 2e-3] * 3), np.array([2e-3, 7e-3] * 3))
    assert float(low) < exact < float(high)
