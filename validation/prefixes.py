"""The hit model of `bestserve.models.prefix_hits` against simulations that keep the blocks.

    python validation/prefixes.py        # writes validation/prefixes.md, half a minute

Step time of an 8-billion-parameter model on one H100, four replicas, Poisson sessions, chunks,
blocks of 16 tokens; 24,000 requests a run, of which the second half counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bestserve.models.latency import latency
from bestserve.models.prefix_hits import hits
from bestserve.models.prefixes import Caching, Law, Sharing
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Lane, Lengths, Routing
from bestserve.simulator import simulate

STEP = StepTime(w=6e-3, c=26e-6, e=0, a=1e-10, k=2e-8, a_step=5e-4, a_seq=1e-5)
ONE = np.ones(1)
WHOLE = Lengths(inputs=6500 * ONE, input_weights=ONE, outputs=200 * ONE, output_weights=ONE)
CAPACITIES = (60e3, 200e3, 800e3)
ROUTINGS: tuple[Routing, ...] = ("random", "session_affine", "prefix_hash", "prefix_aware")


def _talk(turns: float, pause: float, *, fixed: bool = False) -> Sharing:
    return Sharing(
        groups=4,
        prefix=Law.of(1000),
        own=Law.of(100),
        first=Law.of(800),
        output=Law.of(200),
        turns=Law.of(turns),
        pause=Law.of(pause),
        pause_random=not fixed,
    )


def _groups(groups: int, prefix: float, *, skew: float = 0.0, questions: int = 0) -> Sharing:
    own = Law.of(1000 if questions else 500)
    return Sharing(
        groups=groups,
        prefix=Law.of(prefix),
        skew=skew,
        questions=questions,
        own=own,
        first=own,
        output=Law.of(200),
    )


WORKLOADS: dict[str, tuple[Sharing, float]] = {
    "150 groups of 6,000 tokens": (_groups(150, 6000), 8.0),
    "300 groups of 3,000, Zipf 1": (_groups(300, 3000, skew=1.0), 12.0),
    "50 groups of 3,000, 5 questions each": (_groups(50, 3000, questions=5), 12.0),
    "8 turns, 30 s apart": (_talk(8, 30), 16.0),
    "20 turns, 2 s apart (an agent)": (_talk(20, 2, fixed=True), 16.0),
}


Row = tuple[str, float, Routing, float, float, str]


def rows() -> Iterator[Row]:
    """Yield workload, capacity [tokens], routing, hit share of the model and of the simulation, and
    whether the formulas trust themselves there; only random routing is answered by them.
    """
    for name, (sharing, rate) in WORKLOADS.items():
        for capacity in CAPACITIES:
            lane = Lane(step=STEP, kv_capacity_tokens=capacity, kv_block=16)
            for routing in ROUTINGS:
                system = Collocated(
                    lane=lane,
                    replicas=4,
                    lengths=WHOLE,
                    routing=routing,
                    caching=Caching(sharing=sharing),
                )
                run = simulate(system, rate, requests=24_000)
                trust = ""
                if routing == "random":
                    trust = "high" if latency(system, rate).trust.high else "low"
                yield name, capacity, routing, hits(system, rate).share, run.hit_share, trust


def page() -> str:
    """Return the table of all settings, and what the errors amount to."""
    found = list(rows())
    errors: dict[str, list[float]] = {}
    for *_, routing, model, run, trust in found:
        names = (routing, f"{routing}, trust {trust}") if trust else (routing,)
        for name in names:
            errors.setdefault(name, []).append(abs(model - run))
    for workload in WORKLOADS:
        errors[f"random: {workload}"] = [
            abs(m - s) for name, _, at, m, s, _ in found if (name, at) == (workload, "random")
        ]
    lines = [
        "# Hits of prefix caches: formula against simulation",
        "",
        "Made by `python validation/prefixes.py`: share of the prompt tokens found, by the",
        "characteristic-time formula and by simulations that keep the blocks; four replicas.",
        "Errors are differences of shares. Answers use the formula for random routing alone, and",
        "doubt it where running requests fill the cache; other routing is simulated.",
        "",
        "| routing | settings | median error | largest |",
        "| --- | ---: | ---: | ---: |",
    ]
    for routing, off in errors.items():
        lines.append(f"| {routing} | {len(off)} | {np.median(off):.3f} | {max(off):.3f} |")
    lines += [
        "",
        "| workload | KV tokens a replica | routing | formula | simulation | trust |",
        "| --- | ---: | --- | ---: | ---: | --- |",
    ]
    for name, capacity, routing, model, run, trust in found:
        head = f"| {name} | {capacity:,.0f} | {routing}"
        lines.append(f"{head} | {model:.3f} | {run:.3f} | {trust} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    text = page()
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
