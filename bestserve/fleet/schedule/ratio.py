"""DOPD's ratio of prefill to decode instances, from mean lengths.

"DOPD: A Dynamic PD-Disaggregation Architecture for Maximizing Goodput in LLM Inference Serving"
(arXiv 2511.20982): a prefill instance starts a request every TTFT, a decode instance of B sequences
ends one every o·TPOT/B, so P/D = B·TTFT/(o·TPOT), with B the mean requests that its KV cache holds.
Nothing waits at this ratio: it has no queue, and no objective, in it.
"""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Floats
from bestserve.fleet.schedule.capacity import Deployment
from bestserve.models.system import Lane, Lengths


def instance_rates(deployment: Deployment, lengths: Lengths) -> Floats:
    """Return the rate at which the rule has a prefill and a decode instance full [2; req/s].

    TTFT is a mean prompt alone, TPOT a step of B sequences at their mean context; B is at most the
    lane's `max_num_seqs`.
    """
    prefill, decode = deployment.pools
    prompt = float(lengths.inputs @ lengths.input_weights)
    answer = float(lengths.outputs @ lengths.output_weights)
    started = prefill.lanes / _prompt_time(prefill.lane, prompt)
    context = prompt + answer / 2
    batch = min(decode.lane.kv_capacity_tokens / context, float(decode.lane.max_num_seqs))
    batch = max(batch, 1.0)
    token = float(decode.lane.step(batch, 0.0, batch * context, batch))
    ended = decode.lanes * batch / (max(answer - 1.0, 1.0) * token)
    return np.array([started, ended])


def _prompt_time(lane: Lane, prompt: float) -> float:
    """Return the time of a prompt by itself, in parts of the token budget [s]."""
    budget = float(lane.max_num_batched_tokens)
    done, total = 0.0, 0.0
    while done < prompt:
        part = min(budget, prompt - done)
        total += float(lane.step(part, part * done + part**2 / 2, 0.0, 1.0))
        done += part
    return total


def rule(deployment: Deployment, lengths: tuple[Lengths, ...], kinds: list[int]) -> Floats:
    """Return the rates that the rule counts on [pool, window; req/s]."""
    by_kind = {kind: instance_rates(deployment, lengths[kind]) for kind in set(kinds)}
    return np.array([by_kind[kind] for kind in kinds]).T
