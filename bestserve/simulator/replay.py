"""Requests of a recorded trace, in their own order, for `simulate(given=…)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bestserve.errors import InputError
from bestserve.models.prefix_tree import PrefixTree, from_hashes, from_sessions
from bestserve.simulator.inputs import Requests
from bestserve.simulator.prefix_cache import prefix_hits

if TYPE_CHECKING:
    from bestserve.readers.traces import Trace


def trace_requests(
    trace: Trace,
    requests: int | None = None,
    *,
    cache_tokens: float = 0.0,
    hit_share: float = 0.0,
    sharing: bool = False,
) -> Requests:
    """Return the trace's requests with their prefix-cache hits, or with what they share.

    requests : how many; beyond its end the trace repeats, as `Arrivals(kind="trace")` does
    cache_tokens : tokens that a prefix cache shared by all replicas holds; hits then follow from
        the trace's block hashes (needed) and `hit_share` is not used
    hit_share : share of every prompt found in the cache [1]
    sharing : instead, give the tree of its hashes or sessions, for systems with prefix caches;
        when the trace repeats, its prompts are new ones
    """
    n = len(trace) if requests is None else requests
    if n < 1:
        raise InputError(f"requests = {n} must be ≥ 1")
    if not 0.0 <= hit_share < 1.0:
        raise InputError(f"hit_share = {hit_share} must be in 0 … 1, 1 excluded")
    at = np.arange(n) % len(trace)
    if sharing:
        return Requests(
            input_len=trace.input_len[at], output_len=trace.output_len[at], tree=_tree(trace, at)
        )
    cached = np.floor(hit_share * trace.input_len).astype(np.int64)
    if cache_tokens > 0:
        if trace.hash_ids is None:
            raise InputError(f"{trace.source}: no block hashes, which prefix-cache hits need")
        cached = prefix_hits(trace.hash_ids, trace.input_len, capacity_tokens=cache_tokens).astype(
            np.int64
        )
    return Requests(
        input_len=trace.input_len[at], output_len=trace.output_len[at], cached=cached[at]
    )


def _tree(trace: Trace, at: NDArray[np.intp]) -> PrefixTree:
    """Return what the trace's requests share, those of each lap among themselves."""
    lap = np.arange(len(at)) // len(trace)
    inputs, outputs = trace.input_len[at], trace.output_len[at]
    if trace.hash_ids is not None:
        ids = [[(turn, key) for key in trace.hash_ids[i]] for turn, i in zip(lap, at, strict=True)]
        return from_hashes(ids, inputs, trace.hash_block)
    if trace.sessions is None:
        raise InputError(f"{trace.source}: neither block hashes nor sessions, which sharing needs")
    sessions = trace.sessions[at] + lap * (int(trace.sessions.max()) + 1)
    return from_sessions(sessions, inputs, outputs)
