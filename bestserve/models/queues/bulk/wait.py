"""Token-budget bulk service with vacations: waiting and service of prompts.

A server that starts a step with V prompt tokens waiting takes x(V) = V of them if V ≤ M and
M_E ≤ M otherwise (M the token budget; M_E what whole prompts fill of it on average, M itself when
prompts are split), in time f(x); whole prompts of random length fill a random number of tokens
(`whole_prompts`). With V = 0 it runs a decode-only step (a vacation) or stands
idle. Poisson arrivals make V at step starts a Markov chain,

    V' = V − x(V) + CP(λ f(x(V))),

CP a compound Poisson number of tokens, whose rows are FFTs of exp(λ f (φ − 1)), φ the transform of
the prompt length. Beyond M the chain is a random walk, so its far end is closed by the geometric
tail of that walk. A tagged arrival meets a step with probability in proportion to π(V) f(V); it
and all that arrive in that step wait at the next boundary (Y tokens), independently of how much
of the step has elapsed.

While something decodes, every step is also a token of each decode. The steps that follow a first
token start from the law of V that this request leaves, not from the stationary one; the solution
h of Poisson's equation (I − P) h = f − f̄ gives what that adds to their sum.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.queues.bulk.chain import Chain, hidden
from bestserve.models.queues.bulk.server import BulkServer, BulkWait, Pace, Prompts, Stalls, StepLaw
from bestserve.models.queues.bulk.tagged import Tagged

__all__ = [
    "BulkServer",
    "BulkWait",
    "Pace",
    "Prompts",
    "Stalls",
    "StepLaw",
    "bulk_load",
    "bulk_pace",
    "bulk_wait",
]

POINTS, WHOLE_POINTS = 128, 100
"""States kept, and of whole prompts, whose chain has no narrow band: doubling them moves P90 of
TTFT by 0.3 % at the median."""

HIDDEN = 0.02
"""Chance that a prompt is taken for none from which stalls have a chain of their own."""


def bulk_load(server: BulkServer, rate: float, tokens: float) -> float:
    """Return λ E[l] f(M_E)/M_E, the share of time that full steps would need [1]."""
    full = float(server.step(np.array([server.packed]))[0])
    return rate * tokens * full / server.packed


def bulk_wait(
    server: BulkServer,
    rate: float,
    prompts: Prompts,
    points: int | None = None,
    with_steps: bool = False,
    pauses: Floats | None = None,
) -> BulkWait | None:
    """Return the wait under Poisson arrivals, or `None` when the load is 1 or more.

    rate : λ > 0 [1/s]; with_steps : also analyse the steps that follow a first token; pauses : also
    what stalls do after steps without prompts of these lengths [m, s]
    """
    load = bulk_load(server, rate, prompts.mean)
    if load >= 1.0:
        return None
    points = points or (POINTS if server.cut else WHOLE_POINTS)
    chain = Chain(server, rate, prompts, points)
    found = Tagged(chain).solve(load, with_steps, pauses)
    if pauses is None or hidden(prompts, chain.d) <= HIDDEN:
        return found
    seen = Tagged(Chain(server, rate, prompts, points, raised=True)).solve(load, False, pauses)
    return replace(found, busy=seen.busy, tau=seen.tau, spacing=seen.spacing, stalls=seen.stalls)


def bulk_pace(server: BulkServer, rate: float, prompts: Prompts, points: int = 48) -> Pace | None:
    """Return only how steps follow each other, on a coarser grid; `None` when not stable.

    Full steps of whole prompts are taken as equal: that matters for their spread only.
    """
    if bulk_load(server, rate, prompts.mean) >= 1.0:
        return None
    if not server.cut:
        server = replace(server, cut=True)
    return Chain(server, rate, prompts, points, raised=True).flow().pace
