"""What a benchmark client writes down of a simulated run: which requests, from where to where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.system import Disaggregated, System
from bestserve.simulator import SimulationResult
from bestserve.validation.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Seen:
    """Latencies [n] [s] of the requests that count; `tpot` is nan for fewer than two tokens."""

    ttft: Floats
    tpot: Floats

    @property
    def count(self) -> int:
        """Requests that count."""
        return len(self.ttft)


def seen_by_client(run: SimulationResult, system: System, protocol: Protocol) -> Seen:
    """Return TTFT and TPOT as the client defines them.

    Disaggregated services answer through the decode instance: the first token reaches the client
    with the second, after the KV transfer and one decode step. A client that takes the first chunk
    of text for the first token counts a TTFT of 0 for answers that are empty
    (`Protocol.blanks_count_zero`). Requests that ran into the client's time limit do not count
    (`Protocol.longest_counted`). One that runs once in a period (`Protocol.client_period`) connects
    in one, sends its request at the end of that, and sees the first token at the end of another.
    """
    counted = run.kept & (run.output_len <= protocol.longest_counted)
    first, last = run.first_token, run.last_token
    gaps = run.output_len - 1.0
    if isinstance(system, Disaggregated):
        transfer = system.transfer
        handed = first + transfer.latency + transfer.seconds_per_token * run.input_len
        step = np.where(gaps > 0, (last - handed) / np.maximum(gaps, 1.0), 0.0)
        first = np.minimum(handed + step, np.maximum(last, handed))
    ttft = first - run.arrival
    if period := protocol.client_period:
        ttft = period * (1.0 + np.ceil(ttft / period))
    if protocol.blanks_count_zero:
        ttft = np.where(run.output_len > 1, ttft, 0.0)
    tpot = np.full(len(first), np.nan)
    np.divide(last - first, gaps, out=tpot, where=gaps > 0)
    return Seen(ttft[counted], tpot[counted])
