"""`calibrate`: fit the few engine and deployment constants to measured runs.

Maximum a posteriori: each run is replayed under its protocol, the logarithms of
predicted/measured TTFT and TPOT are the residuals, and log-normal priors (`factors.FACTORS`) hold
what the runs do not say. Factors whose posterior is hardly narrower than their prior are left
alone and named, with the measurement that would identify them.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bestserve._version import __version__
from bestserve.answers.factors import (
    BY_NAME,
    FACTORS,
    factors_for,
    met_constants,
    scaled_values,
)
from bestserve.catalog.calibration import save_calibration
from bestserve.errors import DataError, InputError, ToleranceError, nearest_names
from bestserve.readers.logs import read_logs
from bestserve.readers.tidy import TidyRow
from bestserve.results.document import Document, plain
from bestserve.specs.calibration import Calibration, Constant, Provenance, units
from bestserve.validation.compare import refused_because
from bestserve.validation.floor import impossible
from bestserve.validation.map_fit import HeldOut, cross_validate, fit_factors, targets
from bestserve.validation.outcome import UnpredictableError
from bestserve.validation.replay import Prepared, prepare, system_of

IDENTIFIED = 0.9
"""A factor is fitted if its posterior deviation is at most this share of its prior's; above, the
runs say nothing about it that the preset does not."""

CLEAR = 0.5
"""Share up to which the runs, and not the prior, say most of what is known of a factor."""

WORSE = 1.1, 0.005
"""Factor and term [1] by which the error on unseen runs may grow before a fit is refused."""

MAX_RUNS = 60
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFactor:
    """One factor: value (1 is the preset), standard deviation of its logarithm before and after."""

    name: str
    value: float
    prior_sd: float
    posterior_sd: float
    identified: bool
    needs: str

    @property
    def said(self) -> str:
        """Whether the runs identify it, in words."""
        if not self.identified:
            return "no: preset kept"
        narrowed = self.posterior_sd / self.prior_sd
        return "yes" if narrowed <= CLEAR else f"little: {narrowed:.0%} of the prior's spread left"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFit(Document):
    """A fit and the record it makes.

    factors : all that were tried; held_out : cross-validation, None below four runs;
    skipped : runs that could not be used, with the reason
    """

    record: Calibration
    factors: tuple[FittedFactor, ...]
    runs: int
    held_out: HeldOut | None
    skipped: tuple[str, ...]
    path: str = ""
    seconds: float = 0.0

    def content(self) -> dict[str, Any]:
        """Return factors, the held-out check and the record as plain data."""
        return {
            "factors": [plain(f) for f in self.factors],
            "runs": self.runs,
            "held_out": plain(self.held_out),
            "skipped": list(self.skipped),
            "record": self.record.record(),
            "path": self.path,
            "seconds": self.seconds,
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one row per factor."""
        return [
            {
                "factor": f.name,
                "value": f.value,
                "sd_percent": 100 * f.posterior_sd,
                "prior_sd_percent": 100 * f.prior_sd,
                "identified": f.said,
                "would_help": "" if f.said == "yes" else f.needs,
            }
            for f in self.factors
        ]

    @property
    def worse(self) -> str:
        """Metrics of unseen runs that the fit predicts worse than the preset, with both errors."""
        factor, term = WORSE
        found = []
        for metric in ("ttft", "tpot") if self.held_out is not None else ():
            before = getattr(self.held_out, f"{metric}_before")
            after = getattr(self.held_out, f"{metric}_after")
            if before is not None and after > factor * before + term:
                found.append(f"{metric.upper()} {before:.1%} → {after:.1%}")
        return ", ".join(found)

    def explain(self) -> str:
        """Return what was fitted, how well it predicts unseen runs, and what is missing."""
        lines = [f"{self.runs} runs fitted in {self.seconds:.0f} s"]
        check = self.held_out
        if check is None:
            lines.append("  no held-out check: it needs four runs")
        else:
            for metric in ("ttft", "tpot"):
                before = getattr(check, f"{metric}_before")
                after = getattr(check, f"{metric}_after")
                if before is not None:
                    lines.append(
                        f"  unseen runs, {metric.upper()}: median error {before:.1%} with the "
                        f"preset, {after:.1%} with the fit ({check.folds} folds)"
                    )
        lines += [
            f"  {f.name} is not identified by these runs; this would: {f.needs}"
            for f in self.factors
            if not f.identified
        ]
        lines += [f"  not used: {reason}" for reason in self.skipped]
        if self.worse:
            lines.append(f"  warning: worse than the preset on unseen runs: {self.worse}")
        if self.path:
            lines.append(f"  record: {self.path}")
        return "\n".join(lines)


