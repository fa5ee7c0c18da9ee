"""Maximum a posteriori fit of the factors, and its check on runs that it has not seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bestserve.answers.factors import Factor, apply_factors
from bestserve.arrays import Floats
from bestserve.readers.tidy import TidyRow
from bestserve.validation.outcome import UnpredictableError
from bestserve.validation.replay import Prepared, measured_figures, predict, system_of

NOISE = {"ttft": 0.2, "tpot": 0.07}
"""Standard deviation of ln(predicted/measured) at the true constants [1]: repeats of a run differ
by 4 and 2 %, the rest is what the model leaves unexplained within one deployment."""

HALF = 0.5
"""Difference step in prior deviations: waits end at step boundaries, so that a simulated TTFT is a
staircase in the front-end time and smooth only on a larger scale."""

LONGEST, SMALL = 0.7, 0.01
"""Of the logarithms: longest move of an iteration, move that ends the fit."""

ITERATIONS = 12
FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Median absolute errors of runs that the fit had not seen, with the preset and with the fit.

    n : runs; folds : fits; None where a metric was not measured
    """

    n: int
    folds: int
    ttft_before: float | None
    ttft_after: float | None
    tpot_before: float | None
    tpot_after: float | None


def targets(row: TidyRow) -> dict[str, tuple[str, float]]:
    """Return for "ttft" and "tpot" the figure to fit and its value [ms].

    TTFT by its median where it is stated: the first requests of a run wait for kernels to compile,
    which lifts the mean by tens of per cent and says nothing about the constants. TPOT by its mean.
    """
    measured = measured_figures(row)
    out: dict[str, tuple[str, float]] = {}
    for metric, order in (("ttft", ("p50", "mean")), ("tpot", ("mean", "p50"))):
        for name in (f"{metric}_{statistic}_ms" for statistic in order):
            if measured.get(name, 0.0) > 0 and metric not in out:
                out[metric] = (name, measured[name])
    return out


def log_errors(prepared: Prepared, factors: Mapping[str, float]) -> dict[str, float]:
    """Return ln(predicted/measured) of TTFT and TPOT with the given factors [1]."""
    system = system_of(prepared, apply_factors(prepared.lowered, factors))
    figures, _ = predict(system, prepared.protocol)
    return {
        metric: float(np.log(figures[name] / value))
        for metric, (name, value) in targets(prepared.row).items()
        if figures.get(name, 0.0) > 0
    }


def _residuals(
    prepared: Sequence[Prepared], factors: Mapping[str, float], noise: Mapping[str, float]
) -> Floats:
    """Return residuals in standard deviations, large ones tempered (soft L1) [2n]."""
    out = np.zeros(2 * len(prepared))
    for i, run in enumerate(prepared):
        try:
            errors = log_errors(run, factors)
        except UnpredictableError:  # these factors make it impossible: no information
            continue
        for j, metric in enumerate(("ttft", "tpot")):
            r = errors.get(metric, 0.0) / noise[metric]
            out[2 * i + j] = np.sign(r) * np.sqrt(2.0 * (np.sqrt(1.0 + r * r) - 1.0))
    return out


def fit_factors(
    prepared: Sequence[Prepared],
    factors: Sequence[Factor],
    noise: Mapping[str, float] = NOISE,
) -> tuple[Floats, Floats]:
    """Return the factors' maximum a posteriori values and deviations of their logarithm.

    noise : standard deviation of ln(predicted/measured) of TTFT and TPOT at the true constants

    The deviations are those of the linearised posterior: (JᵀJ + prior)⁻¹.
    """
    prior = np.array([f.prior for f in factors])
    low, high = np.log([f.low for f in factors]), np.log([f.high for f in factors])

    def residuals(x: Floats) -> Floats:
        named = dict(zip((f.name for f in factors), np.exp(x), strict=True))
        return np.concatenate([_residuals(prepared, named, noise), x / prior])

    x = np.zeros(len(factors))
    here = residuals(x)
    steps = HALF * prior
    jacobian = _jacobian(residuals, x, here, steps)
    damping = 0.01
    for _ in range(ITERATIONS):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ here)
        ahead = np.clip(x + np.clip(step, -LONGEST, LONGEST), low, high)
        there = residuals(ahead)
        if there @ there >= here @ here:
            damping *= 10.0
            if damping > 1e3:
                break
            continue
        moved = float(np.abs(ahead - x).max())
        x, here, damping = ahead, there, damping / 3.0
        jacobian = _jacobian(residuals, x, here, steps)
        if moved < SMALL:
            break
    deviations = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
    return np.exp(x), deviations


def _jacobian(
    residuals: Callable[[Floats], Floats], x: Floats, here: Floats, steps: Floats
) -> Floats:
    """Return forward differences [residuals, factors]."""
    columns = []
    for i, step in enumerate(steps):
        moved = x.copy()
        moved[i] += step
        columns.append((residuals(moved) - here) / step)
    return np.stack(columns, axis=1)


def cross_validate(
    prepared: Sequence[Prepared], factors: Sequence[Factor], *, jobs: int | None = None
) -> HeldOut:
    """Fit without each fold in turn and predict it; runs are dealt to folds in turn."""
    from joblib import Parallel, delayed

    folds = min(FOLDS, len(prepared))
    workers = min(folds, jobs or os.cpu_count() or 1)
    parts = Parallel(n_jobs=workers)(
        delayed(_one_fold)(list(prepared), list(factors), fold, folds) for fold in range(folds)
    )
    before: dict[str, list[float]] = {"ttft": [], "tpot": []}
    after: dict[str, list[float]] = {"ttft": [], "tpot": []}
    for part in parts:
        for metric in ("ttft", "tpot"):
            before[metric] += part[0][metric]
            after[metric] += part[1][metric]

    def median(errors: list[float]) -> float | None:
        return float(np.median(np.abs(np.expm1(errors)))) if errors else None

    return HeldOut(
        n=len(prepared),
        folds=folds,
        ttft_before=median(before["ttft"]),
        ttft_after=median(after["ttft"]),
        tpot_before=median(before["tpot"]),
        tpot_after=median(after["tpot"]),
    )


def _one_fold(
    prepared: list[Prepared], factors: list[Factor], fold: int, folds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    seen = [p for i, p in enumerate(prepared) if i % folds != fold]
    unseen = [p for i, p in enumerate(prepared) if i % folds == fold]
    values, _ = fit_factors(seen, factors)
    named = dict(zip((f.name for f in factors), (float(v) for v in values), strict=True))
    sides: list[dict[str, list[float]]] = []
    for chosen in ({}, named):
        errors: dict[str, list[float]] = {"ttft": [], "tpot": []}
        for run in unseen:
            for metric, error in log_errors(run, chosen).items():
                errors[metric].append(error)
        sides.append(errors)
    return sides[0], sides[1]
