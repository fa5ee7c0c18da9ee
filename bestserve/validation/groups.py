"""Errors by model, GPU, engine and regime, and how well the predictions choose a layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from bestserve.validation.comparison import Choice, Group, RowComparison, metric_summaries
from bestserve.validation.outcome import Outcome

Key = tuple[str, str, str, str]

REPEATS = 0.01
"""Difference of the same run again on the same server [1]."""


def group_key(row: RowComparison) -> Key:
    """Return (model, GPU, engine, regime)."""
    return row.model, row.gpu, row.engine, row.regime


def grouped(rows: Iterable[RowComparison]) -> dict[Key, list[RowComparison]]:
    """Return the predicted rows by group, groups sorted by name."""
    out: dict[Key, list[RowComparison]] = defaultdict(list)
    for row in rows:
        if row.status is Outcome.PREDICTED:
            out[group_key(row)].append(row)
    return dict(sorted(out.items()))


def summarise_groups(rows: Iterable[RowComparison]) -> tuple[Group, ...]:
    """Return the groups of the predicted rows with their errors."""
    return tuple(
        Group(
            model=model,
            gpu=gpu,
            engine=engine,
            regime=regime,
            n=len(members),
            metrics=metric_summaries(members),
            choice=choice_of(members),
        )
        for (model, gpu, engine, regime), members in grouped(rows).items()
    )


def choice_of(rows: list[RowComparison]) -> Choice | None:
    """Return how well predictions choose among layouts measured under the same workload.

    The best layout has the most completed requests per second and GPU; one within `REPEATS` of it
    is as good. None if no workload was measured on two layouts.
    """
    cases: dict[str, list[tuple[float, float]]] = defaultdict(list)
    layouts: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        scores = rate_per_gpu(row, row.predicted), rate_per_gpu(row, row.measured)
        if scores[0] is not None and scores[1] is not None:
            cases[row.workload].append((scores[0], scores[1]))
            layouts[row.workload].add(row.layout)
    regrets = []
    for workload, scores_of in cases.items():
        if len(layouts[workload]) < 2:
            continue
        chosen = max(scores_of)[1]
        best = max(measured for _, measured in scores_of)
        regrets.append(best / chosen - 1.0)
    if not regrets:
        return None
    return Choice(
        cases=len(regrets),
        right=sum(r < REPEATS for r in regrets),
        regret_mean=sum(regrets) / len(regrets),
        regret_max=max(regrets),
    )


def rate_per_gpu(row: RowComparison, figures: Mapping[str, float]) -> float | None:
    """Return completed requests per second and GPU, measured or from a closed loop's latencies.

    A client of a closed loop completes 1/(TTFT + (output − 1)·TPOT) requests per second.
    """
    if not row.gpus:
        return None
    rate = figures.get("req_throughput")
    if rate:
        return rate / row.gpus
    ttft = figures.get("ttft_mean_ms", figures.get("ttft_p50_ms"))
    tpot = figures.get("tpot_mean_ms", figures.get("tpot_p50_ms"))
    if not row.clients or ttft is None or tpot is None:
        return None
    latency = 1e-3 * (ttft + max(row.output_len - 1.0, 0.0) * tpot)
    return row.clients / latency / row.gpus if latency > 0 else None
