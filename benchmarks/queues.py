"""Time of the queueing models, as ratios to simulating the same case as precisely.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/queues.py

The yardstick of an evaluation is one simulation of `REQUESTS` requests, whose P90 scatters by about
1 %, what the models are off by; that of a goodput is a bisection by such simulations to the same
tolerance (10 of them). Processor time of one thread, medians of repetitions, so that a busy
machine moves both sides.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import numpy as np  # noqa: E402

from bestserve.models.goodput import decode_goodput, goodput, prefill_goodput  # noqa: E402
from bestserve.models.latency import latency, stability_rate  # noqa: E402
from bestserve.models.step.step_time import StepTime  # noqa: E402
from bestserve.models.system import (  # noqa: E402
    Collocated,
    Disaggregated,
    Lane,
    Lengths,
    System,
    Target,
)
from bestserve.simulator import simulate  # noqa: E402

REQUESTS = 100_000
BISECTIONS = 10
REPEAT = 9

STEP = StepTime(
    w=13.5e-3, c=95e-6, e=3e-6, a=1.2e-9, k=0.031e-6, a_step=1.5e-3, a_seq=55e-6, phi=1.05
)


def lognormal(mean: float, cv: float, count: int = 96) -> np.ndarray:
    """Return equally likely atoms of a lognormal law."""
    from scipy.special import ndtri

    s = np.sqrt(np.log1p(cv * cv))
    z = ndtri((np.arange(count) + 0.5) / count)
    return np.maximum(np.rint(mean * np.exp(s * z - s * s / 2)), 1.0)


def cpu_time(run: Callable[[int], object], repeat: int = REPEAT) -> float:
    """Return the median processor time of `run(i)` [s]; the first call warms up."""
    run(-1)
    times = []
    for i in range(repeat):
        started = time.process_time()
        run(i)
        times.append(time.process_time() - started)
    return statistics.median(times)


def systems() -> dict[str, System]:
    """Return one case per system."""
    inputs, outputs = lognormal(2000, 0.8), lognormal(300, 1.0)
    weight = np.full(96, 1 / 96)
    law = Lengths(inputs=inputs, input_weights=weight, outputs=outputs, output_weights=weight)
    lane = Lane(step=STEP)
    cases: dict[str, System] = {
        policy: Collocated(lane=Lane(step=STEP, policy=policy), replicas=1, lengths=law)
        for policy in ("chunked", "prefill_priority", "mixed")
    }
    cases["disaggregated 2:1"] = Disaggregated(
        prefill=lane, prefill_replicas=2, decode=lane, decode_replicas=1, lengths=law
    )
    return cases


def main() -> None:
    """Print the table."""
    target = Target(ttft=1.0, tpot=0.05)
    print(f"{'system':20s} {'evaluation':>11s} {'of one':>8s} {'goodput':>9s} {'of a':>10s}")
    print(f"{'':20s} {'[ms]':>11s} {'sim.':>8s} {'[ms]':>9s} {'bisection':>10s}")
    for name, system in systems().items():
        limit = stability_rate(system)

        def evaluate(i: int, system: System = system, limit: float = limit) -> object:
            # another rate each time: nothing is remembered
            return latency(system, limit * (0.45 + 0.01 * i))

        def sample(i: int, system: System = system, limit: float = limit) -> object:
            return simulate(system, 0.5 * limit, requests=REQUESTS, seed=i + 1)

        def search(i: int, system: System = system) -> object:
            ttft, tpot = target.ttft, target.tpot
            assert ttft is not None
            assert tpot is not None
            return goodput(system, Target(ttft=ttft * (1 + 0.01 * i), tpot=tpot))

        model, simulation, whole = cpu_time(evaluate), cpu_time(sample, 3), cpu_time(search)
        print(
            f"{name:20s} {model * 1e3:11.1f} {model / simulation:8.3f} {whole * 1e3:9.1f} "
            f"{whole / (BISECTIONS * simulation):10.3f}"
        )
    tandem = systems()["disaggregated 2:1"]
    assert isinstance(tandem, Disaggregated)
    for name, find in (("prefill", prefill_goodput), ("decode", decode_goodput)):
        lane, law = tandem.prefill, tandem.lengths

        def alone(i: int, find=find, lane=lane, law=law) -> object:  # type: ignore[no-untyped-def]
            return find(lane, law, Target(ttft=1 + 0.01 * i, tpot=0.05))

        spent = cpu_time(alone)
        print(f"{'goodput of a ' + name + ' lane':32s} {spent * 1e3:18.1f}")


if __name__ == "__main__":
    main()
