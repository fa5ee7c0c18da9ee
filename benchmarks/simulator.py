"""Speed of the simulator: requests per second, ratio to the naive loop, cost of a second start.

    python benchmarks/simulator.py [requests]

CPU seconds of the event loop alone (best of five) and of a whole `simulate` call with drawing
inputs and collecting results. The naive loop is the tests' iteration-by-iteration reference, on
fewer requests. Default 200,000 requests of about 1,000 prompt and 200 output tokens at 75 % load.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bestserve.answers.witness import measured_goodput
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import (
    Arrivals,
    Collocated,
    Disaggregated,
    Lane,
    Lengths,
    System,
    Target,
)
from bestserve.simulator import saturation_rate, simulate
from bestserve.simulator.inputs import BACK_ROUTES, ROUTES, stream
from bestserve.simulator.layout import ARRIVAL, FIRST, LAST, OUTPUT, READY, TIMES_WIDTH
from bestserve.simulator.pool import new_pool, run_assigned
from bestserve.simulator.prepared import execute, prepare

STEP = StepTime(w=6e-3, c=26e-6, e=0, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=35e-6)
LANE = Lane(step=STEP)
NAIVE_REQUESTS = 400
LOAD = 0.75


def chat_lengths() -> Lengths:
    """Log-normal prompts and geometric outputs as 64 weighted atoms each."""
    quantile = (np.arange(64) + 0.5) / 64
    from scipy.stats import geom, lognorm

    return Lengths(
        inputs=np.rint(lognorm.ppf(quantile, 0.8, scale=750)).clip(1),
        input_weights=np.full(64, 1 / 64),
        outputs=geom.ppf(quantile, 1 / 200).astype(float),
        output_weights=np.full(64, 1 / 64),
    )


def systems() -> dict[str, System]:
    one = Collocated(lane=LANE, replicas=1, lengths=chat_lengths())
    tandem = Disaggregated(
        prefill=LANE,
        prefill_replicas=2,
        decode=LANE,
        decode_replicas=2,
        lengths=one.lengths,
    )
    tight = replace(LANE, kv_capacity_tokens=60_000, kv_block=16)
    return {
        "chunked": one,
        "prefill-priority": replace(one, lane=replace(LANE, policy="prefill_priority")),
        "mixed": replace(one, lane=replace(LANE, policy="mixed")),
        "chunked, tight KV": replace(one, lane=tight),
        "chunked, 4 random": replace(one, replicas=4),
        "chunked, 4 least outstanding": replace(one, replicas=4, routing="least_outstanding"),
        "tandem 2+2": tandem,
        "chunked, closed loop of 64": replace(
            one, arrivals=Arrivals(kind="closed", concurrency=64, num_prompts=1)
        ),
    }


def decode_seconds(requests: int, rate: float) -> float:
    """CPU time of a decode pool of one lane, fed with ready prompts by Poisson arrivals [s]."""
    one = Collocated(lane=LANE, replicas=1, lengths=chat_lengths())
    prepared = prepare(one, requests, 0, None)
    spent = []
    for _ in range(5):
        facts = prepared.facts.copy()
        facts[:, OUTPUT] = np.maximum(facts[:, OUTPUT], 2)
        facts[:, READY] = 1
        times = np.full((requests, TIMES_WIDTH), -1.0)
        times[:, ARRIVAL] = prepared.arrivals.at(rate)
        times[:, FIRST] = times[:, ARRIVAL]
        pool = new_pool(LANE, 1)
        lanes = np.zeros(requests, dtype=np.int32)
        start = time.process_time()
        run_assigned(pool, times, facts, lanes, prepared.refused)
        spent.append(time.process_time() - start)
        assert (times[:, LAST] > times[:, ARRIVAL]).all()
    return min(spent)


def naive_loop() -> Any:
    path = Path(__file__).parents[1] / "tests" / "simulator" / "naive.py"
    spec = importlib.util.spec_from_file_location("naive", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["naive"] = module
    spec.loader.exec_module(module)
    return module


def best(function: Any, times: int = 5) -> float:
    """Least CPU time of a call [s]."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
    return min(spent)


def naive_seconds(naive: Any, system: System, rate: float) -> float:
    """CPU time of the naive loop on `NAIVE_REQUESTS` requests [s]."""
    prepared = prepare(system, NAIVE_REQUESTS, 0, None)
    n = len(prepared)
    draws = [stream(0, purpose).random((n, 2)) for purpose in (ROUTES, BACK_ROUTES)]
    scheduled = prepared.arrivals.at(rate)
    start = time.process_time()
    naive.run(
        system,
        prepared.facts[:, 0],
        prepared.output_len,
        prepared.facts[:, 2],
        scheduled,
        draws[0],
        draws[1],
    )
    return time.process_time() - start


def main(requests: int) -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {requests:,} requests")
    print(
        f"{'system':30}{'rate':>8}{'M req/s':>9}{'whole call':>11}{'naive req/s':>13}{'ratio':>9}"
    )
    naive = naive_loop()
    rate = 25.0
    print(
        f"{'decode lane alone':30}{rate:8.1f}{requests / decode_seconds(requests, rate) / 1e6:9.2f}"
    )
    for name, system in systems().items():
        closed = system.arrivals.kind == "closed"
        if closed:
            system = replace(system, arrivals=replace(system.arrivals, num_prompts=requests))
        rate = float("nan") if closed else LOAD * saturation_rate(system)
        prepared = prepare(system, requests, 0, None)
        loop = best(lambda p=prepared, r=rate: execute(p, r))
        call = best(
            lambda s=system, r=rate, c=closed: simulate(s, None if c else r, requests=requests), 3
        )
        small = system
        if closed:
            small = replace(system, arrivals=replace(system.arrivals, num_prompts=NAIVE_REQUESTS))
        slow = naive_seconds(naive, small, rate) / NAIVE_REQUESTS
        print(
            f"{name:30}{rate:8.1f}{requests / loop / 1e6:9.2f}{requests / call / 1e6:11.2f}"
            f"{1 / slow:13.0f}{slow * requests / loop:9.0f}"
        )
    one = systems()["chunked"]
    target = Target(ttft=0.5, tpot=0.03)
    found = measured_goodput(one, target)
    spent = best(lambda: measured_goodput(one, target))
    print(f"goodput {found.rate:.2f} req/s: {1e3 * spent:.0f} ms CPU")
    code = (
        "import time, numpy as np\n"
        "from bestserve.models.step.step_time import StepTime\n"
        "from bestserve.models.system import Collocated, Lane, Lengths\n"
        "start = time.process_time()\n"
        "from bestserve.simulator import simulate\n"
        "o = np.ones(1)\n"
        "l = Lengths(inputs=o, input_weights=o, outputs=o, output_weights=o)\n"
        "lane = Lane(step=StepTime(w=1e-3, c=0, e=0, a=0, k=0))\n"
        "simulate(Collocated(lane=lane, replicas=1, lengths=l), 1.0, requests=100)\n"
        "print(time.process_time() - start)\n"
    )
    again = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    print(f"second process start, import and first run: {min(again):.2f} s CPU")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
