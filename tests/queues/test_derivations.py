"""The closed forms in the code against their derivations in `models/derive_*.py`."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import sympy as sp

from bestserve.models.queues.bulk.wait import BulkServer, Prompts, bulk_pace, bulk_wait
from bestserve.models.queues.busy_period import busy_period
from bestserve.models.queues.requests import Requests, prepare
from bestserve.models.queues.tpot.noise import (
    Response,
    size_bias,
    variance_of_mean,
    variance_of_sum,
)
from bestserve.models.system import Lengths

Script = Callable[[str], ModuleType]


def fixed(inputs: float, outputs: float) -> Requests:
    one = np.ones(1)
    return prepare(
        Lengths(inputs=inputs * one, input_weights=one, outputs=outputs * one, output_weights=one)
    )


def test_busy_period_moments(script: Script) -> None:
    m = script("models/derive_busy_period.py")
    at = {m.lam: 0.7, m.S1: 0.8, m.S2: 1.1, m.S3: 2.0}
    code = busy_period(0.7, 0.8, 1.1, 2.0)
    derived = [float(e.subs(at)) for e in m.busy_moments()]
    assert [code.first, code.second, code.third] == pytest.approx(derived)
    mean, variance = (float(e.subs(at)) for e in m.served_moments())
    assert code.others == pytest.approx((variance + mean**2) / mean - 1)


@pytest.mark.parametrize("rate", [1.0, 4.0, 7.0])
@pytest.mark.parametrize("spread", [False, True])
def test_bulk_chain_solves_the_affine_case_exactly(
    script: Script, rate: float, spread: bool
) -> None:
    m = script("models/derive_vacation.py")
    pause, per_token = 0.02, 1e-4
    prompt = np.array([400.0, 1600.0]) if spread else np.array([1000.0])
    weight = np.full(prompt.size, 1 / prompt.size)
    work = per_token * prompt
    at = {
        m.t_v: pause,
        m.lam: rate,
        m.S1: float(weight @ work),
        m.S2: float(weight @ work**2),
    }
    server = BulkServer(
        budget=1e7,
        packed=1e7,
        step=lambda x: pause + per_token * x,
        vacation=pause,
        service=pause + work,
        idle=0.0,
        shared=True,
    )
    found = bulk_wait(server, rate, Prompts.of(prompt, weight), points=400)
    assert found is not None
    first, _ = m.step_moments()
    assert found.tau == pytest.approx(float(first.subs(at)), rel=2e-3)
    assert found.ttft.mean == pytest.approx(float(m.mean_ttft().subs(at)), rel=4e-3)
    pace = bulk_pace(server, rate, Prompts.of(prompt, weight))
    assert pace is not None
    assert pace.tau == pytest.approx(found.tau, rel=5e-3)


def test_noise_of_equal_outputs_without_feedback(script: Script) -> None:
    m = script("models/derive_noise.py")
    steps, alpha, rate, tau = 200, 1e-4, 1e-3, 0.02
    r = fixed(100, steps + 1)
    derived = m.variance_of_mean().subs({m.D0: steps, m.alpha: alpha, m.lam: rate, m.tau: tau})
    code = variance_of_mean(r, Response(alpha, 0.0), rate, tau)[0]
    assert code == pytest.approx(float(derived), rel=0.02)


def test_noise_of_jumps_is_white(script: Script) -> None:
    m = script("models/derive_noise.py")
    r = fixed(100, 129)
    derived = m.jump_variance().subs({m.D: 128, m.S1: 0.05, m.S2: 0.004, m.lam: 8.0, m.tau: 0.03})
    code = variance_of_mean(r, Response(0.0, 0.0, 0.05, 0.004), 8.0, 0.03)[0]
    assert code == pytest.approx(float(derived), rel=1e-6)
    sums = variance_of_sum(r, Response(0.0, 0.0, 0.05, 0.004), 8.0, 0.03)
    assert np.allclose(np.diff(sums), sums[1], rtol=1e-6)


def test_overdispersed_count_of_fixed_jumps(script: Script) -> None:
    m = script("models/derive_noise.py")
    sigma = m.lam * m.S1
    fixed_jumps = m.variance_of_count().subs(m.S2, m.S1**2)
    assert sp.simplify(fixed_jumps - 1 / (1 - sigma) ** 2) == 0


def test_size_bias(script: Script) -> None:
    m = script("models/derive_size_bias.py")
    assert m.clustered_rule() == 0
    names = {str(s): s for s in m.bias().free_symbols}
    at = {names["V"]: 0.3, names["slope"]: 0.01, names["R_0"]: 0.002, m.D: 40.0, m.tau: 0.02}
    code = size_bias(np.array([0.3]), np.array([0.01]), 0.002, np.array([40.0]), 0.02)[0]
    assert code == pytest.approx(float(m.bias().subs(at)))
    mean, variance = m.tilted_moments()
    tau = m.tau
    assert sp.simplify(mean - (sp.Symbol("c") / tau + sp.Symbol("m"))) == 0
    expected = sp.Symbol("v") + sp.Symbol("k") / tau - (sp.Symbol("c") / tau) ** 2
    assert sp.simplify(variance - expected) == 0
