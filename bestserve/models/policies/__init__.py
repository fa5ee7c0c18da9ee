"""Scheduling policies, one a file: what a step takes from the waiting prompts.

A policy is two things: `DECODES_RIDE`, whether decodes take part in steps with prompt tokens,
and `tokens_taken(remaining, left, taken)`, how much of the next prompt the step takes. The event
loop, the KV cache and the routing know nothing else about it. To add one: a file here, a line in
`CODES` and a branch in `tokens_taken` (compiled code needs the names at compile time).
"""

from __future__ import annotations

from numba import njit

from bestserve.models.policies import chunked, mixed, prefill_priority

CHUNKED, PREFILL_PRIORITY, MIXED = range(3)
CODES = {"chunked": CHUNKED, "prefill_priority": PREFILL_PRIORITY, "mixed": MIXED}
RIDES = (chunked.DECODES_RIDE, prefill_priority.DECODES_RIDE, mixed.DECODES_RIDE)

_chunked = chunked.tokens_taken
_prefill_priority = prefill_priority.tokens_taken
_mixed = mixed.tokens_taken


@njit(cache=True)
def tokens_taken(policy: int, remaining: int, left: int, taken: int) -> int:
    """Return how many of a prompt's `remaining` tokens a step of `policy` takes [tokens]."""
    if policy == CHUNKED:
        return _chunked(remaining, left, taken)
    if policy == MIXED:
        return _mixed(remaining, left, taken)
    return _prefill_priority(remaining, left, taken)
