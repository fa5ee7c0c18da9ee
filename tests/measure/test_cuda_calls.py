"""The calls made to a CUDA device, on a stand-in for `torch.cuda` with a clock of its own.

This checks the order of calls and the units. That the kernels are right is checked on the CPU, and
on a GPU by `attention.choose` before it trusts one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bestserve.errors import InputError
from bestserve.measure.campaign import make_machine
from bestserve.measure.device_info import describe_device
from bestserve.measure.machine import Op
from bestserve.measure.timing import kernel_time, submission_time


class FakeCuda:
    """`torch.cuda` of one device: kernels advance a device clock, graphs record and replay them."""

    def __init__(self) -> None:
        self.device_ms = 0.0
        self.recording: list[float] | None = None
        self.log: list[str] = []
        outer = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing
                self.at = float("nan")

            def record(self) -> None:
                self.at = outer.device_ms

            def elapsed_time(self, end: Any) -> float:
                return float(end.at - self.at)

        class CUDAGraph:
            kernels: list[float]

            def replay(self) -> None:
                outer.device_ms += sum(self.kernels)

        class Stream:
            def __init__(self, device: Any = None) -> None:
                outer.log.append("stream")

            def wait_stream(self, other: Any) -> None:
                outer.log.append("wait")

        self.Event, self.CUDAGraph, self.Stream = Event, CUDAGraph, Stream

    def launch(self, milliseconds: float) -> Callable[[], None]:
        def run() -> None:
            if self.recording is None:
                self.device_ms += milliseconds
            else:
                self.recording.append(milliseconds)

        return run

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        self.recording = []
        yield
        graph.kernels, self.recording = self.recording, None

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        yield

    def current_stream(self, device: Any) -> Any:
        return self.Stream()

    def synchronize(self, device: Any) -> None:
        self.log.append("synchronize")

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return 70 * 10**9, 85 * 10**9

    def get_device_capability(self, index: int) -> tuple[int, int]:
        return (9, 0)

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(
            name="NVIDIA H100 80GB HBM3", L2_cache_size=50 << 20, multi_processor_count=132
        )


@pytest.fixture
def torch() -> Any:
    cuda = FakeCuda()
    trash = SimpleNamespace(zero_=cuda.launch(0.05))
    return SimpleNamespace(
        cuda=cuda,
        uint8="uint8",
        __version__="2.13.0",
        version=SimpleNamespace(cuda="13.0", hip=None),
        device=lambda kind, index=0: SimpleNamespace(type=kind, index=index),
        empty=lambda *size, **options: trash,
    )


def test_device_is_described_with_what_the_driver_says(torch: Any) -> None:
    info = describe_device(torch, "cuda:1")
    assert (info.name, info.memory, info.free) == ("NVIDIA H100 80GB HBM3", 85 * 10**9, 70 * 10**9)
    assert (info.processors, info.gpus, info.torch_device) == (132, 2, "cuda:1")
    assert info.fp8
    assert not info.self_test
    assert info.versions["cuda"] == "13.0"
    with pytest.raises(InputError, match="there are 2 GPUs"):
        describe_device(torch, "cuda:2")


@pytest.mark.parametrize("flush", [False, True])
def test_kernels_are_timed_in_seconds_inside_a_graph(torch: Any, flush: bool) -> None:
    machine = make_machine(torch, describe_device(torch))
    cycle = [Op("gemm", torch.cuda.launch(0.02)) for _ in range(4)]
    timing = kernel_time(machine, cycle, budget=0.01, flush=flush)
    assert timing.median == pytest.approx(20e-6)
    assert "wait" in torch.cuda.log  # graphs are warmed up on a side stream


def test_the_host_is_timed_without_waiting(torch: Any) -> None:
    machine = make_machine(torch, describe_device(torch))
    assert machine.asynchronous
    slow = [Op("slow", torch.cuda.launch(1e6))]
    assert submission_time(machine, slow, budget=0.01).median < 1e-3
