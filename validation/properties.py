"""What must hold of every answer, asked of random questions over the whole catalogue.

    python validation/properties.py --seed 1 --minutes 60     # as `make properties`
    python validation/properties.py --seed 1 --only 17        # one question, to look closer

A question is answered at several rates, for its goodput, and again with tighter objectives, longer
prompts, less bandwidth and less memory; some also in the default mode, some as a ranking. Counted
is whatever must not be: an exception that is no `BestserveError`, a killed process, a warning, a
figure that is not finite, percentiles or shares out of order, a latency that falls with the rate, a
goodput that rises with what makes it harder, a status that contradicts its own limit.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import pairwise

from questions import REGIMES, Question, ask

import bestserve as bs
from bestserve.analysis.parameters import perturbed
from bestserve.errors import BestserveError, InfeasibleError
from bestserve.lowering import lower
from bestserve.models.lane_arrivals import uncovered
from bestserve.models.latency import stability_rate
from bestserve.results.document import AnswerStatus
from bestserve.results.prediction import Prediction
from bestserve.results.ranking import RankedStrategy

LOADS = (0.15, 0.35, 0.55, 0.7, 0.8, 0.88, 0.94)
"""Shares of the stability limit at which latencies are asked for."""

FALL = 0.005
"""Relative fall of a latency between two rates from which it counts [1]."""

RISE = 0.005
"""Relative rise of a goodput made harder from which it counts: the search ends within 0.1 % [1]."""

MISSED = 0.01
"""Share of requests that miss an objective at the goodput, above what it allows [1]."""

HARDER = {
    "tighter TTFT": ("slo.ttft", 0.8),
    "tighter TPOT": ("slo.tpot", 0.8),
    "tighter E2EL": ("slo.e2el", 0.8),
    "longer prompts": ("workload.input_len", 1.25),
    "less bandwidth": ("hardware.memory_bandwidth", 0.75),
    "less memory": ("hardware.memory_bytes", 0.85),
}
"""Changes that cannot raise a goodput: figure and factor."""

DEFAULT_MODE, RANKED = 8, 16
"""One question of so many is also answered in the default mode, and as a ranking."""

KINDS = (
    "crash",
    "warning",
    "not finite",
    "joint above marginal",
    "percentiles out of order",
    "mean outside its law",
    "latency falls",
    "goodput rises",
    "status contradicts",
    "interval without its value",
    "objective missed",
)


@dataclass(frozen=True)
class Violation:
    """Something that must not be: its kind, whether the answer said high trust, what was seen."""

    kind: str
    high: bool
    detail: str


Found = Iterator[Violation]


def examine(question: Question) -> list[Violation]:
    """Return all violations of one question."""
    found: list[Violation] = []
    laws: list[Callable[[Question], Found]] = []
    _watched(found, "system", lambda: laws.extend(_laws(question)))
    for law in laws:
        _watched(found, law.__name__, lambda law=law: found.extend(law(question)))
    return found


def _laws(question: Question) -> list[Callable[[Question], Found]]:
    """Return what must hold of a question; formulas are asked only where there are some."""
    formulas = not uncovered(lower(question.problem).system(question.strategy))
    laws: list[Callable[[Question], Found]] = [curve, goodputs] if formulas else []
    if question.number % DEFAULT_MODE == 0 or not formulas:
        laws.append(default_mode)
    if question.number % RANKED == 0:
        laws.append(ranking)
    return laws


def _watched(found: list[Violation], name: str, work: Callable[[], object]) -> None:
    """Do some work; add its exception and its warnings to what was found."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            work()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {str(error)[:100]}"
            place = f"{where.filename.rsplit('bestserve/', 1)[-1]}:{where.lineno}"
            found.append(Violation("crash", False, f"{name}: {said} ({place})"))
    for text in dict.fromkeys(f"{w.filename}:{w.lineno} {w.message}" for w in caught):
        found.append(Violation("warning", False, f"{name}: {text[-160:]}"))


# -- what must hold ------------------------------------------------------------------------------


