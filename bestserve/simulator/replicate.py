"""Independent replications of one run, for confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestserve.errors import InputError
from bestserve.models.system import System, Target
from bestserve.results.document import Document
from bestserve.simulator.inputs import Requests
from bestserve.simulator.result import summary_record
from bestserve.simulator.run import simulate
from bestserve.simulator.summary import Summary, combine, statistics, student_t

METRICS = ("ttft", "tpot", "e2el", "queue_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over replications with its 95 % confidence interval (Student's t)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Replications(Document):
    """What independent runs of one system agree on.

    ttft, tpot, e2el, queue_time : statistics with intervals over replications [s]
    throughput : completed requests per second over the whole run [req/s]
    attainment : share of requests meeting the target jointly [1]; None without a target
    seeds : of the runs; any of them can be repeated with `simulate(seed=…)`
    """

    ttft: Summary
    tpot: Summary
    e2el: Summary
    queue_time: Summary
    throughput: Estimate
    attainment: Estimate | None
    seeds: tuple[int, ...]

    def records(self) -> list[dict[str, Any]]:
        """Return one row per latency: statistics and the half-widths of their 95 % intervals."""
        return [summary_record(metric, getattr(self, metric)) for metric in METRICS]


def replication_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Return `count` unrelated seeds, the first of which is `seed`."""
    if count < 1:
        raise InputError(f"replications = {count} must be ≥ 1")
    others = np.random.SeedSequence(seed).generate_state(count - 1, np.uint64)
    return (seed, *(int(s) for s in others))


def estimate(values: list[float]) -> Estimate:
    """Return mean and 95 % interval of independent values; the interval is nan for one."""
    sample = np.array(values)
    value = float(sample.mean())
    if len(sample) < 2:
        return Estimate(value=value, low=float("nan"), high=float("nan"))
    half = student_t(len(sample) - 1) * float(sample.std(ddof=1)) / float(np.sqrt(len(sample)))
    return Estimate(value=value, low=value - half, high=value + half)


def replicate(
    system: System,
    rate: float | None = None,
    replications: int = 8,
    *,
    requests: int = 20000,
    seed: int = 0,
    warmup: float | None = None,
    cooldown: float | None = None,
    given: Requests | None = None,
    target: Target | None = None,
    progress: Callable[[str], None] | None = None,
) -> Replications:
    """Simulate `replications` times with unrelated seeds; other arguments as `simulate`.

    progress : is told how far it is
    """
    seeds = replication_seeds(seed, replications)
    rows: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    count = 0
    throughput, attainment = [], []
    for done, each in enumerate(seeds):
        if progress is not None:
            progress(f"run {done + 1} of {replications}")
        result = simulate(
            system,
            rate,
            requests=requests,
            seed=each,
            warmup=warmup,
            cooldown=cooldown,
            given=given,
        )
        for metric in METRICS:
            values = getattr(result, metric)[result.kept]
            rows[metric].append(statistics(values[np.isfinite(values)]))
        count += int(np.count_nonzero(result.kept))
        throughput.append(result.throughput)
        if target is not None:
            attainment.append(result.attainment(target))
    return Replications(
        **{metric: combine(np.array(rows[metric]), count) for metric in METRICS},
        throughput=estimate(throughput),
        attainment=estimate(attainment) if target is not None else None,
        seeds=seeds,
    )
