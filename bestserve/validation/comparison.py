"""What a comparison returns: each row with its status, each group with its errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bestserve.results.document import Document, plain
from bestserve.validation.attained import Attained
from bestserve.validation.errors import ErrorSummary, relative_errors, summarise
from bestserve.validation.outcome import Outcome

HEADLINE = ("ttft_mean_ms", "tpot_mean_ms")
"""Figures that stand for TTFT and TPOT; where a row has no mean, its median does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowComparison:
    """One measured row and its prediction.

    id : the file's, or its line; status : why it was or was not predicted; reason : in words
    predicted, measured : figures by tidy name (latencies [ms], throughputs [1/s])
    intervals : 90 % prediction interval of each predicted figure, (low, high) in its unit
    method : "analytic" or "simulated", "" if not predicted; notes : rules that filled gaps
    model, gpu, engine, regime, source : what the row is grouped by
    layout : how it was deployed, "2m-tp4"; gpus : how many GPUs that takes
    workload : lengths and load, equal for rows that differ in their layout only
    clients : of a closed loop, else 0; output_len : mean [tokens]
    impossible : why no hardware can have measured this as described, else ""; such rows are in no
        summary
    objective : whether the run met the objective that it states, (predicted, measured), or None
    goodput : (predicted, measured) [req/s] of a run whose rate was the most that met its objectives
    attained : shares of requests within the objectives that were asked about, if any were
    """

    id: str
    status: Outcome
    reason: str
    predicted: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    method: str = ""
    notes: tuple[str, ...] = ()
    model: str = ""
    gpu: str = ""
    engine: str = ""
    regime: str = ""
    source: str = ""
    layout: str = ""
    gpus: int = 0
    workload: str = ""
    clients: int = 0
    output_len: float = 0.0
    moe: bool = False
    impossible: str = ""
    objective: tuple[bool, bool] | None = None
    goodput: tuple[float, float] | None = None
    attained: Attained | None = None

    @property
    def errors(self) -> dict[str, float]:
        """Relative errors of the figures that prediction and measurement share [1]."""
        return relative_errors(self.predicted, self.measured)

    def headline(self, metric: str) -> tuple[float, float] | None:
        """Return (predicted, measured) of "ttft" or "tpot": the mean, or else the median [ms]."""
        for name in (f"{metric}_mean_ms", f"{metric}_p50_ms"):
            if name in self.predicted and self.measured.get(name, 0.0) > 0:
                return self.predicted[name], self.measured[name]
        return None

    def plain(self) -> dict[str, Any]:
        """Return the row as JSON types."""
        return {
            "id": self.id,
            "status": self.status.value,
            "reason": self.reason,
            "method": self.method,
            "model": self.model,
            "gpu": self.gpu,
            "engine": self.engine,
            "regime": self.regime,
            "layout": self.layout,
            "predicted": dict(self.predicted),
            "measured": dict(self.measured),
            "intervals": {k: list(v) for k, v in self.intervals.items()},
            "notes": list(self.notes),
            "impossible": self.impossible,
            "objective": list(self.objective) if self.objective else None,
            "goodput": list(self.goodput) if self.goodput else None,
            "attained": self.attained.plain() if self.attained else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which layout a group's predictions would choose, against the measured best.

    cases : workloads that were measured on two or more layouts; right : how often the predicted
    best is the measured best; regret_mean, regret_max : throughput per GPU lost [1]
    """

    cases: int
    right: int
    regret_mean: float
    regret_max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows of one model on one GPU and engine under one regime.

    metrics : error summary by figure ("ttft", "tpot": mean, or median where no mean is stated)
    """

    model: str
    gpu: str
    engine: str
    regime: str
    n: int
    metrics: Mapping[str, ErrorSummary]
    choice: Choice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Document):
    """Predictions against measurements.

    rows : in the order of the files; groups : by model, GPU, engine and regime
    overall : error summaries over all predicted rows; coverage : share of measured figures inside
    their 90 % interval [1]; warnings : what the readers said; seconds : wall time
    """

    rows: tuple[RowComparison, ...]
    groups: tuple[Group, ...]
    overall: Mapping[str, ErrorSummary]
    coverage: float | None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def content(self) -> dict[str, Any]:
        """Return rows, groups and the overall figures as plain data."""
        return {
            "predicted": self.predicted,
            "total": len(self.rows),
            "statuses": dict(self.statuses),
            "overall": plain(dict(self.overall)),
            "coverage": self.coverage,
            "groups": [plain(g) for g in self.groups],
            "rows": [plain(r.plain()) for r in self.rows],
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }

    @property
    def predicted(self) -> int:
        """Rows that were predicted."""
        return sum(r.status is Outcome.PREDICTED for r in self.rows)

    @property
    def statuses(self) -> Counter[str]:
        """How many rows have which status."""
        return Counter(r.status.value for r in self.rows)

    def records(self) -> list[dict[str, Any]]:
        """Return one row per group, errors in per cent."""
        return [group_record(g) for g in self.groups]

    def row_records(self) -> list[dict[str, Any]]:
        """Return one flat row per measured row."""
        out = []
        for row in self.rows:
            record: dict[str, Any] = {
                "id": row.id,
                "status": row.status.value,
                "method": row.method,
                "model": row.model,
                "gpu": row.gpu,
                "engine": row.engine,
                "regime": row.regime,
                "layout": row.layout,
            }
            for metric in ("ttft", "tpot"):
                pair = row.headline(metric)
                record[f"{metric}_predicted_ms"] = pair[0] if pair else None
                record[f"{metric}_measured_ms"] = pair[1] if pair else None
                record[f"{metric}_error_percent"] = 100 * (pair[0] / pair[1] - 1) if pair else None
            if row.attained is not None:
                record |= row.attained.record()
            record["reason"] = row.impossible
            if row.status is not Outcome.PREDICTED:
                record["reason"] = row.reason
            out.append(record)
        return out

    def explain(self) -> str:
        """Return what was predicted, how well, and what was left out and why."""
        lines = [f"{self.predicted} of {len(self.rows)} rows predicted in {self.seconds:.0f} s"]
        for metric, summary in self.overall.items():
            lines.append(
                f"  {spoken(metric)}: median error {summary.median:.1%}, p90 {summary.p90:.0%}, "
                f"bias {summary.bias:+.1%} over {summary.n} rows"
            )
        if self.coverage is not None:
            lines.append(f"  {self.coverage:.0%} of the figures lie in their 90 % interval")
        stated = [r.objective for r in self.rows if r.objective is not None]
        if stated:
            right = sum(predicted == measured for predicted, measured in stated)
            lines.append(f"  objectives met or missed as measured: {right} of {len(stated)}")
        knees = [r.goodput for r in self.rows if r.goodput is not None]
        if knees:
            errors = summarise(knees)
            lines.append(
                f"  goodput at stated objectives: median error {errors.median:.1%}, "
                f"bias {errors.bias:+.1%} over {errors.n} rows"
            )
        lines += [f"  left out, {r.id}: {r.impossible}" for r in self.rows if r.impossible][:8]
        reasons = Counter(
            r.reason for r in self.rows if r.status is not Outcome.PREDICTED
        ).most_common(8)
        lines += [f"  {count} not predicted: {reason}" for reason, count in reasons]
        return "\n".join(lines)


