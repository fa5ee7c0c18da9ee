"""How well the formulas agree with the simulator over the catalogue, and what trust is worth.

Draws questions as `questions.py` does, answers each analytically (latencies at its load, and its
goodput) and by simulation, and writes one table by regime. The simulator shares the step time with
the models and nothing else, so the figures judge the queueing alone.

    python validation/agreement.py                          # the report: validation/agreement.md
    python validation/agreement.py --seed 1 --count 20 --rows rows.jsonl    # to look closer

What the simulator says is kept as it comes in: a stopped study goes on where it ended, and other
formulas are judged by the same runs. `trust.py` fits trust to the rows. Seeds in `USED` served to
build, tune or fit; the report's was never looked at before.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from questions import REGIMES, Question, ask

from bestserve.answers.simulated import Simulated
from bestserve.catalog import list_hardware, list_models
from bestserve.lowering import lower
from bestserve.models.goodput import goodput
from bestserve.models.lane_arrivals import uncovered
from bestserve.models.latencies import Latencies
from bestserve.models.latency import latency
from bestserve.models.status import LatencyStatus
from bestserve.models.system import System, Target

REPORT_SEED = 51871
USED = (*range(1000), 20261, 26953, 47119, 64019, 71933, 83417, 90437)

OFF = 0.05
"""Relative error beyond which an answer is off, once its sampling noise is taken away [1]."""

NO_LOAD = 2e-3
"""Share of saturation below which a goodput is called infeasible."""

LATENCIES = ("ttft", "tpot", "e2el")
STATISTICS = {"mean": None, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
SIMULATED = ("routed", "bursty")
"""Regimes without a formula."""

JUDGED = ("ttft mean", "ttft p90", "tpot mean", "tpot p90")
"""What trust in a prediction is about; 99th percentiles have a verdict of their own."""

Row = dict[str, Any]


# -- the truth -----------------------------------------------------------------------------------


def simulated(question: Question) -> Row:
    """Return what runs say of a question: latencies at its load, and its goodput twice.

    Halves are of 95 % intervals. No formula has a part in it but as a first guess of the goodput.
    """
    system = lower(question.problem).system(question.strategy)
    target = question.problem.slo.target()  # type: ignore[union-attr]
    row: Row = {"number": question.number, "text": str(question)}
    if uncovered(system):
        return row | {"uncovered": True}
    runs = Simulated(system=system, share=0.99, seed=question.number)
    if runs.refuses:
        return row | {"refused": True}
    rate = question.load * runs.limit
    run = runs.run(rate)
    seen, halves = {}, {}
    for metric in LATENCIES:
        summary = run.summary(metric)
        for name, half in zip(STATISTICS, summary.half_width, strict=True):
            seen[f"{metric} {name}"] = getattr(summary, name)
            halves[f"{metric} {name}"] = half
    rates: list[float] = []
    for seed in (2 * question.number + 10_001, 2 * question.number + 10_002):
        near = rates[0] if rates and rates[0] > 0 else _guess(system, target)
        found = Simulated(system=system, share=target.strictest, seed=seed).highest(target, near)
        rates.append(found[0].rate if found else 0.0)
    return row | {"rate": rate, "seen": seen, "halves": halves, "goodputs": rates}


def _guess(system: System, target: Target) -> float | None:
    try:
        return goodput(system, target).rate or None
    except Exception:  # whatever it is, the answer's row will say so
        return None


# -- the answer ----------------------------------------------------------------------------------


def judged(question: Question, truth: Row) -> Row:
    """Return errors, noise and verdicts of the answers to one question."""
    system = lower(question.problem).system(question.strategy)
    target = question.problem.slo.target()  # type: ignore[union-attr]
    row: Row = {"regimes": question.regimes} | truth
    if "seen" not in truth:
        return row
    try:
        found = latency(system, truth["rate"])
        best = goodput(system, target)
    except Exception as error:
        return row | {"crash": f"{type(error).__name__}: {error}"[:200]}
    true = float(np.mean(truth["goodputs"]))
    row |= {
        "model": best.rate,
        # what the formulas call no load at all is none in a run, too
        "simulated": true if true > NO_LOAD * truth["rate"] / question.load else 0.0,
        # a difference of two tells little: three halves of it, and what pairs differ by in general
        "goodput noise": 1.5 * abs(float(np.diff(truth["goodputs"])[0])) / max(true, 1e-300),
        "goodput trust": best.trust.high,
        "goodput reasons": best.trust.reasons,
        "binding": best.binding.key,
        "low": best.low,
        "high": best.high,
        "share": target.strictest,
        "joint": target.joint,
        "status": found.status.name,
    }
    if best.at.status is LatencyStatus.OK:
        row["at goodput"] = situation(best.at, [target.strictest])
    if found.status is LatencyStatus.OK:
        row |= _errors(found, truth)
        row |= {"trust": found.trust.high, "reasons": found.trust.reasons}
        row["situation"] = situation(found, [0.9, 0.99])
    return row


def _errors(found: Latencies, truth: Row) -> Row:
    """Return relative errors of latencies and their noise, both as shares of the truth."""
    errors, noise = {}, {}
    for metric in LATENCIES:
        law = getattr(found, metric)
        for name, p in STATISTICS.items():
            key, true = f"{metric} {name}", truth["seen"][f"{metric} {name}"]
            if true > 0:
                errors[key] = (law.mean if p is None else law.quantile(p)) / true - 1
                noise[key] = truth["halves"][key] / true
    return {"errors": errors, "noise": noise}


def situation(found: Latencies, percentiles: Iterable[float]) -> Row:
    """Return what trust depends on, with the difference of TPOT's readings at percentiles."""
    if found.situation is None:
        return {}
    law = found.reading
    return asdict(found.situation) | {
        "firm": found.firm.high,
        "readings": [law.apart(p) if law is not None else 0.0 for p in percentiles],
    }


