"""Accuracy against measured systems, by leaving out whole groups.

    python validation/accuracy.py [MEASURED.csv]       # default: the file beside the checkout

A group is one model on one GPU under one engine preset. The engine constants of a group are fitted
to other groups of the same preset (never to rows of its own), starting from priors that were
written down before these rows were replayed (`PRIORS`). What was chosen while looking at all
groups (protocols of the suites, forms, kernel rows) is listed in the report: it is not held out.

Writes beside this file: summary.json (figures), headline.md (the README's table), report.md,
figures/; and `bestserve/answers/residuals.py`, the residual error that intervals carry.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from accuracy_report import headline, report

from bestserve.answers.factors import FACTORS, apply_factors, factors_for
from bestserve.answers.intervals import FAMILIES, KINDS, Z90, family_of
from bestserve.answers.residuals import RESIDUAL
from bestserve.catalog import load_engine
from bestserve.readers.logs import read_log
from bestserve.validation.compare import compare_row, labels
from bestserve.validation.comparison import RowComparison
from bestserve.validation.errors import summarise
from bestserve.validation.groups import choice_of
from bestserve.validation.map_fit import fit_factors, log_errors, targets
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.parity import draw_parity
from bestserve.validation.replay import Prepared, measured_figures, predict_row, prepare, system_of

HERE = Path(__file__).resolve().parent
FOLDS = 4
FIT_ROWS = 40
FITTED = ("a_step", "a_seq", "t_req", "gamma", "phi")
BETWEEN = {"ttft": 0.4, "tpot": 0.2}
"""Scatter of ln(predicted/measured) between groups that share constants [1]: their hosts, clients
and kernels differ, so that many rows of one group say little about another."""

OUTLIER = 1.1
"""Training rows whose TTFT or TPOT is off by more than e^1.1 = 3 under the priors are left out of
the fit (never out of the test): they ran under a limit that the row does not state."""

INTERVAL_FOLDS = 5
"""Parts of the groups, each held out in turn, in the check of the intervals."""

FEW_SHOT_SIZES = (3, 6)
FEW_SHOT_GROUPS = 24
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

CLASSES = {
    "dense, closed loop": lambda r: r.regime == "closed" and not r.moe,
    "MoE, closed loop": lambda r: r.regime == "closed" and r.moe,
    "open loop": lambda r: r.regime == "open",
    "MLPerf Server (at its knee)": lambda r: r.regime == "knee",
    "disaggregated": lambda r: r.regime == "disaggregated",
    "bursts": lambda r: r.regime == "burst",
}

QUEUED_MS = 2000.0
"""Measured tail of TTFT above which an open-loop run is called queued: below, a prompt waits for
steps, above, for other requests, so that a small error of the capacity is a large one of TTFT."""

OPEN_CLASSES = {
    "without a queue": lambda r: r.regime == "open" and not queued(r),
    "with a queue": lambda r: r.regime == "open" and queued(r),
}

Key = tuple[str, str, str]


def queued(row: RowComparison) -> bool:
    """Return whether the measured tail of TTFT shows a queue."""
    tail = row.measured.get("ttft_p99_ms", row.measured.get("ttft_p90_ms", 0.0))
    return tail > QUEUED_MS


def prepare_all(path: Path) -> tuple[list[Prepared], Counter[str]]:
    """Return the rows that can be predicted, and the reasons of the others with their counts."""
    usable: list[Prepared] = []
    refused: Counter[str] = Counter()
    for row in read_log(path).rows:
        try:
            candidate = prepare(row)
            system_of(candidate)
            usable.append(candidate)
        except UnpredictableError as refusal:
            refused[refusal.outcome.sentence] += 1
    return usable, refused


def group_of(prepared: Prepared) -> Key:
    """Return (model, GPU, preset)."""
    names = labels(prepared)
    return names["model"], names["gpu"], names["engine"]


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


def leave_groups_out(rows: list[Prepared]) -> tuple[list[RowComparison], list[dict[str, object]]]:
    """Return every row predicted with constants fitted to other groups, and those constants."""
    from joblib import Parallel, delayed

    rows = [with_prior(r) for r in rows]
    families: dict[tuple[str, bool], list[Prepared]] = defaultdict(list)
    for row in rows:
        families[row.deployment.engine.preset, row.deployment.moe].append(row)
    tasks, tests, kinds = [], [], []
    for (preset, moe), members in sorted(families.items()):
        groups = sorted({group_of(r) for r in members})
        folds = min(FOLDS, len(groups))
        for fold in range(folds):
            held = {g for i, g in enumerate(groups) if i % folds == fold}
            test = [r for r in members if group_of(r) in held]
            train = [
                r for r in members
                if group_of(r) not in held and labels(r)["regime"] in ("closed", "open")
            ]  # fmt: skip
            tasks.append(delayed(fit_fold)(train, moe))
            tests.append(test)
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


def variances(shipped: list[RowComparison]) -> dict[str, dict[str, float]]:
    """Return the propagated variance of each figure of each row, read back from its interval."""
    out: dict[str, dict[str, float]] = {}
    for row in shipped:
        kind = row.regime, "moe" if row.moe else "dense"
        out[row.id] = {}
        for name, (_, high) in row.intervals.items():
            width = math.log(high / row.predicted[name]) / Z90
            residual = RESIDUAL[kind][FAMILIES.index(family_of(name))]
            out[row.id][name] = max(width**2 - residual**2, 0.0)
    return out


Cell = tuple[str, str, str]


def scores(
    rows: list[RowComparison], variance: dict[str, dict[str, float]]
) -> dict[Cell, list[tuple[float, float]]]:
    """Return (|ln predicted/measured|, propagated variance) by kind, model kind and family."""
    out: dict[Cell, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for name, error in row.errors.items():
            if error > -1:
                cell = row.regime, "moe" if row.moe else "dense", family_of(name)
                known = variance.get(row.id, {}).get(name, 0.0)
                out[cell].append((abs(math.log1p(error)), known))
    return out


def residual_of(pairs: list[tuple[float, float]]) -> float:
    """Return the residual deviation at which 90 % of the pairs lie inside their interval.

    One pair more than 90 % of n + 1, as split-conformal intervals ask.
    """
    wanted = min(1.0, math.ceil(0.9 * (len(pairs) + 1)) / len(pairs))
    low, high = 0.02, 4.0
    for _ in range(40):
        s = math.sqrt(low * high)
        inside = np.mean([e <= Z90 * math.sqrt(v + s * s) for e, v in pairs])
        low, high = (low, s) if inside >= wanted else (s, high)
    return round(high, 2)


def residuals(
    rows: list[RowComparison], variance: dict[str, dict[str, float]]
) -> dict[Cell, float]:
    """Return the residual of every cell; cells of few figures take their neighbours' too."""
    by_cell = scores(rows, variance)
    out: dict[Cell, float] = {}
    for kind in KINDS:
        for sort in ("dense", "moe"):
            for family in FAMILIES:
                pairs = list(by_cell.get((kind, sort, family), []))
                if len(pairs) < 20:
                    pairs += by_cell.get((kind, "moe" if sort == "dense" else "dense", family), [])
                if len(pairs) < 20:
                    pairs += by_cell.get((kind, sort, family.removesuffix("_tail")), [])
                if len(pairs) < 20:
                    pairs += by_cell.get(("open", sort, family), [])
                out[kind, sort, family] = residual_of(pairs) if len(pairs) >= 10 else 0.5
    return out


