"""How far predictions are from measurements: relative errors and what a group of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats


def relative_errors(
    predicted: Mapping[str, float], measured: Mapping[str, float]
) -> dict[str, float]:
    """Return predicted/measured − 1 of the figures that both have; measured zeros are left out.

    >>> relative_errors({"ttft_mean_ms": 110.0}, {"ttft_mean_ms": 100.0, "tpot_mean_ms": 9.0})
    {'ttft_mean_ms': 0.1...}
    """
    return {
        name: predicted[name] / value - 1.0
        for name, value in measured.items()
        if value > 0 and name in predicted
    }


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """Relative errors of one figure over a group of rows.

    n : rows; median, p90 : of the absolute error [1]; bias : median of the signed error [1]
    rank_correlation : Spearman's, of predictions with measurements [1]; None below 4 rows
    """

    n: int
    median: float
    p90: float
    bias: float
    rank_correlation: float | None


def summarise(pairs: Sequence[tuple[float, float]]) -> ErrorSummary:
    """Return the summary of (predicted, measured) pairs; at least one, measured positive.

    >>> summarise([(1.1, 1.0), (0.8, 1.0), (3.0, 3.0)]).median
    0.1...
    """
    values = np.asarray(pairs, dtype=np.float64)
    errors = values[:, 0] / values[:, 1] - 1.0
    return ErrorSummary(
        n=len(values),
        median=float(np.median(np.abs(errors))),
        p90=float(np.percentile(np.abs(errors), 90)),
        bias=float(np.median(errors)),
        rank_correlation=spearman(values[:, 0], values[:, 1]),
    )


def spearman(left: Floats, right: Floats) -> float | None:
    """Return Spearman's rank correlation, ties at their mean rank; None if it has no meaning."""
    if len(left) < 4:
        return None
    ranks = [_ranks(left), _ranks(right)]
    spread = [float(r.std()) for r in ranks]
    if min(spread) == 0.0:
        return None
    centred = [r - r.mean() for r in ranks]
    return float((centred[0] * centred[1]).mean() / (spread[0] * spread[1]))


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle = ends - (counts - 1) / 2
    ranks: Floats = middle[inverse].astype(np.float64)
    return ranks
