"""What drafting does for a strategy: tokens a step, time a token with and without, until where."""

from __future__ import annotations

import math

import numpy as np

from bestserve.catalog.acceptance import acceptance_of
from bestserve.lowering import Lowered
from bestserve.models.acceptance import steps_of
from bestserve.models.queues.requests import prepare
from bestserve.models.speculation_table import pays_until, token_times
from bestserve.results.speculation import Speculated
from bestserve.specs.strategy import Pool


def speculated(lowered: Lowered, pool: Pool, batch: float) -> Speculated | None:
    """Return what a pool that decodes drafts; None if it drafts nothing.

    batch : decodes per lane
    """
    config = lowered.problem.speculative_config
    lane = lowered.pool_result(pool).lane
    if config is None or lane is None or lane.speculation.most == 0:
        return None
    drafting = lane.speculation
    decodes = max(batch, 1.0) if math.isfinite(batch) else 1.0
    law = drafting.law(decodes)
    requests = prepare(lowered.lengths)
    tokens = requests.class_tokens
    steps = steps_of(tokens, law).mean if law.drafts else tokens
    weight = requests.class_weight
    counts = np.arange(1.0, lane.max_num_seqs + 1)
    times = token_times(lane.step, drafting.fixed(drafting.most), requests.context, counts)
    here = min(max(round(decodes), 1), counts.size) - 1
    known = acceptance_of(config)
    return Speculated(
        schedule=drafting.schedule,
        drafts=law.drafts,
        tokens_per_step=float(weight @ tokens) / float(weight @ steps) if tokens.size else 1.0,
        token_time=float(times[law.drafts, here]),
        plain_token_time=float(times[0, here]),
        pays_until=pays_until(times, law.drafts or drafting.most),
        slots=lane.max_num_seqs,
        acceptance=known.chances,
        acceptance_kind=known.kind if known.source != "stated" else "stated",
        bounds=None if known.low is None or known.high is None else (known.low, known.high),
    )
