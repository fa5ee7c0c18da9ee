"""The same step time as `step_time.StepTime`, compiled, for loops that arrays cannot do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bestserve.arrays import Floats
from bestserve.host.compiled import njit

if TYPE_CHECKING:
    from collections.abc import Callable

W, C, E, A, K, A_STEP, A_SEQ, PHI = range(8)
"""Positions in `StepTime.coefficients()`."""


@njit(cache=True, inline="always")
def token_time(tokens: float, coef: Floats, moe: Floats) -> float:
    """Return [w³ + (cT)³]^(1/3) + eT + m(T) [s]."""
    compute = coef[C] * tokens
    time = (coef[W] ** 3 + compute**3) ** (1.0 / 3.0) + coef[E] * tokens
    if moe.size > 0 and tokens > 0.0:
        position = 2.0 * math.log2(tokens)
        last = moe.size - 1
        if position >= last:
            time += moe[last] * tokens / 2.0 ** (0.5 * last)
        elif position <= 0.0:
            time += moe[0]
        else:
            i = int(position)
            left = 2.0 ** (0.5 * i)
            right = 2.0 ** (0.5 * (i + 1))
            time += moe[i] + (moe[i + 1] - moe[i]) * (tokens - left) / (right - left)
    return time


@njit(cache=True, inline="always")
def step_time(
    tokens: float,
    pairs: float,
    context: float,
    sequences: float,
    prefill: bool,
    coef: Floats,
    moe: Floats,
) -> float:
    """Return the time of one step [s]; arguments as in `StepTime.__call__`."""
    device = token_time(tokens, coef, moe) + coef[A] * pairs + coef[K] * context
    factor = coef[PHI] if prefill else 1.0
    return coef[A_STEP] + coef[A_SEQ] * sequences + factor * device


__all__: list[str] = ["step_time", "token_time"]
_signature: Callable[..., float] = step_time
