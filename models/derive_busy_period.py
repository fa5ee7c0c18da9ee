"""Derivation of the busy-period moments used for stalls behind prompts.

    python models/derive_busy_period.py

The busy period B of M/G/1 (a prompt and all that arrive while it and they are served) has a
transform that solves B(s) = S(s + λ(1 − B(s))) (Takács 1962; Kleinrock, Queueing Systems I, 5.8);
the number N served in it solves N(z) = z S(λ(1 − N(z))). Implicit differentiation at s = 0, z = 1
gives the moments in `bestserve.models.queues.busy_period`.
"""

from __future__ import annotations

import sympy as sp

lam, S1, S2, S3 = sp.symbols("lambda S1 S2 S3", positive=True)
s, z = sp.symbols("s z")
sigma = lam * S1


def service_transform(u: sp.Expr) -> sp.Expr:
    """Return E e^{−uS} to third order; higher orders do not enter the third moment."""
    return 1 - S1 * u + S2 * u**2 / 2 - S3 * u**3 / 6


def busy_moments() -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Return E B, E B², E B³."""
    b1, b2, b3 = sp.symbols("b1 b2 b3")
    b = 1 - b1 * s + b2 * s**2 / 2 - b3 * s**3 / 6
    equation = sp.expand(b - service_transform(s + lam * (1 - b)))
    solved: dict[sp.Symbol, sp.Expr] = {}
    for order, unknown in ((1, b1), (2, b2), (3, b3)):
        coefficient = equation.coeff(s, order).subs(solved)
        solved[unknown] = sp.factor(sp.solve(coefficient, unknown)[0])
    return solved[b1], solved[b2], solved[b3]


def served_moments() -> tuple[sp.Expr, sp.Expr]:
    """Return E N and Var N."""
    n1, n2 = sp.symbols("n1 n2")  # E N, E N(N − 1)
    e = z - 1
    n = 1 + n1 * e + n2 * e**2 / 2
    equation = sp.series(n - z * service_transform(lam * (1 - n)), z, 1, 3).removeO()
    equation = sp.expand(equation.subs(z, s + 1))
    first = sp.solve(equation.coeff(s, 1), n1)[0]
    second = sp.solve(equation.coeff(s, 2).subs(n1, first), n2)[0]
    return sp.factor(first), sp.factor(second + first - first**2)


if __name__ == "__main__":
    for name, value in zip(("E B", "E B²", "E B³"), busy_moments(), strict=True):
        print(name, "=", value)
    for name, value in zip(("E N", "Var N"), served_moments(), strict=True):
        print(name, "=", value)
