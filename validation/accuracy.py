"""Accuracy against measured systems, by leaving out whole suites and whole groups.

    python validation/accuracy.py [MEASURED.csv ...]   # default: the files beside the checkout

A suite is one source: its hosts, its client, its habits. A group is one model on one GPU under one
engine preset. `accuracy_folds` fits the engine constants of each to the others. What was chosen
while looking at all rows (protocols of the suites, forms, kernel rows) is listed in the report: it
is not held out. An interrupted run goes on where it stopped, unless code or data changed.

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

from accuracy_folds import (
    CHUNK,
    few_shot,
    group_of,
    leave_out,
    source_name,
    suite_of_row,
)
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
from accuracy_parts import Parts
from accuracy_report import headline, report

from bestserve.answers.intervals import FAMILIES, KINDS
from bestserve.readers.logs import read_log
from bestserve.validation.compare import compare_row, kind_of
from bestserve.validation.comparison import RowComparison
from bestserve.validation.errors import summarise
from bestserve.validation.floor import impossible
from bestserve.validation.groups import choice_of
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.parity import draw_parity
from bestserve.validation.replay import Prepared, prepare, system_of

HERE = Path(__file__).resolve().parent
FOLDS = 4
"""Parts into which the groups of a preset are dealt."""

SPECULATIVE = frozenset({"m02627", "m02628", "m02629", "m02649", "m02650"})
"""Rows whose sources print accept lengths of 3.26 to 3.50, recorded as plain runs."""

INTERVAL_ROWS = 3
"""One row in so many has its interval computed, which costs five to eight predictions."""

FEW_ROWS = 100
"""Rows of a kind below which each one has its interval computed."""


def behind_cache(workload: str) -> bool:
    """Return whether prompts shared parts that a prefix cache held, of which rows say little."""
    return re.search(r"shared_prefix|multi-turn", workload) is not None


CLASSES = {
    "dense, closed loop": lambda r: r.regime == "closed" and not r.moe,
    "MoE, closed loop": lambda r: r.regime == "closed" and r.moe,
    "open loop": lambda r: r.regime == "open" and not behind_cache(r.workload),
    "MLPerf Server (at its knee)": lambda r: r.regime == "knee",
    "disaggregated": lambda r: r.regime == "disaggregated",
    "bursts": lambda r: r.regime == "burst",
    "behind a prefix cache": lambda r: behind_cache(r.workload),
}

QUEUED_MS = 2000.0
"""Measured tail of TTFT above which an open-loop run is called queued: below, a prompt waits for
steps, above, for other requests, so that a small error of the capacity is a large one of TTFT."""

OPEN_CLASSES = {
    "without a queue": lambda r: (
        r.regime == "open" and not behind_cache(r.workload) and not queued(r)
    ),
    "with a queue": lambda r: r.regime == "open" and not behind_cache(r.workload) and queued(r),
}


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


def compared_rows(rows: list[Prepared], first: int) -> list[RowComparison]:
    """Return the comparisons with shipped constants, of the next `CHUNK` rows from `first` on."""
    of_kind = Counter(map(kind_of, rows))
    return [
        compare_row(
            row.row,
            with_intervals=n % INTERVAL_ROWS == 0 or of_kind[kind_of(row)] < FEW_ROWS,
        )
        for n, row in enumerate(rows[first : first + CHUNK], first)
    ]


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
    parts = Parts.beside(HERE / ".parts", [*sources(), *paths])
    chunks = Parallel(n_jobs=os.cpu_count() or 1)(
        delayed(parts.kept)(f"shipped-{n}", compared_rows, rows, n)
        for n in range(0, len(rows), CHUNK)
    )
    shipped = [row for chunk in chunks for row in chunk]
    refused.update(r.status.sentence for r in shipped if r.status is not Outcome.PREDICTED)
    shipped = [r for r in shipped if r.status is Outcome.PREDICTED]
    tell("shipped constants")
    by_suite, constants = leave_out(rows, suite_of_row, len(rows), parts)
    tell("suites left out")
    by_group, _ = leave_out(rows, group_of, FOLDS, parts)
    tell("groups left out")
    variance = variances(shipped)
    sampled = [r for r in by_suite if variance.get(r.id) and not behind_cache(r.workload)]
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
        "few_shot": few_shot(rows, parts),
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
    parts.drop()
    tell("done")


def sources() -> list[Path]:
    """Return what the figures depend on besides the measurements: code and data."""
    package = HERE.parent / "bestserve"
    kinds = (".py", ".toml", ".json", ".csv")
    return [*HERE.glob("accuracy*.py"), *(p for p in package.rglob("*") if p.suffix in kinds)]


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
