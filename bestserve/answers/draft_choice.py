"""Why a strategy drafts as many tokens as it does: what others would carry, and what costs.

Formulas on both sides, so that their common errors cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bestserve.answers.hearing import claimed
from bestserve.answers.speculation import speculated
from bestserve.lowering import Lowered
from bestserve.lowering.speculation import speculates, usual_drafts
from bestserve.models.latencies import Latencies
from bestserve.models.latency import evaluator, stability_rate
from bestserve.models.status import LatencyStatus
from bestserve.results.speculation import DraftChoice
from bestserve.solvers.limits import DRAFTS
from bestserve.specs.strategy import TABLE, Drafts, Strategy

CLOSE = 0.005
"""How exactly the rate is found from which drafts cost [1]."""


def draft_choice(lowered: Lowered, strategy: Strategy) -> DraftChoice | None:
    """Return why a strategy drafts what it does; None where nothing is speculated or known.

    Of a strategy without drafts it is told what the usual number would do.
    """
    config = lowered.problem.speculative_config
    if config is None or strategy.hybrid or lowered.problem.workload.closed:
        return None
    own = strategy.pools[-1].drafts
    chosen = claimed(lowered, strategy)
    if chosen is None:
        return None
    usual = usual_drafts(config)
    drafting = strategy if speculates(config, own) else drafting_as(strategy, usual)
    at = evaluator(lowered.system(drafting))(chosen.goodput)
    batch = at.mean_batch if at.status is LatencyStatus.OK else math.inf
    told = speculated(lowered, drafting.pools[-1], batch)
    if told is None:
        return None
    rivals = _rivals(usual if own is None else own, max(usual, told.drafts))
    carried = {
        drafts: found.goodput / chosen.goodput
        for drafts in rivals
        if (found := claimed(lowered, drafting_as(strategy, drafts))) is not None
    }
    costs_from, running, limits = _costs_from(lowered, drafting)
    return DraftChoice(
        drafts=TABLE if own == TABLE else 0 if own == 0 else told.drafts,
        told=told,
        batch=batch,
        carried=carried,
        costs_from=costs_from,
        running=running,
        limits=limits,
    )


def drafting_as(strategy: Strategy, drafts: Drafts) -> Strategy:
    """Return a strategy whose pools that decode draft so many tokens."""
    return Strategy(
        pools=tuple(
            pool if pool.role == "p" else pool.model_copy(update={"drafts": drafts})
            for pool in strategy.pools
        )
    )


def _rivals(own: Drafts, most: int) -> tuple[int, ...]:
    """Return none and the numbers next to one's own, of those that `rank` tries."""
    if not isinstance(own, int):
        return (0, most)
    tried = sorted({d for d in DRAFTS if isinstance(d, int) and d <= most} | {most})
    below = [d for d in tried if 0 < d < own][-1:]
    above = [d for d in tried if d > own][:1]
    return tuple(d for d in (0, *below, *above) if d != own)


def _costs_from(lowered: Lowered, drafting: Strategy) -> tuple[float, float, tuple[float, float]]:
    """Return from which rate on requests take longer with drafts than without [req/s].

    With the decodes of a lane there, and the saturated rates with and without [req/s]. Infinite
    where drafts help as far as the strategy without them goes, 0 where they never do.
    """
    systems = lowered.system(drafting), lowered.system(drafting_as(drafting, 0))
    limits = stability_rate(systems[0]), stability_rate(systems[1])
    with_drafts, without = (evaluator(system) for system in systems)

    def longer(rate: float) -> bool:
        return _response(with_drafts, rate) > _response(without, rate)

    high = (1 - CLOSE) * (limits[1] if limits[0] >= limits[1] else limits[0])
    low = 0.01 * high
    if longer(low):
        return 0.0, 0.0, limits
    if limits[0] >= limits[1] and not longer(high):
        return math.inf, math.inf, limits
    while high > low * (1 + CLOSE):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if longer(middle) else (middle, high)
    return low, with_drafts(low).mean_batch, limits


def _response(evaluate: Callable[[float], Latencies], rate: float) -> float:
    """Return the mean time from arrival to the last token [s]; infinite beyond saturation."""
    found = evaluate(rate)
    return found.e2el.mean if found.status is LatencyStatus.OK else np.inf
