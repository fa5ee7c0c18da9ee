"""A device with known times on a virtual clock: what the harness and the fits are proved on.

The host spends d_i on each submission, the device T_i on each operation, in order:
D_i = D_{i−1} + d_i and G_i = max(G_{i−1}, D_i) + T_i. Nothing here reads a real clock, so results
are exact and repeatable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bestserve.measure.machine import Op


class SimulatedMachine:
    """An asynchronous device with given host and device times.

    flush_host, flush_time : of overwriting a cache: 100 MB at 2 TB/s [s]
    graph_launch : host time to launch a captured graph, whatever its size [s]
    sync : host time of a synchronisation beyond waiting [s]
    queue_depth : submissions that may be pending before the host blocks; 0: unlimited
    """

    asynchronous = True
    flush_host, flush_time = 5e-6, 50e-6

    def __init__(
        self, *, graph_launch: float = 10e-6, sync: float = 5e-6, queue_depth: int = 0
    ) -> None:
        self.graph_launch, self.sync, self.queue_depth = graph_launch, sync, queue_depth
        self.host = 0.0
        self.device = 0.0
        self._pending: list[float] = []
        self._times: dict[Callable[[], object], tuple[float, float]] = {}

    def op(self, name: str, host: float, device: float, kernels: int = 1) -> Op:
        """Return an operation that costs `host` to submit and `device` to execute [s]."""
        made = Op(name, lambda: self._submit(host, device), kernels)
        self._times[made.run] = (host, device)
        return made

    def work(self, seconds: float) -> None:
        """Let the host compute for `seconds` without submitting anything."""
        self.host += seconds

    def clock(self) -> float:
        """Return virtual host time [s]."""
        return self.host

    def synchronize(self) -> None:
        """Advance the host to the device's end, plus the fixed cost."""
        self.host = max(self.host, self.device) + self.sync
        self._pending.clear()

    def mark(self) -> float:
        """Return when a mark submitted now passes the device [s]."""
        self.device = max(self.device, self.host)
        return self.device

    def elapsed(self, start: float, end: float) -> float:
        """Return the device time between two marks [s]."""
        return end - start

    def capture(self, ops: Sequence[Op]) -> Op | None:
        """Return one operation with one launch and the summed device time."""
        device = sum(self._times[op.run][1] for op in ops)
        return self.op(
            f"graph of {len(ops)}", self.graph_launch, device, sum(op.kernels for op in ops)
        )

    def flush(self) -> None:
        """Keep the device busy for `flush_time`, as overwriting its cache would."""
        self._submit(self.flush_host, self.flush_time)

    def _submit(self, host: float, device: float) -> None:
        self.host += host
        if self.queue_depth and len(self._pending) >= self.queue_depth:
            self.host = max(self.host, self._pending[-self.queue_depth])
        self.device = max(self.device, self.host) + device
        self._pending.append(self.device)
