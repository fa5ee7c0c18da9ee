"""Hybrids: formulas against runs under random routing, and who wins where under least TTFT.

Agreement: random settings of up to three lanes of either kind, budgets, shares and loads; TTFT,
TPOT and joint attainment. Crossovers: three models on 4, 8 and 16 instances along a path of
objectives, from tight TTFT to very tight TPOT; every layout with its best budgets and counts, all
under the routing by least predicted TTFT. Writes `validation/hybrid.md`.

    python validation/hybrid.py --agreement 16 --requests 4000

With `--keep FILE` what is done is not done again, so that the study can be made in parts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import bestserve as bs
from bestserve.answers.crossing import highest
from bestserve.answers.simulated import Simulated
from bestserve.lowering import Lowered, lower
from bestserve.models.attainment import attainment
from bestserve.models.hybrid import fluid_bound
from bestserve.models.latency import latency, stability_rate
from bestserve.models.system import Hybrid, Lengths, System, Target
from bestserve.simulator import Requests, simulate
from bestserve.simulator.inputs import sample_lengths

WORKLOAD = {
    "input_len": bs.LogNormal(2000, cv=0.8),
    "output_len": bs.LogNormal(300, cv=1.0),
}
MODELS = {
    "Llama-3.1-70B tp4": ("meta-llama/Llama-3.1-70B", 4),
    "Qwen3-32B tp2": ("Qwen/Qwen3-32B", 2),
    "Llama-3.1-8B tp1": ("meta-llama/Llama-3.1-8B", 1),
}
INSTANCES = (4, 8, 16)
PATH = ((4.0, 6.0), (6.0, 3.0), (8.0, 2.0), (12.0, 2.0), (20.0, 1.6), (25.0, 1.35))
"""Objectives: TTFT in lone prefills of a mean prompt, TPOT in lone decodes."""

BUDGETS = (256, 512, 1024, 2048)
NARROW = (128, 256, 512, 1024)
WIDE = (2048, 8192)
SEEDS = (11, 12, 13, 14, 15, 16)
"""Of the runs that compare the winners; the first one chose them."""


@dataclass(frozen=True)
class Agreement:
    """Relative errors of formulas, and of joint attainment the difference."""

    ttft: tuple[float, float]
    tpot: tuple[float, float]
    joint: float
    trusted: bool


def problem(model: str, tp: int, instances: int, routing: str) -> Lowered:
    """Return a problem of one model on so many instances, lowered."""
    return lower(
        bs.Problem(
            model=model,
            hardware="h100-sxm",
            gpus=tp * instances,
            workload=bs.Workload(**WORKLOAD),  # type: ignore[arg-type]
            routing=routing,  # type: ignore[arg-type]
        )
    )


def settings(count: int, seed: int) -> Iterator[tuple[Hybrid, float]]:
    """Yield random hybrids under random routing, and the load to look at."""
    rng = np.random.default_rng(seed)
    names = list(MODELS.values())
    for i in range(count):
        model, tp = names[i % len(names)]
        x, y = rng.integers(1, 4, size=2)
        wide, narrow = rng.choice([1024, 2048, 8192]), rng.choice([256, 512, 1024])
        share, stay = rng.choice([0, 10, 20, 35, 50]), rng.choice([0, 0, 20])
        text = f"{x}p-tp{tp}-tokens{wide}{f'-decode{stay}' if stay else ''}"
        text += f"+{y}d-tp{tp}-tokens{narrow}{f'-prefill{share}' if share else ''}"
        system = problem(model, tp, 6, "random").system(text)
        if not isinstance(system, Hybrid):
            system = problem(model, tp, 6, "random").system(text.replace("+", "-decode20+", 1))
        assert isinstance(system, Hybrid)
        yield system, float(rng.uniform(0.4, 0.8))


def agree(system: Hybrid, load: float, requests: int) -> Agreement:
    """Return the formulas' errors in one setting; objectives are the run's own P90s."""
    rate = load * stability_rate(system)
    found, run = latency(system, rate), simulate(system, rate, requests=requests, seed=5)
    seen = {m: np.nanquantile(getattr(run, m)[run.kept], (0.5, 0.9)) for m in ("ttft", "tpot")}
    off = {
        m: tuple(getattr(found, m).quantile(p) / seen[m][i] - 1 for i, p in enumerate((0.5, 0.9)))
        for m in seen
    }
    target = Target(ttft=float(seen["ttft"][1]), tpot=float(seen["tpot"][1]), joint=True)
    joint = attainment(found, target) - run.attainment(target)
    return Agreement(off["ttft"], off["tpot"], joint, found.trust.high)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Best:
    """The best strategy of a layout at some objectives, and its goodput [req/s]."""

    strategy: str
    rate: float


class Contest:
    """One model on so many instances: its layouts under the same requests."""

    def __init__(self, model: str, tp: int, instances: int, requests: int) -> None:
        self.lowered = problem(model, tp, instances, "least_ttft")
        self.tp, self.instances = tp, instances
        step = self.lowered.system(f"1m-tp{tp}").lane.step  # type: ignore[union-attr]
        self.prefill = float(step(T=2000.0, A=2e6, K=0.0, n=1.0, prefill=True))
        self.decode = float(step(T=1.0, A=0.0, K=2000.0, n=1.0, prefill=False))
        self.draws = {s: self.drawn(requests, s) for s in SEEDS}
        self.systems: dict[str, System] = {}

    def drawn(self, requests: int, seed: int) -> Requests:
        """Return the requests of a seed."""
        law: Lengths = self.lowered.lengths
        return sample_lengths(law, requests, seed)

    def target(self, ttft: float, tpot: float) -> Target:
        """Return the objectives of a point of the path, met jointly by 90 %."""
        return Target(ttft=ttft * self.prefill, tpot=tpot * self.decode, joint=True)

    def family(self, layout: str) -> list[str]:
        """Return the strategies of a layout that are compared."""
        n, tp = self.instances, self.tp
        counts = sorted({round(n * part) for part in (0.25, 0.375, 0.5, 0.625, 0.75)})
        if layout == "collocated":
            return [f"{n}m-tp{tp}-tokens{budget}" for budget in BUDGETS]
        if layout == "disaggregated":
            return [f"{k}p-tp{tp}-tokens{w}+{n - k}d-tp{tp}" for k in counts for w in WIDE]
        return [
            f"{k}p-tp{tp}-tokens{wide}+{n - k}d-tp{tp}-tokens{budget}-prefill"
            for k in counts
            for budget in NARROW
            for wide in WIDE
        ]

    def runs(self, strategy: str, seed: int) -> Simulated:
        """Return the runs of a strategy under the requests of a seed."""
        if strategy not in self.systems:
            self.systems[strategy] = self.lowered.system(strategy)
        return Simulated(system=self.systems[strategy], given=self.draws[seed], seed=seed)

    def goodput(self, strategy: str, target: Target, near: float, seed: int = SEEDS[0]) -> float:
        """Return the goodput that runs show near a guess [req/s]."""
        ends = highest(self.runs(strategy, seed), target, near)
        return 0.0 if ends is None else ends.rate

    def best(self, layout: str, target: Target, near: float) -> Best:
        """Return the best strategy of a layout: who misses at the best rate so far, loses."""
        found = Best("none", 0.0)
        for strategy in self.family(layout):
            runs = self.runs(strategy, SEEDS[0])
            if found.rate > 0 and runs.look(1.003 * found.rate, target).room < 0:
                continue
            rate = self.goodput(strategy, target, found.rate or near)
            if rate > found.rate:
                found = Best(strategy, rate)
        return found

    def ratio(self, one: str, other: str, target: Target, near: float) -> tuple[float, float]:
        """Return the mean ratio of two goodputs over seeds, and its standard error."""
        ratios = [
            self.goodput(one, target, near, s) / max(self.goodput(other, target, near, s), 1e-9)
            for s in SEEDS[1:]
        ]
        return float(np.mean(ratios)), float(np.std(ratios, ddof=1) / math.sqrt(len(ratios)))


Row = tuple[int, float, str]
"""Point of the path, hybrid over best pure and row of the crossover table."""


class Kept:
    """Parts of the study that are done, as JSON in a file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.parts = json.loads(path.read_text("utf-8")) if path and path.exists() else {}

    def get(self, key: str, make: Callable[[], Sequence[object]]) -> Any:
        """Return a part, made now if it is not there."""
        if key not in self.parts:
            self.parts[key] = make()
            if self.path is not None:
                self.path.write_text(json.dumps(self.parts, indent=0), encoding="utf-8")
        return self.parts[key]


