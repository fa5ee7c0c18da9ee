"""What a full step takes of whole prompts in order, given the tokens that wait.

With f the law of a prompt, and any number n of them as likely as θ^n, the tokens V that wait are a
point of a renewal process. Splitting at the prompt that does not fit gives the law of what is taken
without going through all sequences; here both are written out and compared term by term.
"""

from __future__ import annotations

from itertools import product

import sympy as sp

theta, a = sp.symbols("theta a", positive=True)
f = {size: sp.Symbol(f"f{size}", positive=True) for size in (1, 2, 4)}
"""Law of a prompt on three sizes, one of them above the budget below."""

BUDGET, WAITING = 3, 6


def renewals(tokens: int) -> sp.Expr:
    """Return U(tokens) = Σ_n θ^n f*^n(tokens), by its renewal equation."""
    if tokens == 0:
        return sp.Integer(1)
    parts = (theta * f[y] * renewals(tokens - y) for y in f if y <= tokens)
    return sp.expand(sum(parts, sp.Integer(0)))


def taken_by_splitting(x: int) -> sp.Expr:
    """Return the weight of a step of x tokens: up to the prompt that crosses the budget."""
    if x > BUDGET:
        alone = theta * f.get(x, sp.Integer(0))
        return sp.expand(alone * renewals(WAITING - x))
    total = sp.Integer(0)
    for y in f:
        if BUDGET - x < y <= WAITING - x:
            total += renewals(x) * theta * f[y] * renewals(WAITING - x - y)
    return sp.expand(total) if x > 0 else sp.Integer(0)


def taken_by_listing(x: int) -> sp.Expr:
    """Return the same weight from all sequences of prompts that fill `WAITING` tokens."""
    total = sp.Integer(0)
    for count in range(1, WAITING + 1):
        for prompts in product(f, repeat=count):
            if sum(prompts) != WAITING:
                continue
            step = prompts[0]
            for y in prompts[1:]:
                if step + y > BUDGET:
                    break
                step += y
            if step == x:
                total += sp.prod(theta * f[y] for y in prompts)
    return sp.expand(total)


def second_prompt() -> sp.Expr:
    """Return how much likelier n = 2 makes two prompts than one, per P(two sum)/P(one is): a/2.

    n is a Poisson number with mean a: a²/2! over a.
    """
    return sp.simplify((a**2 / sp.factorial(2)) / a)


if __name__ == "__main__":
    for tokens in range(1, WAITING + 1):
        assert taken_by_splitting(tokens) == taken_by_listing(tokens)
        print(f"X = {tokens}: {taken_by_listing(tokens)}")
    print(f"theta = {second_prompt()}")
