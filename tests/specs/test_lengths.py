"""Length laws: moments against their definitions, atoms that keep the mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.errors import InputError
from bestserve.specs.lengths import (
    Empirical,
    Fixed,
    Geometric,
    LogNormal,
    Uniform,
    parse_law,
)

laws = st.one_of(
    st.builds(Fixed, st.integers(1, 100_000)),
    st.builds(
        lambda low, width: Uniform(low, low + width), st.integers(1, 5000), st.integers(0, 5000)
    ),
    st.builds(LogNormal, st.floats(50, 20_000), st.floats(0.05, 1.5)),
    st.builds(Geometric, st.floats(20, 5000)),
    st.builds(Empirical, st.lists(st.integers(1, 10_000), min_size=1, max_size=300)),
)


@given(laws)
def test_atoms_are_a_law_with_the_same_mean(law):
    lengths, weights = law.atoms()
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()
    assert (lengths >= 1).all()
    assert lengths @ weights == pytest.approx(law.mean_tokens, rel=1e-9)


@given(laws)
def test_atoms_keep_the_variance(law):
    lengths, weights = law.atoms()
    mean = lengths @ weights
    scv = (lengths**2 @ weights) / mean**2 - 1
    assert scv == pytest.approx(law.scv, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0, 3.0])
def test_atoms_of_spread_lengths_keep_the_third_moment(cv):
    lengths, weights = LogNormal(2000, cv=cv).atoms()
    assert len(lengths) == 96
    assert lengths**2 @ weights == pytest.approx(2000**2 * (1 + cv**2), rel=1e-6)
    assert lengths**3 @ weights == pytest.approx(2000**3 * (1 + cv**2) ** 3, rel=1e-6)


@pytest.mark.parametrize(("mean", "cv"), [(1.0, 4.0), (1.5, 2.0), (3.0, 2.0), (20.0, 3.0)])
def test_no_length_below_one_token_and_the_mean_is_the_stated_one(mean, cv):
    lengths, weights = LogNormal(mean, cv=cv).atoms()
    assert lengths.min() >= 1.0
    assert lengths @ weights == pytest.approx(mean, rel=1e-9)


@given(laws, st.floats(0.001, 0.998))
def test_quantiles_rise(law, u):
    low, high = law.quantile(np.array([u, u + 0.001]))
    assert low <= high


def test_lognormal_moments_are_those_of_the_tokens_not_of_the_logarithm():
    sample = LogNormal(2000, cv=0.8).quantile((np.arange(200_000) + 0.5) / 200_000)
    assert sample.mean() == pytest.approx(2000, rel=1e-3)
    assert sample.std() / sample.mean() == pytest.approx(0.8, rel=1e-2)


@pytest.mark.parametrize(
    ("text", "law"),
    [
        (512, Fixed(512)),
        ("512", Fixed(512)),
        ("lognormal(2000, cv=0.8)", LogNormal(2000, cv=0.8)),
        ("lognormal(mean=2000, cv=0.8)", LogNormal(2000, cv=0.8)),
        ("lognormal:2000,0.8", LogNormal(2000, cv=0.8)),
        ("uniform(100, 200)", Uniform(100, 200)),
        (" Geometric( 300 ) ", Geometric(300)),
    ],
)
def test_laws_are_read_as_people_write_them(text, law):
    assert parse_law(text) == law


@pytest.mark.parametrize(
    "text",
    ["", "0", "-5", "1.5", "nan", "inf", True, "lognormal(2000)", "lognormal(2000, sv=1)",
     "uniform(200, 100)", "normal(3, 4)", "lognormal(2000, cv=0.8", "fixed(1)(2)"],
)  # fmt: skip
def test_what_is_no_law_is_refused_in_one_line(text):
    with pytest.raises(InputError) as error:
        parse_law(text)
    assert "\n" not in str(error.value)
