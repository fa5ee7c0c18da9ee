"""Arrivals that are not Poisson: is a formula better than a run of the same time?

Draws settings of each kind on each sort of lanes, evaluates them by formula and by a run that gets
the same processor time, holds both against long runs, and applies the rule in `validation/wing.md`,
which was written before. Prints the table that stands there.

    python validation/wing.py --seed 1407 --rows rows.json
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bestserve.answers.simulated import Simulated, crossing
from bestserve.lowering.lengths import lower_lengths
from bestserve.models.goodput import goodput
from bestserve.models.latency import latency, stability_rate
from bestserve.models.status import Status
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import (
    Arrivals,
    Collocated,
    Disaggregated,
    Lane,
    Lengths,
    System,
    Target,
    Transfer,
)
from bestserve.specs.workload import Workload

STEPS = (
    StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.7e-9, k=0.049e-6, a_step=0.8e-3, a_seq=35e-6),
    StepTime(w=13.5e-3, c=95e-6, e=3e-6, a=1.2e-9, k=0.031e-6, a_step=1.5e-3, a_seq=55e-6),
    StepTime(w=12e-3, c=85e-6, e=2e-6, a=1.4e-9, k=0.05e-6, a_step=0.4e-3, a_seq=20e-6),
)
KINDS = ("round robin", "levelling", "bursts", "modulated", "closed loop")
LANES = ("collocated", "split, packed", "split, single")
POLICIES = ("chunked", "prefill_priority", "mixed")
ROUTERS = ("least_outstanding", "power_of_two", "least_kv")
SETTINGS = {"collocated": 9, "split, packed": 6, "split, single": 6}
PHASES = Arrivals(kind="mmpp", rates=np.array([2.0, 2 / 3]), stays=np.array([7.5, 22.5]))

LONG = 200_000
"""Requests of each of the two runs that stand for the truth, four times as many for phases."""

LEAST_EACH = 2000
"""Requests a lane, below which a run shows its own filling."""

PROBE = 20_000
"""Requests of the run that tells the time of a request."""

LOOKS = 8
"""Runs that a goodput search takes from nothing, saturation included."""

SEED_RUN, SEEDS_LONG = 11, (101, 202)
FIGURES = ("ttft", "tpot", "goodput")
TIMES = ("formula", "run", "formula goodput", "run goodput")


@dataclass(frozen=True)
class Setting:
    """One system, the rate at which latencies are looked at [1/s], and an objective."""

    kind: str
    lanes: str
    name: str
    system: System
    rate: float
    target: Target


def lengths(rng: np.random.Generator, prompt: int) -> tuple[Lengths, str]:
    """Return a random workload of mean prompt `prompt` and its name."""
    laws = (f"{prompt}", f"lognormal({prompt}, cv=0.5)", f"lognormal({prompt}, cv=1)")
    answer = int(rng.choice([64, 150, 400]))
    answers = (f"{answer}", f"lognormal({answer}, cv=0.8)", f"geometric({answer})")
    a, b = str(rng.choice(laws)), str(rng.choice(answers))
    return lower_lengths(Workload(input_len=a, output_len=b)), f"{a} / {b}"


def draw(rng: np.random.Generator, kind: str, lanes: str, number: int) -> Setting:
    """Return a random setting of a kind; `number` turns policies and routers."""
    single = lanes == "split, single"
    prompt = int(rng.choice([2500, 4000] if single else [300, 1000, 3000]))
    law, name = lengths(rng, prompt)
    policy = POLICIES[number % 3] if lanes == "collocated" else "mixed" if single else "chunked"
    lane = Lane(
        step=STEPS[int(rng.integers(len(STEPS)))],
        policy=policy,  # type: ignore[arg-type]
        max_num_seqs=256,
        max_num_batched_tokens=2048 if single else int(rng.choice([2048, 8192])),
    )
    routing = {"round robin": "round_robin", "levelling": ROUTERS[number // 3 % 3]}
    arrivals = {"bursts": Arrivals(burstiness=0.25), "modulated": PHASES}
    routed = kind in routing
    clients = int(rng.choice([16, 32, 64]))
    arrivals["closed loop"] = Arrivals(kind="closed", concurrency=clients, num_prompts=40 * clients)
    shared: dict[str, Any] = {
        "lengths": law,
        "routing": routing.get(kind, "random"),
        "arrivals": arrivals.get(kind, Arrivals()),
    }
    count = 4 if routed else 1
    system: System
    if lanes == "collocated":
        system = Collocated(lane=lane, replicas=count, **shared)
    else:
        x, y = (4, 2) if routed else (2, 1)
        system = Disaggregated(
            prefill=lane,
            prefill_replicas=x,
            decode=lane,
            decode_replicas=y,
            transfer=Transfer(latency=0.01),
            **shared,
        )
    light = latency(replace(system, arrivals=Arrivals(), routing="random"), 1e-4)
    target = Target(
        ttft=float(rng.choice([3, 5, 10])) * light.ttft.mean,
        tpot=float(rng.choice([1.5, 2.0, 3.0])) * light.tpot.mean,
    )
    most = {"bursts": 0.7, "modulated": 0.6}.get(kind, 0.85)
    rate = float(rng.uniform(0.3, most)) * stability_rate(system)
    return Setting(kind, lanes, f"{policy} {shared['routing']} {name}", system, rate, target)


def fresh(system: System) -> System:
    """Return an equal system that shares nothing prepared."""
    law = system.lengths
    return replace(system, lengths=replace(law, inputs=law.inputs.copy()))


def timed(ask: Callable[[], Any]) -> tuple[Any, float]:
    """Return an answer, or the name of what it raised, and its processor time [s]."""
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            found = ask()
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    return found, time.process_time() - start


def shown(runs: Simulated, rate: float) -> dict[str, float]:
    """Return P90 of both latencies in one run [s]."""
    result = runs.run(rate)
    return {
        "ttft": float(np.quantile(result.ttft[result.kept], 0.9)),
        "tpot": float(np.nanquantile(result.tpot[result.kept], 0.9)),
    }


def searched(runs: Simulated, target: Target, near: float | None = None) -> float:
    """Return the goodput that runs show [1/s]."""
    found = runs.highest(target, near)
    return 0.0 if found is None else crossing(*found)


def size(seconds: float, each: float, lanes: int) -> int:
    """Return the requests that runs of `each` seconds a request have time for, within bounds."""
    return int(min(max(seconds / each, LEAST_EACH * lanes), 2_000_000))


def measured(s: Setting) -> dict[str, Any]:
    """Return errors and processor times of formula and run."""
    closed = s.kind == "closed loop"
    lanes = 1 if isinstance(s.system, Collocated) else s.system.prefill_replicas
    lanes = lanes if s.kind != "round robin" else 1
    if s.kind == "levelling" and isinstance(s.system, Collocated):
        lanes = s.system.replicas
    row: dict[str, Any] = {"kind": s.kind, "lanes": s.lanes, "name": s.name}
    long = LONG * (4 if s.kind == "modulated" else 1)
    size_of: dict[str, Any] = {} if closed else {"requests": long}
    truth = [Simulated(system=s.system, seed=n, **size_of) for n in SEEDS_LONG]
    each = [shown(runs, s.rate) for runs in truth]
    true = {name: float(np.mean([e[name] for e in each])) for name in ("ttft", "tpot")}
    row["noise"] = {k: abs(each[0][k] - each[1][k]) / 2 / true[k] for k in true}

    for _ in range(2):
        probe = Simulated(system=s.system, requests=PROBE, seed=SEED_RUN)
        _, seconds = timed(lambda probe=probe: shown(probe, s.rate))  # type: ignore[misc]
    per = seconds / len(probe.prepared)

    met, seconds = timed(lambda: latency(fresh(s.system), s.rate))
    row["seconds"] = {"formula": seconds}
    formula: dict[str, float] = {}
    row["crashes"] = [met] if isinstance(met, str) else []
    if not isinstance(met, str) and met.status is Status.OK:
        formula = {"ttft": met.ttft.quantile(0.9), "tpot": met.tpot.quantile(0.9)}
    count = len(probe.prepared) if closed else size(seconds, per, lanes)
    run, row["seconds"]["run"] = timed(
        lambda: shown(Simulated(system=s.system, requests=count, seed=SEED_RUN), s.rate)
    )
    if not closed:
        found, seconds = timed(lambda: goodput(fresh(s.system), s.target))
        row["seconds"]["formula goodput"] = seconds
        if isinstance(found, str):
            row["crashes"].append(found)
        else:
            formula["goodput"] = found.rate
        count = size(seconds / LOOKS, per, lanes)
        run["goodput"], row["seconds"]["run goodput"] = timed(
            lambda: searched(Simulated(system=s.system, requests=count, seed=SEED_RUN), s.target)
        )
        rates = []
        near = run["goodput"] or None
        for runs in truth:
            rates.append(searched(runs, s.target, near))
            near = rates[0] or None
        true["goodput"] = float(np.mean(rates))
        row["noise"]["goodput"] = abs(rates[0] - rates[1]) / 2 / max(true["goodput"], 1e-9)
    for who, values in (("formula", formula), ("run", run)):
        row[who] = {
            name: abs(values.get(name, math.inf) / true[name] - 1)
            for name in true
            if true[name] > 0
        }
    return row


def verdict(rows: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """Return the kind's line of the table and why it fails, by the rule."""
    fails = []
    crashes = sum(len(r["crashes"]) for r in rows)
    if crashes:
        fails.append(f"{crashes} crashes")
    cells = []
    for name in FIGURES:
        pairs = [(r["formula"][name], r["run"][name]) for r in rows if name in r["run"]]
        if not pairs:
            cells += ["–", "–"]
            continue
        suffix = " goodput" if name == "goodput" else ""
        dear = np.median([r["seconds"]["run" + suffix] for r in rows]) / np.median(
            [r["seconds"]["formula" + suffix] for r in rows]
        )
        f, r = (np.array(column) for column in zip(*pairs, strict=True))
        for share in (0.5, 0.9):
            a, b = (float(np.quantile(x, share, method="nearest")) for x in (f, r))
            allowed = 2 * b + 0.01 if dear >= 4 else 1.1 * b + 0.003
            if a > allowed:
                fails.append(f"{name} P{share * 100:.0f}")
        for x in (f, r):
            at = [float(np.quantile(x, share, method="nearest")) for share in (0.5, 0.9)]
            cells.append(" / ".join("∞" if math.isinf(e) else f"{100 * e:.1f}" for e in at))
    ms = [
        1e3 * float(np.median([r["seconds"].get(name, math.nan) for r in rows])) for name in TIMES
    ]
    times = " / ".join("–" if math.isnan(t) else f"{t:.0f}" for t in ms)
    first = rows[0]
    head = f"| {first['kind']} | {first['lanes']} | {len(rows)} |"
    return f"{head} {' | '.join(cells)} | {times} | {'stays' if not fails else 'goes'} |", fails


def main() -> None:
    """Measure, print the table, keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1407)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--count", type=float, default=1.0, help="share of the settings")
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    kept: list[dict[str, Any]] = []
    started = time.process_time()
    columns = ("P90 TTFT", "P90 TPOT", "goodput")
    heads = " | ".join(f"{name}: formula | run" for name in columns)
    print(f"| kind | lanes | settings | {heads} | ms: {' / '.join(TIMES)} | verdict |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|")
    for kind in given.kinds:
        for place in LANES:
            if kind == "closed loop" and place == "split, single":
                continue
            rng = np.random.default_rng((given.seed, KINDS.index(kind), LANES.index(place)))
            count = max(round(SETTINGS[place] * given.count), 1)
            rows = [measured(draw(rng, kind, place, i)) for i in range(count)]
            kept += rows
            line, fails = verdict(rows)
            print(line, flush=True)
            if fails:
                print(f"<!-- {kind}, {place}: {'; '.join(fails)} -->", flush=True)
            if given.rows:
                given.rows.write_text(json.dumps(kept, indent=1))
    print(f"<!-- {time.process_time() - started:.0f} CPU-s, seed {given.seed} -->")


if __name__ == "__main__":
    main()
