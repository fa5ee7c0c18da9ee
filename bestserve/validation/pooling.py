"""Figures of runs that differ in their seed only, as their client sees them, and what they tell."""

from __future__ import annotations

import math

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.system import System
from bestserve.simulator import SimulationResult
from bestserve.validation.client_view import seen_by_client
from bestserve.validation.protocol import Protocol

HIT, GROWTH = "prefix_hit", "growth"
"""What a simulated run tells beside its figures: share of the prompt tokens found, and by how much
TTFT grew."""

GROWING, QUEUED = 3.0, 1.0
"""Growth of TTFT from which a finite run is called unstable [1], and TTFT from which there is a
queue at all [s]."""


def growth(run: SimulationResult) -> float:
    """Return the mean TTFT of the last third of a run's requests over that of the first [1].

    0 where the last third waits for less than `QUEUED`.
    """
    ttft = run.ttft[run.kept]
    third = len(ttft) // 3
    if third == 0 or float(ttft[-third:].mean()) < QUEUED:
        return 0.0
    return float(ttft[-third:].mean() / ttft[:third].mean())


def pooled(runs: list[SimulationResult], system: System, protocol: Protocol) -> dict[str, float]:
    """Return the figures of runs that differ in their seed only, as their client sees them.

    Percentiles are means over runs, as a client sees one run; throughputs are steady ones.
    """
    out: dict[str, float] = {}
    seen = [seen_by_client(run, system, protocol) for run in runs]
    for name in ("ttft", "tpot"):
        columns: list[Floats] = []
        for one in seen:
            values = getattr(one, name)
            values = values[np.isfinite(values)]
            if values.size:
                quantiles = np.percentile(values, (50, 90, 99))
                columns.append(np.array([values.mean(), *quantiles]))
        if columns:
            for label, value in zip(("mean", "p50", "p90", "p99"), np.mean(columns, axis=0),
                                    strict=True):  # fmt: skip
                out[f"{name}_{label}_ms"] = 1e3 * float(value)
    if math.isfinite(protocol.longest_counted):
        # The rate of the requests that count; how many tokens the lost ones had got is not stated.
        rates = [one.count / run.duration for one, run in zip(seen, runs, strict=True)]
        out["req_throughput"] = float(np.mean(rates))
        return out
    if not (protocol.closed or protocol.steady):
        out[GROWTH] = float(np.mean([growth(run) for run in runs]))
    if system.caching is not None:
        out[HIT] = float(np.mean([run.hit_share for run in runs]))
        # of the run alone, not of the warm-up before it
        spans = [run.last_token[run.kept].max() - run.arrival[run.kept].min() for run in runs]
        for name, counts in (
            ("req_throughput", [int(run.kept.sum()) for run in runs]),
            ("out_tok_throughput", [int(run.output_len[run.kept].sum()) for run in runs]),
        ):
            out[name] = float(np.mean([n / t for n, t in zip(counts, spans, strict=True)]))
        return out
    out["req_throughput"] = float(np.mean([run.throughput for run in runs]))
    out["out_tok_throughput"] = float(np.mean([run.output_throughput for run in runs]))
    return out
