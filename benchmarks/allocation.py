"""Time and certified gap of allocations against fleet size.

Twice: on synthetic tables (roofline-like service times, M/G/k-like tails, square-root staffing of
decode), whose pooling makes the search harder than random routing does, for the search alone; and
on real fleets, for the split of the time between making tables, search, and simulating the plan.

    python benchmarks/allocation.py [small medium large huge]    # synthetic tables
    python benchmarks/allocation.py --real [small medium large huge]
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np
from joblib import parallel_config

from bestserve.fleet.allocate import tabulate
from bestserve.fleet.check import verified
from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.search import search
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Demand,
    Pools,
    Requirements,
    Supply,
    Tables,
)
from bestserve.specs.fleet import Fleet, FleetClass, FleetModel, GpuGroup
from bestserve.specs.lengths import LogNormal

SIZES = {
    "small": (2, 2, 1, 16, 4),
    "medium": (3, 2, 2, 64, 6),
    "large": (5, 4, 3, 1024, 6),
    "huge": (8, 6, 3, 4096, 9),
}
"""GPU types, models, classes per model, GPUs in all, batch limits per parallelism and role."""

PARALLEL = (1, 2, 4, 8)
FLOPS = np.array([990e12, 312e12, 362e12, 2250e12, 1300e12, 121e12, 165e12, 990e12])
BANDWIDTH = np.array([3.35e12, 2.0e12, 0.86e12, 8e12, 5.3e12, 0.3e12, 0.6e12, 4.8e12])
MEMORY = np.array([80e9, 80e9, 48e9, 192e9, 192e9, 24e9, 24e9, 141e9])
PRICE = np.array([2.5, 1.4, 0.9, 5.0, 2.8, 0.4, 0.5, 3.3])
WATTS = np.array([700.0, 400.0, 350.0, 1000.0, 750.0, 72.0, 150.0, 700.0])
PARAMETERS = np.array([8e9, 70e9, 32e9, 14e9, 120e9, 4e9])
KV_BYTES = np.array([131e3, 328e3, 262e3, 200e3, 180e3, 100e3])


def fleet(size: str, seed: int = 0) -> tuple[Tables, np.ndarray]:
    """Return the tables of a synthetic fleet and how many configurations each class has."""
    types, models, per_model, total, batches = SIZES[size]
    rng = np.random.default_rng(seed)
    gpus = np.full(types, total // types)
    gpus[0] += total - gpus.sum()
    model = np.repeat(np.arange(models), per_model)
    classes = model.size
    inputs = rng.choice([300.0, 1000.0, 2000.0, 6000.0], classes) * rng.uniform(0.7, 1.3, classes)
    outputs = rng.choice([100.0, 250.0, 500.0], classes) * rng.uniform(0.7, 1.3, classes)
    ttft = rng.uniform(4, 10, classes) * 2 * PARAMETERS[model] * inputs / 800e12 + 0.2
    tpot = rng.uniform(0.03, 0.09, classes)
    mixes = [np.eye(classes)[w] for w in range(classes)]
    share = rng.dirichlet(np.full(classes, 3.0))
    if per_model > 1:
        mixes += [np.where(model == m, share, 0) / share[model == m].sum() for m in range(models)]
    mix = np.array(mixes)
    rows: dict[str, list] = {k: [] for k in ("gpu", "role", "recipe", "key", "size")}
    goodput: list[np.ndarray] = []
    keys: list[str] = []
    known = int(gpus.max())
    k = np.arange(known + 1)
    batch = np.geomspace(16, 512, batches)
    of = model[np.argmax(mix > 0, axis=1)]
    for g in range(types):
        for m in range(models):
            for tp in PARALLEL:
                efficiency = tp**-0.07 * rng.uniform(0.95, 1.05)
                weights = 2 * PARAMETERS[m] / tp
                if weights > 0.85 * MEMORY[g] or tp > gpus[g]:
                    continue
                room = (0.9 * MEMORY[g] - weights) * tp / KV_BYTES[m]
                for role in (COLLOCATED, PREFILL, DECODE):
                    for limit in batch[: 1 if role == PREFILL else None]:
                        keys.append(f"{g} {m} {tp} {role} {limit:.0f}")
                        for q in np.flatnonzero(of == m):
                            w = np.flatnonzero(mix[q])
                            rate = _goodput(
                                mix[q, w],
                                2 * PARAMETERS[m] * inputs[w] / (0.5 * FLOPS[g] * tp * efficiency),
                                ttft[w],
                                tpot[w],
                                weights / (0.7 * BANDWIDTH[g] * efficiency),
                                KV_BYTES[m] / tp / (0.7 * BANDWIDTH[g]),
                                inputs[w],
                                outputs[w],
                                min(limit, room / (inputs[w] + outputs[w]).max()),
                                role,
                                k,
                            )
                            if rate[-1] > 0:
                                for name, value in zip(
                                    rows, (g, role, q, len(keys) - 1, tp), strict=True
                                ):
                                    rows[name].append(value)
                                goodput.append(rate)
    pools = Pools(
        **{name: np.array(v, dtype=np.int64) for name, v in rows.items()},
        goodput=np.maximum.accumulate(np.array(goodput), axis=1),
    )
    reach = np.zeros(classes)
    for w in range(classes):
        slope = mix[pools.recipe, w] * pools.goodput[:, -1] / known / pools.size
        reach[w] = sum(
            gpus[g] * slope[(pools.gpu == g) & (pools.role == COLLOCATED)].max(initial=0.0)
            for g in range(types)
        )
    rate = share * np.maximum(reach, 1e-9)
    tables = Tables(
        supply=Supply(
            names=tuple(f"gpu{g}" for g in range(types)),
            gpus=gpus.astype(np.int64),
            node_size=np.full(types, 8, dtype=np.int64),
            price=PRICE[:types],
            watts=WATTS[:types],
            nic=np.full(types, np.inf),
            fabric=np.full((types, types), np.inf),
        ),
        demand=Demand(
            names=tuple(f"m{m}c{i}" for i, m in enumerate(model)),
            models=tuple(f"m{m}" for m in range(models)),
            model=model.astype(np.int64),
            rate=rate,
            value=rng.uniform(0.5, 2.0, classes) / rate.mean(),
            kv_bytes=KV_BYTES[model] * inputs,
        ),
        mixes=mix,
        pools=pools,
        keys=tuple(keys),
    )
    return tables, np.bincount(pools.recipe, minlength=len(mix))


def _goodput(
    mix: np.ndarray,
    prefill: np.ndarray,
    ttft: np.ndarray,
    tpot: np.ndarray,
    step: float,
    kv: float,
    inputs: np.ndarray,
    outputs: np.ndarray,
    batch: float,
    role: int,
    k: np.ndarray,
) -> np.ndarray:
    """Return F(k): bisection on utilisation for the prefill tail, square-root margin for decode."""
    count = np.maximum(k, 1)
    context = kv * (inputs + outputs / 2)
    most = np.minimum(batch, ((tpot - step) / (mix @ context)).min())
    if most < 1:
        return np.zeros(k.size)
    time_per_step = step + most * (mix @ context)
    slots = most * count
    decode = np.maximum(slots - 1.28 * np.sqrt(slots), 0) / (mix @ outputs * time_per_step)
    if role == DECODE:
        return np.where(k > 0, decode, 0)
    service = float(mix @ prefill)
    if role == COLLOCATED:
        service += float(mix @ outputs) * time_per_step / most
    scv = float(mix @ prefill**2) / float(mix @ prefill) ** 2 - 1 + 0.25
    slack = float((ttft - prefill).min())
    if slack <= 0:
        return np.zeros(k.size)
    low, high = np.zeros(k.size), np.ones(k.size)
    for _ in range(40):
        rho = (low + high) / 2
        busy = rho ** (np.sqrt(2 * (count + 1)) - 1)
        wait = service / count / (1 - rho) * (1 + scv) / 2 * np.log(np.maximum(busy / 0.1, 1))
        low, high = np.where(wait <= slack, rho, low), np.where(wait <= slack, high, rho)
    rate = np.where(k > 0, low * count / service, 0)
    return np.minimum(rate, decode) if role == COLLOCATED else rate


HARDWARE = ("h100-sxm", "l40s", "a100-80gb-sxm", "h200-sxm", "h20", "b200-sxm", "mi300x", "l4")
MODELS = (
    "meta-llama/Llama-3.1-8B",
    "Qwen/Qwen2.5-32B",
    "meta-llama/Llama-3.1-70B",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen2.5-14B",
    "mistralai/Mistral-7B-v0.3",
)
CLASSES = (
    ("chat", 800, 250, "ttft:500 tpot:40"),
    ("rag", 6000, 250, "ttft:4000 tpot:60"),
    ("code", 2500, 300, "ttft:1500 tpot:50"),
    ("completion", 1500, 40, "ttft:300 tpot:40"),
    ("batch", 3000, 600, "ttft:20000 tpot:150"),
    ("agent", 9000, 400, "ttft:3000 tpot:40"),
)
RATES = (20.0, 10.0, 5.0)


def real_fleet(size: str) -> Fleet:
    """Return a fleet of bundled GPUs and models, every model with other classes."""
    types, models, per_model, total, _ = SIZES[size]
    kinds = [(CLASSES * 2)[m : m + per_model] for m in range(models)]
    return Fleet(
        gpus=tuple(GpuGroup(hardware=name, count=total // types) for name in HARDWARE[:types]),
        models=tuple(
            FleetModel(
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
                    for (kind, prompt, output, slo), rate in zip(classes, RATES, strict=False)
                ),
            )
            for name, classes in zip(MODELS, kinds, strict=False)
        ),
    )


def cpu_seconds() -> float:
    """Return the CPU time of this process and its living children [s] (Linux)."""
    total, tick = time.process_time(), os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / tick
    return total


def real(sizes: list[str]) -> None:
    """Print one Markdown row per fleet: tables by two processes, the search, the plan simulated.

    Times are wall / CPU of all processes [s]: on a busy machine only the latter compares.
    """
    head = "fleet, GPUs, GPU types, models, classes, configurations, pools, integer columns, gap"
    cells = [*head.split(", "), "tables [s]", "search [s]", "simulation [s]"]
    print("| " + " | ".join(cells) + " |", "|" + " --- |" * len(cells), sep="\n", flush=True)
    for size in sizes:
        asked = real_fleet(size)
        times = []

        def lap(times: list[tuple[float, float]] = times) -> None:
            times.append((time.perf_counter(), cpu_seconds()))

        with parallel_config(n_jobs=2):
            lap()
            tables = tabulate(asked)
            lap()
            found = search(tables.tables, tables.requirements, Options(gap=0.01, seconds=60.0))
            lap()
            if found.plan is not None:
                verified(tables, found.plan)
            lap()
        spent = [f"{b[0] - a[0]:.1f} / {b[1] - a[1]:.1f}" for a, b in itertools.pairwise(times)]
        types, models, per_model, total, _ = SIZES[size]
        row = (
            *(size, total, types, models, models * per_model),
            *(len(tables.configurations), tables.tables.pools.count, found.columns),
            *(f"{found.gap:.2%}", *spent),
        )
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def main(sizes: list[str]) -> None:
    """Print one line per fleet and objective."""
    head = ("fleet", "GPUs", "pools", "left", "columns", "objective", "value", "bound")
    print(*(f"{h:>12}" for h in head), "gap", "wall", "cpu", "step", sep="  ")
    for size in sizes:
        began = time.perf_counter()
        tables, configurations = fleet(size)
        built = time.perf_counter() - began
        print(f"# {size}: tables in {built:.1f} s, {configurations.max()} pools per recipe")
        for objective in ("max_headroom", "min_cost", "max_goodput"):
            problem = tables
            if objective == "min_cost":
                demand = problem.demand.rate * 0.5
            else:
                demand = problem.demand.rate * (3.0 if objective == "max_goodput" else 1.0)
            problem = with_rate(tables, demand)
            required = Requirements(objective=objective)  # type: ignore[arg-type]
            found = search(problem, required, Options(gap=0.01, seconds=60.0))
            value = found.plan.objective if found.plan else float("nan")
            row = (size, tables.supply.gpus.sum(), *found.pools, found.columns, objective)
            print(
                *(f"{c!s:>12}" for c in row),
                f"{value:12.5g}",
                f"{found.bound:12.5g}",
                f"{found.gap:.2%}",
                f"{found.seconds:.1f} s",
                f"{found.cpu_seconds:.1f} s",
                found.step,
                sep="  ",
            )


def with_rate(tables: Tables, rate: np.ndarray) -> Tables:
    """Return the tables with other class rates."""
    from dataclasses import replace

    return replace(tables, demand=replace(tables.demand, rate=rate))


if __name__ == "__main__":
    chosen = [word for word in sys.argv[1:] if word != "--real"] or list(SIZES)
    (real if "--real" in sys.argv[1:] else main)(chosen)
