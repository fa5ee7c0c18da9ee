"""Measured rows that no hardware can have produced as they are described.

A closed loop's latencies say how many requests decode at a time (Little's law), so that the floor
of its TPOT counts their keys, values and experts; elsewhere it is that of a lone sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.step.floor import decode_floor, prompt_floor
from bestserve.models.system import Lengths
from bestserve.validation.replay import Prepared, measured_figures

SLACK = 0.95
"""Share of a floor below which a figure is called impossible: clocks above their base and rounding
of published figures are worth a few per cent."""

PRESSED, KEPT = 2.0, 0.4
"""Rate over throughput from which a client is held back by its cap, and the share of that cap that
is in flight at least: half of it in a run of no more prompts than that, less what is uneven."""

CACHED = "TTFT below the computation of the prompt at the GPUs' peak: prompts that were cached"
SPECULATED = (
    "TPOT below reading weights and KV cache at the GPUs' bandwidth: speculated tokens, smaller "
    "weights, or another load than stated"
)


def impossible(prepared: Prepared, lengths: Lengths) -> str:
    """Return why a row cannot have been measured as it is described, or "".

    lengths : of its requests, with what prefix caches are known to have held
    """
    measured = measured_figures(prepared.row)
    prompt, decode = floors(prepared, lengths)
    ttft = measured.get("ttft_mean_ms", measured.get("ttft_p50_ms"))
    tpot = measured.get("tpot_mean_ms", measured.get("tpot_p50_ms"))
    reasons = []
    if ttft is not None and 0 < ttft < 1e3 * SLACK * prompt:
        reasons.append(CACHED)
    if tpot is not None and 0 < tpot < 1e3 * SLACK * decode:
        reasons.append(SPECULATED)
    if lost := _not_in_flight(prepared, measured):
        reasons.append(lost)
    return "; ".join(reasons)


def _not_in_flight(prepared: Prepared, measured: Mapping[str, float]) -> str:
    """Return that a client cannot have had as many requests in flight as it says, or "".

    By Little's law throughput times latency is how many there were. Clients that send faster than
    they are served keep all of their cap in flight, or half of it if they send no more than that.
    """
    row, law = prepared.row, prepared.protocol.lengths
    if None in (row.concurrency, row.ttft_mean_ms, row.tpot_mean_ms, row.req_throughput):
        return ""
    assert row.concurrency is not None
    rate = row.request_rate if row.request_rate is not None else math.inf
    served = measured["req_throughput"]
    answer = (float(law.outputs @ law.output_weights) - 1.0) * measured["tpot_mean_ms"]
    there = served * (measured["ttft_mean_ms"] + answer) / 1e3
    asked = min(row.concurrency, prepared.protocol.requests)
    if rate < PRESSED * served or there >= KEPT * asked:
        return ""
    return (
        f"throughput times latency is {there:,.0f} requests, of {asked:,} that the client had in "
        "flight by its settings"
    )


def floors(prepared: Prepared, lengths: Lengths) -> tuple[float, float]:
    """Return the least TTFT and TPOT of a row's deployment and load [s]."""
    low = prepared.lowered
    arch, device, formats = low.model.architecture, low.device, low.formats
    roles = {role: (count, shape) for role, count, shape in prepared.deployment.pools}
    _, first = roles.get("p", roles.get("m", (1, None)))
    replicas, last = roles.get("d", roles.get("m", (1, None)))
    assert first is not None
    assert last is not None
    computed = lengths.inputs - lengths.cached if lengths.cached.size else lengths.inputs
    median = _median(computed, lengths.input_weights)
    mean = float(computed @ lengths.input_weights)
    states_mean = prepared.row.ttft_mean_ms is not None
    running = decoding(prepared) / replicas
    context = float(lengths.inputs @ lengths.input_weights)
    return (
        prompt_floor(arch, device, first, formats, mean if states_mean else min(mean, median)),
        decode_floor(arch, device, last, formats, sequences=running, context=context),
    )


def decoding(prepared: Prepared) -> float:
    """Return how many requests decode at a time by a closed loop's own latencies, at least 1."""
    row, protocol = prepared.row, prepared.protocol
    ttft, tpot = row.ttft_mean_ms, row.tpot_mean_ms
    if not protocol.closed or ttft is None or tpot is None:
        return 1.0
    answer = float(protocol.lengths.outputs @ protocol.lengths.output_weights) * tpot
    ramp = protocol.requests / (protocol.requests + protocol.arrivals.concurrency)
    return max(1.0, ramp * protocol.arrivals.concurrency * answer / (ttft + answer))


def _median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    reached = np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum())
    return float(values[order][min(int(reached), values.size - 1)])