def calibrate(
    *logs: str | Path,
    output: str | Path | None = None,
    only: Sequence[str] = (),
    jobs: int | None = None,
    progress: Progress | None = None,
    **stated: Any,
) -> CalibrationFit:
    """Fit engine and deployment constants to measured logs of one deployment.

    Parameters
    ----------
    logs : files, folders or patterns; three runs at different loads already help
    output : where to write the record (TOML) that every command takes as `calibration`
    only : names of the factors to fit; default: all of `factors.FACTORS` that can matter
    jobs : worker processes for the held-out check
    stated : what the logs do not say, by `TidyRow` field

    Raises InputError (no log, unknown factor, runs of several engines) or DataError (no run can
    be predicted, or none identifies any factor); ToleranceError, before anything is written, if
    unseen runs are predicted worse with the record than without.
    """
    if not logs:
        raise InputError("no log given; name a file, a folder or a pattern")
    started = time.perf_counter()
    rows = [row for read in read_logs(logs, **stated) for row in read.rows]
    fit = calibrate_rows(rows, only=only, jobs=jobs, progress=progress)
    if output is not None and fit.worse:
        raise ToleranceError(
            f"nothing written: runs left out of the fit are predicted worse with it ({fit.worse}); "
            "fit fewer factors with only, or add runs at other loads"
        )
    path = str(save_calibration(fit.record, output)) if output is not None else ""
    return CalibrationFit(
        record=fit.record,
        factors=fit.factors,
        runs=fit.runs,
        held_out=fit.held_out,
        skipped=fit.skipped,
        path=path,
        seconds=time.perf_counter() - started,
    )


def calibrate_rows(
    rows: Sequence[TidyRow],
    *,
    only: Sequence[str] = (),
    jobs: int | None = None,
    progress: Progress | None = None,
    held_out: bool = True,
) -> CalibrationFit:
    """Fit rows that were already read; see `calibrate`."""
    for name in only:
        if name not in BY_NAME:
            near = ", ".join(nearest_names(name, BY_NAME))
            raise InputError(f"no factor {name[:40]!r}; nearest: {near or ', '.join(BY_NAME)}")
    prepared, skipped = _prepared(rows)
    _one_engine(prepared)
    moe = any(p.deployment.moe for p in prepared)
    tried = tuple(f for f in factors_for(moe) if not only or f.name in only)
    values, deviations = fit_factors(prepared, tried)
    kept = tuple(f for f, sd in zip(tried, deviations, strict=True) if sd <= IDENTIFIED * f.prior)
    if not kept:
        needs = "; ".join(f.needs for f in tried)
        raise DataError(f"these {len(prepared)} runs identify no constant; helpful: {needs}")
    final, final_sd = fit_factors(prepared, kept) if kept != tried else (values, deviations)
    found = dict(zip((f.name for f in kept), final, strict=True))
    spread = dict(zip((f.name for f in kept), final_sd, strict=True))
    report = tuple(
        FittedFactor(
            name=f.name,
            value=float(found.get(f.name, 1.0)),
            prior_sd=f.prior,
            posterior_sd=float(spread.get(f.name, sd)),
            identified=f.name in found,
            needs=f.needs,
        )
        for f, sd in zip(tried, deviations, strict=True)
    )
    check = None
    if held_out and len(prepared) >= 4:
        if progress is not None:
            progress("held-out check")
        check = cross_validate(prepared, kept, jobs=jobs)
    return CalibrationFit(
        record=_record(prepared, found, spread),
        factors=report,
        runs=len(prepared),
        held_out=check,
        skipped=skipped,
    )


