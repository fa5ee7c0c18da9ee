"""What can be timed: a host that submits operations and a device that executes them in order.

`Machine` is the contract; the harness, the grid and the tests see nothing else. Implementations:
`CpuMachine` (executes at once), `CudaMachine` (asynchronous) and `simulated.SimulatedMachine`
(known times on a virtual clock).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

FLUSH_FACTOR = 2
"""A flush writes this many times the last-level cache, so that nothing of it survives."""


@dataclass(frozen=True, slots=True)
class Op:
    """One submission to the device: a name, what to call, and how many kernels that launches."""

    name: str
    run: Callable[[], Any]
    kernels: int = 1


class Machine(Protocol):
    """A host with one in-order device queue."""

    asynchronous: bool

    def clock(self) -> float:
        """Return host time [s]."""

    def synchronize(self) -> None:
        """Block the host until the device has finished everything submitted."""

    def mark(self) -> Any:
        """Put a time mark into the device queue."""

    def elapsed(self, start: Any, end: Any) -> float:
        """Return device time between two marks, after `synchronize` [s]."""

    def capture(self, ops: Sequence[Op]) -> Op | None:
        """Return one operation that replays `ops` with a single launch, or None without graphs."""

    def flush(self) -> None:
        """Push everything out of the device's last-level cache."""


class CpuMachine:
    """The host executes each operation itself: submission ends when the work does."""

    asynchronous = False

    def __init__(self, torch: Any, cache_bytes: int = 64 << 20) -> None:
        self._trash = torch.zeros(FLUSH_FACTOR * cache_bytes, dtype=torch.uint8)

    def clock(self) -> float:
        """Return host time [s]."""
        return time.perf_counter()

    def synchronize(self) -> None:
        """Return at once: nothing is ever pending."""

    def mark(self) -> float:
        """Return host time [s]."""
        return time.perf_counter()

    def elapsed(self, start: float, end: float) -> float:
        """Return the time between two marks [s]."""
        return end - start

    def capture(self, ops: Sequence[Op]) -> Op | None:
        """Return None: a CPU has no graphs."""
        return None

    def flush(self) -> None:
        """Overwrite a buffer larger than the last-level cache."""
        self._trash.add_(1)


class CudaMachine:
    """One CUDA (or ROCm) device, timed with events on its current stream."""

    asynchronous = True

    def __init__(self, torch: Any, index: int = 0) -> None:
        self._torch = torch
        self.device = torch.device("cuda", index)
        properties = torch.cuda.get_device_properties(index)
        cache = int(getattr(properties, "L2_cache_size", 0)) or 64 << 20
        self._trash = torch.empty(FLUSH_FACTOR * cache, dtype=torch.uint8, device=self.device)

    def clock(self) -> float:
        """Return host time [s]."""
        return time.perf_counter()

    def synchronize(self) -> None:
        """Block until the device is idle."""
        self._torch.cuda.synchronize(self.device)

    def mark(self) -> Any:
        """Record a CUDA event."""
        event = self._torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, start: Any, end: Any) -> float:
        """Return the time between two events [s]; resolution about 0.5 us."""
        return float(start.elapsed_time(end)) * 1e-3

    def capture(self, ops: Sequence[Op]) -> Op | None:
        """Capture `ops` into a CUDA graph after one warm-up run on a side stream."""
        torch = self._torch
        side = torch.cuda.Stream(device=self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for op in ops:
                op.run()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for op in ops:
                op.run()
        return Op(f"graph of {len(ops)}", graph.replay, kernels=sum(op.kernels for op in ops))

    def flush(self) -> None:
        """Overwrite a buffer larger than the L2 cache."""
        self._trash.zero_()
