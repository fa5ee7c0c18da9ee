"""How well the formulas agree with the simulator over the catalogue, and what trust is worth.

Draws questions as `questions.py` does and holds three answers against each other, latencies at a
load and a goodput: what a user is told by default, what the formulas say alone, and long runs of
the simulator with other random numbers. `agreement_report.py` writes the tables by regime. The
simulator shares the step time with the models and nothing else, so the figures judge the queueing.

    python validation/agreement.py                          # the report: validation/agreement.md
    python validation/agreement.py --seed 1 --count 20 --rows rows.jsonl    # to look closer

What the simulator says is kept as it comes in: a stopped study goes on where it ended, and other
formulas are judged by the same runs. `trust.py` fits trust to the rows. Seeds in `USED` served to
build, tune or fit; the report's was never looked at before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from agreement_report import Row, report
from questions import Question, ask

import bestserve as bs
from bestserve.answers.crossing import highest
from bestserve.answers.referee import mean_batch
from bestserve.answers.simulated import GROWTH, Simulated, growth
from bestserve.errors import InfeasibleError
from bestserve.lowering import lower
from bestserve.models.attainment import deciders
from bestserve.models.distribution import Distribution
from bestserve.models.goodput import goodput
from bestserve.models.lane_arrivals import known_part, uncovered
from bestserve.models.latencies import Latencies
from bestserve.models.latency import latency
from bestserve.models.status import LatencyStatus
from bestserve.models.system import System, Target

REPORT_SEED = 38851
USED = (
    *range(1000), 51871, 70101, 20261, 26953, 47119, 64019, 71933, 83417, 90437, 99173, 40507, 52967
)  # fmt: skip

NO_LOAD = 2e-3
"""Share of saturation below which a goodput is called infeasible."""

LATENCIES = ("ttft", "tpot", "e2el")
STATISTICS = {"mean": None, "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
NAMES = {p: name for name, p in STATISTICS.items()}

LONGER = 3
"""Times as many requests in the runs that judge as in those that answer."""

LEAST = 1e-9
"""Latencies up to which there are none: answers that leave in one message have no TPOT [s]."""


# -- the truth -----------------------------------------------------------------------------------


def simulated(question: Question, *, searched: bool = True) -> Row:
    """Return what long runs say of a question: latencies at its load, and its goodput twice.

    Halves are of 95 % intervals. Where the queue grows at the load, there are no latencies to agree
    on: the run's length decides them. No formula has a part in it but as a first guess of the
    goodput, which is left out unless it is to be `searched`: that takes most of the time.
    """
    system = lower(question.problem).system(question.strategy)
    target = question.problem.slo.target()  # type: ignore[union-attr]
    row: Row = {"number": question.number, "text": str(question), "formulas": covered(system)}
    usual = Simulated(system=system, share=0.99, seed=question.number)
    if usual.refuses:
        return row | {"refused": True}
    rate = question.load * usual.limit
    run = longer(usual, rate).run(rate)
    if growth(run) > GROWTH:
        return row | {"grows": True}
    seen, halves = {}, {}
    for metric in LATENCIES:
        summary = run.summary(metric)
        for name, half in zip(STATISTICS, summary.half_width, strict=True):
            seen[f"{metric} {name}"] = getattr(summary, name)
            halves[f"{metric} {name}"] = half
    row |= {"rate": rate, "seen": seen, "halves": halves}
    if not searched:
        return row
    rates: list[float] = []
    near = _guess(system, target)
    for seed in (2 * question.number + 10_001, 2 * question.number + 10_002):
        runs = Simulated(system=system, share=target.strictest, seed=seed)
        if not rates:  # short runs find the place where long ones tell the rate
            rough = highest(runs, target, near)
            near = rough.rate if rough else near
        found = highest(longer(runs, near or rate), target, near)
        rates.append(found.rate if found else 0.0)
        near = rates[0] or near
    return row | {"goodputs": rates}


def covered(system: System) -> bool:
    """Return whether formulas know how requests arrive at the lanes."""
    return not uncovered(system)


def longer(runs: Simulated, rate: float) -> Simulated:
    """Return runs long enough for what is in flight at a rate [req/s], and `LONGER` than that."""
    return replace(runs, times=LONGER, running=mean_batch(runs.run(rate)))


def _guess(system: System, target: Target) -> float | None:
    try:
        return goodput(known_part(system), target).rate or None
    except Exception:  # whatever it is, the answer's row will say so
        return None


# -- the answers ---------------------------------------------------------------------------------


def judged(question: Question, truth: Row, *, default: bool = True) -> Row:
    """Return errors, noise and verdicts of the answers to one question.

    default : also what is answered by default, which takes longer than the formulas
    """
    row: Row = {"regimes": question.regimes} | truth
    if "seen" not in truth:
        return row
    if "goodputs" in truth:
        true = float(np.mean(truth["goodputs"]))
        # what is no load at all is none in a run, too
        row["simulated"] = true if true > NO_LOAD * truth["rate"] / question.load else 0.0
        # a difference of two tells little: three halves of it, and what pairs differ by in general
        row["goodput noise"] = 1.5 * abs(float(np.diff(truth["goodputs"])[0])) / max(true, 1e-300)
    try:
        if truth["formulas"]:
            row["alone"] = _alone(question, truth)
        if default:
            row["default"] = _by_default(question, truth)
    except Exception as error:
        row["crash"] = f"{type(error).__name__}: {error}"[:200]
    return row


def _alone(question: Question, truth: Row) -> Row:
    """Return what the formulas say, and what their trust rests on."""
    system = lower(question.problem).system(question.strategy)
    target = question.problem.slo.target()  # type: ignore[union-attr]
    found = latency(system, truth["rate"])
    best = goodput(system, target)
    row: Row = {
        "goodput": best.rate,
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
        row["deciders"] = deciders(best.at, target, best.binding)
    row |= {"trust": found.trust.high, "reasons": found.trust.reasons}
    if found.status is LatencyStatus.OK:
        row |= _errors(truth, lambda metric, p: _statistic(getattr(found, metric), p))
        row["situation"] = situation(found, [0.9, 0.99])
    return row


def _statistic(law: Distribution, p: float | None) -> float:
    return law.mean if p is None else law.quantile(p)


def _by_default(question: Question, truth: Row) -> Row:
    """Return what a user is told who names no method; seconds are of processor time."""
    problem, strategy = question.problem, question.strategy
    told: Row = {}
    started = time.process_time()
    try:
        if "goodputs" in truth:
            best = bs.goodput(problem, strategy)
            told = {"goodput": best.goodput, "goodput trust": best.trust.high}
            told |= {"goodput reasons": best.trust.reasons, "by": best.method}
    except InfeasibleError as error:
        told = {"goodput": 0.0, "goodput trust": True}
        told |= {"goodput reasons": [str(error)[:200]], "by": "infeasible"}
    between = time.process_time()
    found = bs.predict(problem, strategy, truth["rate"])
    told |= {"goodput seconds": between - started, "seconds": time.process_time() - between}
    told |= {"trust": found.trust.high, "reasons": found.trust.reasons, "method": found.method}
    told["status"] = found.status.name
    if found.ttft is not None:
        told |= _errors(truth, lambda metric, p: getattr(getattr(found, metric), NAMES[p]))
    return told


def _errors(truth: Row, answer: Callable[[str, float | None], float]) -> Row:
    """Return relative errors of latencies and their noise, both as shares of the truth."""
    errors, noise = {}, {}
    for metric in LATENCIES:
        for name, p in STATISTICS.items():
            key, true = f"{metric} {name}", truth["seen"][f"{metric} {name}"]
            if true > LEAST:
                errors[key] = answer(metric, p) / true - 1
                noise[key] = truth["halves"][key] / true
    return {"errors": errors, "noise": noise}


def situation(found: Latencies, percentiles: Iterable[float]) -> Row:
    """Return what trust depends on, with the difference of TPOT's readings at percentiles."""
    if found.situation is None:
        return {}
    law = found.reading
    return asdict(found.situation) | {
        "firm": found.structural.high,
        "readings": [law.discrepancy(p) if law is not None else 0.0 for p in percentiles],
    }


