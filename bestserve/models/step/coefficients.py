"""From the operators of a deployment to the few coefficients of its step time.

`bestserve.models.step.closed_form` reads them off the operators. `step_time_coefficients` then
polishes (w, c, e, a, k) by a few damped Gauss-Newton steps on the relative error over a fixed grid
of steps around the typical lengths, with the closed form as prior: one p-norm cannot equal a sum of
p-norms, and prompts have per-token costs that decodes have not. Deterministic; no data.

Kernel launches add to everything else in a step. Dense models carry them in `a_step`, mixtures of
experts in the table m(T), together with the routed experts, routers and all-to-all.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.breakdown import (
    host_sequence_time,
    host_step_time,
    prefill_factor,
)
from bestserve.models.step.closed_form import probing_steps, read_off
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.dispatch import eager_step
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.operators import operator_list
from bestserve.models.step.step_time import KNOTS_PER_OCTAVE, StepTime, moe_time
from bestserve.models.step.step_work import StepWork

TOLERANCE = 0.03
"""Relative error at which a grid point weighs as much as one e-fold away from the prior."""

ITERATIONS = 8


@lru_cache(maxsize=1024)
def step_time_coefficients(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    engine: EngineConstants,
    *,
    input_len: float,
    output_len: float,
    constants: OperatorConstants = DEFAULT,
) -> StepTime:
    """Return the step time of one lane of a deployment with typical prompt and output lengths.

    input_len : prompt tokens that are computed (without cached ones); output_len [tokens]; both
    ≥ 1. Of the work in `StepTime.__call__`, with dp > 1 that of all ranks together.

    Kept, because the rows of a log and the problems of a sweep mostly share their deployment.
    """
    experts = arch.is_moe
    probes = probing_steps(input_len, output_len, experts=experts)
    work = polishing_grid(input_len, output_len)
    # One evaluation serves both: its cost is per call, hardly per step.
    everything = probes.then(work)
    operators = operator_list(arch, device, parallel, formats, engine, everything, constants)
    closed = read_off(operators, input_len, output_len, experts=experts)
    last = slice(probes.tokens.size, None)
    total: Floats = np.zeros_like(everything.tokens)
    for operator in operators:
        total = total + operator.time
    target = total[last]
    table, launches, weights, compute = closed.table, closed.launches, closed.w, closed.c
    if not engine.cuda_graphs:
        # A slow host is the floor of the step and hides everything else, experts included, until
        # the device takes longer: that is what w does, so it takes the place of launches and m(T).
        eager = eager_step(operators, engine, device)
        target = eager.total[last]
        slowest = float(eager.host[last].min())
        if slowest > float(np.median(total[last][work.prompt_tokens == 0])):
            largest = 2.0 ** ((table.size - 1) / KNOTS_PER_OCTAVE)
            compute += table[-1] / largest if table.size else 0.0
            weights = max(weights + launches, slowest)
            table, launches = np.zeros(0), 0.0
    if table.size:
        launches = 0.0
    floor = launches + closed.per_sequence * work.sequences
    if table.size:
        floor = floor + moe_time(work.tokens, table)
    start = np.array([weights, compute, closed.e, closed.a, closed.k])
    w, c, e, a, k = polish(start, floor, work.tokens, work.pairs, work.context_tokens, target)
    return StepTime(
        w=w,
        c=c,
        e=e,
        a=a,
        k=k,
        a_step=host_step_time(arch, engine) + launches,
        a_seq=host_sequence_time(arch, engine) / parallel.dp + closed.per_sequence,
        phi=prefill_factor(arch, engine, formats, device),
        moe=tuple(float(m) for m in table),
    )


def polishing_grid(input_len: float, output_len: float) -> StepWork:
    """Return the steps that polishing weighs: decodes, prompts and mixtures around the typical."""
    context = input_len + output_len / 2
    rows = [
        (0.0, 0.0, x * context, b) for b in (1.0, 4.0, 16.0, 64.0, 256.0) for x in (0.5, 1.0, 2.0)
    ]
    chunks = (128.0, 512.0, 2048.0, 8192.0, input_len / 2, input_len, 2 * input_len)
    rows += [(q, 1.0, 0.0, 0.0) for q in chunks]
    rows += [(input_len, 4.0, 0.0, 0.0)]
    rows += [(q, 1.0, context, b) for q in (512.0, 2048.0, 8192.0) for b in (8.0, 64.0)]
    table = np.array(rows)
    return StepWork.grid(table[:, 0], table[:, 1], table[:, 2], table[:, 3])


def polish(
    start: Floats, floor: Floats, tokens: Floats, pairs: Floats, context: Floats, target: Floats
) -> Floats:
    """Return (w, c, e, a, k) that fit `target` best in relative error, near `start`.

    Minimises Σ ln(t/target)²/TOLERANCE² + Σ ln(x/start)² by Gauss-Newton in ln x, with steps of
    at most one e-fold. Coefficients that start at 0 stay 0.
    """
    free = start > 0
    x0 = np.log(np.where(free, start, 1.0))
    x = x0.copy()
    for _ in range(ITERATIONS):
        w, c, e, a, k = np.where(free, np.exp(x), 0.0)
        norm = np.cbrt(w**3 + (c * tokens) ** 3)
        time = floor + norm + e * tokens + a * pairs + k * context
        weights = norm * (w / norm) ** 3
        parts = np.stack([weights, norm - weights, e * tokens, a * pairs, k * context])
        jacobian = parts / time / TOLERANCE
        residual = np.log(time / target) / TOLERANCE
        normal = jacobian @ jacobian.T + np.eye(5)
        step = np.linalg.solve(normal, jacobian @ residual + (x - x0))
        x = x - np.clip(step, -1.0, 1.0)
    return np.where(free, np.exp(x), 0.0)
