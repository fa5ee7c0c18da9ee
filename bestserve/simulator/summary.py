"""Means and percentiles with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.special import student_quantile

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
BATCHES = 20
"""Batches of consecutive requests that one run's intervals come from."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of one latency over requests [s]; `nan` where no request has it.

    half_width : of the 95 % interval of each statistic, in the order of `STATISTICS` [s]
    """

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    half_width: tuple[float, float, float, float, float]

    def interval(self, statistic: str) -> tuple[float, float]:
        """Return the 95 % confidence interval of "mean", "p50", "p90", "p95" or "p99" [s]."""
        value = float(getattr(self, statistic))
        half = self.half_width[STATISTICS.index(statistic)]
        return value - half, value + half


def statistics(values: Floats) -> Floats:
    """Return mean, P50, P90, P95, P99 along the last axis […, 5]; `nan` for no values."""
    if values.shape[-1] == 0:
        return np.full((*values.shape[:-1], 5), np.nan)
    percentiles = np.percentile(values, (50, 90, 95, 99), axis=-1)
    return np.concatenate((values.mean(axis=-1)[None], percentiles)).T


def student_t(freedom: int, confidence: float = 0.95) -> float:
    """Return the two-sided quantile of Student's t [1]; inf without degrees of freedom."""
    if freedom < 1:
        return float("inf")
    return student_quantile(freedom, 0.5 + confidence / 2)


def _summary(count: int, point: Floats, half: Floats) -> Summary:
    mean, p50, p90, p95, p99 = (float(p) for p in point)
    a, b, c, d, e = (float(h) for h in half)
    return Summary(count, mean, p50, p90, p95, p99, (a, b, c, d, e))


def summarise(values: Floats) -> Summary:
    """Summarise one run: intervals from means over batches of consecutive requests.

    Neighbours share queues, so formulas for independent samples would be several times too
    narrow (Law, Simulation Modeling and Analysis, §9.5.3).
    """
    kept = values[np.isfinite(values)]
    point = statistics(kept)
    half = np.full(5, np.nan)
    if len(kept) >= 2 * BATCHES:
        # the first ones have one request more, as in `np.array_split`
        size, longer = divmod(len(kept), BATCHES)
        first = longer * (size + 1)
        per_batch = np.concatenate(
            (
                statistics(kept[:first].reshape(longer, size + 1)),
                statistics(kept[first:].reshape(BATCHES - longer, size)),
            )
        )
        half = student_t(BATCHES - 1) * per_batch.std(axis=0, ddof=1) / np.sqrt(BATCHES)
    return _summary(len(kept), point, half)


def combine(rows: Floats, count: int) -> Summary:
    """Summarise independent replications; rows float64[replications, 5] as from `statistics`."""
    n = len(rows)
    point = rows.mean(axis=0)
    half = student_t(n - 1) * rows.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(5, np.nan)
    return _summary(count, point, half)
