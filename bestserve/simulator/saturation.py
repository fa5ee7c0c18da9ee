"""Capacity of a system: the rate at which it completes requests that are always waiting."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from bestserve.models.system import Arrivals, Collocated, Lengths, System
from bestserve.simulator.inputs import Requests
from bestserve.simulator.prepared import execute, prepare, request_times

FROM, TO = 0.15, 0.85
"""Completions between these shares count: the batch has filled and has not begun to drain."""

WAVES = 20
"""Requests per slot at least, so that filling and draining are short beside the rest. Slots that
all start afresh hold younger answers than slots found in service, whose ages are as E[D³]/E[D²], of
lognormal answers (1 + cv²)² E[D]: at a CV of 2 runs of 20 a slot carry 20 % too much, of 50 8 %, of
125 3 %."""

MOST_REQUESTS = 400_000


def saturation_rate(
    system: System, *, requests: int = 20000, seed: int = 0, given: Requests | None = None
) -> float:
    """Return the highest sustainable completion rate of the system [req/s].

    All requests arrive at once; the rate is the slope of completions over time (least squares)
    between 15 % and 85 % of them: requests of equal length complete in waves, and the slope does
    not depend on where a wave is cut. At least 20 requests per slot are simulated, more where
    answers differ by more than their mean. 0 if no request fits the KV cache.
    """
    if isinstance(system, Collocated):
        slots = system.lane.max_num_seqs * system.replicas
    else:
        slots = max(
            system.prefill.max_num_seqs * system.prefill_replicas,
            system.decode.max_num_seqs * system.decode_replicas,
        )
    waves = round(WAVES * max((1.0 + _scv(system.lengths)) / 2, 1.0) ** 2)
    n = len(given) if given is not None else min(max(requests, waves * slots), MOST_REQUESTS)
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


def _scv(lengths: Lengths) -> float:
    """Return the squared coefficient of variation of the answers [1]."""
    mean = float(lengths.outputs @ lengths.output_weights)
    return float(lengths.outputs**2 @ lengths.output_weights) / mean**2 - 1.0
