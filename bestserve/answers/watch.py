"""A running server against the models: how far from its goodput, as predicted, what to change."""

from __future__ import annotations

from bestserve.answers.goodput import goodput_of
from bestserve.answers.predict import predict_strategy
from bestserve.answers.prediction_intervals import prediction_intervals
from bestserve.errors import BestserveError, InputError
from bestserve.lowering import Lowered, lower
from bestserve.models.step.engine import EngineConstants
from bestserve.readers.metrics.live import LiveMetrics
from bestserve.results.watched import Advice, Agreement, Watched
from bestserve.specs.lengths import Fixed, LengthLaw, LogNormal
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import ROLE_NAMES, Pool, Strategy
from bestserve.specs.workload import Workload

NARROW = 0.03
"""Coefficient of variation below which lengths count as one."""

FULL = 0.95
"""Share of the cache in use from which it is called full."""

WORTH = 0.02
"""Gain of a limit that is worth a restart [1]."""


def workload_of(live: LiveMetrics) -> Workload:
    """Return the workload that a server saw, as every command takes it.

    Lengths are lognormal with the exact mean and the spread that fits the buckets; gaps are gamma
    where their variability was seen, else Poisson. Raises InputError without lengths.
    """
    if live.input_len is None or live.output_len is None:
        raise InputError(
            f"{live.server}'s metrics state no lengths of requests; give --input-len and "
            "--output-len, or look while requests end"
        )
    shape = 1 / live.arrival_scv if live.arrival_scv else 1.0
    return Workload(
        input_len=_law(live.input_len.mean, live.input_len.cv()),
        output_len=_law(live.output_len.mean, live.output_len.cv()),
        burstiness=min(max(round(shape, 3), 0.05), 100.0),
        prefix_cache_hit=min(round(live.prefix_cache_hit or 0.0, 4), 0.99),
    )


def _law(mean: float, cv: float) -> LengthLaw:
    if cv < NARROW or mean < 2:
        return Fixed(max(1, round(mean)))
    return LogNormal(max(mean, 1.0), cv=round(cv, 3))


def watched(live: LiveMetrics, problem: Problem, strategy: str | Strategy) -> Watched:
    """Return how a strategy that serves `live` stands to its goodput under the problem's workload.

    Raises as `goodput`; InputError if the metrics state no rate.
    """
    if live.request_rate is None:
        raise InputError("the metrics state no rate; look twice, or give --window")
    parsed = Strategy.parse(strategy)
    lowered = lower(problem)
    best = goodput_of(lowered, parsed)
    return Watched(
        live=live,
        problem=problem,
        strategy=str(parsed),
        goodput=best.goodput,
        binding=best.binding.value,
        agreement=_agreement(live, lowered, parsed),
        advice=_advice(lowered, parsed),
        observed=_observed(live),
    )


def _agreement(live: LiveMetrics, lowered: Lowered, strategy: Strategy) -> tuple[Agreement, ...]:
    """Return predicted against measured means, with where 90 % of runs would lie."""
    rate = live.request_rate
    if not rate:
        return ()
    found = predict_strategy(lowered, strategy, rate, "auto")
    per_token = live.tpot or live.itl
    intervals = prediction_intervals(lowered, strategy, found)
    rows = []
    for name, seen, said in (("TTFT", live.ttft, found.ttft), ("TPOT", per_token, found.tpot)):
        if seen is not None and said is not None:
            reach = intervals.get(f"{name.lower()}_mean")
            rows.append(Agreement(name, seen.mean, said.mean, reach))
    return tuple(rows)


def _advice(lowered: Lowered, strategy: Strategy) -> Advice | None:
    """Return the one limit whose halving or doubling carries most more, by the formulas."""
    today = _carried(lowered, strategy)
    best: Advice | None = None
    for at, pool in enumerate(strategy.pools):
        for field, now in _limits(lowered.engine, lowered.problem, pool).items():
            for value in (now // 2, now * 2):
                changed = pool.model_copy(update={field: value}) if value >= 1 else pool
                pools = tuple(changed if i == at else p for i, p in enumerate(strategy.pools))
                gain = _carried(lowered, Strategy(pools=pools)) - today
                if today and gain > WORTH * today and (best is None or gain > best.gain):
                    best = Advice(ROLE_NAMES[pool.role], field, now, value, gain)
    return best


def _limits(engine: EngineConstants, problem: Problem, pool: Pool) -> dict[str, int]:
    """Return the limits that matter in a role: tokens where prompts are read, slots elsewhere."""
    tokens = (
        pool.max_num_batched_tokens
        or problem.max_num_batched_tokens
        or engine.max_num_batched_tokens
    )
    seqs = pool.max_num_seqs or problem.max_num_seqs or engine.max_num_seqs
    found = {"max_num_batched_tokens": tokens, "max_num_seqs": seqs}
    return {
        k: v for k, v in found.items() if pool.role == "m" or (pool.role == "p") == ("tok" in k)
    }


def _carried(lowered: Lowered, strategy: Strategy) -> float:
    """Return a strategy's goodput by the formulas; 0 where it has none."""
    try:
        return goodput_of(lowered, strategy, "analytic").goodput
    except BestserveError:
        return 0.0


def _observed(live: LiveMetrics) -> tuple[str, ...]:
    """Return what the server's own figures say of its limits."""
    said = []
    if live.kv_usage is not None and live.kv_usage >= FULL:
        said.append(
            f"the KV cache is {live.kv_usage:.0%} full: lower max_num_seqs, or add replicas"
        )
    if live.preemptions:
        said.append(
            f"{live.preemptions:.3g} sequences a second are evicted and computed again: lower "
            "max_num_seqs"
        )
    if live.waiting and live.waiting >= 1 and (live.kv_usage or 0.0) < FULL:
        said.append(
            f"{live.waiting:.3g} requests wait beside a cache {live.kv_usage or 0.0:.0%} full: "
            "steps, not memory, hold them back"
        )
    return tuple(said)
