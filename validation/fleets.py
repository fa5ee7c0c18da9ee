"""Five fleets: the plan against the best uniform strategies, and against the simulator.

For every fleet: goodput tables from the queueing models (mixes from the simulator), the plan with
its certificate, the best uniform collocated and disaggregated strategies on the same tables, the
simulation of the plan with fresh requests, and for pools that serve several classes: how far their
tables, and how far adding up the loads of the classes, are from a simulation with fresh requests.

    python validation/fleets.py                # writes validation/fleets.md and what docs quote
    python validation/fleets.py chat-and-rag   # one fleet, to the terminal

GPU prices are round figures for illustration, not quotes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np

from bestserve.fleet.allocate import allocate, tabulate
from bestserve.fleet.referee import measured_goodput
from bestserve.fleet.result import Allocation
from bestserve.fleet.stage import stage_goodput
from bestserve.fleet.tabulate import Evaluated
from bestserve.reporting.chart import Chart, Limit, Series
from bestserve.reporting.matplotlib_charts import save_figure
from bestserve.solvers.allocation.plan import used_rate
from bestserve.solvers.allocation.tables import ROLES
from bestserve.specs.fleet import Fleet, FleetClass, FleetModel, GpuGroup
from bestserve.specs.lengths import LogNormal

REPORT = Path(__file__).with_name("fleets.md")
PAGE = REPORT.parents[1] / "docs" / "models" / "allocation.md"
FIGURE = REPORT.parent / "figures" / "fleet_mixes.png"

FRESH_SEED = 4004
"""Of simulations that neither tables nor checks have seen."""

PRICES = {
    "h100-sxm": 2.5,
    "h200-sxm": 3.3,
    "a100-80gb-sxm": 1.5,
    "l40s": 0.9,
    "h20": 1.6,
    "b200-sxm": 5.0,
}

CHAT = ("chat", 800, 250, "ttft:500 tpot:40")
RAG = ("rag", 6000, 250, "ttft:4000 tpot:60")
CODE = ("code", 2500, 300, "ttft:1500 tpot:50")
COMPLETION = ("completion", 1500, 40, "ttft:300 tpot:40")
BATCH = ("batch", 3000, 600, "ttft:20000 tpot:150")
AGENT = ("agent", 9000, 400, "ttft:3000 tpot:40")


def group(hardware: str, count: int) -> GpuGroup:
    return GpuGroup(hardware=hardware, count=count, price_per_hour=PRICES[hardware])


def served(name: str, *classes: tuple[tuple[str, int, int, str], float], **fields) -> FleetModel:
    """Return a model with (class, rate) pairs; lengths are lognormal with cv 1 and 0.8."""
    return FleetModel(
        model=name,
        name=name.rsplit("/", 1)[-1],
        classes=tuple(
            FleetClass(
                name=kind,
                input_len=LogNormal(prompt, cv=1.0),
                output_len=LogNormal(output, cv=0.8),
                slo=slo,
                rate=rate,
            )
            for (kind, prompt, output, slo), rate in classes
        ),
        max_num_batched_tokens=(1024, 2048, 8192),
        **fields,
    )


LLAMA_8B, LLAMA_70B = "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B"
QWEN_32B, QWEN_MOE = "Qwen/Qwen2.5-32B", "Qwen/Qwen3-30B-A3B"

FLEETS: dict[str, Callable[[], Fleet]] = {
    "chat-and-rag": lambda: Fleet(
        gpus=(group("h100-sxm", 32),),
        models=(served(LLAMA_70B, (CHAT, 8.0), (RAG, 2.0)),),
    ),
    "two-types-two-models": lambda: Fleet(
        gpus=(group("h100-sxm", 16), group("l40s", 16)),
        models=(
            served(LLAMA_8B, (CHAT, 20.0), (RAG, 4.0)),
            served(QWEN_32B, (CODE, 4.0)),
        ),
    ),
    "prefill-elsewhere": lambda: Fleet(
        gpus=(group("h100-sxm", 16), group("h20", 32)),
        models=(served(LLAMA_70B, (AGENT, 2.0), (CODE, 4.0)),),
    ),
    "cheapest-for-three-models": lambda: Fleet(
        gpus=(group("h100-sxm", 48), group("a100-80gb-sxm", 64), group("l40s", 64)),
        models=(
            served(LLAMA_8B, (CHAT, 60.0), (COMPLETION, 40.0)),
            served(QWEN_32B, (CODE, 12.0), (BATCH, 4.0)),
            served(LLAMA_70B, (CHAT, 10.0), (RAG, 2.0)),
        ),
        objective="min_cost",
    ),
    "mixture-of-experts": lambda: Fleet(
        gpus=(group("h200-sxm", 16), group("a100-80gb-sxm", 16)),
        models=(
            served(
                QWEN_MOE, (CHAT, 30.0), (CODE, 10.0), (BATCH, 5.0), tensor_parallel_sizes=(1, 2, 4)
            ),
            served(LLAMA_8B, (COMPLETION, 30.0)),
        ),
    ),
}


@dataclass(frozen=True)
class Mixed:
    """One pool that serves several classes, and three goodputs of it [req/s].

    claimed : by its table, for the mix it gets; added : 1/Σ(share/F alone); simulated : with fresh
    requests; used : whether the plan has it
    """

    fleet: str
    role: str
    claimed: float
    added: float
    simulated: float
    used: bool


def mixed_pool(
    name: str, tables: Evaluated, pool: int, count: int, rates: np.ndarray | None
) -> Mixed:
    """Return what a pool of several classes is claimed to do and what it does.

    Rates that are not in the proportions of its recipe are claimed up to where one class fills its
    part of the recipe.
    """
    claimed = float(tables.tables.pools.goodput[pool, count])
    if rates is not None:
        row, one = np.array([pool]), rates[None, :]
        claimed *= float(rates.sum() / used_rate(tables.tables, row, one)[0])
    stage = tables.stage(pool, count, rates)
    alone = [
        stage_goodput(replace(stage, loads=(replace(load, share=1.0),)), measured_goodput)
        for load in stage.loads
    ]
    shares = [load.share for load in stage.loads]
    return Mixed(
        name,
        ROLES[stage.role],
        claimed,
        1 / sum(q / f for q, f in zip(shares, alone, strict=True)) if min(alone) > 0 else np.nan,
        measured_goodput(stage, seed=FRESH_SEED),
        rates is not None,
    )


def mixed_pools(name: str, tables: Evaluated, answer: Allocation) -> list[Mixed]:
    """Return every mixed table at one instance, and the mixed pools of the plan as planned."""
    pools, mixes = tables.tables.pools, tables.tables.mixes
    several = np.flatnonzero((mixes[pools.recipe] > 0).sum(axis=1) > 1)
    found = [mixed_pool(name, tables, int(p), 1, None) for p in several]
    demand = tables.tables.demand.names
    for planned in answer.pools:
        if not planned.exact_mix:
            continue
        rates = np.array([planned.classes.get(w, 0.0) for w in demand])
        for p in several:
            c = tables.configurations[int(pools.key[p])]
            what = f"{planned.instances}{c.pool(1).role}{c.pool(1).options}"
            where = tables.fleet.gpus[c.gpu].label, tables.fleet.models[c.model].label
            mine = (mixes[pools.recipe[p]] > 0) == (rates > 0)
            if (planned.strategy, planned.gpu, planned.model) == (what, *where) and mine.all():
                found.append(mixed_pool(name, tables, int(p), planned.instances, rates))
    return found


def mix_table(pools: list[Mixed]) -> list[str]:
    """Return rows of Markdown: how far tables and added loads are from fresh simulations."""

    def spread(ratios: list[float]) -> str:
        known = np.array([r for r in ratios if np.isfinite(r)])
        if known.size == 0:
            return "- | - | -"
        low, middle, high = np.quantile(known, [0.0, 0.5, 1.0])
        return f"{middle:.3f} | {low:.3f} | {high:.3f}"

    lines = [
        "| pools | role | number | table: median | least | most "
        "| added up: median | least | most |",
        "|" + " --- |" * 9,
    ]
    for used in (True, False):
        for role in ROLES:
            mine = [m for m in pools if m.used == used and m.role == role]
            if mine:
                claimed = spread([m.claimed / m.simulated for m in mine])
                added = spread([m.added / m.simulated for m in mine])
                kind = "in the plans" if used else "all tables, one instance"
                lines.append(f"| {kind} | {role} | {len(mine)} | {claimed} | {added} |")
    return lines


def mix_chart(pools: list[Mixed]) -> Chart:
    """Return claimed over simulated goodput of mixed pools, by either way of claiming it."""
    known = [m for m in pools if np.isfinite(m.added)]
    ratios = {
        "simulated on the mix": [m.claimed / m.simulated for m in known],
        "loads added up": [m.added / m.simulated for m in known],
    }
    x = tuple(m.simulated for m in known)
    worst = [max(abs(np.array(r) - 1)) for r in ratios.values()]
    return Chart(
        key="fleet_mixes",
        title="Pools of several classes",
        summary=f"Tables are off by {worst[0]:.1%} at most, added-up loads by {worst[1]:.0%}.",
        kind="points",
        x_label="Goodput simulated with fresh requests [req/s]",
        y_label="Claimed over simulated",
        series=tuple(Series(name, x, tuple(r)) for name, r in ratios.items()),
        records=tuple({"fleet": m.fleet, "role": m.role, "used": m.used} for m in known),
        limits=(Limit(1.0, "equal"),),
    )


def gain(answer: Allocation, layout: str) -> str:
    """Return how much better the plan is than the best uniform strategy of a layout."""
    (uniform,) = (u for u in answer.uniform if u.layout == layout)
    if uniform.objective is None:
        return "infeasible"
    if answer.fleet.objective == "min_cost":
        return f"{uniform.objective:.4g} ({1 - answer.objective / uniform.objective:+.1%} saved)"
    return f"{uniform.objective:.4g} ({answer.objective / uniform.objective - 1:+.1%})"


def study(name: str, seconds: float) -> tuple[list[str], list[Mixed], Allocation]:
    """Return the table cells of one fleet, its mixed pools and the answer."""
    fleet = FLEETS[name]()
    began = time.perf_counter()
    tables = tabulate(fleet)
    table_seconds = time.perf_counter() - began
    answer = allocate(fleet, evaluated=tables, seconds=seconds)
    margins = [v.share - v.required for v in answer.verification]
    cells = [
        name,
        ", ".join(f"{g.count} {g.label}" for g in fleet.gpus),
        f"{answer.objective:.4g} {answer.unit}",
        f"{answer.gap:.2%}",
        gain(answer, "collocated"),
        gain(answer, "disaggregated"),
        f"{'holds' if answer.verified else 'misses'}, least margin {min(margins):+.1%}",
        str(answer.corrections),
        f"{table_seconds:.0f} + {answer.seconds:.0f}",
    ]
    return cells, mixed_pools(name, tables, answer), answer


HEAD = (
    "fleet",
    "GPUs",
    "plan",
    "gap",
    "best uniform collocated",
    "best uniform disaggregated",
    "simulated",
    "corrections",
    "seconds (tables + search)",
)


def report(names: list[str], seconds: float) -> tuple[str, Chart]:
    """Return the report as Markdown, and its figure."""
    rows, pools, plans = [], [], []
    for name in names:
        cells, mixes, answer = study(name, seconds)
        rows.append(cells)
        pools += mixes
        plans.append((name, answer))
        print(" | ".join(cells), flush=True)
    lines = ["# Fleets: plan against uniform strategies and against simulation", ""]
    lines += [
        "Uniform: every model has one configuration per GPU type, the best for its full mix; the "
        "GPUs are divided among the models optimally. The plan is re-solved on tables tightened "
        "by simulation where a first plan missed its objectives (corrections), the uniform "
        "strategies are not, which favours them. Written by `validation/fleets.py`.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + " --- |" * len(HEAD),
        *("| " + " | ".join(cells) + " |" for cells in rows),
        "",
        "## Pools of several classes",
        "",
        "Goodput claimed over goodput simulated with fresh requests at the mix that the pool gets; "
        "above 1 is optimistic. The plan rests on tables simulated on fixed mixes; adding up the "
        "loads λ/F of the classes is what it would otherwise rest on.",
        "",
        *mix_table(pools),
        "",
        "![Claimed over simulated goodput of pools that serve several classes]"
        "(figures/fleet_mixes.png)",
    ]
    for name, answer in plans:
        lines += ["", f"## {name}", "", "```", answer.explain(), ""]
        lines += [
            f"{p.strategy:24} {p.model:20} {p.gpu:14} {p.rate:8.3f} of {p.goodput:8.3f} req/s"
            for p in answer.pools
        ]
        lines += ["```"]
    return "\n".join(lines) + "\n", mix_chart(pools)


def quoted(text: str) -> dict[str, str]:
    """Return what the documentation quotes of a report, by the name of the block."""
    tables = [part.strip() for part in text.split("\n\n") if part.startswith("|")]
    gains = []
    for line in tables[0].splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        gains.append("| " + " | ".join(cells[i] for i in (0, 1, 2, 3, 4, 5, 6)) + " |")
    return {"gains": "\n".join(gains), "mixes": tables[1]}


def quote(page: str, blocks: dict[str, str]) -> str:
    """Return a page with the blocks between its comments replaced."""
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}{block}\n{end}{rest.split(end)[1]}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fleets", nargs="*", choices=[*FLEETS, []], default=[])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    names = arguments.fleets or list(FLEETS)
    with joblib.parallel_config(n_jobs=arguments.jobs):
        text, chart = report(names, arguments.seconds)
    if arguments.fleets:
        print(text)
    else:
        REPORT.write_text(text)
        PAGE.write_text(quote(PAGE.read_text(), quoted(text)))
        FIGURE.parent.mkdir(exist_ok=True)
        save_figure((chart,), FIGURE)


if __name__ == "__main__":
    main()
