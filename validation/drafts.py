"""How well formulas and simulator agree where tokens are speculated, over the catalogue.

Draws questions as `questions.py` does, those whose arrivals formulas know, and gives each drafts:
of an EAGLE-3 head where the model can have one, else of n-grams, one to seven of them or the best
table, with an acceptance and a spread between requests. Formulas and a long run of the simulator
share step times and the law of acceptance, so that the figures judge the queueing.

    python validation/drafts.py             # the report: validation/drafts.md
    python validation/drafts.py --count 10  # to look closer
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from questions import ask

from bestserve.answers.draft_choice import drafting_as
from bestserve.answers.simulated import GROWTH, Simulated, growth
from bestserve.errors import BestserveError
from bestserve.lowering import Lowered, lower
from bestserve.models.lane_arrivals import uncovered
from bestserve.models.latency import latency, stability_rate
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Collocated, System
from bestserve.specs.strategy import Strategy

HERE = Path(__file__).parent
SEED = 91
COUNT = 120
DRAFTS = (1, 2, 3, 5, 7, "table")
GOALS = {"TPOT mean": (0.01, 0.10), "TPOT P90": (0.03, 0.10)}
"""Median and worst error, the worst of what has high trust."""


@dataclass(frozen=True)
class Asked:
    """One system that speculates, at a share of its saturated rate; plain : without drafts."""

    text: str
    system: System
    plain: System
    load: float

    @property
    def table(self) -> bool:
        """Whether drafts follow the number of decodes."""
        lane = self.system.lane if isinstance(self.system, Collocated) else self.system.decode
        return len(lane.speculation.schedule) > 1


@dataclass(frozen=True)
class Compared:
    """Formula over simulator, less 1, by figure; noise: halves of 95 % intervals, likewise."""

    asked: Asked
    errors: dict[str, float]
    noise: dict[str, float]
    high: bool


def drawn(seed: int, number: int) -> Asked | None:
    """Return a question with drafts; None where formulas do not know it or it cannot be built."""
    question = ask(seed, number)
    rng = np.random.default_rng([seed, number, 1])
    drafts = DRAFTS[int(rng.integers(len(DRAFTS)))]
    config = {
        "acceptance": round(float(rng.uniform(0.4, 0.85)), 2),
        "acceptance_spread": float(rng.choice([0.0, 0.05, 0.15, 0.25])),
        "num_speculative_tokens": drafts if isinstance(drafts, int) else 5,
    }
    for method in ("eagle3", "ngram"):
        problem = question.problem.replaced(
            routing="random", speculative_config=config | {"method": method}
        )
        strategy = drafting_as(Strategy.parse(question.strategy), drafts)
        lowered: Lowered = lower(problem)
        try:
            system = lowered.system(strategy)
        except BestserveError:
            continue
        if not uncovered(system) and stability_rate(system) > 0:
            said = f"{problem.model} {problem.hardware} {problem.engine} {strategy} {method}"
            lengths = f"{problem.workload.input_len!r} → {problem.workload.output_len!r}"
            accepted = f"a {config['acceptance']}, spread {config['acceptance_spread']:g}"
            plain = lowered.system(drafting_as(strategy, 0))
            return Asked(f"{said}, {lengths}, {accepted}", system, plain, question.load)
    return None


def compared(asked: Asked, seed: int, times: float = 2.0) -> Compared | None:
    """Return the errors of an answer; None where it has none, or the queue grows in a run."""
    runs = Simulated(system=asked.system, share=0.9, seed=seed, times=times)
    if runs.refuses:
        return None
    rate = asked.load * min(runs.limit, stability_rate(asked.system))
    run, found = runs.run(rate), latency(asked.system, rate)
    if growth(run) > GROWTH or found.status is not LatencyStatus.OK:
        return None
    errors, noise = {}, {}
    for metric in ("tpot", "ttft"):
        summary, law = run.summary(metric), getattr(found, metric)
        halves = dict(zip(("mean", "p50", "p90"), summary.half_width, strict=False))
        for name, value in (("mean", law.mean), ("p90", law.quantile(0.9))):
            true = getattr(summary, name)
            if true > 0:
                key = f"{metric.upper()} {name if name == 'mean' else 'P90'}"
                errors[key], noise[key] = value / true - 1, halves[name] / true
    return Compared(asked, errors, noise, found.trust.high)


def report(rows: list[Compared]) -> str:
    """Return the page."""
    lines = [
        "# Drafts: formulas against the simulator",
        "",
        f"Written by `validation/drafts.py`: {len(rows)} settings drawn over the catalogue (seed "
        f"{SEED}) with one to seven drafts or the best table, acceptance .4 to .85, spreads "
        "between requests up to .25, loads .2 to .95. Errors are formula over simulator, less 1; "
        "noise is half of the run's 95 % interval.",
        "",
        "| | settings | median | P90 | largest | noise, median | within its goal |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups = {
        "all": rows,
        "high trust": [row for row in rows if row.high],
        "low trust": [row for row in rows if not row.high],
        "high trust, a table": [row for row in rows if row.high and row.asked.table],
        "high trust, one number": [row for row in rows if row.high and not row.asked.table],
    }
    for name, some in groups.items():
        for figure in ("TPOT mean", "TPOT P90", "TTFT P90"):
            found = [row for row in some if figure in row.errors]
            if not found:
                continue
            errors = np.array([row.errors[figure] for row in found])
            size = np.abs(errors)
            median, worst = float(np.median(size)), float(errors[size.argmax()])
            met = "–"
            if figure in GOALS and name in ("all", "high trust"):
                goals = GOALS[figure]
                met = "yes" if median <= goals[0] else "no"
                if name == "high trust":
                    met += ", yes" if abs(worst) <= goals[1] else ", no"
            noise = float(np.median([row.noise[figure] for row in found]))
            lines.append(
                f"| {name}: {figure} | {len(found)} | {median:.1%} | "
                f"{np.quantile(size, 0.9):.1%} | {worst:+.1%} | {noise:.1%} | {met} |"
            )
    lines += [
        "",
        "Goals: median of TPOT's mean 1 %, of its P90 3 %; largest under high trust 10 %.",
        "",
        "The largest errors of TPOT under high trust, and those of the same system without drafts:",
        "",
    ]
    for row in farthest(rows):
        twin = compared(replace(row.asked, system=row.asked.plain), 0)
        lines.append(
            f"- {told(row)}, without drafts {told(twin)}: {row.asked.text}, load "
            f"{row.asked.load:.2f}"
        )
    return "\n".join(lines) + "\n"


def farthest(rows: list[Compared], count: int = 4) -> list[Compared]:
    """Return the trusted settings with the largest errors of TPOT, largest first."""
    trusted = [row for row in rows if row.high]
    far = sorted(trusted, key=lambda row: -max(abs(row.errors.get(f, 0.0)) for f in GOALS))
    return far[:count]


def told(row: Compared | None) -> str:
    """Return the errors of TPOT, and their noise, in words."""
    if row is None:
        return "no answer"
    return ", ".join(f"{f} {row.errors[f]:+.1%} (± {row.noise[f]:.1%})" for f in GOALS)


def main(argv: list[str] | None = None) -> None:
    """Run the study and write its page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args(argv)
    rows = []
    for number in range(args.count):
        asked = drawn(args.seed, number)
        row = None if asked is None else compared(asked, number)
        if row is not None:
            rows.append(row)
    page = report(rows)
    if (args.seed, args.count) == (SEED, COUNT):
        (HERE / "drafts.md").write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
