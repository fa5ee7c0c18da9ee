"""The queueing families against theory with known answers; each test names its source."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bestserve.models.distribution import Distribution
from bestserve.models.queues.bulk.packing import packed_tokens
from bestserve.models.queues.busy_period import busy_period
from bestserve.models.queues.gig1 import gig1_wait
from bestserve.models.queues.occupancy import occupancy
from bestserve.models.queues.tpot.compound_poisson import Atoms, Sums, compound_poisson_mixture
from bestserve.models.queues.tpot.mixture import component_cdf, cut, mixture
from bestserve.models.queues.tpot.pearson import Laws, Unstalled

ONE = np.array([1.0])


def exponential_atoms(count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Mean-exact atoms of the exponential law with mean 1."""
    edges = -np.log1p(-np.linspace(0.0, 1.0 - 1e-9, count + 1))
    tail = np.exp(-edges) * (edges + 1.0)
    values = (tail[:-1] - tail[1:]) * count
    values[-1] += 1.0 - values.mean()
    return values, np.full(count, 1.0 / count)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.8, 0.95])
def test_deterministic_service_has_the_pollaczek_khinchine_mean(load: float) -> None:
    # M/D/1: E W = ρ/(2(1 − ρ)) (Kleinrock, Queueing Systems I, 5.6)
    wait = gig1_wait(ONE, ONE, load)
    assert wait is not None
    on_grid = float(wait.pmf @ np.arange(wait.pmf.size)) * wait.h
    assert on_grid == pytest.approx(load / (2 * (1 - load)), rel=2e-3)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_exponential_service_has_exponential_response(load: float) -> None:
    # M/M/1: response time is exponential with mean 1/(1 − ρ) (Kleinrock I, 5.118)
    service, weight = exponential_atoms()
    wait = gig1_wait(service, weight, load)
    assert wait is not None
    response = wait.plus(service, weight)
    for p in (0.5, 0.9, 0.99):
        assert response.quantile(p) == pytest.approx(-math.log1p(-p) / (1 - load), rel=0.02)


@pytest.mark.parametrize("scv", [0.25, 0.5, 4.0])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_gamma_gaps_and_exponential_service_solve_the_root_equation(
    scv: float, load: float
) -> None:
    # GI/M/1: P(wait) = σ, σ = A*(1 − σ) the gap transform, E W = σ/(1 − σ) (Kleinrock I, 6.4)
    shape, scale = 1 / scv, scv / load
    sigma = load
    for _ in range(500):
        sigma = (1 + scale * (1 - sigma)) ** -shape
    service, weight = exponential_atoms()
    wait = gig1_wait(service, weight, load, scv)
    assert wait is not None
    assert wait.mean == pytest.approx(sigma / (1 - sigma), rel=0.02)


def test_deterministic_gaps_and_service_never_wait() -> None:
    # D/D/1 is the limit of Erlang gaps; with 400 stages the wait is small against service
    wait = gig1_wait(ONE, ONE, 0.5, 1 / 400)
    assert wait is not None
    assert wait.mean < 2e-3


def test_gig1_refuses_saturation() -> None:
    assert gig1_wait(ONE, ONE, 1.0) is None


def erlang_c(servers: int, offered: float) -> float:
    """Probability of waiting in M/M/k, by the recursion for Erlang's loss formula (Kleinrock I)."""
    loss = 1.0
    for k in range(1, servers + 1):
        loss = offered * loss / (k + offered * loss)
    return loss / (1.0 - offered / servers * (1.0 - loss))


def test_erlang_c_values() -> None:
    # Erlang's table: C(2, 1) = 1/3; C(5, 4) = 0.5541 (Gross & Harris, Queueing Theory, 2.3)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(5, 4.0) == pytest.approx(0.5541, abs=1e-4)


def test_constant_step_time_is_infinite_server() -> None:
    # M/G/∞: Poisson occupancy (Tijms 1.1.3)
    found = occupancy(rate=20.0, steps=10.0, step_times=np.full(300, 0.1))
    assert found.mean == pytest.approx(20.0, rel=1e-9)
    assert found.variance == pytest.approx(20.0, rel=1e-6)
    assert found.idle == pytest.approx(math.exp(-20.0), rel=1e-6)


def test_step_time_in_proportion_to_sequences_is_processor_sharing() -> None:
    # M/G/1-PS: geometric occupancy, E[T | x] = x/(1 − ρ) (Kleinrock, Queueing Systems II, 4.4)
    load = 0.8
    times = 0.01 * np.arange(1, 401)
    found = occupancy(rate=load / (0.01 * 5.0), steps=5.0, step_times=times)
    assert found.mean == pytest.approx(load / (1 - load), rel=1e-6)
    assert found.tpot == pytest.approx(0.01 / (1 - load), rel=1e-6)


def test_slot_limit_with_constant_steps_is_erlang_c() -> None:
    # n ≤ B servers, each request B-th of a server: M/M/B waits with probability C(B, a)
    found = occupancy(rate=8.0, steps=1.0, step_times=np.ones(10))
    assert found.wait == pytest.approx(erlang_c(10, 8.0), rel=1e-9)


def test_busy_period_of_deterministic_service() -> None:
    # Borel law: E N = 1/(1−ρ), Var N = ρ/(1−ρ)³ (Tijms 9.2)
    found = busy_period(0.6, 1.0, 1.0, 1.0)
    mean, variance = 2.5, 0.6 / 0.4**3
    assert found.first == pytest.approx(mean)
    assert found.second - found.first**2 == pytest.approx(variance)
    assert found.others == pytest.approx((variance + mean**2) / mean - 1)


