"""Derivation of mean TTFT with vacations, for a step time linear in its prompt tokens.

    python models/derive_vacation.py

With no token budget and f(x) = t_v + s x, a step of length T is followed by one that takes all
that arrived in it, T' = t_v + Σ S_i over a Poisson(λT) number of prompts of work S. In stationarity

    E T = t_v + σ E T,   E T² = t_v² + 2 t_v σ E T + λ S2 E T + σ² E T²,   σ = λ S1.

A tagged arrival meets a step of length T with density proportional to T; it waits the rest of it
and then the step that takes all arrivals of T, its own work included. This is the exact case that
the bulk chain of `bestserve.models.queues.bulk.wait` must reproduce.
"""

from __future__ import annotations

import sympy as sp

lam, S1, S2, t_v = sp.symbols("lambda S1 S2 t_v", positive=True)
sigma = lam * S1


def step_moments() -> tuple[sp.Expr, sp.Expr]:
    """Return E T and E T² of stationary steps."""
    m1, m2 = sp.symbols("m1 m2")
    first = sp.solve(sp.Eq(m1, t_v + sigma * m1), m1)[0]
    second_moment = t_v**2 + 2 * t_v * sigma * m1 + lam * S2 * m1 + sigma**2 * m2
    second = sp.solve(sp.Eq(m2, second_moment.subs(m1, first)), m2)[0]
    return sp.simplify(first), sp.simplify(second)


def mean_ttft() -> sp.Expr:
    """Return E TTFT = E T²/E T (1/2 + σ) + t_v + S1."""
    m1, m2 = step_moments()
    met = m2 / m1  # mean length of the step that an arrival meets
    rest = met / 2
    own_step = t_v + sigma * met + S1  # the others that arrived in it, and the tagged prompt
    return sp.simplify(rest + own_step)


if __name__ == "__main__":
    print("E T, E T² =", step_moments())
    print("E TTFT =", mean_ttft())
