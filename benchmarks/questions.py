"""CPU time of whole questions, beside what each is to take.

    python benchmarks/questions.py                      # all, some four CPU-minutes
    python benchmarks/questions.py rank evaluation      # those whose name has one of the words
    python benchmarks/questions.py --json kept.json

Times are CPU seconds, the least of several, scaled to a machine that runs a loop of plain Python
(a million additions) in 45 ms: the loop is timed before each run, so that busy machines compare.
Commands run in processes of their own, whose time counts. Goals stand beside the times; nothing
fails where one is missed.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from allocation import real_fleet
from joblib import parallel_config

import bestserve as bs
from bestserve.lowering import lower
from bestserve.models.latency import evaluator
from bestserve.reporting.page import report
from bestserve.validation.compare import validate
from bestserve.web import panels

ROOT = Path(__file__).parents[1]
REFERENCE = 0.045
"""Time of `plain_loop` on the machine that times are scaled to [s]."""

CHAT = {"input_len": "lognormal:2000,0.8", "output_len": "lognormal:300,1"}
SLO = "ttft:1000 tpot:50"
FLAGS = [
    "--model", "meta-llama/Llama-3.1-70B", "--hardware", "h100-sxm", "--gpus", "16",
    "--input-len", CHAT["input_len"], "--output-len", CHAT["output_len"],
]  # fmt: skip
PROCESSES, ROWS = 20, 60
COLUMNS = (
    "gpu", "model", "tp", "engine", "input_len_mean", "output_len_mean", "concurrency",
    "request_rate", "num_prompts", "ttft_mean_ms", "tpot_mean_ms",
)  # fmt: skip

Ask = Callable[[], object]


class Question(NamedTuple):
    """What is asked, and what one answer is to take [CPU-s].

    answers : of one call of `ask`; runs : calls that are timed, after one that is not if `warm`
    """

    name: str
    goal: float
    ask: Ask
    answers: int = 1
    runs: int = 3
    warm: bool = True


def problem(**changes: object) -> bs.Problem:
    stated = {
        "model": "meta-llama/Llama-3.1-70B", "hardware": "h100-sxm", "gpus": 16,
        "workload": bs.Workload(**CHAT), "slo": SLO, **changes,
    }  # fmt: skip
    return bs.Problem(**stated)


def of_experts() -> bs.Problem:
    return problem(model="Qwen/Qwen3-30B-A3B", hardware="h200-sxm", gpus=8)


def evaluations(asked: bs.Problem, strategy: str, rate: float) -> Ask:
    found_at = evaluator(lower(asked).system(strategy))
    return lambda: [found_at(rate * (1 + 1e-3 * i)) for i in range(20)]


def environment(folder: Path | str) -> dict[str, str]:
    """Return what commands run in: the package of a folder, whose byte code may be kept."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(folder)}


def started(folder: Path | str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bestserve", *arguments], env=environment(folder),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def finished(*processes: subprocess.Popen[bytes]) -> None:
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}")


def command(*arguments: str) -> Ask:
    return lambda: finished(started(ROOT, *arguments))