def goodput_error(row: Row) -> float:
    """Return the relative error; 1 where one side alone calls the objectives infeasible."""
    if row["model"] <= 0 and row["simulated"] <= 0:
        return 0.0
    if row["model"] <= 0 or row["simulated"] <= 0:
        return 1.0
    return float(row["model"] / row["simulated"] - 1)


def off(error: float, noise: float) -> bool:
    """Return whether an answer is off by more than 5 % beyond sampling noise."""
    return not abs(error) - (noise if math.isfinite(noise) else 0.0) <= OFF


def goodput_off(row: Row) -> bool:
    """Return whether a row's goodput is off."""
    return off(goodput_error(row), row["goodput noise"])


def latency_off(row: Row, names: Iterable[str]) -> bool:
    """Return whether any of a row's latencies is off."""
    return any(off(row["errors"][n], row["noise"][n]) for n in names if n in row["errors"])


# -- the study -----------------------------------------------------------------------------------


def truths(seed: int, count: int, kept: Path) -> Iterator[tuple[Question, Row]]:
    """Simulate questions, those already in the file `kept` from there."""
    done: dict[int, Row] = {}
    if kept.exists():
        done = {r["number"]: r for r in map(json.loads, kept.read_text().splitlines())}
    for number in range(count):
        question = ask(seed, number)
        # a catalogue that has changed draws other questions
        if number not in done or done[number]["text"] != str(question):
            done[number] = simulated(question)
            with kept.open("a") as file:
                file.write(json.dumps(done[number]) + "\n")
        yield question, done[number]


