"""From steps to tokens: what a lane that speculates does to time per output token.

A request of D tokens takes N steps, and its TPOT is the sum of N steps over D. With m, v and κ the
moments of the mean of E[N] steps, s = E[N]/D, and the steps independent of their number,

    mean m·s,   variance v·s² + m²·Var[N]/D²,
    third moment κ·s³ + m³·κ₃[N]/D³ + 3·m·v·E[N]·Var[N]/D³
"""

from __future__ import annotations

from dataclasses import replace

from bestserve.models.queues.requests import Requests
from bestserve.models.queues.tpot.pearson import Unstalled
from bestserve.models.schedulers.engine import LaneLatency


def per_token(found: LaneLatency, requests: Requests) -> LaneLatency:
    """Return a lane's latencies with TPOT per token where they are per step.

    The reading of TPOT as single stalls has no such form and is left out.
    """
    r = requests
    if r.drafting.drafts == 0:
        return found
    m, v, steps, tokens = found.mean, found.variance, r.classes, r.class_tokens
    s = steps / tokens
    alone = found.unstalled
    third = found.third * s**3 + m**3 * r.class_third / tokens**3
    return replace(
        found,
        mean=m * s,
        variance=v * s**2 + m**2 * r.class_spread / tokens**2,
        third=third + 3.0 * m * v * steps * r.class_spread / tokens**3,
        unstalled=Unstalled(
            share=alone.share,
            mean=alone.mean * s,
            variance=alone.variance * s**2 + alone.mean**2 * r.class_spread / tokens**2,
        ),
        low=found.low / (r.drafting.drafts + 1),
        stall_atoms=None,
    )
