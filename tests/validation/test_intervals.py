"""Prediction intervals: propagation, residuals, and that they hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bestserve.answers.factors import BY_NAME, factors_for
from bestserve.answers.intervals import (
    FAMILIES,
    KINDS,
    Z90,
    family_of,
    intervals,
    propagated,
)
from bestserve.answers.residuals import RESIDUAL
from bestserve.validation.compare import coverage_of
from bestserve.validation.comparison import RowComparison
from bestserve.validation.outcome import Outcome
from bestserve.validation.replay import METRICS


def test_every_figure_has_a_family_and_every_kind_its_residuals() -> None:
    assert {family_of(name) for name in METRICS} == set(FAMILIES)
    assert set(RESIDUAL) == {(kind, sort) for kind in KINDS for sort in ("dense", "moe")}
    assert all(len(v) == len(FAMILIES) and min(v) > 0 for v in RESIDUAL.values())


def test_variance_of_a_power_law_is_exact() -> None:
    """A figure that goes with a factor to the power p has deviation p times the factor's."""

    def run(factors: dict[str, float]) -> dict[str, float]:
        return {"tpot_mean_ms": 10.0 * factors.get("a_step", 1.0) ** 2}

    found = propagated({"tpot_mean_ms": 10.0}, run, factors_for(moe=False))  # type: ignore[arg-type]
    assert found["tpot_mean_ms"] == pytest.approx((2 * BY_NAME["a_step"].between) ** 2)


def test_width_adds_variances() -> None:
    residual = RESIDUAL["closed", "dense"][FAMILIES.index("tpot")]
    found = intervals({"tpot_mean_ms": 10.0}, {"tpot_mean_ms": 0.09}, "closed", moe=False)
    low, high = found["tpot_mean_ms"]
    assert high / 10.0 == pytest.approx(math.exp(Z90 * math.sqrt(0.09 + residual**2)))
    assert low * high == pytest.approx(100.0)


def test_dense_models_do_not_vary_expert_constants() -> None:
    assert {f.name for f in factors_for(True)} - {f.name for f in factors_for(False)} == {
        "experts",
        "gamma",
        "phi",
    }


def test_coverage_of_lognormal_errors_is_ninety_per_cent() -> None:
    rng = np.random.default_rng(1)
    residual = RESIDUAL["open", "dense"][FAMILIES.index("tpot")]
    rows = []
    for i, z in enumerate(rng.standard_normal(4000)):
        limits = intervals({"tpot_mean_ms": 10.0}, {}, "open", moe=False)
        rows.append(
            RowComparison(
                id=str(i),
                status=Outcome.PREDICTED,
                reason="",
                predicted={"tpot_mean_ms": 10.0},
                measured={"tpot_mean_ms": 10.0 * math.exp(residual * z)},
                intervals=limits,
            )
        )
    assert coverage_of(rows) == pytest.approx(0.9, abs=0.015)
    assert coverage_of([]) is None
    assert coverage_of(rows, ("ttft_mean_ms",)) is None
