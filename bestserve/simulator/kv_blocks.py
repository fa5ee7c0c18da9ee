"""KV blocks of a lane: what requests hold, how it grows, what a prefix cache leaves."""

from __future__ import annotations

from bestserve.arrays import Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.simulator.block_cache import Cache, trim
from bestserve.simulator.layout import (
    BLOCK,
    BLOCKS,
    GENERATED,
    HELD,
    LEAVING,
    LEAVING_BLOCKS,
    LEFT,
    NOW,
    OUTPUT,
    PROMPT,
    RESERVE,
    UNLIMITED,
    Pool,
)


@njit(cache=True)
def reserved_tokens(prompt: int, output: int, generated: int, reserve: float) -> int:
    """Return the KV tokens a request holds from its admission on [tokens]."""
    return max(prompt + int(reserve * (output - 1)), prompt + generated)


@njit(cache=True)
def in_blocks(tokens: int, block: int) -> int:
    """Return tokens rounded up to whole blocks [blocks]."""
    return (tokens + block - 1) // block


@njit(cache=True)
def blocks_at_end(request: int, facts: Ints32, reserve: float, block: int) -> int:
    """Return the blocks that a request holds in its last step [blocks]."""
    prompt, output = facts[request, PROMPT], facts[request, OUTPUT]
    kept = reserved_tokens(prompt, output, facts[request, GENERATED], reserve)
    return in_blocks(max(kept, prompt + output - 1), block)


@njit(cache=True)
def growing_blocks(context: int, phases: Ints, lane: int, iteration: int, block: int) -> int:
    """Return Σ⌈cᵢ/block⌉ over the growing requests in the next step [blocks].

    context : Σcᵢ; phases[lane, p] : how many have (cᵢ − iteration) mod block = p, which never
    changes while a request decodes.
    """
    padding = 0
    for p in range(block):
        padding += phases[lane, p] * ((-(p + iteration)) % block)
    return (context + padding) // block


@njit(cache=True)
def takes_by_chunk(pool: Pool) -> bool:
    """Whether prompts take their blocks part by part."""
    return pool.limits[BLOCKS] < UNLIMITED and pool.costs[RESERVE] == 0.0


@njit(cache=True)
def grows_by_step(pool: Pool) -> bool:
    """Whether decodes take further blocks as they grow."""
    return pool.limits[BLOCKS] < UNLIMITED and pool.costs[RESERVE] < 1.0


@njit(cache=True)
def give_room(lane: int, context: int, iteration: int, pool: Pool, cache: Cache) -> None:
    """Have the prefix cache give up what running requests need in the step at `iteration`.

    context : Σ of the growing requests' contexts there [tokens]
    """
    limits = pool.limits
    if cache.on and limits[BLOCKS] < UNLIMITED:
        grown = growing_blocks(context, pool.phases, lane, iteration, limits[BLOCK])
        free = limits[BLOCKS] - pool.state[lane, HELD] - grown
        if pool.state[lane, LEFT] < pool.state[lane, LEAVING]:
            free -= pool.state[lane, LEAVING_BLOCKS]  # not yet in the cache's list
        trim(cache, 0, lane, free, pool.clock[lane, NOW])
