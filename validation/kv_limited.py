"""How well the models know lanes that their KV cache limits: against the simulator, at random.

Draws engines (vLLM, SGLang, TensorRT-LLM), roles, length laws, caches of 12 to 200 requests and
limits on sequences, and compares saturated rate, P90 of TPOT and goodput. The cache holds every
request, so nothing is refused. Writes `validation/kv_limited.md`.

    python validation/kv_limited.py --seed 3 --count 60
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from agreement import HARDWARE, atoms

from bestserve.answers.witness import measured_goodput
from bestserve.models.goodput import goodput
from bestserve.models.latency import latency, stability_rate
from bestserve.models.queues.requests import prepare
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Collocated, Disaggregated, Lane, Lengths, System, Target
from bestserve.simulator import simulate
from bestserve.simulator.saturation import saturation_rate

ENGINES: dict[str, dict[str, object]] = {
    "vLLM": {"policy": "chunked", "kv_block": 16, "kv_reserve": 0.0},
    "SGLang": {"policy": "prefill_priority", "kv_block": 1, "kv_reserve": 0.0},
    "TensorRT-LLM": {"policy": "mixed", "kv_block": 32, "kv_reserve": 1.0},
}

CACHES = (12, 24, 48, 96, 200)
"""Sizes of the KV cache in mean contexts."""

OFF = 0.05
"""Relative error from which an answer counts as off."""


@dataclass(frozen=True)
class Setting:
    """A system, the load to look at as a share of saturation, and objectives."""

    system: System
    load: float
    target: Target


@dataclass(frozen=True)
class Row:
    """Errors of one setting, model/simulator − 1; infinite where the model says unstable."""

    limit: float
    tpot: float
    tpot_trust: bool
    goodput: float
    goodput_trust: bool


def draw(seed: int, i: int) -> Setting:
    """Return one random setting."""
    rng = np.random.default_rng([seed, i])
    step = list(HARDWARE.values())[rng.integers(len(HARDWARE))]
    engine = ENGINES[str(rng.choice(list(ENGINES)))]
    laws = []
    for means in ((200, 600, 1500, 3000), (60, 200, 500, 1000)):
        cv = float(rng.choice([0.0, 0.5, 1.0]))
        laws += atoms("lognormal" if cv else "fixed", float(rng.choice(means)), cv or 1.0)
    lengths = Lengths(
        inputs=laws[0], input_weights=laws[1], outputs=laws[2], output_weights=laws[3]
    )
    requests = prepare(lengths)
    longest = float(lengths.inputs.max() + lengths.outputs.max())
    capacity = max(float(rng.choice(CACHES)) * requests.context, 1.3 * longest)
    fits = capacity / requests.context
    lane = Lane(
        step=step,
        max_num_seqs=int(rng.choice([1024, 256, max(int(fits), 2)])),
        max_num_batched_tokens=int(rng.choice([1024, 2048, 8192])),
        kv_capacity_tokens=capacity,
        **engine,  # type: ignore[arg-type]
    )
    running = max(fits * rng.uniform(0.4, 1.0), 1.0)
    tpot = float(step(T=running, A=0.0, K=running * requests.context, n=running, prefill=False))
    tpot *= float(rng.uniform(1.05, 1.6))
    load = float(rng.uniform(0.3, 0.97))
    if rng.random() < 0.5:
        ttft = float(rng.uniform(2, 6)) * (0.1 + 2 * step.c * requests.p1)
        whole = Collocated(lane=lane, replicas=1, lengths=lengths)
        return Setting(whole, load, Target(ttft=ttft, tpot=tpot))
    ample = Lane(step=step, policy="prefill_priority")
    tandem = Disaggregated(
        prefill=ample, prefill_replicas=64, decode=lane, decode_replicas=1, lengths=lengths
    )
    return Setting(tandem, load, Target(tpot=tpot))


def compare(setting: Setting) -> Row:
    """Return the models' errors in one setting."""
    system = setting.system
    limit, saturated = stability_rate(system), saturation_rate(system)
    rate = setting.load * saturated
    found, run = latency(system, rate), simulate(system, rate, requests=40_000, seed=7)
    measured = float(np.nanquantile(run.tpot[run.kept], 0.9))
    stable = found.status is LatencyStatus.OK
    said = goodput(system, setting.target)
    held = measured_goodput(system, setting.target, near=0.8 * saturated).rate
    off = 0.0 if said.rate == held else 1.0
    return Row(
        limit=limit / saturated - 1,
        tpot=found.tpot.quantile(0.9) / measured - 1 if stable else math.inf,
        tpot_trust=found.trust.high,
        goodput=said.rate / held - 1 if min(said.rate, held) > 0 else off,
        goodput_trust=said.trust.high,
    )


def line(name: str, errors: list[float]) -> str:
    """Return a table row: number, quantiles of the absolute error, how many are off."""
    size = np.abs(np.array([e for e in errors if math.isfinite(e)]))
    if not size.size:
        return f"| {name} | 0 | | |"
    at = " / ".join(f"{100 * q:.1f}" for q in np.quantile(size, [0.5, 0.9, 1.0]))
    off = sum(abs(e) > OFF for e in errors)
    return f"| {name} | {len(errors)} | {at} | {off} |"


def report(seed: int, rows: list[Row]) -> str:
    """Return the page."""
    lines = [
        "# Lanes that their KV cache limits",
        "",
        f"Written by `validation/kv_limited.py --seed {seed} --count {len(rows)}`: random engines,",
        "collocated and decode lanes, lengths and caches. Errors of the formulas against the",
        "simulator, median / nine in ten / worst [%]; off: by more than 5 %. The saturated rate is",
        "that of a run that starts with everything waiting. Answers of one length then stay in",
        "step, which no formula here knows: all errors above 10 % are theirs.",
        "",
        "| | settings | error | off |",
        "|---|---|---|---|",
        line("saturated rate", [r.limit for r in rows]),
    ]
    for trust, word in ((True, "high"), (False, "low")):
        tpot = [r.tpot for r in rows if r.tpot_trust == trust]
        rates = [r.goodput for r in rows if r.goodput_trust == trust]
        lines += [line(f"P90 TPOT, trust {word}", tpot), line(f"goodput, trust {word}", rates)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--count", type=int, default=60)
    asked = parser.parse_args()
    rows = [compare(draw(asked.seed, i)) for i in range(asked.count)]
    page = Path(__file__).with_name("kv_limited.md")
    page.write_text(report(asked.seed, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
