"""What goodput counts decides what wins: four ways to serve one model, under ten metrics.

Llama-3.1-70B, four instances of tp4 on H100s: chunked prefill with budgets of 512 and of 2,048
tokens, prefill first, and two prefill with two decode instances. The rate at which 90 % of the
requests meet the objectives, by simulation and, where there is one, by formula; and the rate at
which smooth goodput is highest. Writes `validation/goodput_metrics.md` and its figure.

    python validation/goodput_metrics.py
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bestserve.answers.simulated import Simulated
from bestserve.answers.witness import measured_goodput
from bestserve.lowering import Lowered
from bestserve.models.goodput import goodput
from bestserve.models.latency import stability_rate
from bestserve.models.system import Collocated, System, Target
from bestserve.models.token_times import Reader
from bestserve.specs.problem import Problem
from bestserve.specs.slo import SLO
from bestserve.specs.strategy import Strategy
from bestserve.specs.workload import Workload

HERE = Path(__file__).parent

FIRST = 1000
"""TTFT objective [ms]."""

PACES = (30, 60)
"""Time per token that readers take [ms]."""

METRICS = {
    "TTFT and TPOT": "ttft:{first} tpot:{pace}",
    "the same, first token held back": "ttft:{first} e2el:{first}+{pace}",
    "all tokens by their deadline": "deadline:{first}+{pace}",
    "at most 200 ms late": "deadline:{first}+{pace} slack:200",
    "fluidity ≥ 0.9": "ttft:{first} fluidity:0.9 pace:{pace}",
    "wait after the first token ≤ 200 ms": "ttft:{first} stall:200 pace:{pace}",
    "every gap ≤ 100 ms": "ttft:{first} itl:100",
}
"""What is asked of a request, all of it at once."""

SEPARATE = {"P90 TTFT and P99 of all gaps ≤ 100 ms": "ttft:{first} itl:100@p99"}

COSTS = (20, 100)
"""Tokens that a second of waiting costs [tokens/s]."""

LOADS = np.arange(0.30, 0.951, 0.05)
"""Shares of saturation at which smooth goodput is looked up."""


@dataclass(frozen=True)
class Cell:
    """Rates of one system under one metric [req/s]; formula: None where there is none."""

    simulated: float
    formula: float | None = None


def problem() -> Problem:
    """Return what is served, on what."""
    return Problem(
        model="meta-llama/Llama-3.1-70B",
        hardware="h100-sxm",
        gpus=16,
        workload=Workload(input_len="lognormal:2000,0.8", output_len="lognormal:300,1"),
    )


def systems() -> dict[str, System]:
    """Return the four ways to serve it."""
    lowered = Lowered(problem())

    def of(text: str) -> System:
        return lowered.system(Strategy.parse(text))

    first = of("4m-tp4")
    assert isinstance(first, Collocated)
    return {
        "chunked, 512": of("4m-tp4-tokens512"),
        "chunked, 2048": of("4m-tp4-tokens2048"),
        "prefill first": replace(first, lane=replace(first.lane, policy="prefill_priority")),
        "2P2D": of("2p2d-tp4"),
    }


def target_of(text: str, pace: int, *, joint: bool = True) -> Target:
    """Return the objectives of a metric."""
    return SLO(text.format(first=FIRST, pace=pace), joint=joint).target()


def cell(system: System, target: Target) -> Cell:
    """Return the goodput of a system, simulated and by formula."""
    claim = None if target.without_formula else goodput(system, target).rate
    return Cell(measured_goodput(system, target, near=claim).rate, claim)


def best_smooth(system: System, pace: int, cost: float) -> tuple[float, float]:
    """Return the rate at which smooth goodput is highest, and what it is [req/s, tokens/s]."""
    reader = Reader(pace=pace / 1e3, first=FIRST / 1e3)
    runs = Simulated(system=system, share=0.9, reader=reader)
    rates = LOADS * stability_rate(system)
    # a run may stand for a part of the system only
    found = [runs.smaller[1] * runs.run(float(rate)).smooth_goodput(cost) for rate in rates]
    best = int(np.argmax(found))
    return float(rates[best]), found[best]


def table(found: dict[str, dict[str, Cell]]) -> list[str]:
    """Return rates by metric and system as lines of Markdown, the best of a line in bold."""
    names = list(next(iter(found.values())))
    lines = [f"| 90 % of requests with | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for metric, row in found.items():
        most = max(one.simulated for one in row.values())
        cells = []
        for one in row.values():
            said = f"{one.simulated:.1f}" if one.simulated else "0"
            said = f"**{said}**" if one.simulated == most else said
            cells.append(said if one.formula is None else f"{said} ({one.formula:.1f})")
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return lines


def smooth_table(found: dict[str, dict[str, tuple[float, float]]]) -> list[str]:
    """Return where smooth goodput is highest, as lines of Markdown."""
    names = list(next(iter(found.values())))
    lines = [f"| pace, cost | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for label, row in found.items():
        most = max(tokens for _, tokens in row.values())
        cells = []
        for rate, tokens in row.values():
            said = f"{tokens:,.0f}"
            cells.append(f"{f'**{said}**' if tokens == most else said} at {rate:.1f}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def readers_of(system: System, rate: float, pace: int) -> dict[str, float]:
    """Return what readers meet at a rate: shares [1] and times [s]."""
    reader = Reader(pace=pace / 1e3, first=FIRST / 1e3, limit=0.1)
    run = Simulated(system=system, share=0.99, reader=reader).run(rate)
    assert run.readings is not None
    kept = run.kept
    waits = np.maximum(run.readings.lateness(FIRST / 1e3)[kept], 0.0)
    return {
        "mean TPOT": float(np.nanmean(run.tpot[kept])),
        "P90 TPOT": float(np.nanquantile(run.tpot[kept], 0.9)),
        "P99 ITL": run.readings.itl(0.99),
        "all tokens on time": float(np.mean(waits == 0)),
        "mean wait": float(waits.mean()),
        "P99 wait": float(np.quantile(waits, 0.99)),
        "mean fluidity": float(run.readings.fluidity[kept].mean()),
    }


def readers_table(found: dict[str, dict[str, float]]) -> list[str]:
    """Return what readers meet, a line a system."""
    columns = list(next(iter(found.values())))
    lines = [f"| | {' | '.join(columns)} |", "| --- |" + " ---: |" * len(columns)]
    for name, row in found.items():
        cells = [
            f"{v:.1%}" if c in ("all tokens on time", "mean fluidity") else f"{1e3 * v:,.0f} ms"
            for c, v in row.items()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def draw(found: dict[int, dict[str, dict[str, Cell]]]) -> None:
    """Draw the goodput by metric, a panel a pace."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(11, 5), sharey=True)
    for panel, (pace, rows) in zip(panels, found.items(), strict=True):
        metrics, names = list(rows), list(next(iter(rows.values())))
        for i, name in enumerate(names):
            places = np.arange(len(metrics)) + 0.2 * (i - 1.5)
            values = [rows[metric][name].simulated for metric in metrics]
            panel.barh(places, values, height=0.19, label=name)
        panel.set_yticks(np.arange(len(metrics)), metrics, fontsize=8)
        panel.set_xlabel("goodput [req/s]")
        panel.set_title(f"{pace} ms a token")
    panels[0].invert_yaxis()
    panels[-1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(HERE / "figures" / "goodput_metrics.png", dpi=110)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    served = systems()
    cells: dict[int, dict[str, dict[str, Cell]]] = {}
    for pace in PACES:
        asked = {name: target_of(text, pace) for name, text in METRICS.items()}
        asked |= {name: target_of(text, pace, joint=False) for name, text in SEPARATE.items()}
        cells[pace] = {
            metric: {name: cell(system, target) for name, system in served.items()}
            for metric, target in asked.items()
        }
    smooth = {
        f"{pace} ms, {cost} tokens/s": {
            name: best_smooth(system, pace, cost) for name, system in served.items()
        }
        for pace in PACES
        for cost in COSTS
    }
    loose = PACES[-1]
    rate = cells[loose]["TTFT and TPOT"]["chunked, 512"].simulated
    met = {
        name: readers_of(system, rate, loose)
        for name, system in served.items()
        if rate < stability_rate(system)
    }
    (HERE / "goodput_metrics.md").write_text(page(cells, smooth, rate, met), encoding="utf-8")
    draw(cells)


def page(
    cells: dict[int, dict[str, dict[str, Cell]]],
    smooth: dict[str, dict[str, tuple[float, float]]],
    rate: float,
    met: dict[str, dict[str, float]],
) -> str:
    """Return the page."""
    lines = [
        "# What goodput counts",
        "",
        "Written by `validation/goodput_metrics.py`: Llama-3.1-70B on 16 H100s, four instances of",
        "tp4 or two and two, random routing, prompts of 2,000 tokens (cv 0.8), answers of 300 (cv",
        f"1), TTFT objective {FIRST} ms. Rates [req/s] at which 90 % of the requests meet all of",
        "it, by simulation (95 % interval within 3 %), in brackets by formula where there is one.",
        "",
    ]
    for pace, rows in cells.items():
        lines += [f"## {pace} ms a token", "", *table(rows), ""]
    lines += ["![goodput by metric](figures/goodput_metrics.png)", ""]
    lines += [
        "## Smooth goodput",
        "",
        "Tokens less the cost of waiting [tokens/s] where it is highest, and the rate there",
        "[req/s], looked up in steps of 5 % of saturation. Readers start when the first token is",
        "due.",
        "",
        *smooth_table(smooth),
        "",
        f"## One load, {PACES[-1]} ms a token",
        "",
        f"All at {rate:.1f} req/s, where chunked prefill with 512 tokens meets TTFT and TPOT; what",
        "cannot carry it is left out. Waits are those of a reader who starts when the first token",
        "is due.",
        "",
        *readers_table(met),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
