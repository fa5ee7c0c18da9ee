"""Accuracy against measured systems, by leaving out whole suites and whole groups.

    python validation/accuracy.py [MEASURED.csv ...]   # default: the files beside the checkout

A suite is one source: its hosts, its client, its habits. A group is one model on one GPU under one
engine preset. The engine constants of a suite (a group) are fitted to other suites (groups) of the
same preset, never to rows of its own, starting from priors that were written down before these rows
were replayed (`PRIORS`). What was chosen while looking at all rows (protocols of the suites, forms,
kernel rows) is listed in the report: it is not held out.

Writes beside this file: summary.json (figures), headline.md (the README's table), report.md,
figures/; and `bestserve/answers/residuals.py`, the residual error that intervals carry.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_intervals import (
    Cell,
    coverage,
    coverage_by_figure,
    hits,
    reach,
    residuals,
    stretches,
    variances,
)
from accuracy_report import headline, report

from bestserve.answers.factors import FACTORS, apply_factors, factors_for
from bestserve.answers.intervals import FAMILIES, KINDS
from bestserve.catalog import load_engine
from bestserve.readers.logs import read_log
from bestserve.validation.compare import compare_row, labels
from bestserve.validation.comparison import RowComparison
from bestserve.validation.errors import summarise
from bestserve.validation.floor import impossible
from bestserve.validation.groups import choice_of
from bestserve.validation.map_fit import fit_factors, log_errors, targets
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.parity import draw_parity
from bestserve.validation.replay import Prepared, measured_figures, predict_row, prepare, system_of

HERE = Path(__file__).resolve().parent
FOLDS = 4
FIT_ROWS = 28
FITTED = ("a_step", "a_seq", "t_req", "gamma", "phi")
BETWEEN = {"ttft": 0.4, "tpot": 0.2}
"""Scatter of ln(predicted/measured) between groups that share constants [1]: their hosts, clients
and kernels differ, so that many rows of one group say little about another."""

OUTLIER = 1.1
"""Training rows whose TTFT or TPOT is off by more than e^1.1 = 3 under the priors are left out of
the fit (never out of the test): they ran under a limit that the row does not state."""

SPECULATIVE = frozenset({"m02627", "m02628", "m02629", "m02649", "m02650"})
"""Rows whose sources print accept lengths of 3.26 to 3.50, recorded as plain runs."""

INTERVAL_ROWS = 3
"""One row in so many has its interval computed, which costs five to eight predictions."""

FEW_SHOT_SIZES = (3, 6)
FEW_SHOT_GROUPS = 12
MIXTURES = ", mixtures of experts"

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


def behind_cache(row: RowComparison) -> bool:
    """Return whether prompts shared parts that a prefix cache held, of which rows say little."""
    return re.search(r"shared_prefix|multi-turn", row.workload) is not None


CLASSES = {
    "dense, closed loop": lambda r: r.regime == "closed" and not r.moe,
    "MoE, closed loop": lambda r: r.regime == "closed" and r.moe,
    "open loop": lambda r: r.regime == "open" and not behind_cache(r),
    "MLPerf Server (at its knee)": lambda r: r.regime == "knee",
    "disaggregated": lambda r: r.regime == "disaggregated",
    "bursts": lambda r: r.regime == "burst",
    "behind a prefix cache": behind_cache,
}

QUEUED_MS = 2000.0
"""Measured tail of TTFT above which an open-loop run is called queued: below, a prompt waits for
steps, above, for other requests, so that a small error of the capacity is a large one of TTFT."""

OPEN_CLASSES = {
    "without a queue": lambda r: r.regime == "open" and not behind_cache(r) and not queued(r),
    "with a queue": lambda r: r.regime == "open" and not behind_cache(r) and queued(r),
}

Key = tuple[str, str, str]


def queued(row: RowComparison) -> bool:
    """Return whether the measured tail of TTFT shows a queue."""
    tail = row.measured.get("ttft_p99_ms", row.measured.get("ttft_p90_ms", 0.0))
    return tail > QUEUED_MS


def prepare_all(
    paths: Sequence[Path],
) -> tuple[list[Prepared], Counter[str], dict[str, list[str]]]:
    """Return the rows that can be predicted and measured what they say, the reasons of those that
    cannot with their counts, and the ids of those that cannot have, by reason."""
    usable: list[Prepared] = []
    refused: Counter[str] = Counter()
    doubtful: dict[str, list[str]] = defaultdict(list)
    for row in (row for path in paths for row in read_log(path).rows):
        if row.id in SPECULATIVE:
            row = dataclasses.replace(row, speculative_decoding=True)
        try:
            candidate = prepare(row)
            reason = impossible(candidate, system_of(candidate).lengths)
        except UnpredictableError as refusal:
            refused[refusal.outcome.sentence] += 1
            continue
        if reason:
            doubtful[reason].append(row.id)
        else:
            usable.append(candidate)
    return usable, refused, dict(doubtful)


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


def informative(prepared: Prepared) -> bool:
    """Return whether a row can teach anything: predictable, and no outlier under its priors."""
    try:
        errors = log_errors(prepared, {}).values()
    except UnpredictableError:
        return False
    return max(map(abs, errors), default=OUTLIER) < OUTLIER


def fit_fold(rows: list[Prepared], moe: bool) -> dict[str, float]:
    """Return the factors fitted to the rows of other groups; none without rows."""
    if not rows:
        return {}
    chosen = [r for r in training_rows(rows) if informative(r)]
    if not chosen:
        return {}
    factors = [f for f in FACTORS if f.name in FITTED and (moe or not f.moe)]
    values, _ = fit_factors(chosen, factors, BETWEEN)
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


def leave_out(
    rows: list[Prepared], part_of: Callable[[Prepared], Any], folds: int
) -> tuple[list[RowComparison], list[dict[str, object]]]:
    """Return every row predicted with constants fitted without its part, and those constants.

    part_of : suite or group of a row; folds : most parts into which those of a preset are dealt
    """
    from joblib import Parallel, delayed

    rows = [with_prior(r) for r in rows]
    families: dict[tuple[str, bool], list[Prepared]] = defaultdict(list)
    for row in rows:
        families[row.deployment.engine.preset, row.deployment.moe].append(row)
    tasks, tests, kinds = [], [], []
    for (preset, moe), members in sorted(families.items()):
        parts = sorted({part_of(r) for r in members})
        count = min(folds, len(parts))
        for fold in range(count):
            held = {part for i, part in enumerate(parts) if i % count == fold}
            train = [
                r for r in members
                if part_of(r) not in held and labels(r)["regime"] in ("closed", "open")
            ]  # fmt: skip
            tasks.append(delayed(fit_fold)(train, moe))
            tests.append([r for r in members if part_of(r) in held])
            kinds.append((preset, moe, len(train)))
    jobs = os.cpu_count() or 1
    fitted = Parallel(n_jobs=jobs)(tasks)
    found = Parallel(n_jobs=jobs, batch_size=16)(
        delayed(predicted)(row, factors)
        for factors, test in zip(fitted, tests, strict=True)
        for row in test
    )
    constants = [
        {"preset": preset, "moe": moe, "training_rows": n, **{k: round(v, 3) for k, v in f.items()}}
        for (preset, moe, n), f in zip(kinds, fitted, strict=True)
    ]
    return [c for c in found if c is not None], constants


def few_shot(rows: list[Prepared]) -> dict[str, dict[str, float]]:
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
        parts = Parallel(n_jobs=os.cpu_count() or 1)(
            delayed(_few_shot_group)(members, size) for members in large
        )
        experts = [members[0].deployment.moe for members in large]
        for label, chosen in ((f"{size}", [True] * len(large)), (f"{size}{MIXTURES}", experts)):
            figures = np.array([p for p, c in zip(parts, chosen, strict=True) if c and p])
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


def class_table(
    rows: list[RowComparison], classes: Mapping[str, Callable[[RowComparison], bool]] = CLASSES
) -> dict[str, dict[str, object]]:
    """Return n and the error summaries of TTFT, TPOT and their tails by class."""
    out: dict[str, dict[str, object]] = {}
    for name, test in classes.items():
        members = [r for r in rows if test(r)]
        if not members:
            continue
        entry: dict[str, object] = {"n": len(members)}
        for metric in ("ttft", "tpot"):
            pairs = [p for r in members if (p := r.headline(metric)) is not None]
            entry[metric] = dataclasses.asdict(summarise(pairs)) if pairs else None
            for tail in ("p90", "p99"):
                figure = f"{metric}_{tail}_ms"
                both = [
                    (r.predicted[figure], r.measured[figure])
                    for r in members
                    if figure in r.predicted and r.measured.get(figure, 0.0) > 0
                ]
                entry[f"{metric}_{tail}"] = dataclasses.asdict(summarise(both)) if both else None
        out[name] = entry
    return out


def source_name(text: str) -> str:
    """Return a source without its submitter."""
    return text.split(" closed/")[0].replace("AIConfigurator silicon_sample ", "")


def group_table(rows: list[RowComparison]) -> list[dict[str, object]]:
    """Return one entry per model, GPU, engine and kind of run."""
    groups: dict[tuple[str, ...], list[RowComparison]] = defaultdict(list)
    for r in rows:
        groups[r.model, r.gpu, r.engine, r.regime, source_name(r.source)].append(r)
    out = []
    for (model, gpu, engine, regime, source), members in sorted(groups.items()):
        entry: dict[str, object] = {
            "model": model, "gpu": gpu, "engine": engine, "regime": regime, "source": source,
            "n": len(members),
        }  # fmt: skip
        for metric in ("ttft", "tpot"):
            pairs = [p for r in members if (p := r.headline(metric)) is not None]
            entry[metric] = dataclasses.asdict(summarise(pairs)) if pairs else None
        choice = choice_of(members)
        entry["choice"] = dataclasses.asdict(choice) if choice else None
        out.append(entry)
    return out


def choices(groups: list[dict[str, Any]]) -> dict[str, float]:
    """Return how often the best layout was chosen over all groups, and the mean regret [1]."""
    found = [entry["choice"] for entry in groups if entry["choice"]]
    cases = sum(c["cases"] for c in found)
    return {
        "cases": cases,
        "right": sum(c["right"] for c in found),
        "regret_mean": sum(c["cases"] * c["regret_mean"] for c in found) / max(cases, 1),
        "regret_max": max((c["regret_max"] for c in found), default=0.0),
    }


def objectives(rows: list[RowComparison]) -> dict[str, object]:
    """Return how well met objectives and goodputs at objectives are predicted."""
    flags = [r.objective for r in rows if r.objective is not None]
    knees = [r.goodput for r in rows if r.goodput is not None]
    return {
        "flags": len(flags),
        "right": sum(a == b for a, b in flags),
        "met_only_predicted": sum(a and not b for a, b in flags),
        "goodput": dataclasses.asdict(summarise(knees)) if knees else None,
    }


def main(paths: Sequence[Path]) -> None:
    """Recompute everything from the measured files."""
    from joblib import Parallel, delayed

    started = time.perf_counter()

    def tell(what: str) -> None:
        print(f"{what}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)

    rows, refused, doubtful = prepare_all(paths)
    tell(f"{len(rows)} rows prepared")
    shipped = Parallel(n_jobs=os.cpu_count() or 1, batch_size=8)(
        delayed(compare_row)(r.row, with_intervals=n % INTERVAL_ROWS == 0)
        for n, r in enumerate(rows)
    )
    refused.update(r.status.sentence for r in shipped if r.status is not Outcome.PREDICTED)
    shipped = [r for r in shipped if r.status is Outcome.PREDICTED]
    tell("shipped constants")
    by_suite, constants = leave_out(rows, suite_of_row, len(rows))
    tell("suites left out")
    by_group, _ = leave_out(rows, group_of, FOLDS)
    tell("groups left out")
    variance = variances(shipped)
    sampled = [r for r in by_suite if variance.get(r.id) and not behind_cache(r)]
    found = residuals(sampled, variance)
    inside = hits(sampled, variance, lambda r: source_name(r.source))
    stretch = stretches(inside)
    found = {cell: round(width * stretch[cell], 2) for cell, width in found.items()}
    held = [(row, cell, error <= reach(known, width * stretch[cell]))
            for row, cell, error, known, width in inside]  # fmt: skip
    groups = group_table(by_suite)
    summary = {
        "rows": len(shipped) + sum(refused.values()) + sum(map(len, doubtful.values())),
        "predicted": len(shipped) + sum(map(len, doubtful.values())),
        "refused": dict(refused.most_common()),
        "impossible": doubtful,
        "suites": len({source_name(r.source) for r in by_suite}),
        "groups": len({(r.model, r.gpu, r.engine) for r in by_suite}),
        "suite_left_out": class_table(by_suite),
        "left_out": class_table(by_group),
        "open_loop": class_table(by_suite, OPEN_CLASSES),
        "shipped": class_table(shipped),
        "coverage": coverage(held, CLASSES),
        "coverage_by_figure": coverage_by_figure(held),
        "objectives": objectives(shipped),
        "choice": choices(groups),
        "constants": constants,
        "few_shot": few_shot(rows),
        "by_group": groups,
        "residuals": {"/".join(cell): value for cell, value in found.items()},
    }
    (HERE / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (HERE / "headline.md").write_text(headline(summary), encoding="utf-8")
    (HERE / "report.md").write_text(report(summary), encoding="utf-8")
    (HERE / "figures").mkdir(exist_ok=True)
    closed = [r for r in by_suite if r.regime == "closed"]
    draw_parity(closed, HERE / "figures" / "parity_closed_loop.png")
    others = [r for r in by_suite if r.regime != "closed"]
    draw_parity(others, HERE / "figures" / "parity_other.png")
    write_residuals(found)
    tell("done")


def write_residuals(found: dict[Cell, float]) -> None:
    """Write the module that the package's intervals read."""
    lines = [
        '"""Residual model error by kind of run, written by `validation/accuracy.py`: '
        'do not edit."""',
        "",
        "from __future__ import annotations",
        "",
        "RESIDUAL: dict[tuple[str, str], tuple[float, float, float, float, float]] = {",
    ]
    for kind in KINDS:
        for sort in ("dense", "moe"):
            values = ", ".join(repr(found[kind, sort, family]) for family in FAMILIES)
            lines.append(f'    ("{kind}", "{sort}"): ({values}),')
    lines += [
        "}",
        '"""Standard deviation of ln(predicted/measured) beyond the propagated one, of TTFT, its '
        "tail, TPOT,",
        'its tail and throughput [1]: 90 % of the figures of left-out suites lie inside."""',
        "",
    ]
    target = HERE.parent / "bestserve" / "answers" / "residuals.py"
    target.write_text("\n".join(lines), encoding="utf-8")


def measurements() -> list[Path]:
    """Return the measured files: the arguments, or those beside the checkout."""
    paths = [Path(text) for text in sys.argv[1:]]
    if not paths:
        beside = Path(os.environ.get("BESTSERVE_SHARED", HERE.parent.parent / "shared"))
        paths = [beside / "measured" / name for name in ("measured_dev.csv", "measured_dev2.csv")]
    for path in paths:
        if not path.is_file():
            sys.exit(
                f"{path} is absent: the measured runs are not part of this repository; "
                "name a tidy CSV: python validation/accuracy.py MEASURED.csv"
            )
    return paths


if __name__ == "__main__":
    main(measurements())
