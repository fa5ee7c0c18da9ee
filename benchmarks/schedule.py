"""Time and gap of schedules against the number of windows.

    python benchmarks/schedule.py

A load like a sine with noise, an instance carries 2 to 4 req/s; up to 40 instances a pool.
"""

from __future__ import annotations

import time

import numpy as np

from bestserve.fleet.schedule.programme import cheapest, most_carried
from bestserve.fleet.schedule.splits import best_split
from bestserve.fleet.schedule.terms import Pools, Prices, Reliability, Terms, Times

WINDOWS = (144, 1008)
"""A day and a week of ten minutes."""


def terms(windows: int, pools: Pools, streams: int = 1, **changes: object) -> Terms:
    rng = np.random.default_rng(0)
    day = 2 * np.pi * np.arange(windows) / 144
    rates = 40 + 35 * np.sin(day)[None] * rng.uniform(0.6, 1.0, (streams, 1))
    capacity = 3 + np.cos(day)[None] * rng.uniform(-1, 1, (pools.gpus.size, 1))
    given = {
        "capacity": capacity * pools.gpus[:, None] ** 0.9,
        "rates": rates * rng.normal(1, 0.05, rates.shape),
        "durations": np.full(windows, 600.0),
        "pools": pools,
    }
    return Terms(**(given | changes))  # type: ignore[arg-type]


def cases() -> dict[str, tuple[Pools, int, dict[str, object]]]:
    split, both = Pools.alone(1, 1), np.array
    mixed = Pools(both([1, 2, 1, 2]), np.arange(4), both([0, 0, 1, 1]), both([0, 1, 0, 1]))
    four = Pools(  # collocated, and split, on each of two types, for each of two streams
        both([1, 1, 1, 2, 2, 2] * 2),
        both([0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7]),
        both([0] * 4 + [1] * 4),
        both([0, 0, 0, 1, 1, 1] * 2),
    )
    reserves = Prices(both([4.0]), both([2.0]))
    return {
        "one pool": (Pools.alone(1), 1, {}),
        "prefill and decode": (split, 1, {}),
        "reserved GPUs": (split, 1, {"prices": reserves}),
        "least stay of an hour, 6 changes": (
            split, 1, {"times": Times(180.0, 60.0, 3600.0), "most_changes": 6},
        ),
        "spares": (split, 1, {"reliability": Reliability(both([0.99, 0.99]), 0.999)}),
        "two streams on two types": (mixed, 2, {}),
        "the same with two layouts on each": (four, 2, {}),
    }  # fmt: skip


def main() -> None:
    cheapest(terms(4, Pools.alone(1)))  # loads the solver
    print(f"{'what':<34}{'windows':>8}{'time [s]':>10}{'gap':>9}")
    for windows in WINDOWS:
        for name, (pools, streams, changes) in cases().items():
            asked = terms(windows, pools, streams, **changes)
            began = time.perf_counter()
            found = cheapest(asked)
            took = time.perf_counter() - began
            print(f"{name:<34}{windows:>8}{took:>10.2f}{found.gap:>9.3%}", flush=True)
        fixed = terms(windows, Pools.alone(1, 1), most_gpus=np.array([32]))
        for name, solve in (
            ("most load on 32 GPUs", lambda t: best_split(t, 32)),
            ("the same as a programme", most_carried),
        ):
            began = time.perf_counter()
            found = solve(fixed)
            took = time.perf_counter() - began
            gap = f"{found.gap:.3%}" if hasattr(found, "gap") else "exact"
            print(f"{name:<34}{windows:>8}{took:>10.2f}{gap:>9}", flush=True)


if __name__ == "__main__":
    main()