def curve(question: Question) -> Found:
    """Latencies over the rate: each by itself, and none falls."""
    limit = stability_rate(lower(question.problem).system(question.strategy))
    answers = []
    for load in LOADS:
        try:
            found = bs.predict(question.problem, question.strategy, load * limit, method="analytic")
        except BestserveError:
            continue
        yield from sound(found)
        answers.append(found)
    for low, high in pairwise(a for a in answers if a.ttft is not None):
        for metric, name, before, after in _paired(low, high):
            if after < before * (1 - FALL):
                yield Violation(
                    "latency falls",
                    low.trust.high and high.trust.high,
                    f"{metric} {name} {before:.5g} s at {low.request_rate:.4g}/s, "
                    f"{after:.5g} s at {high.request_rate:.4g}/s",
                )


def _paired(low: Prediction, high: Prediction) -> Iterator[tuple[str, str, float, float]]:
    for metric in ("ttft", "tpot", "e2el"):
        for name in ("mean", "p50", "p90", "p99"):
            before = getattr(getattr(low, metric), name)
            after = getattr(getattr(high, metric), name)
            yield metric, name, before, after


def sound(found: Prediction) -> Found:
    """One prediction by itself."""
    trust, rate = found.trust.high, found.request_rate
    limit = found.stability_limit
    judged = limit is not None and found.status in (AnswerStatus.UNSTABLE, AnswerStatus.OK)
    if judged and (found.status is AnswerStatus.UNSTABLE) != (rate >= limit):
        said = f"{found.status.name} at {rate:.5g}/s, limit {limit:.5g}/s"
        yield Violation("status contradicts", trust, said)
    if found.status is not AnswerStatus.OK:
        return
    for metric in ("ttft", "tpot", "e2el"):
        s = getattr(found, metric)
        values = (s.p50, s.p90, s.p95, s.p99)
        if not all(math.isfinite(v) and v >= 0 for v in (s.mean, *values)):
            yield Violation("not finite", trust, f"{metric} at {rate:.4g}/s: {s}")
            continue
        if any(b < a for a, b in pairwise(values)):
            yield Violation("percentiles out of order", trust, f"{metric} at {rate:.4g}/s: {s}")
        # Markov: a share 1 − p of the requests takes the p-quantile or longer
        shares = (0.5, 0.1, 0.05, 0.01)
        if any(s.mean < 0.999 * q * v for q, v in zip(shares, values, strict=True)):
            yield Violation("mean outside its law", trust, f"{metric} at {rate:.4g}/s: {s}")
    for value in (found.utilisation, found.attainment, *found.attainment_by.values()):
        if value is not None and not 0 <= value <= 1 + 1e-9:
            yield Violation("not finite", trust, f"share {value} at {rate:.4g}/s")
    if found.attainment is not None and found.attainment_by:
        least = min(found.attainment_by.values())
        if found.attainment > least + 1e-9:
            said = f"{found.attainment:.4f} meet all, {least:.4f} one, at {rate:.4g}/s"
            yield Violation("joint above marginal", trust, said)


def goodputs(question: Question) -> Found:
    """Goodput: consistent by itself, and never higher when made harder."""
    base = _goodput(question.problem, question.strategy)
    if base is not None:
        yield from consistent(question, base)
    slo = question.problem.slo
    for name, (figure, factor) in HARDER.items():
        group, _, field = figure.partition(".")
        if group == "slo" and getattr(slo, field) is None:
            continue
        try:
            problem = perturbed(question.problem, figure, factor)
        except BestserveError:
            continue
        harder = _goodput(problem, question.strategy)
        before = base.goodput if base else 0.0
        if harder is not None and harder.goodput > before * (1 + RISE):
            high = harder.trust.high and (base is None or base.trust.high)
            said = f"{name}: {before:.5g}/s before, {harder.goodput:.5g}/s after"
            yield Violation("goodput rises", high, said)


def _goodput(
    problem: bs.Problem, strategy: str, method: bs.api.Method = "analytic"
) -> RankedStrategy | None:
    """Return the goodput, or None where nothing is feasible."""
    try:
        return bs.goodput(problem, strategy, method=method)
    except InfeasibleError:
        return None


