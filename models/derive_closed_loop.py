"""Derivation of the closed-loop relations.

    python models/derive_closed_loop.py

C clients, each with one request in flight. A decode step ends each of n running requests with
probability 1/E[D]; so per step κ = n/E[D] requests end and as many prompts come. With marginal
prompt work s per step, the token time solves τ = t_d + κ s, which is t_d + C s/E[D] for n = C.
A burst of C prompts, n_b of them per step of length n_b s, gives prompt i its first token after
⌈i/n_b⌉ steps: on average (C + n_b)/2 · s.
"""

from __future__ import annotations

import sympy as sp

C, D, s, t_d, n_b, i, j = sp.symbols("C D s t_d n_b i j", positive=True)
steps = sp.symbols("J", positive=True, integer=True)


def token_time() -> sp.Expr:
    """Return τ for n = C running requests."""
    kappa = C / D
    return t_d + kappa * s


def burst_mean() -> sp.Expr:
    """Return the mean TTFT of C = J n_b prompts that come at once."""
    step = sp.symbols("step", positive=True, integer=True)
    total = sp.summation(n_b * step * n_b * s, (step, 1, steps))
    return sp.simplify((total / (steps * n_b)).subs(steps, C / n_b))


if __name__ == "__main__":
    print("τ =", token_time())
    print("burst TTFT =", sp.expand(burst_mean()))
