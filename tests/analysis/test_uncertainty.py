"""Sobol indices against closed forms and against SciPy; probabilities; calibration records."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import norm, sobol_indices

import bestserve as bs
from bestserve.analysis.expansion import fit, multi_indices
from bestserve.analysis.uncertainty import _samples, moved, summarise, uncertainty
from bestserve.answers.factors import FACTORS as TABLE
from bestserve.answers.factors import Factor, apply_factors, spreads_of, varied
from bestserve.answers.intervals import Z90, propagated
from bestserve.catalog.calibration import save_calibration
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.goodput import goodput
from bestserve.models.latency import stability_rate
from bestserve.specs.calibration import Calibration, Constant, Provenance

FACTORS = tuple(
    Factor(name=name, constants=(name,), prior=sd, between=sd, needs="more steps")
    for name, sd in (("step_time.w", 0.15), ("step_time.c", 0.25), ("step_time.a_step", 0.5))
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
            scales = [math.exp(f.between * z) for f, z in zip(FACTORS, point, strict=True)]
            values.append(stability_rate(moved(lowered, FACTORS, scales).system("4m-tp1")))
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
    found = summarise(problem, {FACTORS[0]: 0.15}, z, ["a", "b"], [10.0, 9.5], values)
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
    assert f"Measure {found.measurement.factor.name} first" in text
    assert "with probability" in text
    assert "saltelli" in found.cite()
    again = uncertainty(real, strategies=["2m-tp4", "1m-tp8"], samples=16)
    assert again.to_json() == found.to_json()


def test_every_command_reads_one_table(real, tmp_path):
    """`calibrate` starts wider than deployments differ; a record narrows what it states alone."""
    assert all(f.prior >= f.between > 0 for f in TABLE)
    lowered = lower(real)
    assert {f.name for f in varied(lowered, split=True)} == {
        "a_step", "a_seq", "t_req", "compute", "memory",
    }  # fmt: skip
    experts = lower(real.replaced(model="openai/gpt-oss-120b", engine="sglang"))
    assert varied(experts, split=True) == TABLE
    assert "prefill_host" not in {f.name for f in varied(experts, split=False)}
    engine = lowered.engine
    names = ("a_step", "a_step_moe")
    record = Calibration(
        provenance=Provenance(device="H100", date="2025-01-01"),
        constants={
            f"engine.{n}": Constant(
                value=getattr(engine, n), unit="s", kind="measured", source="own",
                sd=0.1 * getattr(engine, n),
            )
            for n in names
        },
    )  # fmt: skip
    path = save_calibration(record, tmp_path / "own.toml")
    own = real.replaced(calibration=str(path))
    before, after = spreads_of(lowered), spreads_of(lower(own))
    assert after["a_step"] == pytest.approx(0.1) != before["a_step"]
    assert {n: v for n, v in after.items() if n != "a_step"} == {
        n: v for n, v in before.items() if n != "a_step"
    }
    found = uncertainty(own, strategies=["2m-tp4"], samples=16)
    assert {i.factor.name: i.sd for i in found.indices}["a_step"] == pytest.approx(0.1)


def test_uncertainty_is_as_wide_as_what_the_intervals_propagate(real):
    """First-order propagation of the same factors through goodput against the samples' spread."""
    found = uncertainty(real, strategies=["2m-tp4"], samples=48)
    lowered, factors = lower(real), varied(lower(real), split=False)
    assert {i.factor.name: i.sd for i in found.indices} == {
        f.name: spreads_of(lowered)[f.name] for f in factors
    }

    def run(moves):
        at = goodput(apply_factors(lowered, moves).system("2m-tp4"), real.slo.target())
        return {"req_throughput": at.rate}

    variance = propagated(run({}), run, factors, spreads_of(lowered))["req_throughput"]
    winner = found.winner
    assert math.log(winner.high / winner.low) == pytest.approx(
        2 * Z90 * math.sqrt(variance), rel=0.25
    )


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
