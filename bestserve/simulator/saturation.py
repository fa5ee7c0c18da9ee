"""Capacity of a system: the rate at which it completes requests that are always waiting."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from bestserve.models.system import Arrivals, Collocated, Lengths, System
from bestserve.simulator.checked import lanes_of
from bestserve.simulator.inputs import STARTING, Requests, stream
from bestserve.simulator.prepared import execute, prepare, request_times, sample_requests

FROM, TO = 0.15, 0.85
"""Completions between these shares count: the batch has filled and has not begun to drain."""

WAVES = 20
"""Requests per slot at least, so that filling and draining are short beside the rest."""

MOST_REQUESTS = 400_000


def saturation_rate(
    system: System, *, requests: int = 20000, seed: int = 0, given: Requests | None = None
) -> float:
    """Return the highest sustainable completion rate of the system [req/s].

    All requests arrive at once, those that fill the slots partly answered (`found_in_service`); the
    rate is the slope of completions over time (least squares) between 15 % and 85 % of them:
    requests of equal length complete in waves, and the slope does not depend on where a wave is
    cut. At least 20 requests per slot are simulated, more where answers differ by more than their
    mean. 0 if no request fits the KV cache.
    """
    decoding = lanes_of(system)[-1]
    running = decoding[0].max_num_seqs * decoding[1]
    if isinstance(system, Collocated):
        slots = running
    else:
        slots = max(
            system.prefill.max_num_seqs * system.prefill_replicas,
            system.decode.max_num_seqs * system.decode_replicas,
        )
    waves = round(WAVES * max((1.0 + _scv(system.lengths)) / 2, 1.0))
    n = len(given) if given is not None else min(max(requests, waves * slots), MOST_REQUESTS)
    if given is None:
        given = sample_requests(system, n, seed)
        given = found_in_service(given, min(running, int(FROM * n)), seed)
    burst = dataclasses.replace(system, arrivals=Arrivals(kind="trace", times=np.zeros(n)))
    prepared = prepare(burst, n, seed, given)
    last = request_times(prepared, execute(prepared, math.nan))[3]
    ends = np.sort(last[np.isfinite(last)])
    if len(ends) == 0:
        return 0.0
    low, high = int(FROM * len(ends)), int(TO * len(ends))
    middle = ends[low:high] - ends[low] if high > low else ends[:0]
    if len(middle) < 2 or middle[-1] <= 0:
        return len(ends) / float(ends[-1])
    count = np.arange(len(middle)) - (len(middle) - 1) / 2
    late = middle - middle.mean()
    return float(count @ late / (late @ late))


def found_in_service(requests: Requests, running: int, seed: int) -> Requests:
    """Return requests of which the first `running` are as those found in service at any time.

    Long answers are found more often, at an even part of theirs, whose KV they hold. Slots that all
    start afresh keep in step where answers have one length, and so share steps of prompts that they
    do not share later on; where lengths differ, they hold younger contexts for long.
    """
    if requests.tree is not None:
        return requests
    rng = stream(seed, STARTING)
    answers = np.asarray(requests.output_len)
    share = answers / answers.sum(dtype=np.float64)
    chosen = np.arange(len(requests))
    chosen[:running] = rng.choice(len(requests), running, p=share)
    age = np.zeros(len(requests), dtype=np.int64)
    age[:running] = rng.random(running) * answers[chosen[:running]]
    known = 0 if requests.cached is None else np.asarray(requests.cached)[chosen]
    return dataclasses.replace(
        requests,
        input_len=np.asarray(requests.input_len)[chosen] + age,
        output_len=answers[chosen] - age,
        cached=known + age,
        kinds=None if requests.kinds is None else requests.kinds[chosen],
    )


def _scv(lengths: Lengths) -> float:
    """Return the squared coefficient of variation of the answers [1]."""
    mean = float(lengths.outputs @ lengths.output_weights)
    return float(lengths.outputs**2 @ lengths.output_weights) / mean**2 - 1.0
