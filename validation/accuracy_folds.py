"""Fits and predictions for accuracy figures: constants of a part come from the other parts.

The engine constants of a suite (a group) are fitted to other suites (groups) of the same preset,
never to rows of its own, starting from priors that were written down before these rows were
replayed (`PRIORS`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from accuracy_parts import Parts

from bestserve.answers.factors import FACTORS, apply_factors, factors_for
from bestserve.catalog import load_engine
from bestserve.validation.compare import labels
from bestserve.validation.comparison import RowComparison
from bestserve.validation.errors import summarise
from bestserve.validation.map_fit import fit_factors, log_errors, targets
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.replay import Prepared, measured_figures, predict_row

FIT_ROWS = 28
CHUNK = 40
"""Rows that one process predicts at a time, and what an interrupted run loses of them."""

FITTED = ("a_step", "a_seq", "t_req", "gamma", "phi")
BETWEEN = {"ttft": 0.4, "tpot": 0.2}
"""Scatter of ln(predicted/measured) between groups that share constants [1]: their hosts, clients
and kernels differ, so that many rows of one group say little about another."""

OUTLIER = 1.1
"""Training rows whose TTFT or TPOT is off by more than e^1.1 = 3 under the priors are left out of
the fit (never out of the test): they ran under a limit that the row does not state."""

FEW_SHOT_SIZES = (3, 6)
FEW_SHOT_GROUPS = 12
MIXTURES = ", mixtures of experts"

Key = tuple[str, str, str]


PRIORS: dict[str, dict[str, float]] = {
    "vllm": {"a_step": 1.1e-3, "a_step_moe": 1.1e-3, "a_seq": 22e-6, "t_req": 38e-3,
             "t_req_moe": 38e-3, "phi_moe": 1.4, "gamma": 0.75},
    "vllm-0.11": {"a_step": 1.5e-3, "a_step_moe": 1.5e-3, "a_seq": 50e-6, "t_req": 30e-3,
                  "t_req_moe": 38e-3, "phi_moe": 1.4, "gamma": 0.75},
    "vllm-v0": {"a_step": 0.8e-3, "a_step_moe": 0.8e-3, "a_seq": 43e-6, "t_req": 30e-3,
                "t_req_moe": 30e-3, "phi_moe": 1.4, "gamma": 0.75},
    "sglang": {"a_step": 0.7e-3, "a_step_moe": 1.2e-3, "a_seq": 20e-6, "t_req": 100e-3,
               "t_req_moe": 100e-3, "phi_moe": 1.4, "gamma": 0.6},
    "tensorrt-llm": {"a_step": 0.4e-3, "a_step_moe": 2.0e-3, "a_seq": 20e-6, "t_req": 32e-3,
                     "t_req_moe": 60e-3, "phi_moe": 1.15, "gamma": 0.7},
}  # fmt: skip
"""Engine constants of the literature and of earlier fits, before these rows were replayed."""


def source_name(text: str) -> str:
    """Return a source without its submitter."""
    return text.split(" closed/")[0].replace("AIConfigurator silicon_sample ", "")


def group_of(prepared: Prepared) -> Key:
    """Return (model, GPU, preset)."""
    names = labels(prepared)
    return names["model"], names["gpu"], names["engine"]


def suite_of_row(prepared: Prepared) -> str:
    """Return the source of a row: who measured it, with one client."""
    return source_name(prepared.row.source or "")


def with_prior(prepared: Prepared) -> Prepared:
    """Return the row with the engine constants known before these rows were replayed."""
    low = prepared.lowered
    prior = PRIORS[prepared.deployment.engine.preset]
    # A client inside the engine's process adds its own time, whatever the engine's constants.
    extra = low.engine.a_seq - load_engine(prepared.deployment.engine.preset).a_seq
    host = prior["a_seq"] + extra
    engine = dataclasses.replace(low.engine, **{**prior, "a_seq": host, "a_seq_moe": host})
    problem = low.problem.model_copy(update={"engine": engine})
    return dataclasses.replace(prepared, lowered=dataclasses.replace(low, problem=problem))


def training_rows(rows: list[Prepared]) -> list[Prepared]:
    """Return at most FIT_ROWS rows, spread evenly over groups and over each group's rows."""
    by_group: dict[Key, list[Prepared]] = defaultdict(list)
    for row in rows:
        by_group[group_of(row)].append(row)
    each = max(2, FIT_ROWS // max(1, len(by_group)))
    out: list[Prepared] = []
    for members in by_group.values():
        take = np.unique(np.linspace(0, len(members) - 1, min(each, len(members))).astype(int))
        out += [members[i] for i in take]
    return out[:: max(1, len(out) // FIT_ROWS)]


def teaching(rows: list[Prepared]) -> list[Prepared]:
    """Return the rows that say what load the engine's steps had: those of closed loops.

    Open loops count only where closed ones are fewer than half of them: near saturation a small
    error of the capacity is a large one of their figures, which no constant of the host explains.
    """
    regimes = [labels(r)["regime"] for r in rows]
    closed = [r for r, regime in zip(rows, regimes, strict=True) if regime == "closed"]
    opened = [r for r, regime in zip(rows, regimes, strict=True) if regime == "open"]
    return closed if 2 * len(closed) >= len(opened) else closed + opened


def informative(prepared: Prepared) -> bool:
    """Return whether a row can teach anything: predictable, and no outlier under its priors."""
    try:
        errors = log_errors(prepared, {}).values()
    except UnpredictableError:
        return False
    return max(map(abs, errors), default=OUTLIER) < OUTLIER


def fit_fold(chosen: list[Prepared], moe: bool) -> dict[str, float]:
    """Return the factors fitted to training rows; none without rows that teach anything."""
    telling = [r for r in chosen if informative(r)]
    if not telling:
        return {}
    factors = [f for f in FACTORS if f.name in FITTED and (moe or not f.moe)]
    values, _ = fit_factors(telling, factors, BETWEEN)
    return {f.name: float(v) for f, v in zip(factors, values, strict=True)}


def predicted(prepared: Prepared, factors: dict[str, float]) -> RowComparison | None:
    """Return the comparison of a row under given constants, without intervals."""
    try:
        figures, method, notes = predict_row(prepared, apply_factors(prepared.lowered, factors))
    except UnpredictableError:
        return None
    return RowComparison(
        id=prepared.row.id, status=Outcome.PREDICTED, reason="", predicted=figures,
        measured=measured_figures(prepared.row), method=method, notes=notes, **labels(prepared),
    )  # fmt: skip


def predicted_rows(rows: list[Prepared], factors: dict[str, float]) -> list[RowComparison]:
    """Return the comparisons of those rows that can be predicted."""
    return [found for row in rows if (found := predicted(row, factors)) is not None]


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows of one preset, dense or not: what is fitted, and what is predicted with it."""

    preset: str
    moe: bool
    training_rows: int
    chosen: list[Prepared]
    test: list[Prepared]

    @property
    def fit(self) -> str:
        """Name of its fit: folds with the same rows share one."""
        ids = " ".join([str(self.moe), *(r.row.id for r in self.chosen)])
        return hashlib.sha256(ids.encode()).hexdigest()[:16]


def folds_of(rows: list[Prepared], part_of: Callable[[Prepared], Any], folds: int) -> list[Fold]:
    """Deal the parts of each preset into folds, each tested without its own parts in the fit."""
    families: dict[tuple[str, bool], list[Prepared]] = defaultdict(list)
    for row in rows:
        families[row.deployment.engine.preset, row.deployment.moe].append(row)
    out: list[Fold] = []
    for (preset, moe), members in sorted(families.items()):
        parts = sorted({part_of(r) for r in members})
        count = min(folds, len(parts))
        for fold in range(count):
            held = {part for i, part in enumerate(parts) if i % count == fold}
            train = teaching([r for r in members if part_of(r) not in held])
            test = [r for r in members if part_of(r) in held]
            out.append(Fold(preset, moe, len(train), training_rows(train), test))
    return out


def leave_out(
    rows: list[Prepared], part_of: Callable[[Prepared], Any], folds: int, parts: Parts
) -> tuple[list[RowComparison], list[dict[str, object]]]:
    """Return every row predicted with constants fitted without its part, and those constants.

    part_of : suite or group of a row; folds : most parts into which those of a preset are dealt
    """
    from joblib import Parallel, delayed

    dealt = folds_of([with_prior(r) for r in rows], part_of, folds)
    fits = {fold.fit: fold for fold in dealt}
    parallel = Parallel(n_jobs=os.cpu_count() or 1)
    values = parallel(
        delayed(parts.kept)(f"fit-{name}", fit_fold, fold.chosen, fold.moe)
        for name, fold in fits.items()
    )
    factors = dict(zip(fits, values, strict=True))
    found = parallel(
        delayed(parts.kept)(
            f"{part_of.__name__}-{number}-{start}",
            predicted_rows, fold.test[start : start + CHUNK], factors[fold.fit],
        )
        for number, fold in enumerate(dealt)
        for start in range(0, len(fold.test), CHUNK)
    )  # fmt: skip
    constants: list[dict[str, object]] = [
        {
            "preset": fold.preset, "moe": fold.moe, "training_rows": fold.training_rows,
            **{name: round(value, 3) for name, value in factors[fold.fit].items()},
        }
        for fold in dealt
    ]  # fmt: skip
    return [row for chunk in found for row in chunk], constants


def few_shot(rows: list[Prepared], parts: Parts) -> dict[str, dict[str, float]]:
    """Return median errors on the rest of a group before and after fitting 3 and 6 of its rows.

    By size over all groups ("3") and over mixtures of experts ("3, mixtures of experts"). Before:
    with the priors, which know nothing of any of these rows.
    """
    from joblib import Parallel, delayed

    rows = [with_prior(r) for r in rows]
    groups: dict[Key, list[Prepared]] = defaultdict(list)
    for row in rows:
        if labels(row)["regime"] == "closed":
            groups[group_of(row)].append(row)
    large = [m for _, m in sorted(groups.items()) if len(m) >= 9][:FEW_SHOT_GROUPS]
    out: dict[str, dict[str, float]] = {}
    for size in FEW_SHOT_SIZES:
        found = Parallel(n_jobs=os.cpu_count() or 1)(
            delayed(parts.kept)(f"few-{size}-{number}", _few_shot_group, members, size)
            for number, members in enumerate(large)
        )
        experts = [members[0].deployment.moe for members in large]
        for label, chosen in ((f"{size}", [True] * len(large)), (f"{size}{MIXTURES}", experts)):
            figures = np.array([p for p, c in zip(found, chosen, strict=True) if c and p])
            names = ("ttft_before", "ttft_after", "tpot_before", "tpot_after")
            out[label] = {
                **{n: float(np.median(figures[:, i])) for i, n in enumerate(names)},
                "groups": float(len(figures)),
            }
    return out


def _few_shot_group(members: list[Prepared], size: int) -> tuple[float, ...] | None:
    ordered = sorted(members, key=lambda r: (r.row.concurrency or 0, r.row.input_len_mean or 0))
    take = set(np.linspace(0, len(ordered) - 1, size).round().astype(int).tolist())
    own = [r for i, r in enumerate(ordered) if i in take]
    rest = [r for i, r in enumerate(ordered) if i not in take][:30]
    moe = own[0].deployment.moe
    factors = list(factors_for(moe))
    values, _ = fit_factors(own, factors)
    named = {f.name: float(v) for f, v in zip(factors, values, strict=True)}
    out = []
    for metric in ("ttft", "tpot"):
        for chosen in ({}, named):
            known = []
            for row in rest:
                target, found = targets(row.row).get(metric), predicted(row, chosen)
                if target is not None and found is not None and target[0] in found.predicted:
                    known.append((found.predicted[target[0]], target[1]))
            if not known:
                return None
            out.append(summarise(known).median)
    return tuple(out)
