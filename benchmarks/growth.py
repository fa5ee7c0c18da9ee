"""CPU time against the size of a question, as ratios to the smallest; kept commit by commit.

    python benchmarks/growth.py                  # print, beside the last kept run
    python benchmarks/growth.py --keep           # and keep the ratios under this commit's name
    python benchmarks/growth.py --only gpus      # one subject

Nothing may grow faster than linearly in what a user would call the size: `exponent` is the slope
of log(time) by log(size) from the smallest to the largest, and the exit code is 1 if one is above
1.15.
Times are CPU seconds, the least of several, in units of a loop of plain Python measured in the same
run, so that runs on other machines compare.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import bestserve as bs

HISTORY = Path(__file__).with_name("history")
STEEPEST = 1.15
"""Exponent that passes for linear: small sizes carry constant costs, and machines are noisy."""

Ask = Callable[[], object]


def problem(gpus: int = 16, **changes: object) -> bs.Problem:
    stated = {
        "workload": bs.Workload(input_len="lognormal:2000,0.8", output_len="lognormal:300,1"),
        "slo": "ttft:1000 tpot:50",
        **changes,
    }
    return bs.Problem(model="meta-llama/Llama-3.1-70B", hardware="h100-sxm", gpus=gpus, **stated)


def gpus() -> Iterator[tuple[int, Ask]]:
    for count in (8, 64, 512, 4096):
        yield count, lambda count=count: bs.rank(problem(count))


def classes() -> Iterator[tuple[int, Ask]]:
    for count in (1, 4, 16):
        kinds = [
            bs.RequestClass(
                name=f"kind {i}", share=1 / count,
                input_len=f"lognormal:{1000 + 200 * i},0.8", output_len="lognormal:300,1",
            )
            for i in range(count)
        ]  # fmt: skip
        asked = problem(workload=bs.Workload(classes=kinds))
        yield count, lambda asked=asked: bs.rank(asked)


def strategies() -> Iterator[tuple[int, Ask]]:
    for count in (1, 4, 16):
        asked = problem(gpus=64)

        def predict(count: int = count, asked: bs.Problem = asked) -> None:
            for replicas in range(1, count + 1):
                bs.predict(asked, f"{replicas}m-tp4", request_rate=3.0 * replicas)

        yield count, predict


def lanes() -> Iterator[tuple[int, Ask]]:
    for count in (4, 16, 64):
        asked = problem(4 * count, routing="least_outstanding")

        def run(count: int = count, asked: bs.Problem = asked) -> None:
            bs.simulate(asked, f"{count}m-tp4", request_rate=3.0 * count, requests=20_000)

        yield count, run


def requests() -> Iterator[tuple[int, Ask]]:
    for count in (10_000, 100_000, 1_000_000):
        yield (
            count,
            lambda count=count: bs.simulate(problem(), "4m-tp4", request_rate=10.0, requests=count),
        )


def trace() -> Iterator[tuple[int, Ask]]:
    folder = Path(tempfile.mkdtemp())
    rng = np.random.default_rng(1)
    for count in (2_000, 20_000, 200_000):
        arrivals = np.cumsum(rng.exponential(0.1, count))
        rows = [
            f"{at:.4f},{int(prompt)},{int(answer)}"
            for at, prompt, answer in zip(
                arrivals, rng.lognormal(7, 1, count) + 1, rng.lognormal(5, 1, count) + 1,
                strict=True,
            )
        ]  # fmt: skip
        path = folder / f"{count}.csv"
        path.write_text("\n".join(["arrival,input_len,output_len", *rows]))
        asked = problem(workload=bs.Workload(trace=str(path)))
        yield count, lambda asked=asked: bs.predict(asked, "4m-tp4", request_rate=5.0)


SUBJECTS = {
    "gpus": ("rank over GPUs", gpus),
    "classes": ("rank of classes of requests", classes),
    "strategies": ("predict of strategies", strategies),
    "lanes": ("simulate 20,000 requests, lanes under least outstanding", lanes),
    "requests": ("simulate requests", requests),
    "trace": ("predict of a trace, its rows", trace),
}


def seconds(ask: Ask, runs: int) -> float:
    """Return the least CPU time of several runs [s]."""
    best = math.inf
    for _ in range(runs):
        started = time.process_time()
        ask()
        best = min(best, time.process_time() - started)
    return best


def plain_loop() -> float:
    total = 0.0
    for i in range(1_000_000):
        total += i * 0.5
    return total


def measured(only: str | None) -> dict[str, dict[str, float]]:
    unit = seconds(plain_loop, 5)
    bs.rank(problem(8))  # imports and caches are nobody's size
    found = {}
    for key, (_, sizes) in SUBJECTS.items():
        if only in (None, key):
            found[key] = {
                str(size): seconds(ask, 2 if size < 1_000_000 else 1) / unit
                for size, ask in sizes()
            }
    return found


def exponent(times: dict[str, float]) -> float:
    """Return the slope of log(time) by log(size), smallest to largest."""
    (first, least), *_, (last, most) = ((float(size), t) for size, t in times.items())
    return math.log(most / least) / math.log(last / first)


def last_kept() -> dict[str, dict[str, float]]:
    """Return the youngest kept run, by the order of commits."""
    names = subprocess.run(
        ["git", "log", "--format=%h"], capture_output=True, text=True, cwd=HISTORY.parent
    ).stdout.split()
    for name in names:
        path = HISTORY / f"{name}.json"
        if path.exists():
            return dict(json.loads(path.read_text()))
    return {}


def commit() -> str:
    """Return the short name of the commit that is checked out."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=True, cwd=HISTORY.parent,
    )  # fmt: skip
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--only", choices=SUBJECTS)
    given = parser.parse_args()
    name, before = commit() if given.keep else "", last_kept()
    found = measured(given.only)
    print(f"{'':58}{'size':>10}{'time':>9}{'ratio':>8}{'kept':>9}{'exponent':>10}")
    steep = []
    for key, times in found.items():
        least = next(iter(times.values()))
        for size, value in times.items():
            old = before.get(key, {}).get(size)
            told = f"{old:9.1f}" if old else f"{'':9}"
            print(
                f"{SUBJECTS[key][0]:58}{int(size):10,}{value:9.1f}{value / least:8.2f}{told}",
                end="",
            )
            print(f"{exponent(times):10.2f}" if size == list(times)[-1] else "")
        if exponent(times) > STEEPEST:
            steep.append(SUBJECTS[key][0])
    if given.keep:
        HISTORY.mkdir(exist_ok=True)
        rounded = {k: {s: round(v, 2) for s, v in t.items()} for k, t in found.items()}
        (HISTORY / f"{name}.json").write_text(json.dumps(rounded, indent=1) + "\n")
    if steep:
        print(f"faster than linear: {', '.join(steep)}", file=sys.stderr)
    return 1 if steep else 0


if __name__ == "__main__":
    sys.exit(main())
