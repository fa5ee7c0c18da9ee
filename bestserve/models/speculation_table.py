"""How many tokens to draft at each number of decodes: the most accepted tokens a second.

A step with n decodes and γ drafts takes t_γ(n) and yields μ_γ tokens of each, so a token takes
s_γ(n) = t_γ(n)/μ_γ. The γ of least s_γ(n) maximises the goodput of Liu et al. 2024
(arXiv:2406.14066), accepted tokens per second, at every number of decodes.
"""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.acceptance import tokens_per_step
from bestserve.models.speculation import Speculation
from bestserve.models.step.step_time import StepTime

GAIN = 5e-3
"""Relative gain from which the table changes γ: less is within what step times are known to."""


def token_times(step: StepTime, drafting: Speculation, context: float, decodes: Floats) -> Floats:
    """Return s_γ(n) for 0 … most drafts, the most of `drafting` [γ + 1, n] [s/token].

    context : mean context of a decode [tokens]
    """
    rows = []
    for drafts in range(drafting.most + 1):
        own = drafting.fixed(drafts)
        tokens = decodes * (drafts + 1)
        time = step(T=tokens, A=0.0, K=decodes * context, n=tokens) - own.saved(decodes, step)
        time = time + own.draft_time(decodes)
        time = time + drafts * drafting.draft_context * decodes * context
        rows.append(time / float(tokens_per_step(np.array(drafting.acceptance[:drafts]))))
    return np.stack(rows)


def best_schedule(
    step: StepTime, drafting: Speculation, context: float, slots: int
) -> tuple[tuple[int, int], ...]:
    """Return (decodes from which, drafts) with the least time per token at 1 … `slots` decodes."""
    decodes = np.arange(1.0, max(slots, 1) + 1)
    times = token_times(step, drafting, context, decodes)
    rows: list[tuple[int, int]] = []
    best = int(np.argmin(times[:, 0]))
    rows.append((1, best))
    for n in range(1, decodes.size):
        other = int(np.argmin(times[:, n]))
        if times[other, n] < (1 - GAIN) * times[best, n]:
            best = other
            rows.append((n + 1, best))
    return tuple(rows)


def pays_until(times: Floats, drafts: int) -> int:
    """Return the decodes up to which so many drafts are no slower than none; 0: never.

    times : of `token_times` at 1, 2, … decodes
    """
    slower = np.flatnonzero(times[drafts] > times[0])
    return int(slower[0]) if slower.size else times.shape[1]