def spoken(metric: str) -> str:
    """Return the name of a metric as a person says it.

    >>> spoken("ttft"), spoken("tpot_p99_ms"), spoken("out_tok_throughput")
    ('TTFT', 'P99 TPOT', 'output throughput')
    """
    throughputs = {"out_tok_throughput": "output throughput", "req_throughput": "request rate"}
    if metric in throughputs:
        return throughputs[metric]
    latency, _, statistic = metric.removesuffix("_ms").partition("_")
    return f"{statistic.upper() if statistic != 'mean' else 'mean'} {latency.upper()}".strip()


def group_record(group: Group) -> dict[str, Any]:
    """Return a group as a flat row, errors in per cent."""
    record: dict[str, Any] = {
        "model": group.model,
        "gpu": group.gpu,
        "engine": group.engine,
        "regime": group.regime,
        "n": group.n,
    }
    for metric in ("ttft", "tpot"):
        summary = group.metrics.get(metric)
        record[f"{metric}_median_percent"] = 100 * summary.median if summary else None
        record[f"{metric}_p90_percent"] = 100 * summary.p90 if summary else None
        record[f"{metric}_bias_percent"] = 100 * summary.bias if summary else None
        record[f"{metric}_rank_correlation"] = summary.rank_correlation if summary else None
    choice = group.choice
    record["choices"] = f"{choice.right}/{choice.cases}" if choice else None
    record["regret_percent"] = 100 * choice.regret_mean if choice else None
    return record


def metric_summaries(rows: list[RowComparison]) -> dict[str, ErrorSummary]:
    """Return error summaries of TTFT, TPOT and of every percentile and throughput measured."""
    out: dict[str, ErrorSummary] = {}
    for metric in ("ttft", "tpot"):
        pairs = [pair for row in rows if (pair := row.headline(metric)) is not None]
        if pairs:
            out[metric] = summarise(pairs)
    names = sorted({name for row in rows for name in row.errors} - set(HEADLINE))
    for name in names:
        pairs = [
            (row.predicted[name], row.measured[name])
            for row in rows
            if name in row.predicted and row.measured.get(name, 0.0) > 0
        ]
        out[name] = summarise(pairs)
    return out