def _prepared(rows: Sequence[TidyRow]) -> tuple[list[Prepared], tuple[str, ...]]:
    usable: list[Prepared] = []
    reasons: list[str] = []
    for row in rows:
        try:
            candidate = prepare(row)
            lengths = system_of(candidate).lengths
            if not targets(row):
                raise DataError("neither TTFT nor TPOT")
            if reason := impossible(candidate, lengths):
                raise DataError(reason)
            usable.append(candidate)
        except UnpredictableError as refusal:
            reasons.append(f"{row.id}: {refused_because(row, refusal)}")
        except DataError as error:
            reasons.append(f"{row.id}: {error}")
    if not usable:
        raise DataError(f"no run can be replayed: {'; '.join(reasons)[:400]}")
    if len(usable) > MAX_RUNS:
        chosen = np.linspace(0, len(usable) - 1, MAX_RUNS).round().astype(int)
        reasons.append(f"{len(usable) - MAX_RUNS} of {len(usable)} runs: every n-th is enough")
        usable = [usable[i] for i in chosen]
    return usable, tuple(reasons)


def _one_engine(prepared: Sequence[Prepared]) -> None:
    presets = sorted({p.deployment.engine.preset for p in prepared})
    if len(presets) > 1:
        raise InputError(
            f"the runs are of several engines ({', '.join(presets)}); calibrate them one by one"
        )


def _met(prepared: Sequence[Prepared], values: Mapping[str, float]) -> dict[str, float]:
    """Return those of the constants that these runs depend on.

    Runs of a dense 16-bit model say nothing about FP4 units or experts, so a record of them does
    not, either.
    """
    distinct = {
        (p.deployment.model.name, p.deployment.precision, p.deployment.pools): p for p in prepared
    }
    met: set[str] = set()
    for run in distinct.values():
        lanes = [(split, role) for role, _, split in run.deployment.pools]
        met |= met_constants(run.lowered, lanes, values.keys() - met)
    return {name: value for name, value in values.items() if name in met}


def _record(
    prepared: Sequence[Prepared], values: Mapping[str, float], spread: Mapping[str, float]
) -> Calibration:
    first = prepared[0]
    deployments = [p.deployment for p in prepared]
    gpus = tuple(sorted({d.hardware.name for d in deployments}))
    models = tuple(sorted({d.model.name for d in deployments}))
    tps = tuple(sorted({parallel.tp for d in deployments for _, _, parallel in d.pools}))
    sources = sorted({p.row.source or p.row.origin for p in prepared})
    engine = first.deployment.engine.preset
    data = (
        f"{len(prepared)} runs of {', '.join(models)} on {', '.join(gpus)}, {engine}; "
        f"{', '.join(sources)}"
    )
    unit = units()
    scaled = _met(prepared, scaled_values(values, first.lowered.constants, first.lowered.engine))
    constants: dict[str, Constant] = {}
    for name, value in scaled.items():
        own = [f.name for f in FACTORS if f.name in values and name in f.constants]
        constants[name] = Constant(
            value=value,
            unit=unit[name],
            kind="measured",
            source="bestserve calibrate: " + ", ".join(f"{f} x {values[f]:.3g}" for f in own),
            sd=value * math.hypot(*(spread[f] for f in own)),
        )
    return Calibration(
        provenance=Provenance(
            device=", ".join(gpus)[:200],
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            tool=f"bestserve calibrate {__version__}",
            hardware=gpus[0] if len(gpus) == 1 else "",
            model=models[0] if len(models) == 1 else "",
            tp=tps[0],
            data=data[:1000],
            gpus=gpus,
            models=models,
            engine=engine,
            tps=tps,
        ),
        constants=constants,
    )
