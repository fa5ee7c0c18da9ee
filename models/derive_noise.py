"""Derivation of the noise of the step time and of its mean over D steps.

    python models/derive_noise.py

Steps k have length τ_k = t + Σ_i h_i(k − k_i) over arrivals i at steps k_i; step k brings
Poisson(λ τ_k) arrivals. Linearised, ξ = τ − τ̄ obeys ξ = h̄ * (arrival noise + λ ξ), so that

    S(ω) = λ τ̄ E|ĥ(ω)|² / |1 − λ E ĥ(ω)|²            (a linear Hawkes process in step time).

Two exact cases check `bestserve.models.queues.tpot.noise`: without feedback (λ → 0) and equal
outputs D₀, R(u) = λ τ̄ α² (D₀ − u)⁺; and prompts as single jumps, S(ω) = λ τ̄ S2/(1 − λ S1)², white.
"""

from __future__ import annotations

import sympy as sp

lam, tau, alpha, D, D0, u = sp.symbols("lambda tau alpha D D_0 u", positive=True)
S1, S2 = sp.symbols("S1 S2", positive=True)


def covariance() -> sp.Expr:
    """Return R(u) = λ τ̄ Σ_j h(j) h(j + u) for h = α on D₀ steps, u ≤ D₀."""
    j = sp.symbols("j", positive=True)
    return sp.integrate(lam * tau * alpha**2, (j, 0, D0 - u))


def variance_of_mean() -> sp.Expr:
    """Return (2/D) ∫₀^D (1 − u/D) R(u) du for D = D₀."""
    integral = sp.integrate((1 - u / D0) * covariance(), (u, 0, D0))
    return sp.simplify(2 * integral / D0)


def jump_variance() -> sp.Expr:
    """Return the variance of the mean of D steps whose noise is that of single jumps."""
    return lam * tau * S2 / (1 - lam * S1) ** 2 / D


def variance_of_count() -> sp.Expr:
    """Return Var/E of the arrivals in many steps when each adds a fixed jump S1.

    The count of a Hawkes process: 1 + 2λ Cov/… sums to 1/(1 − σ)²; with random S it is
    1 + 2σ/(1 − σ) + λ² S2/(1 − σ)², used for the chance that nothing decodes.
    """
    sigma = lam * S1
    return 1 + 2 * sigma / (1 - sigma) + lam**2 * S2 / (1 - sigma) ** 2


if __name__ == "__main__":
    print("R(u) =", covariance())
    print("v(D₀) =", variance_of_mean())
    print("white v(D) =", jump_variance())
    print("Var N/E N =", sp.factor(variance_of_count().subs(S2, S1**2)))
