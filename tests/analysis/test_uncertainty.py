"""Sobol indices against closed forms and against SciPy; probabilities; calibration records."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import norm, sobol_indices

import bestserve as bs
from bestserve.analysis.expansion import fit, multi_indices
from bestserve.analysis.factors import DENSE, EXPERTS, PREFILL_HOST, Factor, default_factors, scaled
from bestserve.analysis.uncertainty import _samples, summarise, uncertainty
from bestserve.catalog.calibration import save_calibration
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.latency import stability_rate
from bestserve.specs.calibration import Calibration, Constant, Provenance

FACTORS = (
    Factor("step_time.w", 0.15, "test", "time decode steps"),
    Factor("step_time.c", 0.25, "test", "time prompts"),
    Factor("step_time.a_step", 0.5, "test", "trace the host"),
)


def test_expansion_is_exact_for_quadratics():
    """y = 3 + 2z₁ + z₂² + z₁z₂: variances 4, 2 and 1, so S₁ = 4/7, T₁ = 5/7, T₂ = 3/7."""
    z = _samples(2, 64, 0)
    found = fit(z, 3 + 2 * z[:, 0] + z[:, 1] ** 2 + z[:, 0] * z[:, 1])
    assert found.mean == pytest.approx(4.0, abs=1e-2)
    assert found.variance == pytest.approx(7.0, rel=1e-2)
    first, total = found.indices()
    assert first == pytest.approx([4 / 7, 2 / 7], abs=1e-2)
    assert total == pytest.approx([5 / 7, 3 / 7], abs=1e-2)
    assert found.explained > 0.999
    at = np.array([-1.0, 0.5, 2.0])
    assert found.given(0, at) == pytest.approx(4 + 2 * at, abs=0.05)
    assert len(multi_indices(3, 2)) == 10


def test_expansion_of_a_constant_has_no_variance():
    z = _samples(3, 32, 0)
    first, total = fit(z, np.full(32, 5.0)).indices()
    assert not first.any()
    assert not total.any()


def test_explained_is_low_for_what_polynomials_cannot_follow():
    z = _samples(2, 64, 1)
    assert fit(z, np.sign(np.sin(9 * z[:, 0]))).explained < 0.5


def test_indices_agree_with_saltelli_sampling(own):
    """Of the saturated rate, which is exact and takes no time."""
    lowered = lower(own)

    def exact(points):
        values = []
        for point in np.asarray(points).T:
            scales = {f.name: math.exp(f.sd * z) for f, z in zip(FACTORS, point, strict=True)}
            values.append(stability_rate(scaled(lowered, scales).system("4m-tp1")))
        return np.array(values)

    z = _samples(3, 64, 0)
    found = fit(z, exact(z.T))
    first, total = found.indices()
    reference = sobol_indices(
        func=exact, n=128, dists=[norm(), norm(), norm()], rng=np.random.default_rng(0)
    )
    assert found.explained > 0.98
    assert total == pytest.approx(reference.total_order, abs=0.08)
    assert first == pytest.approx(reference.first_order, abs=0.12)


def test_winner_probability_regret_and_worth_of_knowing():
    """Two strategies, 10 + z and 9.5 − z: the first wins where z > −¼."""
    z = _samples(1, 400, 0)
    values = np.stack([10 + z[:, 0], 9.5 - z[:, 0]], axis=1)
    problem = bs.Problem(
        step_time=bs.StepTime(w=1e-3, c=1e-6, e=0, a=0, k=0),
        workload=bs.Workload(input_len=10, output_len=10),
    )
    found = summarise(problem, FACTORS[:1], z, ["a", "b"], [10.0, 9.5], values)
    exact = norm.cdf(0.25)
    assert found.probability == pytest.approx(exact, abs=0.01)
    assert found.probability_low < exact < found.probability_high
    # E max(0, −0.5 − 2z) with m = −0.5, s = 2: m·Φ(m/s) + s·φ(m/s).
    regret = -0.5 * norm.cdf(-0.25) + 2 * norm.pdf(-0.25)
    assert found.winner.regret == pytest.approx(regret, rel=0.03)
    assert found.indices[0].worth == pytest.approx(regret, rel=0.08)
    assert found.measurement.first == pytest.approx(1.0)


def test_uncertainty_of_a_real_problem_is_told(real):
    found = uncertainty(real, strategies=["2m-tp4", "1m-tp8"], samples=16)
    assert found.winner.strategy == "2m-tp4"
    assert found.winner.low < found.winner.goodput < found.winner.high
    shares = [c.best_share for c in found.candidates]
    assert sum(shares) == pytest.approx(1.0)
    assert sum(i.first for i in found.indices) <= 1.0 + 1e-9
    for i in found.indices:
        assert 0 <= i.first_low <= i.first <= i.first_high
        assert i.total >= i.first
    text = found.explain()
    assert "Measure device_time first" in text or "Measure compute_time first" in text
    assert "with probability" in text
    assert "saltelli" in found.cite()
    again = uncertainty(real, strategies=["2m-tp4", "1m-tp8"], samples=16)
    assert again.to_json() == found.to_json()


def test_device_time_slows_every_step_and_compute_time_the_prompts(real):
    lowered = lower(real)
    base = lowered.system("2m-tp4").lane.step
    slower = scaled(lowered, {"device_time": 1.25}).system("2m-tp4").lane.step
    for name in ("w", "c", "e", "a", "k"):
        assert getattr(slower, name) == pytest.approx(1.25 * getattr(base, name), rel=1e-3)
    computing = scaled(lowered, {"compute_time": 1.5}).system("2m-tp4").lane.step
    assert computing.c == pytest.approx(1.5 * base.c, rel=0.05)
    # Polishing the fit hands a little of the change to the other coefficients.
    assert computing.k == pytest.approx(base.k, rel=0.05)
    hosted = scaled(lowered, {"a_step": 2.0}).system("2m-tp4").lane.step
    assert hosted.a_step - base.a_step == pytest.approx(lowered.engine.a_step)


def test_priors_follow_the_model_and_give_way_to_a_record(real, tmp_path):
    assert default_factors(lower(real)) == DENSE
    experts = real.replaced(model="openai/gpt-oss-120b")
    assert default_factors(lower(experts)) == EXPERTS
    split = lower(real.replaced(engine="sglang"))
    assert default_factors(split) == (*DENSE, PREFILL_HOST)
    assert scaled(split, {"prefill_host": 0.2}).engine.prefill_host == pytest.approx(2e-3)
    alone = real.replaced(engine="sglang", layouts=("collocated",))
    assert default_factors(lower(alone)) == DENSE
    record = Calibration(
        provenance=Provenance(device="H100", date="2025-01-01"),
        constants={
            "gemm.memory": Constant(value=0.8, unit="1", kind="measured", source="own", sd=0.04),
            "engine.a_step": Constant(value=2e-3, unit="s", kind="measured", source="own", sd=2e-4),
        },
    )
    path = save_calibration(record, tmp_path / "own.toml")
    found = {f.name: f for f in default_factors(lower(real.replaced(calibration=str(path))))}
    assert found["gemm.memory"].sd == pytest.approx(0.05)
    assert found["engine.a_step"].sd == pytest.approx(0.1)
    assert not {"device_time", "compute_time", "a_step"} & found.keys()
    assert {"a_seq", "t_req"} <= found.keys()
    moved = scaled(lower(real), {"gemm.memory": 1.1, "engine.a_step": 3.0})
    assert moved.constants.gemm.memory == pytest.approx(0.84 * 1.1)
    assert moved.engine.a_step == pytest.approx(3 * lower(real).engine.a_step)


def test_latin_hypercube_is_standard_normal_and_repeatable():
    z = _samples(3, 128, 7)
    assert np.abs(z.mean(axis=0)).max() < 0.05
    assert z.std(axis=0) == pytest.approx(1.0, abs=0.05)
    assert np.sort(z[:, 0])[0] < ndtri(1 / 128) + 1e-9
    assert (z == _samples(3, 128, 7)).all()


def test_own_coefficients_need_factors_and_enough_samples(own):
    with pytest.raises(InputError, match="give factors"):
        uncertainty(own, strategies=["4m-tp1"])
    with pytest.raises(InputError, match="at least 16"):
        uncertainty(own, strategies=["4m-tp1"], factors=FACTORS, samples=8)