def consistent(question: Question, found: RankedStrategy) -> Found:
    """One goodput by itself: finite, inside its interval, and met there."""
    trust = found.trust.high
    values = (found.goodput, found.ttft, found.tpot, found.utilisation)
    if not all(math.isfinite(v) and v >= 0 for v in values):
        yield Violation("not finite", trust, f"goodput row {values}")
        return
    # an interval of replications may miss the value that verdicts are about by rounding only
    if not found.low <= found.goodput * (1 + 1e-9) <= found.high * (1 + 2e-9):
        said = f"{found.goodput:.5g} outside [{found.low:.5g}, {found.high:.5g}]"
        yield Violation("interval without its value", trust, said)
    if found.method != "analytic":
        return
    at = bs.predict(question.problem, question.strategy, found.goodput, method="analytic")
    yield from sound(at)
    slo = question.problem.slo
    assert slo is not None
    if at.status is not AnswerStatus.OK:
        yield Violation("status contradicts", trust, f"{at.status.name} at the goodput")
        return
    target = slo.target()
    shares = {"joint": at.attainment} if slo.joint else at.attainment_by
    for name, share in shares.items():
        wanted = target.required(name)
        if share is not None and 1 - share > (1 - wanted) * (1 + MISSED):
            said = f"{name}: {share:.5f} of the requests at the goodput, {wanted} wanted"
            yield Violation("objective missed", trust, said)


def default_mode(question: Question) -> Found:
    """The answers a user gets without asking for a method."""
    limit = stability_rate(lower(question.problem).system(question.strategy))
    with contextlib.suppress(InfeasibleError):
        yield from sound(bs.predict(question.problem, question.strategy, question.load * limit))
    found = _goodput(question.problem, question.strategy, "auto")
    if found is not None:
        yield from consistent(question, found)


def ranking(question: Question) -> Found:
    """All strategies of the problem."""
    for row in bs.rank(question.problem).table:
        values = (row.goodput, row.low, row.high, row.ttft, row.tpot, row.utilisation)
        if not all(math.isfinite(v) and v >= 0 for v in values):
            yield Violation("not finite", row.trust.high, f"{row.strategy}: {values}")


# -- counting ------------------------------------------------------------------------------------


def examined(seed: int, number: int) -> tuple[str, tuple[str, ...], list[Violation]]:
    """Return a question as text, its regimes and its violations (runs in another process)."""
    question = ask(seed, number)
    return str(question), question.regimes, examine(question)


class Tally:
    """Counts of questions that violate something, by kind, trust and regime, with examples."""

    def __init__(self) -> None:
        self.questions = 0
        self.kinds: Counter[str] = Counter()
        self.trusted: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.regimes: Counter[tuple[str, str]] = Counter()

    def add(self, regimes: Iterable[str], violations: list[Violation]) -> None:
        """Count one question."""
        self.questions += 1
        self.asked.update(regimes)
        kinds = {v.kind for v in violations}
        self.kinds.update(kinds)
        self.trusted.update({v.kind for v in violations if v.high})
        self.regimes.update((regime, kind) for regime in regimes for kind in kinds)

    def table(self) -> str:
        """Return the counts as text."""
        lines = [f"{self.questions} questions; questions with at least one", ""]
        lines += [f"{'':28s} high trust  any trust"]
        for kind in KINDS:
            lines.append(f"{kind:28s} {self.trusted[kind]:10d} {self.kinds[kind]:10d}")
        lines += ["", f"{'regime':16s} asked  " + "  ".join(k.split()[0] for k in KINDS)]
        for regime in REGIMES:
            row = "  ".join(f"{self.regimes[regime, k]:{len(k.split()[0])}d}" for k in KINDS)
            lines.append(f"{regime:16s} {self.asked[regime]:5d}  {row}")
        return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Ask for some minutes, or so many questions; return 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first question")
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--only", type=int, help="one question, in this process")
    args = parser.parse_args(argv)
    if args.only is not None:
        text, _, violations = examined(args.seed, args.only)
        print(text, *violations, sep="\n  ")
        return bool(violations)
    tally, until = Tally(), time.monotonic() + 60 * args.minutes
    pool = ProcessPoolExecutor(max_workers=1)
    for number in range(args.first, args.first + args.count):
        if time.monotonic() > until:
            break
        try:
            text, regimes, violations = pool.submit(examined, args.seed, number).result()
        except BrokenProcessPool:
            pool.shutdown()
            pool = ProcessPoolExecutor(max_workers=1)
            question = ask(args.seed, number)
            text, regimes = str(question), question.regimes
            violations = [Violation("crash", False, "the process was killed")]
        tally.add(regimes, violations)
        if violations:
            print(text, flush=True)
            for v in violations:
                print(f"    {v.kind} ({'high' if v.high else 'low'}): {v.detail}", flush=True)
    pool.shutdown()
    print(tally.table())
    return bool(tally.kinds)


if __name__ == "__main__":
    sys.exit(main())
