"""Cost of one evaluation and of whole rankings, as ratios measured in one run.

    python benchmarks/ranking.py

The baseline is one evaluation of the operator sum in a plain Python loop over the same formulas:
a 32-point grid of steps, the least that a queueing model needs to see of a deployment.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import bestserve as bs
from bestserve import api
from bestserve.lowering import lower
from bestserve.models.goodput import goodput
from bestserve.models.latency import latency
from bestserve.models.step.operators import operator_list
from bestserve.models.step.step_work import StepWork

CHAT = bs.Workload(input_len="lognormal:2000,0.8", output_len="lognormal:300,1")


def problem(gpus: int) -> bs.Problem:
    return bs.Problem(
        model="meta-llama/Llama-3.1-70B",
        hardware="h100-sxm",
        gpus=gpus,
        workload=CHAT,
        slo="ttft:1000 tpot:50",
    )


def median_seconds(question: Callable[[], object], runs: int) -> float:
    question()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        question()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def operator_loop() -> float:
    lowered = lower(problem(16))
    parallel = bs.Strategy.parse("1m-tp4").pools[0].parallelism
    total = 0.0
    for batch in range(1, 33):
        work = StepWork.grid(context=2000.0, decodes=float(batch))
        for operator in operator_list(
            lowered.model.architecture,
            lowered.device,
            parallel,
            lowered.formats,
            lowered.engine,
            work,
        ):
            total += float(operator.time[0])
    return total


def main() -> None:
    lowered = lower(problem(16))
    target = bs.SLO("ttft:1000 tpot:50").target()
    collocated = lowered.system("4m-tp4")
    tandem = lowered.system("3p1d-tp4")
    baseline = median_seconds(operator_loop, 5)
    questions: dict[str, tuple[Callable[[], object], int]] = {
        "one collocated evaluation": (lambda: latency(collocated, 8.0), 20),
        "one disaggregated evaluation": (lambda: latency(tandem, 8.0), 20),
        "goodput of one strategy": (lambda: goodput(collocated, target), 5),
        "rank over 16 GPUs": (lambda: api.rank(problem(16)), 3),
        "rank over 64 GPUs": (lambda: api.rank(problem(64)), 3),
        "rank over 1,024 GPUs": (lambda: api.rank(problem(1024)), 1),
    }
    print(f"{'':42}{'median [ms]':>14}{'x baseline':>12}")
    print(f"{'operators of 32 steps, one by one (baseline)':42}{baseline * 1e3:12.2f}{1:12.1f}")
    for name, (question, runs) in questions.items():
        seconds = api.single_threaded(median_seconds)(question, runs)
        print(f"{name:42}{seconds * 1e3:14.2f}{seconds / baseline:12.1f}")


if __name__ == "__main__":
    main()
