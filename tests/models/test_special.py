"""Special functions that default questions need, against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from bestserve.models import special

RNG = np.random.default_rng(5)


def test_the_normal_law_is_that_of_scipy():
    z = RNG.normal(size=500) * 6
    p = np.concatenate([RNG.random(200), 10.0 ** -RNG.uniform(1, 300, 50), [0.0, 0.5, 1.0]])
    assert special.normal_cdf(z) == pytest.approx(scipy.special.ndtr(z), rel=1e-12)
    assert special.normal_quantile(p) == pytest.approx(scipy.special.ndtri(p), rel=1e-13)


@pytest.mark.parametrize(("smallest", "largest", "error"), [
    (1e-2, special.LARGE_SHAPE, 1e-12), (special.LARGE_SHAPE, 1e4, 2e-12), (1e4, 4e6, 1e-8),
], ids=["series and fraction", "integral", "huge, where SciPy errs by 4e-9"])  # fmt: skip
def test_tails_of_gamma_laws_are_those_of_scipy(smallest, largest, error):
    shape = np.exp(RNG.uniform(math.log(smallest), math.log(largest), 2000))
    x = np.maximum(shape + RNG.normal(size=2000) * 3 * np.sqrt(shape), 0.0)
    found = special.gamma_tails(shape, x)
    assert np.max(np.abs(found - scipy.special.gammaincc(shape, x))) < error


def test_tails_are_whole_at_zero_and_nothing_far_out():
    shape = np.array([0.5, 50.0, 1e5])
    assert list(special.gamma_tails(shape, np.zeros(3))) == [1.0, 1.0, 1.0]
    assert special.gamma_tails(shape, 100 * shape + 1000) == pytest.approx(0.0, abs=1e-300)


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 8, 19, 30, 99])
def test_quantiles_of_student_are_those_of_scipy(freedom):
    for p in (0.5, 0.6, 0.9, 0.975, 0.999):
        expected = scipy.special.stdtrit(freedom, p)
        assert special.student_quantile(freedom, p) == pytest.approx(expected, rel=1e-11, abs=1e-12)


def test_roots_are_those_of_brent_step_by_step():
    compared = 0
    for _ in range(300):
        a, b, c, d = RNG.normal(size=4)
        low, high = sorted(RNG.uniform(-3, 3, 2))
        tolerance = 10 ** -RNG.uniform(1, 12)

        def function(x: float, a: float = a, b: float = b, c: float = c, d: float = d) -> float:
            return a + b * x + c * math.sin(3 * x) + d * x**3

        if function(low) * function(high) > 0:
            with pytest.raises(ValueError, match="same sign"):
                special.root(function, low, high, tolerance)
            continue
        expected = scipy.optimize.brentq(function, low, high, xtol=tolerance)
        assert special.root(function, low, high, tolerance) == expected
        compared += 1
    assert compared > 50
