"""Prefix-cache hits of a trace that names its prompt blocks by hash (Mooncake's format)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bestserve.arrays import Ints32
from bestserve.errors import InputError
from bestserve.models.system import System
from bestserve.simulator import routing as routes
from bestserve.simulator.inputs import ROUTES
from bestserve.simulator.prepared import replicas, routing_draws

MOONCAKE_BLOCK = 512
"""Prompt tokens per hash in the Mooncake traces [tokens]."""


def prefix_hits(
    hash_ids: Sequence[Sequence[int]],
    input_len: NDArray[np.integer],
    *,
    capacity_tokens: float = float("inf"),
    block: int = MOONCAKE_BLOCK,
    replica: NDArray[np.integer] | None = None,
) -> Ints32:
    """Return the cached prompt tokens of each request [n] [tokens], for `Requests.cached`.

    hash_ids : the blocks of each prompt, in order; requests in order of arrival
    capacity_tokens : what one cache holds; least recently used blocks go first
    block : tokens per hash [tokens]
    replica : whose cache a request uses [n]; None: one cache for all (as Mooncake's store)

    A request hits the blocks that it shares, from the first on, with the cache as the earlier
    arrivals left it, and at most all prompt tokens but the last. That a block is usable only
    once its prefill has ended is left out.

    >>> prefix_hits([[1, 2], [1, 3], [1, 3]], np.array([1024, 1000, 1000])).tolist()
    [0, 512, 999]
    """
    if len(hash_ids) != len(input_len) or (replica is not None and len(replica) != len(input_len)):
        raise InputError("prefix hits: hash_ids, input_len and replica need one length")
    if block < 1:
        raise InputError(f"prefix hits: block = {block} must be ≥ 1 token")
    blocks = capacity_tokens // block if np.isfinite(capacity_tokens) else float("inf")
    caches: dict[int, OrderedDict[int, None]] = {}
    hits = np.zeros(len(input_len), dtype=np.int32)
    for i, ids in enumerate(hash_ids):
        cache = caches.setdefault(0 if replica is None else int(replica[i]), OrderedDict())
        shared = 0
        for key in ids:
            if key not in cache:
                break
            shared += 1
        hits[i] = min(shared * block, int(input_len[i]) - 1)
        # The end of a prompt is of no use without its beginning, so it is the first to go.
        for key in reversed(ids):
            cache[key] = None
            cache.move_to_end(key)
        while len(cache) > blocks:
            cache.popitem(last=False)
    return hits


def static_replicas(system: System, n: int, seed: int = 0) -> Ints32:
    """Return the replica that `simulate` gives each of n requests under random or round robin.

    Raises InputError for routing that looks at the replicas' state.
    """
    if system.routing not in routes.STATIC:
        raise InputError(
            f"routing {system.routing!r} depends on the state of the replicas; "
            "use random or round_robin, or one cache for all"
        )
    lanes = replicas(system)
    return routes.assign(
        system.routing, routing_draws(system.routing, lanes, n, seed, ROUTES), lanes, n
    )
