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
from scipy.optimize import brentq, least_squares

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
DRIFT_WEIGHT = 0.5
"""How firmly the fit holds the machine's speed in a run to 1: a drift of 20 % weighs as much as
10 % of a mean."""
OBJECTIVES = 0.1, 0.02
"""TTFT and TPOT of a good request [s]: `vllm bench serve --goodput ttft:100 tpot:20`."""


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
    cached = np.full(len(log.start), log.run.prefix_len // BLOCK * BLOCK)  # since the warm-up
    given = Requests(
        input_len=log.input_len.astype(int),
        output_len=log.output_len.astype(int),
        cached=cached if log.run.server.prefix_caching else None,
    )
    result = simulate(system(log, constants, replay=True), given=given)
    ttft = result.first_token - result.arrival
    return ttft, tpot_of(ttft, result.last_token - result.arrival, log.output_len)


def fit(logs: list[Log]) -> dict[str, float]:
    """Return the constants that leave the least squares of log ratios of means over the runs.

    The machine's speed differs between runs (`own_speed`), so each run's is fitted beside the
    constants, held near 1 by a residual of its own.
    """
    names = list(START)

    def residuals(logarithms: Floats) -> Floats:
        constants = dict(zip(names, np.exp(logarithms[: len(names)]), strict=True))
        slownesses = logarithms[len(names) :]
        found = []
        for log, slowness in zip(logs, slownesses, strict=True):
            ttft, tpot = replayed(log, slowed(constants, float(np.exp(slowness))))
            found += [np.log(ttft.mean() / log.ttft.mean()), np.log(tpot.mean() / log.tpot.mean())]
            found.append(slowness * DRIFT_WEIGHT)
        return np.array(found)

    first = np.log(np.array([START[name] for name in names] + [1.0] * len(logs)))
    bounds = first - 9.0, first + 4.0
    solved = least_squares(residuals, first, bounds=bounds, diff_step=1e-3)
    return dict(zip(names, np.exp(solved.x[: len(names)]).tolist(), strict=True))


def slowed(constants: dict[str, float], factor: float) -> dict[str, float]:
    """Return the constants of a machine that takes `factor` times as long for everything."""
    return {name: value * factor for name, value in constants.items()}


def own_speed(log: Log, constants: dict[str, float]) -> float:
    """Return how much slower the machine was in a run than in the fit, by its mean TPOT.

    A virtual machine's cores are faster in some minutes than in others; what is left once a run
    is predicted at its own speed is what the queue and the scheduler are answerable for.
    """

    def too_slow(factor: float) -> float:
        return float(replayed(log, slowed(constants, factor))[1].mean() / log.tpot.mean() - 1)

    return float(brentq(too_slow, 0.4, 2.5, xtol=1e-3))


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


def goodput(log: Log, ttft: Floats, tpot: Floats) -> float:
    """Return the good requests per second of the run's arrivals [req/s]."""
    met = ttft <= OBJECTIVES[0]
    met[log.output_len > 1] &= tpot <= OBJECTIVES[1]
    return float(met.sum() / (log.start[-1] - log.start[0]))


def unfitted(log: Log, constants: dict[str, float]) -> str:
    """Return one line of the table of errors: predicted at a speed over measured less 1."""
    ttft, tpot = replayed(log, constants)
    pairs = ((figures(ttft), figures(log.ttft)), (figures(tpot), figures(log.tpot)))
    return " | ".join(f"{e:+.0%}" for pair in pairs for e in ratios(*pair))


def report(logs: list[Log]) -> str:
    """Return the comparison as Markdown."""
    constants = fit([log for log in logs if log.run.fit])
    lines, errors, own, good = [], [], [], []
    for log in logs:
        ttft, tpot = replayed(log, constants)
        lines.append(row(log, "measured", figures(log.ttft), figures(log.tpot)))
        how = "fitted" if log.run.fit else "replayed"
        lines.append(row(log, how, figures(ttft), figures(tpot)))
        factor = own_speed(log, constants)
        if log.run.fit:
            own.append(f"| {log.run.name} (fitted) | {factor:.2f} |" + " |" * 8)
            continue
        errors.append(f"| {log.run.name} | {unfitted(log, constants)} |")
        at_own = slowed(constants, factor)
        own.append(f"| {log.run.name} | {factor:.2f} | {unfitted(log, at_own)} |")
        if log.run.concurrency is None:
            if not log.run.server.prefix_caching:
                law = latency(system(log, constants, replay=False), log.rate)
                laws = [
                    [d.mean, *(float(d.quantile(p / 100)) for p in PERCENTILES)]
                    for d in (law.ttft, law.tpot)
                ]
                lines.append(row(log, f"formula at {log.rate:.2f} req/s", *laws))
            rates = [goodput(log, log.ttft, log.tpot), goodput(log, ttft, tpot)]
            rates.append(goodput(log, *replayed(log, at_own)))
            cells = " | ".join(f"{rate:.2f}" for rate in rates)
            good.append(f"| {log.run.name} | {log.rate:.2f} | {cells} |")
    about = logs[0].about
    spelled = ", ".join(f"{name} = {value:.3g} s" for name, value in constants.items())
    columns = "TTFT mean | P50 | P90 | P99 | TPOT mean | P50 | P90 | P99 |"
    rule = " ---: |" * 8
    ttft_ms, tpot_ms = (1e3 * objective for objective in OBJECTIVES)
    return "\n".join(
        [
            "# A real engine on one's own machine",
            "",
            f"vLLM {about['vllm']}, {about['date']}, {about['machine']}; the engine on one core,",
            "the client on the other. Made by `python validation/real_engine.py` and",
            "`python validation/real_engine_report.py`. Milliseconds.",
            "",
            f"Fitted to the runs named so: {spelled}.",
            "",
            f"| run | | {columns}",
            f"| --- | --- |{rule}",
            *lines,
            "",
            "## Replayed over measured, of runs that were not fitted",
            "",
            f"| run | {columns}",
            f"| --- |{rule}",
            *errors,
            "",
            "## The same, each run at its own speed",
            "",
            "The machine is virtual and takes longer in some minutes than in others: by how much,",
            "beside the fit, is found from the run's mean TPOT (then not predicted) and applied to",
            "every constant. What is left is the queue's and the scheduler's.",
            "",
            f"| run | slower by | {columns}",
            f"| --- | ---: |{rule}",
            *own,
            "",
            f"## Goodput at TTFT {ttft_ms:.0f} ms and TPOT {tpot_ms:.0f} ms",
            "",
            "Requests that meet both, per second.",
            "",
            "| run | rate [req/s] | measured | replayed | at its own speed |",
            "| --- | ---: | ---: | ---: | ---: |",
            *good,
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