def hits(
    rows: list[RowComparison], variance: dict[str, dict[str, float]]
) -> list[tuple[RowComparison, Cell, bool]]:
    """Return each figure's row, cell, and whether its interval holds the measurement.

    Widths come from the other groups, a fifth of the groups left out in turn: nearly as many as
    stand behind the committed widths, and none of the row's own group.
    """
    groups = sorted({(r.model, r.gpu, r.engine) for r in rows})
    part = {g: i % INTERVAL_FOLDS for i, g in enumerate(groups)}
    out = []
    for fold in range(INTERVAL_FOLDS):
        seen = [r for r in rows if part[r.model, r.gpu, r.engine] != fold]
        width = residuals(seen, variance)
        for row in rows:
            if part[row.model, row.gpu, row.engine] != fold:
                continue
            for name, error in row.errors.items():
                if error <= -1:
                    continue
                cell = row.regime, "moe" if row.moe else "dense", family_of(name)
                known = variance.get(row.id, {}).get(name, 0.0)
                reach = Z90 * math.sqrt(known + width[cell] ** 2)
                out.append((row, cell, abs(math.log1p(error)) <= reach))
    return out


def coverage(found: list[tuple[RowComparison, Cell, bool]]) -> dict[str, float]:
    """Return the share of figures inside their interval [1]: by class, over all, and the mean over
    groups, in which small groups count as much as large ones."""
    by_label: dict[str, list[bool]] = defaultdict(list)
    by_group: dict[Key, list[bool]] = defaultdict(list)
    for row, _, inside in found:
        by_label[next(n for n, test in CLASSES.items() if test(row))].append(inside)
        by_label["all"].append(inside)
        by_group[row.model, row.gpu, row.engine].append(inside)
    out = {label: float(np.mean(inside)) for label, inside in by_label.items()}
    out["mean over groups"] = float(np.mean([np.mean(v) for v in by_group.values()]))
    return out