def main(argv: list[str] | None = None) -> int:
    """Run the study and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=REPORT_SEED)
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--truths", type=Path, help="where simulated answers are kept")
    parser.add_argument("--rows", type=Path, help="where the rows are written")
    parser.add_argument("--simulate-only", action="store_true", help="only fill the truths")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("agreement.md"))
    args = parser.parse_args(argv)
    started = time.process_time()
    kept = args.truths or Path(tempfile.gettempdir()) / f"bestserve-truths-{args.seed}.jsonl"
    if args.simulate_only:
        return sum(1 for _ in truths(args.seed, args.count, kept)) and 0
    rows = [judged(question, truth) for question, truth in truths(args.seed, args.count, kept)]
    if args.rows:
        args.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = report(rows, args.seed)
    print(text)
    print(f"{time.process_time() - started:.0f} s of CPU time", file=sys.stderr)
    if args.seed == REPORT_SEED:
        args.out.write_text(text)
    return 0


# -- the report ----------------------------------------------------------------------------------


def report(rows: list[Row], seed: int) -> str:
    """Return the study as Markdown."""
    answered = [r for r in rows if "model" in r]
    predicted = [r for r in answered if "errors" in r]
    crashed, refused, uncovered = (
        sum(key in r for r in rows) for key in ("crash", "refused", "uncovered")
    )
    noise = [r["goodput noise"] for r in answered if r["simulated"] > 0]
    lines = [
        "# Agreement of the formulas with the simulator, over the whole catalogue",
        "",
        f"Generated by `python validation/agreement.py --seed {seed} --count {len(rows)}`: "
        f"{len(rows)} random questions (`questions.py`) to a catalogue of {len(list_models())} "
        f"models and {len(list_hardware())} GPUs. Of these {uncovered} have arrivals or "
        f"routing that no formula knows, {refused} requests that no KV cache holds; {crashed} "
        "crashed. Errors are |analytic/simulated − 1| in %: "
        "median / 90th percentile / largest; a question counts in every regime that it belongs to. "
        f"Sampling noise of a simulated goodput: {_percent(np.median(noise))} in the median, "
        f"{_percent(np.quantile(noise, 0.9))} in one of ten.",
        "",
        "| regime | n | TTFT P90 | TTFT P99 | TPOT mean | TPOT P90 | TPOT P99 | E2EL P90 "
        "| goodput | … under high trust |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    columns = ("ttft p90", "ttft p99", "tpot mean", "tpot p90", "tpot p99", "e2el p90")
    for name in ("all", *(r for r in REGIMES if r not in SIMULATED)):
        mine = [r for r in answered if name in ("all", *r["regimes"])]
        laws = [r for r in predicted if name in ("all", *r["regimes"])]
        trusted = [goodput_error(r) for r in mine if r["goodput trust"]]
        cells = [_spread(r["errors"][c] for r in laws if c in r["errors"]) for c in columns]
        cells += [_spread(map(goodput_error, mine)), f"{_spread(trusted)} ({len(trusted)})"]
        lines.append(f"| {name} | {len(mine)} | " + " | ".join(cells) + " |")
    lines += ["", "## Trust", "", f"Off: by more than {OFF:.0%} beyond sampling noise.", ""]
    tail = ("ttft p99", "tpot p99")
    lines += _confusion("goodput", [(r, goodput_off(r), r["goodput trust"]) for r in answered])
    lines += _confusion(
        "latencies at a rate, mean and P90",
        [(r, latency_off(r, JUDGED), r["trust"]) for r in predicted],
    )
    lines += _confusion(
        "99th percentiles at a rate",
        [(r, latency_off(r, tail), tail_trusted(r)) for r in predicted],
    )
    return "\n".join(lines) + "\n"


def tail_trusted(row: Row) -> bool:
    """Return whether nothing is said against a prediction, nor against its 99th percentiles."""
    return bool(row["trust"] and not row["reasons"])


def _confusion(title: str, verdicts: list[tuple[Row, bool, bool]]) -> list[str]:
    """Return one trust table, by regime: verdict against error."""
    lines = [
        f"### {title}",
        "",
        "| regime | good, high | good, low | off, high | off, low |",
        "|---|---|---|---|---|",
    ]
    for name in ("all", *(r for r in REGIMES if r not in SIMULATED)):
        cells = np.zeros(4, dtype=int)
        for row, wrong, high in verdicts:
            if name in ("all", *row["regimes"]):
                cells[2 * wrong + (not high)] += 1
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
        if name == "all":
            good, wrong = int(cells[0] + cells[1]), int(cells[2] + cells[3])
            said = (
                f"Of {wrong} that are off {cells[3]} carry low trust "
                f"({_percent(cells[3] / max(wrong, 1))}), of {good} good ones {cells[1]} "
                f"({_percent(cells[1] / max(good, 1))})."
            )
    return [*lines, "", said, ""]


def _spread(values: Iterable[float]) -> str:
    v = 100 * np.abs(np.array(list(values), dtype=float))
    if not v.size:
        return "–"
    return f"{np.median(v):.1f} / {np.quantile(v, 0.9):.1f} / {v.max():.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