# -- the study -----------------------------------------------------------------------------------


def truths(
    seed: int, count: int, kept: Path, *, formulas: bool = False, searched: int | None = None
) -> Iterator[tuple[Question, Row]]:
    """Simulate questions, those already in the file `kept` from there.

    formulas : only those whose arrivals and routing formulas know; searched : so many of the first
    numbers have goodputs (see `simulated`), None: all
    """
    done: dict[int, Row] = {}
    if kept.exists():
        done = {r["number"]: r for r in map(json.loads, kept.read_text().splitlines())}
    for number in range(count):
        question = ask(seed, number)
        if formulas and not covered(lower(question.problem).system(question.strategy)):
            continue
        whole = searched is None or number < searched
        known = done.get(number, {})
        complete = any(key in known for key in ("goodputs", "refused", "grows")) or not whole
        # a catalogue that has changed draws other questions
        if known.get("text") != str(question) or not complete:
            done[number] = simulated(question, searched=whole)
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
    parser.add_argument("--formulas-only", action="store_true", help="as the fit of trust needs")
    parser.add_argument("--searched", type=int, help="how many have goodputs, the slow part")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("agreement.md"))
    args = parser.parse_args(argv)
    started = time.process_time()
    kept = args.truths or Path(tempfile.gettempdir()) / f"bestserve-truths-{args.seed}.jsonl"
    known = truths(args.seed, args.count, kept, formulas=args.formulas_only, searched=args.searched)
    if args.simulate_only:
        return sum(1 for _ in known) and 0
    rows = [judged(question, truth, default=not args.formulas_only) for question, truth in known]
    if args.rows:
        args.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = report(rows, args.seed)
    print(text)
    print(f"{time.process_time() - started:.0f} s of CPU time", file=sys.stderr)
    if args.seed == REPORT_SEED:
        args.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
