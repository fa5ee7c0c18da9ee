"""How an analytic evaluation ended; the value is the sentence a user reads."""

from __future__ import annotations

from enum import StrEnum


class LatencyStatus(StrEnum):
    """Outcome of `latency` and `goodput`."""

    OK = "the system is stable and the latencies are stationary"
    UNSTABLE = "requests arrive faster than the system can finish them; queues grow without bound"
    NO_LAW = "the formulas find no stationary law at this rate, though the system is stable"
    NO_SLOT = "the KV cache does not hold a single request of this workload"
    SOME_REFUSED = "the KV cache does not hold some requests of this workload, which are refused"
    BUDGET = "max_num_batched_tokens is not above max_num_seqs, so prompts may never be scheduled"
    INFEASIBLE = "a request alone on the system already misses the objective"
    NO_OBJECTIVE = "no latency objective was given, so stability alone limits the rate"
    TRUNCATED = "the rate is a fixed property of a closed loop; goodput over rates is undefined"
