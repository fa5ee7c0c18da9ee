"""Predict a real engine from a few of its runs: fit a step time, replay the others.

    python validation/real_engine_report.py

Reads the logs of `real_engine/` (made by `real_engine.py`), fits the coefficients of a step time
and the front-end time to the runs marked for that, and predicts the rest: by replaying the same
requests at the same arrivals in the simulator, and by formulas that know lengths and rate alone.
Writes `real_engine.md`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from real_engine import BLOCK, LOGS, RUNS, Run
from scipy.optimize import least_squares

from bestserve.arrays import Floats
from bestserve.models.latency import latency
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Arrivals, Collocated, Lane, Lengths
from bestserve.simulator import Requests, simulate

REPORT = Path(__file__).parent / "real_engine.md"
START = {"a_step": 10e-3, "a_seq": 0.7e-3, "e": 0.4e-3, "a": 1e-8, "k": 1e-7, "t_req": 10e-3}
"""Where the fit begins: seconds of an empty step, a sequence, a token, a pair, a cached token, a
request."""
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Log:
    """What the client saw of one run: arrays over requests, in order of arrival [s, tokens]."""

    run: Run
    start: Floats
    ttft: Floats
    e2el: Floats
    input_len: Floats
    output_len: Floats
    about: dict[str, Any]

    @property
    def tpot(self) -> Floats:
        """Return TPOT of the answers of two tokens or more [s]."""
        return tpot_of(self.ttft, self.e2el, self.output_len)

    @property
    def rate(self) -> float:
        """Return the arrival rate as it was [req/s]."""
        return (len(self.start) - 1) / float(self.start[-1] - self.start[0])


def tpot_of(ttft: Floats, e2el: Floats, output_len: Floats) -> Floats:
    """Return TPOT of the answers of two tokens or more [s]."""
    many = output_len > 1
    return np.asarray((e2el - ttft)[many] / (output_len[many] - 1))


def load() -> list[Log]:
    """Return the logs that are there, in the order of the runs."""
    logs = []
    for run in RUNS:
        path = LOGS / f"{run.name}.json"
        if path.exists():
            saved = json.loads(path.read_text())
            columns = ("start_times", "ttfts", "last", "input_lens", "output_lens")
            logs.append(Log(run, *(np.array(saved[name], float) for name in columns), saved))
    return logs


def lane(run: Run, constants: dict[str, float]) -> Lane:
    """Return the engine of a run with these constants."""
    costs = {name: value for name, value in constants.items() if name != "t_req"}
    return Lane(
        step=StepTime(w=0.0, c=1e-9, **costs),
        max_num_seqs=run.server.max_num_seqs,
        max_num_batched_tokens=run.server.max_num_batched_tokens,
        kv_capacity_tokens=float((run.server.num_blocks - 1) * BLOCK),
        kv_block=BLOCK,
        t_req=constants["t_req"],
    )


def system(log: Log, constants: dict[str, float], *, replay: bool) -> Collocated:
    """Return the run's engine under the run's arrivals, or under Poisson arrivals."""
    n = len(log.start)
    weights = np.full(n, 1.0 / n)
    if log.run.concurrency:
        arrivals = Arrivals(kind="closed", concurrency=log.run.concurrency, num_prompts=n)
    elif replay:
        arrivals = Arrivals(kind="trace", times=log.start)
    else:
        arrivals = Arrivals()
    return Collocated(
        lane=lane(log.run, constants),
        replicas=1,
        lengths=Lengths(
            inputs=log.input_len,
            input_weights=weights,
            outputs=log.output_len,
            output_weights=weights,
            joint=True,
        ),
        arrivals=arrivals,
    )


def replayed(log: Log, constants: dict[str, float]) -> tuple[Floats, Floats]:
    """Return (TTFT [n], TPOT) of the same requests in the simulator [s]."""
    given = Requests(input_len=log.input_len.astype(int), output_len=log.output_len.astype(int))
    result = simulate(system(log, constants, replay=True), given=given)
    ttft = result.first_token - result.arrival
    return ttft, tpot_of(ttft, result.last_token - result.arrival, log.output_len)


def fit(logs: list[Log]) -> dict[str, float]:
    """Return the constants that leave the least squares of log ratios of means over the runs."""
    names = list(START)

    def residuals(logarithms: Floats) -> Floats:
        constants = dict(zip(names, np.exp(logarithms), strict=True))
        found = []
        for log in logs:
            ttft, tpot = replayed(log, constants)
            found += [np.log(ttft.mean() / log.ttft.mean()), np.log(tpot.mean() / log.tpot.mean())]
        return np.array(found)

    first = np.log(np.array([START[name] for name in names]))
    bounds = first - 9.0, first + 4.0
    solved = least_squares(residuals, first, bounds=bounds, diff_step=1e-3)
    return dict(zip(names, np.exp(solved.x).tolist(), strict=True))


def figures(values: Floats) -> list[float]:
    """Return mean, P50, P90 and P99 [s]."""
    return [float(values.mean()), *(float(np.percentile(values, p)) for p in PERCENTILES)]


def row(log: Log, how: str, ttft: list[float], tpot: list[float]) -> str:
    """Return one line of the table [ms]."""
    cells = [f"{v * 1e3:.0f}" for v in ttft] + [f"{v * 1e3:.1f}" for v in tpot]
    return f"| {log.run.name} | {how} | " + " | ".join(cells) + " |"


def ratios(predicted: list[float], measured: list[float]) -> list[float]:
    """Return predicted over measured less 1."""
    return [p / m - 1 for p, m in zip(predicted, measured, strict=True)]


def report(logs: list[Log]) -> str:
    """Return the comparison as Markdown."""
    constants = fit([log for log in logs if log.run.fit])
    lines, errors = [], []
    for log in logs:
        measured = figures(log.ttft), figures(log.tpot)
        ttft, tpot = replayed(log, constants)
        predicted = figures(ttft), figures(tpot)
        lines.append(row(log, "measured", *measured))
        lines.append(row(log, "fitted" if log.run.fit else "replayed", *predicted))
        if not log.run.fit:
            pair = ratios(predicted[0], measured[0]), ratios(predicted[1], measured[1])
            errors.append((log.run.name, *pair))
            if log.run.concurrency is None:
                law = latency(system(log, constants, replay=False), log.rate)
                laws = [
                    [d.mean, *(float(d.quantile(p / 100)) for p in PERCENTILES)]
                    for d in (law.ttft, law.tpot)
                ]
                lines.append(row(log, f"formula at {log.rate:.2f} req/s", *laws))
    about = logs[0].about
    spelled = ", ".join(f"{name} = {value:.3g} s" for name, value in constants.items())
    table = [
        f"| {name} | " + " | ".join(f"{e:+.0%}" for e in (*ttft, *tpot)) + " |"
        for name, ttft, tpot in errors
    ]
    head = "| run | | TTFT mean | P50 | P90 | P99 | TPOT mean | P50 | P90 | P99 |"
    rule = "| --- | --- |" + " ---: |" * 8
    return "\n".join(
        [
            "# A real engine on one's own machine",
            "",
            f"vLLM {about['vllm']}, {about['date']}, {about['machine']}; server and client on the",
            "same cores. Made by `python validation/real_engine.py` and",
            "`python validation/real_engine_report.py`. Milliseconds.",
            "",
            f"Fitted to the runs named so: {spelled}.",
            "",
            head,
            rule,
            *lines,
            "",
            "Replayed over measured, of runs that were not fitted:",
            "",
            head.replace("| run | |", "| run |"),
            rule.replace("| --- | --- |", "| --- |", 1),
            *table,
            "",
        ]
    )


def main() -> None:
    logs = load()
    if not any(log.run.fit for log in logs):
        sys.exit("no logs to fit to: run validation/real_engine.py first")
    text = report(logs)
    REPORT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
