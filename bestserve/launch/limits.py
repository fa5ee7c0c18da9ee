"""The batch limits and the context that an engine is started with.

They are the plan's; what neither strategy nor problem states is the engine's default, lowered to
what the KV cache holds: beyond it a decode instance evicts what it has just received.
"""

from __future__ import annotations

from dataclasses import dataclass

from bestserve.lowering import Lowered
from bestserve.specs.strategy import Pool

KV_MARGIN = 0.9
"""Share of the predicted KV capacity that requests may claim: the prediction may be high."""

CONTEXT_STEP = 256
"""Contexts are limited to multiples of this [tokens]."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one data-parallel rank.

    seqs : running sequences; tokens : per step; context : longest request, None: the model's own
    lowered_from : the engine's default that the KV cache does not hold, or None
    """

    seqs: int
    tokens: int
    context: int | None
    lowered_from: int | None = None


def pool_limits(lowered: Lowered, pool: Pool) -> Limits:
    """Return the limits an instance of the pool is started with.

    A step holds no more sequences than tokens, and vLLM refuses to start with more slots.
    """
    problem, engine = lowered.problem, lowered.engine
    tokens = (
        pool.max_num_batched_tokens
        or problem.max_num_batched_tokens
        or engine.max_num_batched_tokens
    )
    stated = pool.max_num_seqs or problem.max_num_seqs
    seqs = min(stated or engine.max_num_seqs, tokens)
    plan = lowered.lane(pool.parallelism, seqs, tokens, role=pool.work, drafts=pool.drafts).plan
    if plan is None:
        return Limits(seqs, tokens, None)
    share = KV_MARGIN * pool.pp / pool.dp
    held = share * plan.kv_capacity_tokens
    safe = max(1, int(share * plan.kv_serving_tokens / sum(lowered.mean_lengths)))
    own = lowered.model.max_position_embeddings
    fits = held >= own
    context = None if fits else int(held / CONTEXT_STEP) * CONTEXT_STEP or None
    if stated or safe >= seqs:
        return Limits(seqs, tokens, context)
    return Limits(safe, tokens, context, lowered_from=seqs)


def longest_prompt(lowered: Lowered) -> int:
    """Return the longest prompt of the workload that the model reads [tokens]."""
    longest = int(lowered.lengths.inputs.max())
    own = lowered.model.max_position_embeddings
    return min(longest, own) if own else longest
