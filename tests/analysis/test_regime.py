"""Which resource binds, where that changes, and the same in symbols."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

import bestserve as bs
from bestserve.analysis.regime import balance_points, conditions, regime_of
from bestserve.lowering import lower
from bestserve.models.step.breakdown import step_breakdown
from bestserve.models.step.step_work import StepWork
from bestserve.specs.strategy import Strategy


def found(problem, batch=40.0):
    return regime_of(lower(problem), Strategy.parse("2m-tp4"), batch)


def test_shares_sum_to_one_and_exact_elasticities_to_their_signed_sum(real):
    regime = found(real)
    for step in (regime.decode, regime.prefill):
        assert sum(step.shares.values()) == pytest.approx(1.0)
        e = step.elasticities
        # Times are homogeneous: inverse figures and fixed times add up to the whole step.
        total = -e["peak"] - e["memory_bandwidth"] - e["link_bandwidth"] + e["launch"] + e["host"]
        assert total == pytest.approx(1.0, abs=1e-6)
    assert regime.decode.binding == "memory"
    assert regime.prefill.binding == "compute"


def test_batch_crossover_is_where_the_operators_say(real):
    short = real.replaced(workload=bs.Workload(input_len=100, output_len=100))
    regime = found(short)
    at = next(c for c in regime.crossovers if c.quantity == "batch" and c.after == "compute")
    lowered = lower(short)
    parallelism = Strategy.parse("2m-tp4").pools[0].parallelism
    context = 100 + 99 / 2
    for batch, binding in ((0.95 * at.value, "memory"), (1.05 * at.value, "compute")):
        step = step_breakdown(
            lowered.model.architecture,
            lowered.device,
            parallelism,
            lowered.formats,
            lowered.engine,
            StepWork.grid(context=context, decodes=batch),
        )
        assert step.binding() == binding


def test_bandwidth_crossover_balances_memory_with_the_next_resource(real):
    at = next(c for c in found(real).crossovers if c.quantity == "memory bandwidth")
    moved = bs.Hardware(
        **{n: getattr(lower(real).hardware, n) for n in bs.Hardware.model_fields}
    ).with_changes({"memory_bandwidth": at.value})
    shares = found(real.replaced(hardware=moved)).decode.shares
    assert shares["memory"] == pytest.approx(shares[at.after], rel=1e-2)


def test_symbolic_conditions_are_the_printed_ones():
    w, c, a, k, P, W, b, e_m, e_c = sp.symbols("w c a k P W b e_m e_c", positive=True)
    symbols = {str(s): s for s in (w, c, a, k, P, W, b, e_m, e_c)}
    said = {n: sp.sympify(t, locals=symbols) for n, t in conditions().items()}
    assert sp.simplify(said["T"] - w / c) == 0
    assert sp.simplify(said["K"] - w / k) == 0
    assert sp.simplify(said["q"] - 2 * c / a) == 0
    assert sp.simplify(said["T_hardware"] - b * e_c * P / (2 * e_m * W)) == 0


def test_balance_points_are_where_the_step_time_formula_balances():
    step = bs.StepTime(w=6e-3, c=26e-6, e=0, a=0.35e-9, k=49e-9)
    T, K, q = (value for _, value, _ in balance_points(step))
    h = 1e-4
    times = step.token_time(np.array([T * np.exp(h), T * np.exp(-h)]))
    # Where both parts of the norm are equal, ∂ln t/∂ln T is one half.
    assert np.log(times[0] / times[1]) / (2 * h) == pytest.approx(0.5, abs=1e-4)
    assert step.k * K == pytest.approx(step.w)
    assert step.a * q**2 / 2 == pytest.approx(step.c * q)
    assert len(balance_points(bs.StepTime(w=1e-3, c=1e-6, e=0, a=0, k=0))) == 1
