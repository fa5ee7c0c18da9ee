"""Chunked prefill: decodes first, prompts fill what is left of the budget, the last one split."""

from __future__ import annotations

from bestserve.models.schedulers import shared_steps
from bestserve.models.schedulers.engine import Engine, LaneLatency


def capacity(engine: Engine) -> float:
    """Return the saturated rate of the lane [1/s]."""
    return shared_steps.capacity(engine, split=True)


def evaluate(engine: Engine, rate: float) -> LaneLatency | None:
    """Return TTFT and TPOT at `rate` [1/s] of Poisson arrivals; `None` if not stable."""
    return shared_steps.evaluate(engine, rate, split=True)
