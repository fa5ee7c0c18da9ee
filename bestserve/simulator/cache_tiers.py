"""What tiers, or the other lanes, hold of a prompt, and when it is loaded."""

from __future__ import annotations

from bestserve.host.compiled import njit
from bestserve.simulator.block_cache import (
    LATENCY,
    LOADED,
    PEERS,
    SECONDS,
    WHERE,
    Cache,
    depth,
    home,
)


@njit(cache=True)
def tier_depth(cache: Cache, tier: int, lane: int, request: int) -> int:
    """Return how many blocks of a prompt a tier holds for a lane, from the first on [blocks]."""
    if cache.tiers[tier, WHERE] != PEERS:
        return depth(cache, 1 + tier, home(cache, tier, lane), request)
    most = 0
    for other in range(cache.ends.shape[1]):
        if other != lane:
            most = max(most, depth(cache, 0, other, request))
    return most


@njit(cache=True)
def load(cache: Cache, lane: int, request: int, prompt: int, block: int, now: float) -> float:
    """Load what tiers hold beyond the lane's own cache; return when it is there [s].

    Links take one load after the other; `now` if there is nothing to load.
    """
    most = (prompt - 1) // block
    there = min(depth(cache, 0, lane, request), most)
    ready = now
    for tier in range(cache.tiers.shape[0]):
        beyond = min(tier_depth(cache, tier, lane, request), most)
        if beyond <= there:
            continue
        starts = max(now, cache.links[tier, lane])
        ends = starts + cache.tiers[tier, SECONDS] * (beyond - there)
        cache.links[tier, lane] = ends
        cache.traffic[tier] += beyond - there
        ready = max(ready, ends + cache.tiers[tier, LATENCY])
        there = beyond
        cache.found[request, LOADED] = there
    return ready
