"""Host and device as an asynchronous pipeline: when launching kernels takes longer than running.

Without CUDA graphs the host launches kernel i after d_i seconds more, and the device starts it as
soon as it is launched and its predecessor is done:

    D_i = D_{i−1} + d_i,    G_i = max(G_{i−1}, D_i) + T_i,    D_0 = G_0 = 0.

Unrolled (max-plus), G_n = max_k (D_k + Σ_{i≥k} T_i), so one pass of cumulative sums evaluates it,
and max(ΣT, Σd) ≤ G_n ≤ Σ max(T_i, d_i) + max_k min(T_k, d_k). With CUDA graphs the launches are
replayed on the device and only the engine's host time per step remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.step.device import Device
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.operators import Operator
from bestserve.models.step.roofline import Number, present


class Dispatch(NamedTuple):
    """Time of a step whose kernels the host launches one by one [s], each float64[s].

    total : until the last kernel ends; device : Σ T; host : Σ d
    """

    total: Floats
    device: Floats
    host: Floats

    @property
    def exposed(self) -> Floats:
        """Time during which the device waits for the host [s]."""
        return self.total - self.device


def pipeline(launch: Floats, device: Floats) -> Floats:
    """Return G_n, the end of the last kernel [...], for d and T as float64[..., n] [s].

    >>> pipeline(np.array([2.0, 2.0]), np.array([1.0, 5.0]))
    array(9.)
    """
    launched = np.cumsum(launch, axis=-1)
    remaining = np.cumsum(device[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray(np.max(launched + remaining, axis=-1))


def bounds(launch: Floats, device: Floats) -> tuple[Floats, Floats]:
    """Return the lower and the upper bound of `pipeline` [...] [s]."""
    low = np.maximum(launch.sum(axis=-1), device.sum(axis=-1))
    high = np.maximum(launch, device).sum(axis=-1) + np.minimum(launch, device).max(axis=-1)
    return np.asarray(low), np.asarray(high)


def kernel_sequence(operators: Sequence[Operator], values: Sequence[Number]) -> Floats:
    """Return one value per kernel group of a step in order of execution, float64[s, n].

    values : of one occurrence of each operator. Layers repeat their group's operators; what lies
    outside the layers comes last, as often as it occurs.
    """
    steps = max(np.size(value) for value in values)
    rows = [np.broadcast_to(value, steps) for value in values]
    parts = []
    for group in sorted({o.group for o in operators}, key=lambda g: (g < 0, g)):
        members = [i for i, o in enumerate(operators) if o.group == group]
        pattern = np.stack([rows[i] for i in members], axis=-1)
        counts = [operators[i].count for i in members]
        parts.append(
            np.tile(pattern, (1, counts[0])) if group >= 0 else np.repeat(pattern, counts, axis=-1)
        )
    return np.concatenate(parts, axis=-1)


def launch_times(operators: Sequence[Operator], launch: float) -> list[Floats]:
    """Return the host time to launch one occurrence of each operator; 0 without work [s]."""
    return [o.launches * launch * present(o.cost.time) for o in operators]


def launch_time(engine: EngineConstants, device: Device) -> float:
    """Return the host time per launch: the engine's own, or that of the GPU's host [s]."""
    return engine.launch_time or device.launch_time


def eager_step(operators: Sequence[Operator], engine: EngineConstants, device: Device) -> Dispatch:
    """Return the step without CUDA graphs; the engine's host time per step is not in it."""
    host = kernel_sequence(operators, launch_times(operators, launch_time(engine, device)))
    gpu = kernel_sequence(operators, [o.cost.time for o in operators])
    return Dispatch(pipeline(host, gpu), gpu.sum(axis=-1), host.sum(axis=-1))
