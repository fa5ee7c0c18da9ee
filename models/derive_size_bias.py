"""Derivation of what meeting long steps more often does to the time of the next D steps.

    python models/derive_size_bias.py

An arrival meets a step with probability in proportion to its length d₀. Let S be the sum of the
next D steps and κ the joint cumulants under the stationary law of steps, E d₀ = τ. Then

    E*[S]  = E S + κ(S, d₀)/τ
    Var*S  = Var S + κ(S, S, d₀)/τ − (κ(S, d₀)/τ)²

(expand E[S² d₀] in cumulants). κ(S, d₀) = (V(D+1) − V(D) − V(1))/2 with V(D) = Var S. The third
joint cumulant follows from K(D) = κ₃(S): K(D+1) − K(D) = 3κ(S, S, d₀) + lower order, and clusters
of fixed shape (Takács: S2, S3 of a busy period) have K = 3V²/(Dτ) + D λ t S3/(1−σ)⁴.
"""

from __future__ import annotations

import sympy as sp

tau, D, lam, S1, S2, S3, t = sp.symbols("tau D lambda S1 S2 S3 t", positive=True)


def tilted_moments() -> tuple[sp.Expr, sp.Expr]:
    """Return E*[S] and Var*[S] under weight d₀, in joint cumulants, from raw moments."""
    m, v, c, k = sp.symbols("m v c k")  # E S, Var S, κ(S, d₀), κ(S, S, d₀)
    raw1 = (c + m * tau) / tau  # E[S d₀]/τ
    # E[S² d₀] = κ(S,S,d₀) + 2 κ(S,d₀) E S + Var S · τ + (E S)² τ
    raw2 = (k + 2 * c * m + v * tau + m**2 * tau) / tau
    return sp.simplify(raw1), sp.simplify(raw2 - raw1**2)


def busy_cumulants() -> tuple[sp.Expr, sp.Expr]:
    """Return V and K of D decode steps of length t, busy periods of prompts between them."""
    sigma = lam * S1
    second = S2 / (1 - sigma) ** 3
    third = S3 / (1 - sigma) ** 4 + 3 * lam * S2**2 / (1 - sigma) ** 5
    return D * lam * t * second, D * lam * t * third


def clustered_rule() -> sp.Expr:
    """Return K − [3V²/(Dτ) + D λ t S3/(1−σ)⁴] with τ = t/(1−σ); zero if the rule is exact."""
    sigma = lam * S1
    v, k = busy_cumulants()
    rule = 3 * v**2 / (D * t / (1 - sigma)) + D * lam * t * S3 / (1 - sigma) ** 4
    return sp.simplify(k - rule)


def bias() -> sp.Expr:
    """Return Var*S − Var S for K = 3V²/(Dτ), with V' the growth of V and R₀ = V(1)."""
    V, slope, R0 = sp.symbols("V slope R_0", positive=True)
    growth = sp.diff(3 * sp.Function("f")(D) ** 2 / (D * tau), D)
    growth = growth.subs(sp.diff(sp.Function("f")(D), D), slope).subs(sp.Function("f")(D), V)
    covariance = (slope - R0) / 2
    return sp.simplify(growth / 3 / tau - (covariance / tau) ** 2)


if __name__ == "__main__":
    print("E*S, Var*S =", tilted_moments())
    print("rule error =", clustered_rule())
    print("bias =", bias())
