"""Requests that need more KV cache than a lane has: an engine turns them away.

A request needs its prompt and all but the last token of its answer in whole blocks; on a lane
that only prefills, its prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.system import Collocated, Lane, Lengths, Role, System

REFUSABLE = 1e-4
"""Share of requests that a configuration may refuse and still count as serving the workload [1]."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What a system refuses: `share` of the requests [1]; `reason`: the arithmetic, or empty."""

    share: float
    reason: str = ""

    @property
    def too_many(self) -> bool:
        """Whether the system does not serve the workload: no rate of it is a goodput."""
        return self.share > REFUSABLE


def refused(system: System) -> Refused:
    """Return what the KV caches of a system cannot hold.

    >>> from bestserve.models.step.step_time import StepTime
    >>> lengths = Lengths(inputs=np.array([500.0, 9000.0]), input_weights=np.array([0.9, 0.1]),
    ...                   outputs=np.array([100.0]), output_weights=np.ones(1))
    >>> step = StepTime(w=6e-3, c=26e-6, e=0.0, a=0.0, k=5e-8)
    >>> lane = Lane(step=step, kv_capacity_tokens=8000.0)
    >>> refused(Collocated(lane=lane, replicas=1, lengths=lengths)).share
    0.1
    """
    if isinstance(system, Collocated):
        return refused_by({"m": system.lane}, system.lengths)
    return refused_by({"p": system.prefill, "d": system.decode}, system.lengths)


def refused_by(lanes: dict[Role, Lane], lengths: Lengths) -> Refused:
    """Return what lanes of these roles, one after the other, cannot hold of a workload."""
    longest = float(lengths.inputs.max() + lengths.outputs.max())
    if all(
        lane.kv_capacity_tokens >= longest + lane.kv_block + lane.speculation.most
        for lane in lanes.values()
    ):
        return Refused(0.0)
    prompt, answer, weight = _pairs(lengths)
    over = np.zeros(prompt.size, dtype=np.bool_)
    reason = ""
    for role, lane in lanes.items():
        blocks = np.floor(lane.kv_capacity_tokens / lane.kv_block)
        drafts = np.where(answer > 1.0, lane.speculation.most, 0)
        need = prompt if role == "p" else prompt + answer - 1.0 + drafts
        more = np.ceil(need / lane.kv_block) > blocks
        if role == "d":
            more &= answer > 1.0
        if float(weight[more].sum()) > 0.0:
            share, kind = float(weight[more].sum()), {"m": "", "p": "prefill ", "d": "decode "}
            reason = (
                f"{100 * share:.2g} % of the requests do not fit the KV cache of a "
                f"{kind[role]}lane: it holds {blocks * lane.kv_block:,.0f} tokens, the longest "
                f"need {need.max():,.0f}"
            )
        over |= more
    return Refused(float(weight[over].sum()), reason)


def _pairs(lengths: Lengths) -> tuple[Floats, Floats, Floats]:
    """Return prompts, outputs and shares of all combinations [n]."""
    if lengths.joint:
        return lengths.inputs, lengths.outputs, lengths.input_weights
    prompt = np.repeat(lengths.inputs, lengths.outputs.size)
    answer = np.tile(lengths.outputs, lengths.inputs.size)
    return prompt, answer, np.outer(lengths.input_weights, lengths.output_weights).ravel()
