"""Step-time coefficients read off the operators, without fitting.

Every operator is affine in the work of the step, so steps with nothing, with one token, with one
prompt and with one context give its intercepts and slopes exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.operators import Operator, operator_list
from bestserve.models.step.roofline import Number
from bestserve.models.step.step_time import KNOTS_PER_OCTAVE
from bestserve.models.step.step_work import StepWork

TABLE_OCTAVES = 17
"""The table m(T) reaches 131,072 tokens; beyond, experts are compute-bound and m grows with T."""

TABULATED = "experts."
"""Operators whose names start so are in m(T): experts, routers, all-to-all."""

NOTHING = 1e-9
"""Tokens of a step with almost nothing in it: launches and weights only."""

PROBES = 7


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
    """Return the coefficients at the typical lengths [tokens].

    Per-token terms of prefill attention (partly filled tiles) count in e, for one prompt per step.
    """
    experts = arch.is_moe
    work = probing_steps(input_len, output_len, experts=experts)
    operators = operator_list(arch, device, parallel, formats, engine, work, constants)
    return read_off(operators, input_len, output_len, experts=experts)


def probing_steps(input_len: float, output_len: float, *, experts: bool) -> StepWork:
    """Return the probes, and with experts the knots of m(T), that `read_off` expects first."""
    context = input_len + output_len / 2
    knots = _knots() if experts else np.zeros(0)
    none = np.zeros_like(knots)
    # Nothing; one token; a prompt; a longer one; half, all, twice the typical context read.
    return StepWork.grid(
        chunk=[0, 0, input_len, 2 * input_len, 0, 0, 0, *none],
        prompts=[0, 0, 1, 1, 0, 0, 0, *none],
        context=[NOTHING, NOTHING, 0, 0, context / 2, context, 2 * context, *none],
        decodes=[NOTHING, 1, 0, 0, 1, 1, 1, *knots],
    )


def read_off(
    operators: Sequence[Operator], input_len: float, output_len: float, *, experts: bool
) -> ClosedForm:
    """Return the coefficients of operators whose first steps are `probing_steps`."""
    context = input_len + output_len / 2
    probes = slice(0, PROBES)
    knots = slice(PROBES, PROBES + (_knots().size if experts else 0))
    table = np.zeros(knots.stop - knots.start)
    launches = w = c = e = a = k = per_sequence = 0.0
    for operator in operators:
        if operator.name.startswith(TABULATED):
            table = table + _steps(operator.time, knots)
            continue
        cost, count = operator.cost, operator.count
        time, compute = _steps(cost.overlapped, probes), _steps(cost.compute, probes)
        launches += count * _steps(cost.fixed, probes)[1]
        if operator.name == "attention.linear":
            per_sequence += count * (time[1] - time[0])
            e += count * compute[2] / input_len
        elif operator.name in ("attention.latent", "attention.kv_up.quantise"):
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
            e += count * (time[1] - time[0] + _steps(cost.link, probes)[1])
    return ClosedForm(
        launches=float(launches),
        w=float(w),
        c=float(c),
        e=float(e),
        a=float(a),
        k=float(k),
        per_sequence=float(per_sequence),
        table=table + launches,
    )


def _knots() -> Floats:
    return np.asarray(2.0 ** (np.arange(TABLE_OCTAVES * KNOTS_PER_OCTAVE + 1) / KNOTS_PER_OCTAVE))


def _steps(value: Number, steps: slice) -> Floats:
    """Return the given steps of a vector, or a number for each of them."""
    if np.ndim(value) == 0:
        return np.full(steps.stop - steps.start, value)
    return np.asarray(value)[steps]


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
