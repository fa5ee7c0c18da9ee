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
    schedule : from how many decodes on how many tokens are drafted for each, and how many steps of
    those that requests are counted in one such step stands for, the other way round [e, 3]
    drafting : of `Speculation`, per step, pass, token and context token [4, s]
    experts : m(T) without prompts, by row of the schedule [e, knots]
    """

    prompt: float
    cached: float
    pairs: float
    context: float
    coef: Floats
    moe: Floats
    schedule: Floats
    drafting: Floats
    experts: Floats


START, DRAFTS, COUNTED = range(3)
STEP, PASS, TOKEN, CONTEXT = range(4)


@njit(cache=True)
def entry(n: float, schedule: Floats) -> int:
    """Return the row of the schedule that holds with n decodes."""
    row = 0
    while row + 1 < schedule.shape[0] and n + 0.5 >= schedule[row + 1, START]:
        row += 1
    return row


@njit(cache=True)
def draft_time(n: float, drafts: float, context: float, drafting: Floats) -> float:
    """Return what drafting takes beside n decodes of a mean context [s]."""
    if drafts == 0.0 or n == 0.0:
        return 0.0
    each = drafting[PASS] + n * (2.0 * drafting[TOKEN] + drafting[CONTEXT] * context)
    return drafting[STEP] + drafts * each


@njit(cache=True)
def prompt_step(x: float, n: float, split: bool, mean: MeanRequest) -> float:
    """Return the time of a step with x prompt tokens beside n decodes [s].

    Attention pairs are at most those of one prompt of that size unless prompts are `split`.
    """
    prompt, cached, pairs, context, coef, moe, schedule, drafting, _ = mean
    a = x * pairs
    if not split:
        a = min(a, x * cached + x * x / 2)
    drafts = schedule[entry(n, schedule), DRAFTS]
    verified = n * (drafts + 1.0)
    rows = verified + max(1.0, x / prompt)
    time = step_time(x + verified, a, n * context, rows, True, coef, moe)
    return time + (drafting[TOKEN] * x + draft_time(n, drafts, context, drafting))


@njit(cache=True)
def prompt_steps(
    tokens: Floats, decodes: float, when_full: float, full: float, split: bool, mean: MeanRequest
) -> Floats:
    """Return times of steps with `tokens` prompt tokens beside `decodes` [m, s].

    when_full : decodes beside prompts in steps of `full` tokens and more
    """
    times = np.empty(tokens.size)
    for i in range(tokens.size):
        beside = when_full if tokens[i] >= full else decodes
        times[i] = prompt_step(tokens[i], beside, split, mean)
    return times


@njit(cache=True)
def alone_times(
    prompts: Floats, cached: Floats, decodes: float, split: bool, room: float, mean: MeanRequest
) -> Floats:
    """Return the time of the steps that each prompt takes beside `decodes` by itself [m, s].

    prompts, cached : tokens to compute and found in the cache [m]; room : prompt tokens of a step,
    beyond which prompts are cut if `split`
    """
    _, _, _, context, coef, moe, schedule, drafting, _ = mean
    times = np.empty(prompts.size)
    drafts = schedule[entry(decodes, schedule), DRAFTS]
    held, beside = decodes * context, decodes * (drafts + 1.0)
    n = beside + 1.0
    drafted = draft_time(decodes, drafts, context, drafting)
    full = 0.0
    if split:
        full = step_time(room + beside, 0.0, held, n, True, coef, moe)
    for i in range(prompts.size):
        chunks = max(math.ceil(prompts[i] / room), 1.0) if split else 1.0
        last = prompts[i] - (chunks - 1.0) * room
        pairs = prompts[i] * cached[i] + prompts[i] * prompts[i] / 2
        rest = step_time(last + beside, pairs, held, n, True, coef, moe)
        times[i] = (chunks - 1.0) * full + rest + chunks * drafted + drafting[TOKEN] * prompts[i]
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
    Steps that draft more or fewer than requests are counted with take prompts as they are, and
    count as more or fewer then.
    plain : of steps without prompts, as counted [m, s]; room : prompt tokens of a step at most [m]
    """
    prompt, _, _, _, _, _, schedule, _, _ = mean
    times = plain.copy()
    for i in range(decodes.size):
        counted = schedule[entry(decodes[i], schedule), COUNTED]
        alone = plain[i] / counted
        times[i] = alone
        for _ in range(60):
            arrived = rate * times[i]
            taken = min(arrived * prompt, room[i])
            share = max(-math.expm1(-arrived), taken / room[i])
            full = prompt_step(taken / share, decodes[i], split, mean)
            found = alone + share * max(full - alone, 0.0)
            last, times[i] = times[i], found
            if found - last <= 1e-4 * found:
                break
        times[i] *= counted
    return times


@njit(cache=True)
def decode_steps(count: Floats, mean: MeanRequest) -> Floats:
    """Return times of decode-only steps of `count` sequences at mean context [m, s].

    Where the schedule drafts more or fewer than requests are counted with, per step they count.
    """
    _, _, _, context, coef, _, schedule, drafting, experts = mean
    times = np.empty(count.size)
    for i in range(count.size):
        n = count[i]
        row = entry(n, schedule)
        drafts = schedule[row, DRAFTS]
        verified = n * (drafts + 1.0)
        time = step_time(verified, 0.0, n * context, verified, False, coef, experts[row])
        time += draft_time(n, drafts, context, drafting)
        times[i] = time * schedule[row, COUNTED]
    return times
