"""Five fleets: the plan against the best uniform strategies, and against the simulator.

For every fleet: goodput tables from the queueing models (mixes from the simulator), the plan with
its certificate, the best uniform collocated and disaggregated strategies on the same tables, the
simulation of the plan with fresh requests, and how far adding up the loads of classes would have
overstated pools that serve several.

    python validation/fleets.py                # writes validation/fleets.md
    python validation/fleets.py chat-and-rag   # one fleet, to the terminal

GPU prices are round figures for illustration, not quotes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from bestserve.fleet import allocate, tabulate
from bestserve.solvers.allocation.evaluator import Evaluated
from bestserve.solvers.allocation.result import Allocation
from bestserve.solvers.allocation.tables import ROLES
from bestserve.specs.fleet import Fleet, FleetClass, FleetModel, GpuGroup
from bestserve.specs.lengths import LogNormal

REPORT = Path(__file__).with_name("fleets.md")

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
class MixError:
    """By how much adding up loads overstates mixed pools of one role: F_added / F_mix."""

    role: str
    pools: int
    median: float
    p90: float
    worst: float


def mix_errors(tables: Evaluated) -> list[MixError]:
    """Compare every mixed recipe of one instance with the loads of its classes added up."""
    pools, mixes = tables.tables.pools, tables.tables.mixes
    alone = {
        (int(k), int(q)): float(f)
        for k, q, f in zip(pools.key, pools.recipe, pools.goodput[:, 1], strict=True)
    }
    found: dict[int, list[float]] = {}
    for p in range(pools.count):
        parts = np.flatnonzero(mixes[pools.recipe[p]] > 0)
        rates = [alone.get((int(pools.key[p]), int(w)), 0.0) for w in parts]
        if parts.size > 1 and min(rates) > 0:
            added = 1 / sum(
                mixes[pools.recipe[p], w] / r for w, r in zip(parts, rates, strict=True)
            )
            found.setdefault(int(pools.role[p]), []).append(added / pools.goodput[p, 1])
    return [
        MixError(
            ROLES[role],
            len(ratios),
            float(np.median(ratios)),
            float(np.quantile(ratios, 0.9)),
            max(ratios),
        )
        for role, ratios in sorted(found.items())
    ]


def gain(answer: Allocation, layout: str) -> str:
    """Return how much better the plan is than the best uniform strategy of a layout."""
    (uniform,) = (u for u in answer.uniform if u.layout == layout)
    if uniform.objective is None:
        return "infeasible"
    if answer.fleet.objective == "min_cost":
        return f"{uniform.objective:.4g} ({1 - answer.objective / uniform.objective:+.1%} saved)"
    return f"{uniform.objective:.4g} ({answer.objective / uniform.objective - 1:+.1%})"


def study(name: str, seconds: float) -> tuple[list[str], list[MixError], Allocation]:
    """Return the table cells of one fleet, its mix errors and the answer."""
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
    return cells, mix_errors(tables), answer


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


def report(names: list[str], seconds: float) -> str:
    """Return the report as Markdown."""
    rows, errors, plans = [], [], []
    for name in names:
        cells, mixes, answer = study(name, seconds)
        rows.append(cells)
        errors += [(name, e) for e in mixes]
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
        "## Adding up the loads of classes",
        "",
        "Goodput of one instance on a mix if loads λ/F are added up, over the goodput simulated "
        "on the mix. Above 1, adding up is optimistic.",
        "",
        "| fleet | role | mixed tables | median | P90 | worst |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {e.role} | {e.pools} | {e.median:.2f} | {e.p90:.2f} | {e.worst:.2f} |"
            for name, e in errors
        ),
    ]
    for name, answer in plans:
        lines += ["", f"## {name}", "", "```", answer.explain(), ""]
        lines += [
            f"{p.strategy:24} {p.model:20} {p.gpu:14} {p.rate:8.3f} of {p.goodput:8.3f} req/s"
            for p in answer.pools
        ]
        lines += ["```"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fleets", nargs="*", choices=[*FLEETS, []], default=[])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    names = arguments.fleets or list(FLEETS)
    with joblib.parallel_config(n_jobs=arguments.jobs):
        text = report(names, arguments.seconds)
    if arguments.fleets:
        print(text)
    else:
        REPORT.write_text(text)


if __name__ == "__main__":
    main()
