"""From the operators of a deployment to the few coefficients of its step time.

`closed_form` reads the coefficients off the operator list: every operator is affine in the work of
the step, so two probes give its slope and its intercept exactly. `step_time_coefficients` then
polishes (w, c, e, a, k) by a few damped Gauss-Newton steps on the relative error over a fixed
grid of steps around the typical lengths, with the closed form as prior: one p-norm cannot equal a
sum of p-norms, and prompts have per-token costs that decodes have not. Deterministic; no data.

Kernel launches add to everything else in a step. Dense models carry them in `a_step`, mixtures of
experts in the table m(T), together with the routed experts, routers and all-to-all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.models.architecture import Architecture
from bestserve.models.breakdown import host_step_time
from bestserve.models.constants import DEFAULT, OperatorConstants
from bestserve.models.device import Device, Formats, Parallelism
from bestserve.models.dispatch import eager_step
from bestserve.models.engine import EngineConstants
from bestserve.models.operators import Operator, has_experts, operator_list
from bestserve.models.roofline import Floats, Number
from bestserve.models.step_time import KNOTS_PER_OCTAVE, StepTime, moe_time
from bestserve.models.step_work import StepWork

TABLE_OCTAVES = 17
"""The table m(T) reaches 131,072 tokens; beyond, experts are compute-bound and m grows with T."""

PROBE = 1e-9
"""A step with almost nothing in it: launches and weights only."""

TOLERANCE = 0.03
"""Relative error at which a grid point weighs as much as one e-fold away from the prior."""

ITERATIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedForm:
    """Coefficients read off the operators, before polishing.

    launches : fixed times of the kernels of a decode step [s]; w : weights [s]; c, e [s/token];
    a [s/token²]; k [s/token]; per_sequence : recurrent state and full windows read [s/sequence];
    table : m at the knots of `StepTime.moe`, launches included (empty for dense models) [s]
    """

    launches: float
    w: float
    c: float
    e: float
    a: float
    k: float
    per_sequence: float
    table: Floats


def closed_form(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    engine: EngineConstants,
    *,
    input_len: float,
    output_len: float,
    constants: OperatorConstants = DEFAULT,
) -> ClosedForm:
    """Return the coefficients without polishing, at the typical lengths [tokens].

    Per-token terms of prefill attention (partly filled tiles) count in e, for one prompt per step.
    """
    context = input_len + output_len / 2
    # Steps: nothing; one token; a prompt; a longer one; half, all, twice the typical context read.
    work = StepWork.grid(
        chunk=[0, 0, input_len, 2 * input_len, 0, 0, 0],
        prompts=[0, 0, 1, 1, 0, 0, 0],
        context=[PROBE, PROBE, 0, 0, context / 2, context, 2 * context],
        decodes=[PROBE, 1, 0, 0, 1, 1, 1],
    )
    operators = operator_list(arch, device, parallel, formats, engine, work, constants)
    launches = w = c = e = a = k = per_sequence = 0.0
    for operator in operators:
        if _tabulated(operator):
            continue
        cost, count = operator.cost, operator.count
        time, compute = _at(cost.overlapped), _at(cost.compute)
        launches += count * _at(cost.fixed)[1]
        if operator.name == "attention.linear":
            per_sequence += count * (time[1] - time[0])
            e += count * compute[2] / input_len
        elif operator.name == "attention.latent":
            e += count * time[2] / input_len
        elif operator.kind == "attention":
            linear, quadratic = _through_origin(time[2], time[3], input_len)
            slope, intercept = _chord(time[4:] - time[1], context)
            e += count * linear
            a += count * quadratic
            k += count * slope
            per_sequence += count * intercept
        elif operator.name == "lm_head":
            w += count * time[0]  # its compute follows sequences, a hundredth of the tokens
        elif operator.name == "attention.kv_up":
            c += count * compute[2] / input_len
        elif operator.kind == "gemm":
            w += count * time[0]
            c += count * (compute[1] - compute[0])
        else:
            e += count * (time[1] - time[0] + _at(cost.link)[1])
    table = np.zeros(0)
    if has_experts(arch):
        table = launches + _table(arch, device, parallel, formats, engine, constants)
    return ClosedForm(
        launches=float(launches),
        w=float(w),
        c=float(c),
        e=float(e),
        a=float(a),
        k=float(k),
        per_sequence=float(per_sequence),
        table=table,
    )


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
    """
    closed = closed_form(
        arch,
        device,
        parallel,
        formats,
        engine,
        input_len=input_len,
        output_len=output_len,
        constants=constants,
    )
    work = polishing_grid(input_len, output_len)
    operators = operator_list(arch, device, parallel, formats, engine, work, constants)
    target: Floats = np.zeros_like(work.tokens)
    for operator in operators:
        target = target + operator.time
    table, launches, weights, compute = closed.table, closed.launches, closed.w, closed.c
    if not engine.cuda_graphs:
        # A slow host is the floor of the step and hides everything else, experts included, until
        # the device takes longer: that is what w does, so it takes the place of launches and m(T).
        eager = eager_step(operators, engine, device)
        target = eager.total
        largest = 2.0 ** ((table.size - 1) / KNOTS_PER_OCTAVE)
        compute += table[-1] / largest if table.size else 0.0
        weights = max(weights + launches, float(eager.host.min()))
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
        a_seq=engine.a_seq / parallel.dp + closed.per_sequence,
        phi=engine.phi_moe if has_experts(arch) else engine.phi,
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


def _tabulated(operator: Operator) -> bool:
    """Whether an operator is part of m(T)."""
    return operator.name.startswith("experts.")


def _table(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    engine: EngineConstants,
    constants: OperatorConstants,
) -> Floats:
    """Return routed experts, routers and their communication at the knots [s]."""
    knots = 2.0 ** (np.arange(TABLE_OCTAVES * KNOTS_PER_OCTAVE + 1) / KNOTS_PER_OCTAVE)
    work = StepWork.grid(context=0.0, decodes=knots)
    operators = operator_list(arch, device, parallel, formats, engine, work, constants)
    total: Floats = np.zeros_like(knots)
    for operator in operators:
        if _tabulated(operator):
            total = total + operator.time
    return total


def _at(value: Number) -> Floats:
    """Return a number or vector as the vector of the seven probes."""
    return np.broadcast_to(np.asarray(value, dtype=np.float64), (7,))


def _through_origin(at_one: float, at_two: float, length: float) -> tuple[float, float]:
    """Return (β, γ) with β·q + γ·q²/2 equal to `at_one` at q = length, `at_two` at 2·length."""
    gamma = max((at_two - 2.0 * at_one) / length**2, 0.0)
    return at_one / length - gamma * length / 2.0, gamma


def _chord(values: Floats, length: float) -> tuple[float, float]:
    """Return (slope, intercept ≥ 0) from values at ½, 1 and 2 lengths, exact at 1.

    The intercept is what a sliding window costs a sequence whatever its length; 0 without one.
    """
    slope = (values[2] - values[0]) / (1.5 * length)
    return slope, max(values[1] - slope * length, 0.0)
