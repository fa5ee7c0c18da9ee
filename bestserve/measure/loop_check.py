"""Predictions for the serving loop: step time fitted to one run, another run simulated.

The loop measures real steps and a real queue; the simulator gets the fitted step time and the same
requests. What differs is the model's error: step-time form, jitter of the steps, host work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bestserve.arrays import Floats
from bestserve.measure.fit import Fit, fit_form
from bestserve.measure.serve_loop import Limits, Run, Step
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Arrivals, Collocated, Lane, Lengths
from bestserve.simulator import simulate
from bestserve.simulator.inputs import Requests

STATISTICS = {"mean": None, "p50": 50, "p90": 90, "p99": 99}


def fit_steps(steps: Sequence[Step]) -> Fit | None:
    """Fit a_seq·n + [w³ + (cT)³]^(1/3) + eT + aA + kK to the steps of a run.

    What the steps do not determine is 0. None with too few steps.
    """
    if len(steps) < 8:
        return None
    T = np.array([s.tokens for s in steps], dtype=np.float64)
    A = np.array([s.pairs for s in steps], dtype=np.float64)
    K = np.array([s.context for s in steps], dtype=np.float64)
    n = np.array([s.sequences for s in steps], dtype=np.float64)
    measured = np.array([s.seconds for s in steps])

    def predict(v: Mapping[str, float]) -> Floats:
        token_part = np.cbrt(v["w"] ** 3 + (v["c"] * T) ** 3)
        return v["a_seq"] * n + token_part + v["e"] * T + v["a"] * A + v["k"] * K

    typical = float(np.median(measured))
    start = {
        "w": typical,
        "c": typical / float(T.max()),
        "e": 0.1 * typical / float(T.max()),
        "a": 0.1 * typical / max(float(A.max()), 1.0),
        "k": 0.1 * typical / max(float(K.max()), 1.0),
        "a_seq": 0.1 * typical / float(n.max()),
    }
    return fit_form("loop steps", predict, measured, start, dict.fromkeys(start, 0.0), keep=("w",))


def loop_step_time(fit: Fit, steps: Sequence[Step]) -> StepTime:
    """Return the fitted coefficients, scaled so that `steps` take as long in sum as measured.

    The fit follows the median step; queues feel the mean, which disturbed steps pull up.
    """
    w, c, e, a, k, a_seq = (fit.value(name) for name in ("w", "c", "e", "a", "k", "a_seq"))
    step = StepTime(w=w, c=c, e=e, a=a, k=k, a_seq=a_seq)
    predicted = sum(step(s.tokens, s.pairs, s.context, s.sequences, s.prefill) for s in steps)
    f = sum(s.seconds for s in steps) / predicted
    return StepTime(w=f * w, c=f * c, e=f * e, a=f * a, k=f * k, a_seq=f * a_seq)


def simulated(
    run: Run, step: StepTime, limits: Limits, concurrency: int = 0
) -> tuple[Floats, Floats]:
    """Return simulated TTFT and TPOT of the requests of a run [s]; TPOT nan for one token.

    concurrency : clients of a closed loop; 0: the run's own arrival times
    """
    inputs = np.array([s.request.input_len for s in run.served])
    outputs = np.array([s.request.output_len for s in run.served])
    if concurrency:
        arrivals = Arrivals(kind="closed", concurrency=concurrency, num_prompts=len(inputs))
    else:
        times = np.array([s.arrival - run.start for s in run.served])
        arrivals = Arrivals(kind="trace", times=times)
    share = np.full(len(inputs), 1.0 / len(inputs))
    system = Collocated(
        lane=Lane(
            step=step,
            policy="chunked",
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
        ),
        replicas=1,
        lengths=Lengths(
            inputs=inputs.astype(np.float64),
            input_weights=share,
            outputs=outputs.astype(np.float64),
            output_weights=share,
            joint=True,
        ),
        arrivals=arrivals,
    )
    given = Requests(input_len=inputs, output_len=outputs)
    result = simulate(system, requests=len(inputs), given=given, warmup=0.0, cooldown=0.0)
    ttft = result.first_token - result.arrival
    return ttft, tpot(result.last_token - result.first_token, outputs)


def tpot(decoding: Floats, outputs: NDArray[np.int_]) -> Floats:
    """Return time per output token after the first [s]; nan where there is only one."""
    gaps = np.asarray(outputs) - 1
    return np.where(gaps > 0, decoding / np.maximum(gaps, 1), np.nan)


def measured(run: Run) -> tuple[Floats, Floats]:
    """Return measured TTFT and TPOT of a run [s]; TPOT nan for one token."""
    outputs = np.array([s.request.output_len for s in run.served])
    ttft = np.array([s.ttft for s in run.served])
    return ttft, tpot(np.array([s.times[-1] - s.times[0] for s in run.served]), outputs)


def comparison(name: str, run: Run, step: StepTime, limits: Limits, concurrency: int = 0) -> Any:
    """Return rows {load, metric, statistic, measured_ms, predicted_ms, error_percent}."""
    found, wanted = measured(run), simulated(run, step, limits, concurrency)
    rows = []
    for metric, seen, predicted in zip(("ttft", "tpot"), found, wanted, strict=True):
        for statistic, percentile in STATISTICS.items():
            real, ours = (
                float(np.nanmean(x) if percentile is None else np.nanpercentile(x, percentile))
                for x in (seen, predicted)
            )
            rows.append(
                {
                    "load": name,
                    "metric": metric,
                    "statistic": statistic,
                    "measured_ms": 1e3 * real,
                    "predicted_ms": 1e3 * ours,
                    "error_percent": 100 * (ours / real - 1),
                }
            )
    return rows
