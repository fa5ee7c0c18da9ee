"""Step time as the sum of its operators, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.dispatch import eager_step
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.operators import (
    BOUNDS,
    Bound,
    Operator,
    operator_list,
    time_by_bound,
)
from bestserve.models.step.step_work import StepWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """Step times with their shares [s], each float64[s]; the shares sum to `total`.

    compute, memory, communication : proportional to 1/(peak FLOP/s), 1/(memory bandwidth), and
        the link; so −compute/total is the elasticity to the peak, and so on (with CUDA graphs)
    dispatch : kernel launches, the engine's host time, and waiting for a host that launches slowly
    operators : what was summed
    """

    total: Floats
    compute: Floats
    memory: Floats
    dispatch: Floats
    communication: Floats
    operators: tuple[Operator, ...]

    def binding(self, step: int = 0) -> Bound:
        """Return what the largest share of step `step` waits for."""
        shares = (self.compute, self.memory, self.dispatch, self.communication)
        return BOUNDS[int(np.argmax([share[step] for share in shares]))]


def step_breakdown(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    engine: EngineConstants,
    work: StepWork,
    constants: OperatorConstants = DEFAULT,
) -> Breakdown:
    """Return a_step + a_seq·n + φ·(device time of all operators) with its shares [s].

    With CUDA graphs the device time is the sum of the operators; without, the end of the pipeline
    of `bestserve.models.step.dispatch`.
    """
    operators = operator_list(arch, device, parallel, formats, engine, work, constants)
    zero = np.zeros_like(work.tokens)
    sums: list[Floats] = [zero, zero, zero, zero]
    for operator in operators:
        for i, share in enumerate(time_by_bound(operator.cost)):
            sums[i] = sums[i] + operator.count * share
    phi = np.where(work.prompt_tokens > 0, prefill_factor(arch, engine, formats, device), 1.0)
    compute, memory, dispatch, communication = (phi * s for s in sums)
    dispatch = (
        dispatch
        + host_step_time(arch, engine)
        + host_sequence_time(arch, engine) * work.sequences / parallel.dp
    )
    if not engine.cuda_graphs:
        dispatch = dispatch + phi * eager_step(operators, engine, device).exposed
    return Breakdown(
        total=compute + memory + dispatch + communication,
        compute=compute,
        memory=memory,
        dispatch=dispatch,
        communication=communication,
        operators=operators,
    )


def prefill_factor(
    arch: Architecture, engine: EngineConstants, formats: Formats, device: Device
) -> float:
    """Return φ of steps with prompt tokens: the engine's, times that of its expert kernel [1]."""
    if not arch.is_moe:
        return engine.phi
    kernel = engine.moe_kernel(formats.parts.experts.precision, device.generation)
    return max(1.0, engine.phi_moe * kernel.prefill)


def host_step_time(arch: Architecture, engine: EngineConstants) -> float:
    """Return the host time per step that nothing hides [s]."""
    return engine.a_step_moe if arch.is_moe else engine.a_step


def host_sequence_time(arch: Architecture, engine: EngineConstants) -> float:
    """Return the host time per sequence in a step [s]."""
    return engine.a_seq_moe if arch.is_moe else engine.a_seq