def at_once() -> None:
    """Run twenty commands at once on a copy of the package whose loops nobody has compiled."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            ROOT / "bestserve", Path(folder, "bestserve"),
            ignore=shutil.ignore_patterns("_loops*", "__pycache__"),
        )  # fmt: skip
        asked = ("predict", "4m-tp4", *FLAGS, "--request-rate", "8")
        finished(*(started(folder, *asked) for _ in range(PROCESSES)))


def rows(name: str, goal: float, *, closed: bool, with_intervals: bool) -> Question:
    """Return the comparison of a log of which no two rows have one setting, per row."""
    draw = random.Random(1)
    path = Path(tempfile.mkdtemp(), "log.csv")
    with path.open("w", newline="") as log:
        out = csv.writer(log)
        out.writerow(COLUMNS)
        for _ in range(ROWS):
            model = draw.choice(["meta-llama/Llama-3.1-70B", "Qwen/Qwen3-32B"])
            out.writerow(
                [
                    "h100-sxm", model, draw.choice([4, 8]), "vllm",
                    draw.randint(200, 4000), draw.randint(50, 800),
                    draw.randint(1, 200) if closed else "",
                    "" if closed else round(draw.uniform(0.5, 6), 2),
                    draw.randint(200, 1000), 300, 20,
                ]
            )  # fmt: skip
    ask = functools.partial(validate, path, with_intervals=with_intervals, jobs=1)
    return Question(name, goal, ask, ROWS, 2)


def page(question: Callable[..., object], **arguments: object) -> Ask:
    stated = {
        "model": "meta-llama/Llama-3.1-70B", "hardware": "h100-sxm", "gpus": 16,
        "workload": CHAT, "slo": SLO,
    }  # fmt: skip
    return lambda: list(question(stated, arguments, lambda _: None))  # type: ignore[call-overload]


def one_process(ask: Ask) -> Ask:
    def run() -> None:
        with parallel_config(n_jobs=1):
            ask()

    return run


def questions() -> list[Question]:
    """Return all questions; goals per answer, or per row of a log."""
    times = [0.25 * 16 ** (i / 19) for i in range(20)]
    axes = {
        f"workload.{name}": [round(t * mean) for t in times]
        for name, mean in (("input_len", 2000), ("output_len", 300))
    }
    keep = ["4m-tp4-tokens768", "3p-tp4-tokens2048+1d-tp4-seqs183", "4m-tp4", "2m-tp8"]
    ask_whatif = one_process(lambda: bs.sweep(problem(), axes))
    ask_report = one_process(lambda: report(problem()))
    return [
        Question("shell: --help", 0.2, command("--help"), runs=5),
        Question("shell: predict", 0.6, command("predict", "4m-tp4", *FLAGS, "--request-rate=8")),
        Question("shell: rank", 1.2, command("rank", *FLAGS, "--goodput", *SLO.split())),
        Question("shell: 20 at once, nothing compiled", 5.0, at_once, PROCESSES, 1, False),
        Question("rank: Llama 70B, 16 H100", 0.3, lambda: bs.rank(problem())),
        Question("rank: formulas alone", 0.3, lambda: bs.rank(problem(), verify=False)),
        Question("rank: Qwen3-30B-A3B, 8 H200", 0.3, lambda: bs.rank(of_experts())),
        Question("predict", 0.1, lambda: bs.predict(problem(), "4m-tp4", request_rate=8.0)),
        Question("evaluation: chunked", 1e-3, evaluations(problem(), "4m-tp4", 8.0), 20, 5),
        Question("evaluation: experts", 1e-3, evaluations(of_experts(), "8m-tp1", 20.0), 20, 5),
        Question("evaluation: split", 1e-3, evaluations(problem(), "3p-tp4+1d-tp4", 8.0), 20, 5),
        Question("page: leaders", 0.2, page(panels.glance, keep=keep)),
        Question("page: all by formulas", 0.2, page(panels.first)),
        Question("whatif: map of 20 × 20", 5.0, ask_whatif, 1, 1, False),
        Question("uncertainty", 5.0, lambda: bs.uncertainty(problem(), jobs=1), 1, 1, False),
        Question("report", 20.0, ask_report, 1, 1, False),
        rows("validate: a closed row", 3e-3, closed=True, with_intervals=False),
        rows("validate: with intervals", 6e-3, closed=True, with_intervals=True),
        rows("validate: an open row", 3e-3, closed=False, with_intervals=False),
        rows("validate: open, with intervals", 6e-3, closed=False, with_intervals=True),
        Question("allocate: 8 types, 6 models, 3 classes", 50.0,
                 one_process(lambda: bs.allocate(real_fleet("huge"))), 1, 1, False),
    ]  # fmt: skip


def plain_loop() -> float:
    total = 0.0
    for i in range(1_000_000):
        total += i * 0.5
    return total


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended [s]."""
    spent = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def timed(ask: Ask) -> float:
    started = cpu_seconds()
    ask()
    return cpu_seconds() - started


def answer_time(question: Question) -> float:
    """Return the time of one answer on the machine of reference [CPU-s]."""
    if question.warm:
        question.ask()
    best = unit = math.inf
    for _ in range(question.runs):
        unit = min(unit, *(timed(plain_loop) for _ in range(3)))
        best = min(best, timed(question.ask))
    return best / question.answers * REFERENCE / unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = {}
    print(f"{'':44}{'CPU [s]':>10}{'goal [s]':>10}{'of goal':>9}")
    for question in questions():
        if asked.words and not any(word in question.name for word in asked.words):
            continue
        seconds = answer_time(question)
        found[question.name] = {"seconds": seconds, "goal": question.goal}
        share = seconds / question.goal
        print(f"{question.name:44}{seconds:10.4f}{question.goal:10.4f}{share:9.2f}", flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