def test_pearson_law_is_gamma() -> None:
    from scipy.special import gammainc

    x = np.linspace(0.1, 12, 40)
    for shape in (0.4, 1.0, 3.0, 30.0):
        moments = (np.array([v]) for v in (shape, shape, 2 * shape))
        found = component_cdf(x[None, :], Laws(*moments, 0.0, math.inf))[0]
        exact = gammainc(shape, x)
        assert np.abs(found - exact).max() < (2.5e-3 if shape >= 2 else 2e-6)


@pytest.mark.parametrize(("mean", "spread"), [(1.5, 0.3), (1.9, 0.05), (1.7, 0.45), (1.98, 0.01)])
def test_law_near_its_upper_end_is_beta(mean: float, spread: float) -> None:
    from scipy.special import betainc

    x = np.linspace(1.0, 2.0, 60)
    moments = (np.array([v]) for v in (mean, spread**2, spread**3))
    found = component_cdf(x[None, :], Laws(*moments, 1.0, 2.0))[0]
    m = mean - 1.0
    size = m * (1 - m) / spread**2 - 1
    assert found == pytest.approx(betainc(m * size, (1 - m) * size, x - 1.0), abs=1e-8)


@pytest.mark.parametrize("unstalled", [0.0, 0.4, 1.0])
def test_unstalled_requests_set_apart_keep_the_moments_of_their_class(unstalled: float) -> None:
    whole = (np.array([v]) for v in (0.05, 4e-4, 6e-6))
    undisturbed = (np.array([v]) for v in (unstalled, 0.03, 1e-6))
    parts = cut(Laws(*whole, 0.01, math.inf), Unstalled(*undisturbed))
    assert parts.share.size == (2 if unstalled == 0.4 else 1)
    assert parts.share.sum() == pytest.approx(1.0)
    laws = parts.laws
    assert parts.share @ laws.mean == pytest.approx(0.05)
    assert parts.share @ (laws.variance + (laws.mean - 0.05) ** 2) == pytest.approx(4e-4)


def test_mixture_keeps_mean_and_percentiles() -> None:
    mean = np.array([1.0, 3.0])
    narrow = Laws(mean, np.full(2, 1e-6), np.full(2, 1e-9), 0.0, math.inf)
    law = mixture(np.array([0.5, 0.5]), narrow)
    assert law.mean == pytest.approx(2.0)
    assert law.quantile(0.25) == pytest.approx(1.0, rel=2e-3)
    assert law.quantile(0.9) == pytest.approx(3.0, rel=2e-3)


@pytest.mark.parametrize(
    ("mean", "cv", "budget"), [(1000, 0.8, 8192), (1000, 0.5, 2048), (4096, 1.0, 8192)]
)
def test_packing_matches_first_come_packing_of_samples(mean: int, cv: float, budget: int) -> None:
    rng = np.random.default_rng(3)
    s = math.sqrt(math.log(1 + cv * cv))
    prompts = np.maximum(np.rint(mean * np.exp(s * rng.standard_normal(100_000) - s * s / 2)), 1)
    batches, filled = [], 0.0
    for prompt in prompts:
        if filled and filled + prompt > budget:
            batches.append(filled)
            filled = 0.0
        filled += prompt
    values, counts = np.unique(prompts, return_counts=True)
    found = packed_tokens(values, counts / counts.sum(), float(budget))
    assert found == pytest.approx(float(np.mean(batches)), rel=0.015)


def test_distribution_interpolates_its_quantiles() -> None:
    law = Distribution(np.array([0.0, 1.0, 3.0]), np.array([0.2, 0.6, 1.0]), 1.2)
    assert law.quantile(0.1) == 0.0
    assert law.quantile(0.8) == pytest.approx(2.0)
    assert float(law.cdf(2.0)) == pytest.approx(0.8)
    shifted = law.shift(1.0).scale(2.0)
    assert shifted.quantile(0.8) == pytest.approx(6.0)
    assert Distribution.mixture([law, law.shift(5)], [0.5, 0.5]).mean == pytest.approx(3.7)
    with pytest.raises(ValueError, match="probability"):
        law.quantile(1.5)


def test_infinite_laws_never_meet_a_threshold() -> None:
    never = Distribution.point(math.inf)
    assert not never.finite
    assert never.quantile(0.1) == math.inf
    assert float(never.cdf(1e9)) == 0.0
    assert never.variance == math.inf


@pytest.mark.parametrize("sizes", [[0.1], [0.02, 0.05, 0.2]])
def test_few_stalls_are_compound_poisson(sizes: list[float]) -> None:
    rng = np.random.default_rng(5)
    stall, steps = np.array(sizes), np.array([50.0, 200.0])
    share = np.full(stall.size, 1 / stall.size)
    base, count, spread = np.array([0.010, 0.011]), np.array([0.6, 1.8]), 0.02
    s1, s2 = stall.mean(), (stall**2).mean()
    law = compound_poisson_mixture(
        np.array([0.5, 0.5]),
        steps,
        base,
        np.full(2, spread**2),
        Sums(count * s1, count * s2),
        Atoms(stall, share),
    )
    draws = []
    for c in range(2):
        met = rng.poisson(count[c], 200_000)
        total = np.bincount(np.repeat(np.arange(met.size), met), rng.choice(stall, met.sum()))
        total = np.pad(total, (0, met.size - total.size)) + spread * rng.standard_normal(met.size)
        draws.append(base[c] + total / steps[c])
    values = np.concatenate(draws)
    assert law.mean == pytest.approx(values.mean(), rel=2e-3)
    for x in np.quantile(values, [0.2, 0.5, 0.7, 0.9, 0.99]) * 1.0001:
        assert float(law.cdf(x)) == pytest.approx(np.mean(values <= x), abs=0.02)
