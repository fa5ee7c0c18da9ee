"""Are winners true? Random questions ranked, their winners simulated again and compared.

    python validation/winners.py --minutes 6     # asks more (`kept.py`), writes the report

The winner's goodput is measured with other seeds and ten times the requests. Its regret is against
the rows of the table that come within `NEAR` of it and the rungs beside its own limits, all on the
same requests, three times as many as a ranking draws: a rival that a run at the best goodput so far
shows to miss the objectives is none.
"""

from __future__ import annotations

import math
import time

import numpy as np
from kept import Row, days, study
from questions import ask

import bestserve as bs
from bestserve.answers.crossing import highest, lowest
from bestserve.answers.saturation import fills
from bestserve.answers.simulated import Simulated
from bestserve.errors import BestserveError
from bestserve.lowering import Lowered, lower
from bestserve.models.system import Target
from bestserve.solvers.limits import beside

REPORT_SEED, QUESTIONS = 60451, 200
"""Of the report; seed 2026 served before."""

SEEDS, TIMES = (101, 102), 5
"""Runs that tell the truth: ten times the requests of a ranking in all."""

RIVAL_SEED, RIVAL_TIMES = 103, 3
NEAR, RIVALS = 0.12, 8
"""Rows of the table this far behind the winner are simulated, so many at most."""

MOST_GPUS = 64

LEAST = 1e-3
"""Share of a goodput at which rivals of a winner that has none are looked at."""


class Truth:
    """What longer runs with other seeds say of one problem's strategies."""

    def __init__(self, lowered: Lowered, near: float) -> None:
        """`near` : a guess of the goodputs [req/s]."""
        slo = lowered.problem.slo
        assert slo is not None
        self.lowered, self.near = lowered, near
        self.target: Target = slo.target()

    def runs(self, strategy: bs.Strategy, seed: int, times: int) -> Simulated:
        """Return runs of a strategy. Raises InfeasibleError."""
        system, share = self.lowered.system(strategy), self.target.strictest
        return Simulated(system=system, share=share, times=times, seed=seed)

    def goodput(self, strategy: bs.Strategy, seeds: tuple[int, ...], times: int) -> float:
        """Return the mean goodput over seeds [req/s]; 0 where some seed has none."""
        found = [self.crossing(strategy, seed, times) for seed in seeds]
        return float(np.mean(found)) if min(found) > 0 else 0.0

    def crossing(self, strategy: bs.Strategy, seed: int, times: int) -> float:
        """Return the lowest rate at which runs begin to miss the target [req/s]; 0: at any.

        No more than a run that starts full carries, unless its cache evicts, which costs it more:
        what is missed only because a queue grows shows late.
        """
        runs = self.runs(strategy, seed, times)
        ends = highest(runs, self.target, self.near)
        if ends is None:
            return 0.0
        short = self.runs(strategy, seed, 1)
        rate = lowest(runs, short, self.target, ends)[0].rate
        return rate if fills(runs.system) else min(rate, runs.limit)

    def best(self, winner: bs.Strategy, rivals: list[bs.Strategy]) -> tuple[float, float, str]:
        """Return the winner's goodput, the most of all, and whose that is, on the same requests."""
        own = most = self.goodput(winner, (RIVAL_SEED,), RIVAL_TIMES)
        who = str(winner)
        for rival in dict.fromkeys(rivals):
            try:
                runs = self.runs(rival, RIVAL_SEED, RIVAL_TIMES)
                if runs.look(max(most, LEAST * self.near), self.target).room < 0:
                    continue
                reached = self.goodput(rival, (RIVAL_SEED,), RIVAL_TIMES)
            except BestserveError:
                continue
            if reached > most:
                most, who = reached, str(rival)
        return own, most, who


