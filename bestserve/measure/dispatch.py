"""The dispatch model put to the test: an eager step against the asynchronous launch pipeline.

A host that launches kernels one by one and a device that executes them in order form a two-stage
pipeline: D_i = D_{i−1} + d_i, G_i = max(G_{i−1}, D_i) + T_i. `examine` measures every d_i and T_i
on their own, predicts G_n from them, and measures the step itself, eager and as a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestserve.arrays import Floats
from bestserve.measure.machine import Machine, Op
from bestserve.measure.timing import Timing, kernel_time, step_time, submission_time, sync_time
from bestserve.models.step.dispatch import bounds, pipeline


@dataclass(frozen=True, slots=True)
class DispatchTest:
    """What was measured for one step of n submissions, and what the pipeline predicts.

    host, device : float64[n], d_i and T_i [s]
    sync : host time of synchronising with an idle device, part of every measured step [s]
    eager, graph : the measured step; graph is None where the device has none
    submit : host time to submit the whole step [s]
    prefix_kernels, prefix_host : kernels and submission time of the first layers of the stack
    """

    names: tuple[str, ...]
    host: Floats
    device: Floats
    sync: float
    eager: Timing
    graph: Timing | None
    submit: float
    prefix_kernels: tuple[int, ...]
    prefix_host: tuple[float, ...]

    @property
    def predicted(self) -> float:
        """G_n plus the synchronisation [s]."""
        return float(pipeline(self.host, self.device)) + self.sync

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound of the eager step, synchronisation included [s]."""
        low, high = bounds(self.host, self.device)
        return float(low) + self.sync, float(high) + self.sync

    @property
    def dispatch_bound(self) -> bool:
        """Whether the host takes longer to launch the step than the device to execute it."""
        return float(self.host.sum()) > float(self.device.sum())

    @property
    def error(self) -> float:
        """Predicted over measured eager step, minus one [1]."""
        return self.predicted / self.eager.median - 1.0

    def row(self) -> dict[str, Any]:
        """Return the journal columns."""
        low, high = self.bounds
        return {
            "names": list(self.names),
            "op_host_s": self.host.tolist(),
            "op_device_s": self.device.tolist(),
            "sync_s": self.sync,
            "graph_s": None if self.graph is None else self.graph.median,
            "submit_s": self.submit,
            "predicted_s": self.predicted,
            "lower_s": low,
            "upper_s": high,
            "prefix_kernels": list(self.prefix_kernels),
            "prefix_host_s": list(self.prefix_host),
        }


def examine(
    machine: Machine, ops: Sequence[Op], *, layers: int = 1, budget: float = 0.1
) -> DispatchTest:
    """Measure one step and its parts.

    ops : the step in order; submissions of the same name cost the same, and are timed in turn, so
        that each finds other weights than the one before
    layers : equal parts that the step consists of, for the submission time of its beginnings
    budget : host time per timing [s]

    On a machine that executes at once (a CPU) submission is execution: T_i = 0 and the prediction
    is the sum of the d_i.
    """
    cycles: dict[str, list[Op]] = {}
    for op in ops:
        cycles.setdefault(op.name, []).append(op)
    host_of, device_of = {}, {}
    for name, cycle in cycles.items():
        host_of[name] = submission_time(machine, cycle, budget=budget / 2).median / len(cycle)
        device_of[name] = (
            kernel_time(machine, cycle, budget=budget / 2).median if machine.asynchronous else 0.0
        )
    per_layer = len(ops) // layers
    prefixes = [list(ops[: per_layer * count]) for count in range(1, layers + 1)]
    prefix_host = [submission_time(machine, p, budget=budget / 2).median for p in prefixes]
    graph = machine.capture(ops)
    return DispatchTest(
        names=tuple(op.name for op in ops),
        host=np.array([host_of[op.name] for op in ops]),
        device=np.array([device_of[op.name] for op in ops]),
        sync=sync_time(machine).median,
        eager=step_time(machine, ops, budget=budget),
        graph=None if graph is None else step_time(machine, [graph], budget=budget),
        submit=prefix_host[-1],
        prefix_kernels=tuple(sum(op.kernels for op in p) for p in prefixes),
        prefix_host=tuple(prefix_host),
    )