def crossovers(name: str, instances: int, requests: int) -> Iterator[Row]:
    """Yield the rows of a model on so many instances."""
    model, tp = MODELS[name]
    contest = Contest(model, tp, instances, requests)
    hybrid = contest.lowered.system(contest.family("hybrid")[0])
    assert isinstance(hybrid, Hybrid)
    near = 0.5 * fluid_bound(hybrid)
    for point, (ttft, tpot) in enumerate(PATH):
        target = contest.target(ttft, tpot)
        found = {
            layout: contest.best(layout, target, near)
            for layout in ("collocated", "disaggregated", "hybrid")
        }
        pure = max(found["collocated"], found["disaggregated"], key=lambda b: b.rate)
        ratio, error = contest.ratio(found["hybrid"].strategy, pure.strategy, target, pure.rate)
        near = pure.rate
        yield point, ratio, row(name, instances, target, found, ratio, error)


def row(
    name: str, n: int, target: Target, found: dict[str, Best], ratio: float, error: float
) -> str:
    """Return one row of the crossover table."""
    assert target.ttft is not None
    assert target.tpot is not None
    cells = [
        f"{best.rate:.2f} ({best.strategy.replace('-tokens', ' M').replace('-prefill', '')})"
        for best in found.values()
    ]
    objectives = f"{target.ttft:.2f} s, {1e3 * target.tpot:.1f} ms"
    return f"| {name}, {n} | {objectives} | {' | '.join(cells)} | {ratio:.2f} ± {error:.2f} |"