def row_of(seed: int, number: int) -> Row:
    """Rank one question and hold its winner to runs."""
    question = ask(seed, number)
    factor = int(np.random.default_rng([seed, number, 1]).choice([1, 2, 4]))
    problem = question.problem
    problem = problem.replaced(gpus=min(factor * problem.gpus, max(problem.gpus, MOST_GPUS)))
    started = time.process_time()
    found = bs.rank(problem)
    row: Row = {
        "model": str(problem.model),
        "hardware": str(problem.hardware),
        "gpus": problem.gpus,
        "regimes": list(question.regimes),
        "seconds": time.process_time() - started,
        "failures": [r.reason for r in found.failures],
        "winner": None,
    }
    if not found.table:
        return row
    best, lowered = found.best, lower(problem)
    strategy, truth = bs.Strategy.parse(best.strategy), Truth(lowered, best.goodput)
    near = [r for r in found.table[1:] if r.goodput >= (1 - NEAR) * best.goodput][:RIVALS]
    rivals = [bs.Strategy.parse(r.strategy) for r in near]
    true = truth.goodput(strategy, SEEDS, TIMES)
    own, most, who = truth.best(strategy, [*rivals, *beside(lowered, strategy)])
    return row | {
        "winner": best.strategy,
        "goodput": best.goodput,
        "method": best.method,
        "trust": best.trust.level,
        "confirmed": best.confirmed,
        "truth": true,
        "off": best.goodput / true - 1 if true > 0 else math.inf,
        "regret": 1 - own / most if most > 0 else math.inf,
        "better": who,
        "all_seconds": time.process_time() - started,
    }


def table(rows: list[Row], seed: int = REPORT_SEED) -> str:
    """Return the report: quantiles of error and regret, and the worst questions."""
    rows = [r for r in rows if "refused" not in r]
    won = [r for r in rows if r["winner"]]
    errors = np.array([abs(float(r["off"])) for r in won])
    sure = np.array([bool(r["confirmed"]) for r in won])
    regrets = np.array([float(r["regret"]) for r in won])
    seconds = np.array([float(r["seconds"]) for r in rows])
    high = np.array([r["trust"] == "high" for r in won])
    lines = [
        "# Winners of random questions",
        "",
        f"{len(rows)} questions over the whole catalogue (`validation/winners.py`, seed {seed}, "
        f"asked {days(rows)}), {len(won)} with a winner, {int(sure.sum())} of them confirmed, "
        f"{int(high.sum())} with high trust; "
        f"{sum(bool(r['failures']) for r in rows)} with a numerical failure. Winners are simulated "
        "again with other seeds and ten times the requests; regret is against the table's rows "
        f"within {NEAR:.0%} and the rungs beside the winner's limits, on the same requests.",
        "",
        "| | median | 90 % | largest |",
        "|---|---|---|---|",
    ]
    parts = (
        ("goodput off [%]", 100 * errors),
        ("goodput off, confirmed [%]", 100 * errors[sure]),
        ("goodput off, high trust [%]", 100 * errors[high]),
        ("regret [%]", 100 * regrets),
        ("CPU [s]", seconds),
    )
    for name, values in parts:
        a, b, c = np.median(values), np.quantile(values, 0.9), values.max()
        lines.append(f"| {name} | {a:.2g} | {b:.2g} | {c:.2g} |")
    lines += [
        "",
        "Worst by error, then by regret:",
        "",
        "| question | winner | goodput | confirmed | trust | off [%] | regret [%] | better "
        "| regimes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    by_error = sorted(won, key=lambda r: -abs(float(r["off"])))[:8]
    by_regret = sorted(won, key=lambda r: -float(r["regret"]))[:6]
    for r in {id(r): r for r in [*by_error, *by_regret]}.values():
        goodput, off, regret = (float(r[k]) for k in ("goodput", "off", "regret"))
        lines.append(
            f"| {r['number']} {r['model']}, {r['gpus']} {r['hardware']} | {r['winner']} | "
            f"{goodput:.4g} | {'yes' if r['confirmed'] else 'no'} | {r['trust']} | "
            f"{100 * off:+.1f} | {100 * regret:.1f} | {r['better']} | "
            f"{', '.join(r['regimes'])} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    study(__file__, REPORT_SEED, QUESTIONS, row_of, table)
