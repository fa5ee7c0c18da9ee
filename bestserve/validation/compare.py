"""`validate`: read logs, replay every run, compare."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bestserve.answers.factors import apply_factors, spreads, varied
from bestserve.answers.intervals import intervals, propagated
from bestserve.catalog.calibration import load_calibration
from bestserve.errors import BestserveError, DataError, InputError
from bestserve.readers.logs import read_logs
from bestserve.readers.tidy import Regime, TidyRow, asking
from bestserve.specs.calibration import DOUBT, Calibration
from bestserve.specs.slo import SLO
from bestserve.validation.attained import attained_of
from bestserve.validation.comparison import Comparison, RowComparison, metric_summaries
from bestserve.validation.floor import impossible
from bestserve.validation.groups import summarise_groups
from bestserve.validation.knee import objective_met, objectives_of
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.repeats import first_of_equals
from bestserve.validation.replay import (
    Prepared,
    knee_goodput,
    measured_figures,
    predict,
    predict_row,
    prepare,
    system_of,
)
from bestserve.validation.shared_prefixes import at_best

UNSTATED = (
    Outcome.GPU_UNKNOWN,
    Outcome.MODEL_UNKNOWN,
    Outcome.ENGINE_UNKNOWN,
    Outcome.PARALLELISM_MISSING,
)
"""Refusals after which all that is missing is asked for at once."""

IN_PROCESS_SPREAD = 0.56
"""Standard deviation of ln(host time per sequence) of clients in the engine's process [1]: two
boxes with like GPUs (RTX 4090 and 4090 D) differ 2.2 times, which one measurement settles."""

FEW = 40
"""Rows below which starting worker processes costs more than it saves."""


def validate(
    *logs: str | Path,
    calibration: str | Path | Calibration | None = None,
    with_intervals: bool = True,
    jobs: int | None = None,
    progress: Callable[[str], None] | None = None,
    slo: SLO | str | None = None,
    **stated: Any,
) -> Comparison:
    """Compare predictions with measured logs.

    Parameters
    ----------
    logs : files, folders or patterns, in any format of `bestserve.readers.logs`
    calibration : a record of `calibrate`, or its path
    with_intervals : add 90 % prediction intervals (four to seven times the work)
    jobs : worker processes; default: one a core
    slo : objectives: the share of requests that met them is compared, too, where the log tells
    stated : what the logs do not say, by `TidyRow` field: gpu, model, tp, engine, …

    Returns every row with its status: what cannot be predicted is counted with the reason.
    Raises InputError (no log, unknown setting) or DataError (one unreadable log, or no readable
    one).
    """
    if not logs:
        raise InputError("no log given; name a file, a folder or a pattern")
    started = time.perf_counter()
    record = load_calibration(calibration) if isinstance(calibration, str | Path) else calibration
    reads = read_logs(logs, **stated)
    rows = [row for read in reads for row in read.rows]
    warnings = tuple(w for read in reads for w in read.warnings)
    if not rows:
        raise DataError(f"no log could be read: {'; '.join(warnings)[:400]}")
    objectives = SLO(slo) if isinstance(slo, str) else slo
    if objectives is not None and objectives.tiers:
        raise InputError("a log does not say of which class a request is: state no classes")
    compared = compare_rows(rows, record, with_intervals=with_intervals, jobs=jobs,
                            progress=progress, slo=objectives)  # fmt: skip
    notes = dict.fromkeys(n for r in compared for n in r.notes if n.startswith(DOUBT))
    warnings += tuple(f"warning: {note}" for note in notes)
    return comparison_of(compared, warnings, time.perf_counter() - started)


def comparison_of(
    rows: Sequence[RowComparison], warnings: tuple[str, ...] = (), seconds: float = 0.0
) -> Comparison:
    """Return rows with their groups, overall errors and interval coverage."""
    predicted = [r for r in rows if r.status is Outcome.PREDICTED and not r.impossible]
    return Comparison(
        rows=tuple(rows),
        groups=summarise_groups(predicted),
        overall=metric_summaries(predicted),
        coverage=coverage_of(predicted),
        warnings=warnings,
        seconds=seconds,
    )


def coverage_of(rows: Sequence[RowComparison], figures: Sequence[str] = ()) -> float | None:
    """Return the share of measured figures inside their interval; None without intervals.

    figures : tidy names to count; default all
    """
    inside = total = 0
    for row in rows:
        for name, (low, high) in row.intervals.items():
            if name in row.measured and (not figures or name in figures):
                total += 1
                inside += low <= row.measured[name] <= high
    return inside / total if total else None


def compare_rows(
    rows: Sequence[TidyRow],
    calibration: Calibration | None = None,
    *,
    with_intervals: bool = True,
    jobs: int | None = None,
    progress: Callable[[str], None] | None = None,
    slo: SLO | None = None,
) -> list[RowComparison]:
    """Replay rows, each setting once and in parallel if there are many; the order is kept."""
    firsts = first_of_equals(rows)
    once = [row for place, row in enumerate(rows) if firsts[place] == place]
    workers = 1 if len(once) < FEW else jobs or os.cpu_count() or 1
    on = f" on {workers} processes" if workers > 1 else ""
    done: list[RowComparison] = []
    replay = functools.partial(
        compare_row, calibration=calibration, with_intervals=with_intervals, slo=slo
    )
    for number, one in enumerate(_each(replay, once, workers), start=1):
        done.append(one)
        if progress is not None and number % 10 == 0:
            progress(f"{number} of {len(once)} rows{on}")
    order = {place: number for number, place in enumerate(sorted(set(firsts)))}
    return [
        found if firsts[place] == place
        else _of_equal(found, row, calibration)
        for place, row in enumerate(rows)
        for found in (done[order[firsts[place]]],)
    ]  # fmt: skip


def _of_equal(found: RowComparison, row: TidyRow, calibration: Calibration | None) -> RowComparison:
    """Return the comparison of a row whose prediction another row of equal settings has."""
    own = dataclasses.replace(found, id=row.id, measured=measured_figures(row))
    if found.status is not Outcome.PREDICTED:
        return own
    prepared = prepare(row, calibration)
    return dataclasses.replace(
        own,
        impossible=impossible(prepared, at_best(system_of(prepared))),
        objective=objective_met(row, found.predicted),
    )


def _each(
    replay: Callable[[TidyRow], RowComparison], rows: Sequence[TidyRow], workers: int
) -> Iterable[RowComparison]:
    if workers == 1:
        return map(replay, rows)
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=workers, batch_size=8, return_as="generator")
    found: Iterable[RowComparison] = parallel(delayed(replay)(row) for row in rows)
    return found


def compare_row(
    row: TidyRow,
    calibration: Calibration | None = None,
    *,
    with_intervals: bool = True,
    slo: SLO | None = None,
) -> RowComparison:
    """Replay one row; never raises for what a row can contain."""
    measured = measured_figures(row)
    try:
        try:
            prepared = prepare(row, calibration)
            predicted, method, notes = predict_row(prepared)
            attained = None if slo is None else attained_of(prepared, slo.target())
        except (BestserveError, ValueError, ArithmeticError) as error:
            # A row may state what no model takes (a million GPUs): its own status, not a crash.
            raise UnpredictableError(Outcome.NOT_MODELLED, str(error)[:200]) from error
    except UnpredictableError as refusal:
        return RowComparison(
            id=row.id,
            status=refusal.outcome,
            reason=refused_because(row, refusal),
            measured=measured,
            model=row.model or "",
            gpu=row.gpu or "",
            engine=row.engine or "",
            regime=row.regime.value if row.regime else "",
            source=row.source or "",
        )
    limits: Mapping[str, tuple[float, float]] = {}
    if with_intervals:
        limits = _intervals(prepared, predicted)
    return RowComparison(
        id=row.id,
        status=Outcome.PREDICTED,
        reason="; ".join(notes) if notes else Outcome.PREDICTED.sentence,
        predicted=predicted,
        measured=measured,
        intervals=limits,
        method=method,
        notes=notes,
        impossible=impossible(prepared, at_best(system_of(prepared))),
        objective=objective_met(row, predicted),
        goodput=knee_goodput(prepared),
        attained=attained,
        **labels(prepared),
    )


def refused_because(row: TidyRow, refusal: UnpredictableError) -> str:
    """Return why a row is not predicted: all that it does not state at once, else the reason."""
    stated = refusal.outcome not in UNSTATED or "not stated" not in refusal.reason
    return refusal.reason if stated else asking(row) or refusal.reason


def labels(prepared: Prepared) -> dict[str, Any]:
    """Return what a row is grouped by, as keywords of `RowComparison`."""
    row, deployment, protocol = prepared.row, prepared.deployment, prepared.protocol
    law = protocol.lengths
    own = deployment.model.experts if deployment.moe else deployment.model.weights
    precision = deployment.precision or own
    parts = []
    for role, count, p in deployment.pools:
        extra = "".join(f"-{n}{v}" for n, v in (("pp", p.pp), ("dp", p.dp), ("ep", p.ep)) if v > 1)
        parts.append(f"{count}{role}-tp{p.tp}{extra}")
    load = f"c{protocol.arrivals.concurrency}" if protocol.closed else f"{protocol.rate:g}/s"
    mean_output = float(law.outputs @ law.output_weights)
    means = f"{float(law.inputs @ law.input_weights):.0f}/{mean_output:.0f}"
    return {
        "model": f"{deployment.model.name} ({precision})",
        "gpu": deployment.hardware.name,
        "engine": deployment.engine.preset,
        "regime": kind_of(prepared),
        "source": row.source or "",
        "layout": "+".join(parts),
        "gpus": sum(n * p.gpus for _, n, p in deployment.pools),
        "workload": f"{row.dataset_or_lengths or means} {load}",
        "clients": protocol.arrivals.concurrency if protocol.closed else 0,
        "output_len": mean_output,
        "moe": deployment.moe,
    }


def kind_of(prepared: Prepared) -> str:
    """Return the kind of run that decides how far a prediction can be trusted."""
    row, protocol = prepared.row, prepared.protocol
    if prepared.deployment.disaggregated:
        return "disaggregated"
    if prepared.suite.rate_meets_objectives and objectives_of(row):
        return "knee"
    if protocol.closed:
        burst = row.regime is Regime.BURST or (
            protocol.arrivals.concurrency >= protocol.arrivals.num_prompts > 1
        )
        return "burst" if burst else "closed"
    return "open"


def _intervals(
    prepared: Prepared, predicted: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    kind, moe = kind_of(prepared), prepared.deployment.moe

    def run(factors: Mapping[str, float]) -> Mapping[str, float]:
        try:
            system = system_of(prepared, apply_factors(prepared.lowered, factors))
            return predict(system, prepared.protocol)[0]
        except UnpredictableError:  # the move tips a row over an edge: no derivative there
            return predicted

    factors = varied(prepared.lowered, prepared.deployment.disaggregated)
    spread = spreads(None)
    if prepared.row.in_process:
        spread["a_seq"] = IN_PROCESS_SPREAD
    # At the knee the rate fixes the capacity, so the constants' uncertainty cancels.
    variance = {} if kind == "knee" else propagated(predicted, run, factors, spread)
    return intervals(predicted, variance, kind, moe)
