"""Derivation of arrival streams with memory and of what routing makes of them.

    python models/derive_streams.py

* A gamma density of shape a < 1 and scale θ is a mixture of exponentials of mean θ Y, Y ~ Beta(a,
  1 − a): the n-th moments agree, n! θⁿ E Yⁿ = θⁿ Γ(a + n)/Γ(a).
* One stage and a rest of shape f, of gamma gaps of scale θ, have mean (1 + f) θ and variance
  (1 + f) θ²; two stages of means (1 + f) θ (1 ± √((1 − f)/(1 + f)))/2 have both.
* Counting arrivals with zᴺ, the phases evolve with D0 + z D1, and with each arrival's tokens
  weighted too with Q(z) = D0 + φ(z) D1, so that exp(Q t) is the transform of what a time t brings.
  Its second derivative gives the covariance density of arrivals, π D1 e^{Du} D1 1 − λ², hence

      I(ω) = S(ω)/λ − 1 = 2 Re π D1 (iω − D)⁻¹ (D1 1 − λ)/λ,

  for independent gaps of transform g(iω) the same as 2 Re g/(1 − g).
* Lanes kept level by a router get what they lose plus an equal part of what all gain: a_i = d_i +
  (A − Σ d)/k. With departures as Poisson streams and all arrivals of dispersion c², the dispersion
  of a lane's arrivals is 1 + (c² − 1)/k, while the numbers themselves vary with 1/k of all.
"""

from __future__ import annotations

import sympy as sp

a, f, theta, k, c2, lam, t = sp.symbols("a f theta k c_2 lambda t", positive=True)
omega = sp.symbols("omega", positive=True)


def mixture_moment(n: int) -> sp.Expr:
    """Return n! θⁿ E Yⁿ for Y ~ Beta(a, 1 − a), less the moment of the gamma law; zero."""
    beta = sp.prod([(a + j) / (1 + j) for j in range(n)])
    gamma = sp.prod([a + j for j in range(n)])
    return sp.simplify(sp.factorial(n) * beta - gamma)


def two_stages() -> tuple[sp.Expr, sp.Expr]:
    """Return mean and variance of the two stages less those of the gamma law; zeros."""
    apart = sp.sqrt((1 - f) / (1 + f))
    m = [(1 + f) * theta * (1 + s * apart) / 2 for s in (1, -1)]
    mean = sp.simplify(sum(m) - (1 + f) * theta)
    return mean, sp.simplify(sum(x**2 for x in m) - (1 + f) * theta**2)


def erlang_two() -> tuple[sp.Expr, sp.Expr]:
    """Return I(ω) of Erlang-2 gaps of mean 1 from its phases and from its transform."""
    silent, arriving = sp.Matrix([[-2, 2], [0, -2]]), sp.Matrix([[0, 0], [2, 0]])
    law, ones = sp.Matrix([[sp.Rational(1, 2)] * 2]), sp.ones(2, 1)
    core = sp.I * omega * sp.eye(2) - silent - arriving + ones * law
    phases = (law * arriving * core.inv() * (arriving * ones - ones))[0]
    gap = (2 / (2 + sp.I * omega)) ** 2
    return 2 * sp.re(sp.simplify(phases)), 2 * sp.re(sp.simplify(gap / (1 - gap)))


def levelled_dispersion() -> sp.Expr:
    """Return Var a_i / E a_i for a_i = d_i + (A − Σ d)/k over a time t."""
    mean = lam * t
    own = (1 - 1 / k) ** 2 * mean
    others = (k - 1) * mean / k**2
    return sp.simplify((own + others + c2 * k * mean / k**2) / mean)


if __name__ == "__main__":
    print("moments off by", [mixture_moment(n) for n in range(1, 5)])
    print("two stages off by", two_stages())
    print("Erlang-2: I(ω) =", [sp.simplify(e) for e in erlang_two()])
    print("level lanes: dispersion", sp.factor(levelled_dispersion()))