def coverage_by_figure(
    found: list[tuple[RowComparison, Cell, bool]],
) -> dict[str, tuple[int, float]]:
    """Return (figures, share inside) by kind of run, model kind and family: "closed/moe/ttft"."""
    cells: dict[Cell, list[bool]] = defaultdict(list)
    for _, cell, inside in found:
        cells[cell].append(inside)
    return {"/".join(c): (len(v), round(float(np.mean(v)), 3)) for c, v in sorted(cells.items())}


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


def main(path: Path) -> None:
    """Recompute everything from the measured file."""
    started = time.perf_counter()
    rows, refused = prepare_all(path)
    print(f"{len(rows)} rows prepared", file=sys.stderr)
    from joblib import Parallel, delayed

    shipped = Parallel(n_jobs=os.cpu_count() or 1, batch_size=8)(
        delayed(compare_row)(r.row) for r in rows
    )
    refused.update(r.status.sentence for r in shipped if r.status is not Outcome.PREDICTED)
    shipped = [r for r in shipped if r.status is Outcome.PREDICTED]
    print(f"shipped constants: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    left_out, constants = leave_groups_out(rows)
    print(f"left out: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    variance = variances(shipped)
    found = residuals(left_out, variance)
    inside = hits(left_out, variance)
    summary = {
        "rows": len(shipped) + sum(refused.values()),
        "predicted": len(shipped),
        "refused": dict(refused.most_common()),
        "groups": len({(r.model, r.gpu, r.engine) for r in left_out}),
        "left_out": class_table(left_out),
        "open_loop": class_table(left_out, OPEN_CLASSES),
        "shipped": class_table(shipped),
        "coverage": coverage(inside),
        "coverage_by_figure": coverage_by_figure(inside),
        "constants": constants,
        "few_shot": few_shot(rows),
        "by_group": group_table(left_out),
        "residuals": {"/".join(cell): value for cell, value in found.items()},
    }
    (HERE / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (HERE / "headline.md").write_text(headline(summary), encoding="utf-8")
    (HERE / "report.md").write_text(report(summary), encoding="utf-8")
    (HERE / "figures").mkdir(exist_ok=True)
    closed = [r for r in left_out if r.regime == "closed"]
    draw_parity(closed, HERE / "figures" / "parity_closed_loop.png")
    others = [r for r in left_out if r.regime != "closed"]
    draw_parity(others, HERE / "figures" / "parity_other.png")
    write_residuals(found)
    print(f"done: {time.perf_counter() - started:.0f} s", file=sys.stderr)


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
        'its tail and throughput [1]: 90 % of the left-out figures lie inside."""',
        "",
    ]
    target = HERE.parent / "bestserve" / "answers" / "residuals.py"
    target.write_text("\n".join(lines), encoding="utf-8")


def measurements() -> Path:
    """Return the measured file: the argument, or the one beside the checkout."""
    if len(sys.argv) == 2:
        path = Path(sys.argv[1])
    else:
        beside = os.environ.get("BESTSERVE_SHARED", HERE.parent.parent / "shared")
        path = Path(beside) / "measured" / "measured_dev.csv"
    if not path.is_file():
        sys.exit(
            f"{path} is absent: the measured runs are not part of this repository; "
            "name a tidy CSV: python validation/accuracy.py MEASURED.csv"
        )
    return path


if __name__ == "__main__":
    main(measurements())
