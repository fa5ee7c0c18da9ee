"""90 % intervals of a prediction: where a measured run would lie.

The widths are those of `intervals`: what the constants' uncertainty does to this answer, and how
far predictions for deployments that nothing was fitted to were off. A calibration record narrows
the first part to its own standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from bestserve.answers.evaluate import evaluator
from bestserve.answers.factors import apply_factors, spreads_of, varied
from bestserve.answers.intervals import intervals, propagated
from bestserve.answers.predict import predict_strategy
from bestserve.lowering import Lowered
from bestserve.models.latencies import Latencies
from bestserve.models.status import LatencyStatus
from bestserve.results.document import Summary
from bestserve.results.prediction import Prediction
from bestserve.specs.strategy import Strategy

STATISTICS = ("mean", "p50", "p90", "p99")
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
Figures = dict[str, float]
Interval = tuple[float, float]


def prediction_intervals(
    lowered: Lowered,
    strategy: Strategy,
    found: Prediction,
    seen: Mapping[str, Latencies] | None = None,
) -> dict[str, Interval]:
    """Return the 90 % interval of each latency by name, "ttft_mean" to "tpot_p99" [s].

    seen : latencies at the rate with each constant moved, as `errors.moved` returns them

    The upper end is infinite where the rate could not be sustained with constants one standard
    deviation slower. Empty for answers without latencies and for the user's own step times, whose
    uncertainty is not known here.
    """
    if found.ttft is None or found.tpot is None or lowered.problem.step_time is not None:
        return {}
    moe = lowered.model.architecture.is_moe
    values = {
        **_figures("ttft", _by_name(found.ttft)),
        **_figures("tpot", _by_name(found.tpot)),
    }
    closed = lowered.problem.workload.closed

    def run(factors: Mapping[str, float]) -> Figures:
        if seen:
            return _stationary(seen[next(iter(factors), "")])
        moved = apply_factors(lowered, factors)
        if closed:
            again = predict_strategy(moved, strategy, None, "auto")
            if again.ttft is None or again.tpot is None:
                return {}
            return {
                **_figures("ttft", _by_name(again.ttft)),
                **_figures("tpot", _by_name(again.tpot)),
            }
        return _stationary(evaluator(moved.system(strategy))(found.request_rate))

    # The formulas, or short runs that share their random numbers, tell how far constants move a
    # long run's answer, too.
    base = values if closed else run({})
    factors = varied(lowered, strategy.disaggregated)
    variance = propagated(base, run, factors, spreads_of(lowered))
    kind = "disaggregated" if strategy.disaggregated else _kind(lowered)
    found_at = intervals(values, variance, kind, moe)
    return {
        name.removesuffix("_ms"): (1e-3 * float(low), 1e-3 * float(high))
        for name, (low, high) in found_at.items()
    }


def _kind(lowered: Lowered) -> str:
    arrivals = lowered.arrivals
    if arrivals.kind != "closed":
        return "open"
    return "burst" if arrivals.concurrency >= arrivals.num_prompts > 1 else "closed"


def _stationary(found: Latencies) -> Figures:
    """Return stationary figures [ms]; infinite beyond saturation."""
    out: Figures = {}
    for metric in ("ttft", "tpot"):
        law = getattr(found, metric)
        known = found.status is LatencyStatus.OK
        by_name = {"mean": law.mean if known else math.inf}
        by_name |= {s: law.quantile(p) if known else math.inf for s, p in SHARES.items()}
        out |= _figures(metric, by_name)
    return out


def _by_name(summary: Summary) -> dict[str, float]:
    return {name: getattr(summary, name) for name in STATISTICS}


def _figures(metric: str, by_name: Mapping[str, float]) -> Figures:
    return {f"{metric}_{name}_ms": 1e3 * value for name, value in by_name.items()}
