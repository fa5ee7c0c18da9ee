"""Exact derivatives of the step time by hardware parameters, as elasticities.

Every part of a kernel's time is proportional to one hardware figure or its inverse, and the p-norm
of compute and memory is homogeneous, so by Euler's theorem the shares of `Cost.shares` are exact:
∂ln t/∂ln P = −(compute share), and all shares add up to one. `models/derive_step_time.py` derives
this with SymPy; the tests compare it with finite differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.breakdown import host_sequence_time, host_step_time, prefill_factor
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.dispatch import kernel_sequence, launch_time, launch_times
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.operators import Operator, operator_list
from bestserve.models.step.step_work import StepWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Elasticities:
    """∂ln t/∂ln x of step times t, each float64[s] [1].

    peak : all peak FLOP/s together; memory_bandwidth; link_bandwidth : node link and network
    activation_rate : bytes per second of the expert activation pass (R·S, bound by the SMs)
    launch : fixed times of kernels and collectives, all together
    host_launch : host time per kernel launch (0 with CUDA graphs); host : a_step and a_seq
    """

    peak: Floats
    memory_bandwidth: Floats
    link_bandwidth: Floats
    activation_rate: Floats
    launch: Floats
    host_launch: Floats
    host: Floats


def step_elasticities(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    engine: EngineConstants,
    work: StepWork,
    constants: OperatorConstants = DEFAULT,
) -> Elasticities:
    """Return the elasticities of a vector of steps.

    The number of multiprocessors, which enters the compute part (half-filled waves), is held fixed.
    Without CUDA graphs only kernels after the last one that waited for the host count.
    """
    operators = operator_list(arch, device, parallel, formats, engine, work, constants)
    shares = [o.cost.shares() for o in operators]
    columns = {
        "peak": [s.compute for s in shares],
        "memory_bandwidth": [s.memory for s in shares],
        "activation_rate": [s.activation for s in shares],
        "launch": [s.launch for s in shares],
        "link_bandwidth": [s.link for s in shares],
    }
    running, launching = _critical(operators, engine, device)
    phi = np.where(work.prompt_tokens > 0, prefill_factor(arch, engine, formats, device), 1.0)
    times = {
        name: phi * (kernel_sequence(operators, values) * running).sum(axis=-1)
        for name, values in columns.items()
    }
    host_launch = phi * launching
    host = (
        host_step_time(arch, engine)
        + host_sequence_time(arch, engine) * work.sequences / parallel.dp
    )
    total = sum(times.values()) + host_launch + host
    inverse = ("peak", "memory_bandwidth", "activation_rate", "link_bandwidth")
    signed = {n: (-t if n in inverse else t) / total for n, t in times.items()}
    return Elasticities(**signed, host_launch=host_launch / total, host=host / total)


def _critical(
    operators: tuple[Operator, ...], engine: EngineConstants, device: Device
) -> tuple[Floats, Floats]:
    """Return which kernels count, float64[s, n], and the host launches before them [s]."""
    gpu = kernel_sequence(operators, [o.cost.time for o in operators])
    if engine.cuda_graphs:
        return np.ones_like(gpu), np.zeros(len(gpu))
    launches = kernel_sequence(operators, launch_times(operators, launch_time(engine, device)))
    launched = np.cumsum(launches, axis=-1)
    remaining = np.cumsum(gpu[:, ::-1], axis=-1)[:, ::-1]
    first = np.argmax(launched + remaining, axis=-1)
    after = np.arange(gpu.shape[-1]) >= first[:, None]
    return after.astype(np.float64), launched[np.arange(len(gpu)), first]