def summary(ratios: list[tuple[int, float]]) -> list[str]:
    """Return the table of hybrid over best pure by point of the path."""
    lines = [
        "## Hybrid over best pure, by objectives",
        "",
        "| TTFT [lone prefills], TPOT [lone decodes] | settings | least | median | most |",
        "| --- | --- | --- | --- | --- |",
    ]
    for point, (ttft, tpot) in enumerate(PATH):
        found = [ratio for p, ratio in ratios if p == point]
        if found:
            least, middle, most = np.quantile(found, [0.0, 0.5, 1.0])
            cells = f"{len(found)} | {least:.2f} | {middle:.2f} | {most:.2f}"
            lines.append(f"| {ttft:g}, {tpot:g} | {cells} |")
    return lines


def agreement_lines(rows: list[Agreement]) -> list[str]:
    """Return the table of agreement."""

    def cell(values: list[float], unit: float = 100.0) -> str:
        size = np.abs(np.array(values)) * unit
        return " / ".join(f"{q:.1f}" for q in np.quantile(size, [0.5, 0.9, 1.0]))

    named = {
        "TTFT P50": [r.ttft[0] for r in rows],
        "TTFT P90": [r.ttft[1] for r in rows],
        "TPOT P50": [r.tpot[0] for r in rows],
        "TPOT P90": [r.tpot[1] for r in rows],
        "joint attainment": [r.joint for r in rows],
    }
    return [
        "| figure | median / nine in ten / worst |",
        "| --- | --- |",
        *(f"| {name} | {cell(values)} |" for name, values in named.items()),
    ]


def main() -> None:
    """Write the page, or the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agreement", type=int, default=16, help="random settings")
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--requests", type=int, default=4000, help="of a run of the contest")
    parser.add_argument("--instances", type=int, nargs="*", default=INSTANCES)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--keep", type=Path, help="JSON file of the parts that are done")
    asked = parser.parse_args()
    kept = Kept(asked.keep)
    lines = [TITLE.format(**vars(asked), today=date.today())]
    drawn = settings(asked.agreement, asked.seed)
    rows = [
        Agreement(*kept.get(f"agreement {i}", lambda s=s, u=u: astuple(agree(s, u, 40_000))))
        for i, (s, u) in enumerate(drawn)
    ]
    lines += [
        *agreement_lines(rows),
        "",
        CROSSOVERS.format(**vars(asked), seeds=", ".join(map(str, SEEDS))),
    ]
    ratios: list[tuple[int, float]] = []
    for name, n in itertools.product(asked.models, asked.instances):
        found = kept.get(f"{name}, {n}", lambda a=name, b=n: [*crossovers(a, b, asked.requests)])
        lines += [text for *_, text in found]
        ratios += [(point, ratio) for point, ratio, _ in found]
    page = [*lines, "", *summary(ratios), ""]
    asked.out.write_text("\n".join(page), encoding="utf-8")


TITLE = """# Hybrids: agreement and crossovers

Written on {today} by
`validation/hybrid.py --agreement {agreement} --seed {seed} --requests {requests}`.

## Formulas against runs, random routing

{agreement} random settings of three models: one to three lanes of either kind, budgets of 256 to
8192 tokens, shares of local prefill 0 to 50 % and of local decode 0 or 20 %, loads of 0.4 to 0.8,
runs of 40,000 requests. Sizes of errors [%], of joint attainment (objectives at the run's own P90s)
[points].
"""

CROSSOVERS = """## Who wins where, routing by least predicted TTFT

Prompts lognormal 2000 (cv 0.8), answers lognormal 300 (cv 1), H100 SXM, joint attainment 90 %;
{requests} requests a run. Goodput [req/s] of the best of each layout with its strategy: collocated
over four token budgets (M), disaggregated over counts and two budgets, hybrids over counts, these
two and four budgets of their decode instances. The last column compares the best hybrid with the
better of the two others by five further seeds, mean ± standard error: those saw no choosing.
Seeds {seeds}, the first of which chose.

| instances | TTFT, TPOT | collocated | disaggregated | hybrid | hybrid / best pure |
| --- | --- | --- | --- | --- | --- |"""


if __name__ == "__main__":
    main()
