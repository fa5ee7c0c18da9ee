"""What do batch limits that `rank` chooses miss? A fine search by runs over limits and layouts.

    python validation/tuning.py --minutes 6      # asks more (`kept.py`), writes the report

Every layout of the ranking whose formulas come within `NEAR` of the winner gets every rung of both
limits, one after the other and the first again, held to runs on the same requests: a rung is taken
if the objectives hold at the best rate so far. The winner and the best found then meet fresh
requests; the loss is between these two.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from kept import Row, days, study
from ordinary import ordinary

import bestserve as bs
from bestserve.answers.crossing import highest
from bestserve.answers.goodput import verdict
from bestserve.answers.saturation import sustained
from bestserve.answers.witness import Court
from bestserve.errors import BestserveError
from bestserve.lowering import Lowered, lower
from bestserve.solvers.limits import BUDGETS, SEQS

REPORT_SEED, QUESTIONS = 31607, 45
"""Of the report, of which about a third have no winner; seed 15 served before."""

NEAR = 0.2
"""Layouts that the formulas put this far behind the winner are searched."""

LAYOUTS = 10
"""Of them, at most."""

GAIN = 3e-3
"""Gain for which a rung is taken: what a search by runs resolves."""

SEED, FRESH = 5, 6


class Fine:
    """The best strategy that runs have shown so far, and its goodput on the same requests."""

    def __init__(self, lowered: Lowered, strategy: bs.Strategy, near: float) -> None:
        slo = lowered.problem.slo
        assert slo is not None
        self.lowered, self.court = lowered, Court(slo.target(), seed=SEED)
        self.looks, self.out = 0, set[bs.Strategy]()
        self.best, self.rate = strategy, self.measured(strategy, near)

    def measured(self, strategy: bs.Strategy, near: float) -> float:
        """Return the goodput of a strategy in runs of the usual length [req/s]."""
        system = self.lowered.system(strategy)
        ends = highest(self.court.runs(system, near), self.court.target, near)
        return 0.0 if ends is None else ends.rate

    def consider(self, strategy: bs.Strategy) -> bool:
        """Take a strategy that holds beyond the best rate so far; say whether it was taken.

        One that is out at a lower rate stays out; a short run says first what is clearly out.
        """
        asked = self.rate * (1 + GAIN)
        if strategy in self.out:
            return False
        self.looks += 1
        self.out.add(strategy)
        try:
            system = self.lowered.system(strategy)
            if not self.court.reaches(system, asked, near=0.0) or sustained(system, None) < asked:
                return False
        except BestserveError:
            return False
        self.out.remove(strategy)
        self.best, self.rate = strategy, max(self.measured(strategy, asked), asked)
        return True

    def layout(self, strategy: bs.Strategy) -> None:
        """Try every rung of every limit of a layout, the first limit twice."""
        at = strategy
        self.consider(at)
        for i, name in [*limits(strategy), *limits(strategy)[:1]]:
            for other in rungs(at, i, name):
                if self.consider(other):
                    at = other


def limits(strategy: bs.Strategy) -> list[tuple[int, str]]:
    """Return (pool, name) of the limits that matter: budgets where there are prompts."""
    found = []
    for i, pool in enumerate(strategy.pools):
        if pool.role != "d":
            found.append((i, "max_num_batched_tokens"))
        if pool.role != "p":
            found.append((i, "max_num_seqs"))
    return found


def rungs(strategy: bs.Strategy, i: int, name: str) -> Iterator[bs.Strategy]:
    """Return the strategy with every value of one limit of one pool, the engine's own too."""
    for value in (None, *(BUDGETS if name == "max_num_batched_tokens" else SEQS)):
        pools = list(strategy.pools)
        if getattr(pools[i], name) != value:
            pools[i] = pools[i].model_copy(update={name: value})
            yield bs.Strategy(pools=tuple(pools))


def row_of(seed: int, number: int) -> Row:
    """Rank one question and search around what its formulas know."""
    problem = ordinary(seed, number)
    started = time.process_time()
    found = bs.rank(problem)
    row: Row = {
        "model": str(problem.model),
        "hardware": str(problem.hardware),
        "gpus": problem.gpus,
        "engine": problem.engine if isinstance(problem.engine, str) else "own",
        "seconds": time.process_time() - started,
        "winner": None,
    }
    if not found.table:
        return row
    best, lowered = found.best, lower(problem)
    winner = bs.Strategy.parse(best.strategy)
    fine = Fine(lowered, winner, best.goodput)
    near = [r.strategy for r in found.table if r.goodput >= (1 - NEAR) * best.goodput]
    for name in near[:LAYOUTS]:
        fine.layout(bs.Strategy.parse(name))
    court = Court(fine.court.target, seed=FRESH)
    own, most = (
        verdict(lowered.system(s), court, "simulated").found.rate for s in (winner, fine.best)
    )
    return row | {
        "winner": best.strategy,
        "goodput": best.goodput,
        "found": str(fine.best),
        "loss": max(1 - own / most, 0.0),
        "layouts": len(near[:LAYOUTS]),
        "looks": fine.looks,
        "all_seconds": time.process_time() - started,
    }


def table(rows: list[Row], seed: int = REPORT_SEED) -> str:
    """Return the report."""
    rows = [r for r in rows if r.get("winner")]
    loss = 100 * np.array([float(r["loss"]) for r in rows])
    looks = sum(int(r["looks"]) for r in rows)
    lines = [
        "# What tuned limits miss",
        "",
        f"{len(rows)} ordinary questions with a winner (`validation/tuning.py`, seed {seed}, asked "
        f"{days(rows)}), {looks:,} other "
        "limits and layouts held to runs. Loss of the winner against the best found, on fresh "
        f"requests: median {np.median(loss):.2g} %, 90 % {np.quantile(loss, 0.9):.2g} %, worst "
        f"{loss.max():.2g} %; more than 0.5 % in {int((loss > 0.5).sum())}, more than 3 % in "
        f"{int((loss > 3).sum())}. Goodputs differ by chance by up to 1 %.",
        "",
        "| question | winner | best found | loss [%] | layouts | looks |",
        "|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: -float(r["loss"])):
        lines.append(
            f"| {r['number']} {r['model']}, {r['gpus']} {r['hardware']}, {r['engine']} | "
            f"{r['winner']} | {r['found']} | {100 * float(r['loss']):.2f} | "
            f"{r['layouts']} | {r['looks']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    study(__file__, REPORT_SEED, QUESTIONS, row_of, table)
