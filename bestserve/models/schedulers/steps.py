"""Compiled step times of lanes: many short calls, where arrays cost more than the arithmetic."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bestserve.models.step.step_time_jit import step_time

Floats = NDArray[np.float64]


@njit(cache=True)
def prompt_steps(
    tokens: Floats,
    decodes: Floats,
    split: bool,
    prompt: float,
    cached: float,
    pairs: float,
    context: float,
    coef: Floats,
    moe: Floats,
) -> Floats:
    """Return times of steps with `tokens` prompt tokens beside `decodes` [m, s].

    prompt, cached : mean tokens of a prompt to compute and found in the cache; pairs : attention
    pairs per prompt token, at most those of one prompt of that size unless `split`; context : mean
    context of a decode; coef, moe : of the step time
    """
    times = np.empty(tokens.size)
    for i in range(tokens.size):
        x, n = tokens[i], decodes[i]
        a = x * pairs
        if not split:
            a = min(a, x * cached + x * x / 2)
        sequences = n + max(1.0, x / prompt)
        times[i] = step_time(x + n, a, n * context, sequences, True, coef, moe)
    return times


@njit(cache=True)
def decode_steps(count: Floats, context: float, coef: Floats, moe: Floats) -> Floats:
    """Return times of decode-only steps of `count` sequences at mean context [m, s]."""
    times = np.empty(count.size)
    for i in range(count.size):
        n = count[i]
        times[i] = step_time(n, 0.0, n * context, n, False, coef, moe)
    return times
