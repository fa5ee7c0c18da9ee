"""What prompts share, and where their KV is kept, as the numbers that the models take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bestserve.models.prefix_tree import draw
from bestserve.models.prefixes import Caching, Law, Sharing, Tier
from bestserve.models.system import Lengths
from bestserve.specs.lengths import LengthLaw
from bestserve.specs.workload import Workload

if TYPE_CHECKING:
    from bestserve.lowering.resolved import Resolved
    from bestserve.models.step.memory import MemoryPlan

DRAWN, ATOMS = 19_200, 96
"""Requests drawn for the law of all prompt lengths, and atoms it is cut into."""

PEER_SETUP = 3e-3
"""Before KV comes from another instance's cache [s]; assumed, as between prefill and decode."""


def lower_sharing(workload: Workload) -> Sharing:
    """Return what the prompts of a workload share."""
    assert workload.input_len is not None
    assert workload.output_len is not None
    groups, talk = workload.prefixes, workload.conversation
    own = _law(workload.input_len)
    first = own if talk is None or talk.first_input_len is None else _law(talk.first_input_len)
    return Sharing(
        groups=groups.groups if groups else 0,
        prefix=_law(groups.prefix_len) if groups else Law.of(0.0),
        skew=groups.skew if groups else 0.0,
        questions=(groups.questions or 0) if groups else 0,
        own=own,
        first=first,
        output=_law(workload.output_len),
        turns=_law(talk.turns) if talk else Law.of(1.0),
        pause=Law.of(talk.think_time if talk else 0.0),
        pause_random=talk is not None and not talk.think_fixed,
    )


def _law(lengths: LengthLaw) -> Law:
    values, weights = lengths.atoms()
    return Law(
        values=np.asarray(values, dtype=np.float64), weights=np.asarray(weights, dtype=np.float64)
    )


def shared_lengths(sharing: Sharing) -> Lengths:
    """Return the laws of whole prompts and of answers.

    Prompts are those of many requests drawn, in equal groups by length.
    """
    prompt = draw(sharing, DRAWN, np.random.default_rng(0))[1]
    atoms = np.sort(prompt.astype(np.float64)).reshape(ATOMS, -1).mean(axis=1)
    return Lengths(
        inputs=atoms,
        input_weights=np.full(ATOMS, 1 / ATOMS),
        outputs=sharing.output.values,
        output_weights=sharing.output.weights,
    )


def caching(lowered: Resolved, plan: MemoryPlan | None, gpus: int) -> Caching | None:
    """Return the prefix caches of the instances of a pool, if it has any.

    plan : memory of an instance over `gpus` GPUs; None: tiers cannot be counted in tokens
    """
    problem = lowered.problem
    workload = problem.workload
    if problem.enable_prefix_caching is False or workload.prefix_cache_hit > 0:
        return None
    if not workload.shares and not lowered.hashed:
        return None
    tiers = []
    if plan is not None:
        per_token = plan.kv_bytes_per_token_total
        tiers = [
            Tier(
                name=t.name,
                capacity_tokens=1e9
                * (t.gigabytes or 0.0)
                / per_token
                / (1 if t.shared else plan.lanes),
                seconds_per_token=per_token / (t.bandwidth * gpus),
                latency=t.latency or (PEER_SETUP if t.peers else 0.0),
                shared=t.shared,
                peers=t.peers,
            )
            for t in problem.kv_tiers
        ]
    sharing = lowered.sharing if workload.shares else None
    return Caching(sharing=sharing, tiers=tuple(tiers), lag=problem.router_lag)
