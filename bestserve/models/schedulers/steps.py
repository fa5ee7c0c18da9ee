"""Compiled step times of lanes: many short calls, where arrays cost more than the arithmetic."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bestserve.arrays import Floats
from bestserve.host.compiled import njit
from bestserve.models.step.step_time_jit import step_time


class MeanRequest(NamedTuple):
    """What steps are timed with.

    prompt, cached : mean tokens of a prompt to compute and found in the cache; pairs : attention
    pairs per prompt token; context : mean context of a decode [tokens]; coef, moe : of the step
    time
    """

    prompt: float
    cached: float
    pairs: float
    context: float
    coef: Floats
    moe: Floats


@njit(cache=True)
def prompt_steps(tokens: Floats, decodes: Floats, split: bool, mean: MeanRequest) -> Floats:
    """Return times of steps with `tokens` prompt tokens beside `decodes` [m, s].

    Attention pairs are at most those of one prompt of that size unless prompts are `split`.
    """
    prompt, cached, pairs, context, coef, moe = mean
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
def alone_times(
    prompts: Floats, cached: Floats, decodes: float, split: bool, room: float, mean: MeanRequest
) -> Floats:
    """Return the time of the steps that each prompt takes beside `decodes` by itself [m, s].

    prompts, cached : tokens to compute and found in the cache [m]; room : prompt tokens of a step,
    beyond which prompts are cut if `split`
    """
    _, _, _, context, coef, moe = mean
    times = np.empty(prompts.size)
    held, n = decodes * context, decodes + 1.0
    full = 0.0
    if split:
        full = step_time(room + decodes, 0.0, held, n, True, coef, moe)
    for i in range(prompts.size):
        chunks = max(math.ceil(prompts[i] / room), 1.0) if split else 1.0
        last = prompts[i] - (chunks - 1.0) * room
        pairs = prompts[i] * cached[i] + prompts[i] * prompts[i] / 2
        rest = step_time(last + decodes, pairs, held, n, True, coef, moe)
        times[i] = (chunks - 1.0) * full + rest
    return times


@njit(cache=True)
def mean_steps(
    decodes: Floats,
    plain: Floats,
    rate: float,
    room: Floats,
    split: bool,
    mean: MeanRequest,
) -> Floats:
    """Return mean times of the steps that always hold `decodes` beside Poisson prompts [m, s].

    A step brings a = λτ prompts on average, none with e^{−a}: τ is the least solution of
    τ = plain + p (t(aE[l]/p) − plain), p the share of steps with prompts, more of them where
    prompts do not fit into `room`. So several prompts of a step share what the first one costs.
    plain : of steps without prompts [m, s]; room : prompt tokens of a step at most [m]
    """
    prompt, _, _, _, _, _ = mean
    times = plain.copy()
    tokens, beside = np.empty(1), np.empty(1)
    for i in range(decodes.size):
        beside[0] = decodes[i]
        for _ in range(60):
            arrived = rate * times[i]
            taken = min(arrived * prompt, room[i])
            share = max(-math.expm1(-arrived), taken / room[i])
            tokens[0] = taken / share
            full = prompt_steps(tokens, beside, split, mean)[0]
            found = plain[i] + share * max(full - plain[i], 0.0)
            last, times[i] = times[i], found
            if found - last <= 1e-4 * found:
                break
    return times


@njit(cache=True)
def decode_steps(count: Floats, mean: MeanRequest) -> Floats:
    """Return times of decode-only steps of `count` sequences at mean context [m, s]."""
    _, _, _, context, coef, moe = mean
    times = np.empty(count.size)
    for i in range(count.size):
        n = count[i]
        times[i] = step_time(n, 0.0, n * context, n, False, coef, moe)
    return times
