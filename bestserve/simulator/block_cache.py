"""Prefix caches of the lanes: blocks of prompts that stay behind; the least recently used go first.

Blocks that the same requests share are one segment of a tree (`PrefixTree`). They are taken
together and left together, and of a segment the end goes first, so that what remains of it is
always its beginning. A cache is then a list of segments with the number of their blocks: an exact
LRU over blocks that looks at none of them.

Semantics, as vLLM's block pool has them (the naive loop in `tests/simulator` keeps every block):

* A prompt finds the blocks that it shares, from the first on, when it is admitted, and at most all
  its tokens but the last. What an admitted prompt computes is found by all that are admitted later.
* Blocks that a request shares with running ones are held once.
* A request that ends or is evicted leaves all its full blocks, the last of them first; they are
  given up, oldest first, when running requests need the room.
* Of requests that end at one boundary, those with lower numbers leave first, and those that end
  with their prompt after all others.
* A tier has copies of what prompts compute and requests leave, from then on. What it has beyond
  the lane's own cache is loaded when a request arrives, one load after the other on a lane's link;
  the request queues once it is there. The peers are a tier without copies: what another lane's own
  cache holds at that instant, fetched over the link of the lane that lacks it.

Levels: 0 is the lane's own KV cache; the tiers of the offloading follow, then the router's record
of what it sent where, if it keeps one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bestserve.arrays import Bools, Floats, Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.models.prefix_tree import PrefixTree
from bestserve.models.prefixes import Tier
from bestserve.models.system import Collocated, System
from bestserve.simulator.layout import PROMPT, UNLIMITED

# tree[segment]
PARENT, BEFORE, BLOCKS_OF = range(3)
"""PARENT: −1 at a root. BEFORE: blocks on the way to the segment. BLOCKS_OF: its own blocks."""

# plan[request]
TIP, OWN, KEY, FOLLOWER, PROMPT_BLOCKS = range(5)
"""TIP: last segment that its prompt shares, −1: none. OWN: segment that the request's own blocks
are for later ones, −1: nobody asks for them again. KEY: what affine routing goes by. FOLLOWER:
the request sent once this one has ended, −1: none. PROMPT_BLOCKS: full blocks of its prompt."""

# found[request]
DEPTH, HIT, LOADED = range(3)
"""DEPTH: blocks found at the last admission. HIT: prompt tokens found at the first, −1: not yet
admitted. LOADED: blocks that tiers have brought, from the first on."""

# nodes[level, node]
RESIDENT, OLDER, NEWER = range(3)
"""RESIDENT: blocks there, in the list or held. OLDER, NEWER: neighbours in the list, −1: none."""

# ends[level, lane]
OLDEST, NEWEST, TOTAL = range(3)
"""TOTAL: blocks in the list."""

# tiers[tier]
SECONDS, LATENCY, WHERE = range(3)
"""SECONDS: to load a block. WHERE: one of the next three."""
EACH, TOGETHER, PEERS = range(3)
"""Each lane has a tier of its own, all have one together, or it is the other lanes' caches."""


class Cache(NamedTuple):
    """Arrays of the caches of one pool's lanes.

    on : whether there is a cache at all
    nodes : int32[levels, nodes, 3]; a node is a segment at a lane, or a request's own blocks
    refs : int32[nodes]; running requests that share it
    ends : int64[levels, lanes, 3]
    tree : int64[segments, 3]; plan : int64[requests, 5]; found : int64[requests, 3]
    capacity : int64[levels] [blocks]; level 0 has what running requests leave
    tiers : float64[tiers, 3]; links : float64[tiers, lanes], when the link is free again [s]
    traffic : int64[tiers], blocks loaded from each tier
    asked : float64[requests], when a request came that had to wait for a load [s], else −1
    record : level of the router's record, 0: it keeps none
    lag : how late the router learns what lanes hold [s]; seen, changed : per node, what level 0
        held before its last change and when that was [s]; empty without lag
    """

    on: bool
    nodes: Ints32
    refs: Ints32
    ends: Ints
    tree: Ints
    plan: Ints
    found: Ints
    capacity: Ints
    tiers: Floats
    links: Floats
    traffic: Ints
    asked: Floats
    record: int
    lag: float
    seen: Ints32
    changed: Floats


def new_cache(system: System, tree: PrefixTree, facts: Ints32, refused: Bools) -> Cache:
    """Return the empty caches of the lanes that take a system's prompts."""
    caching = system.caching
    assert caching is not None
    lane, lanes = (
        (system.lane, system.replicas)
        if isinstance(system, Collocated)
        else (system.prefill, system.prefill_replicas)
    )
    block = lane.kv_block
    segments = tree.blocks(block)
    n, nodes = len(facts), lanes * len(segments) + len(facts)
    capacity = [0, *(int(min(t.capacity_tokens // block, UNLIMITED)) for t in caching.tiers)]
    record = len(capacity) if system.routing == "prefix_estimated" else 0
    if record:
        tokens = lane.kv_capacity_tokens
        capacity.append(int(tokens // block) if math.isfinite(tokens) else UNLIMITED)
    links = np.full((len(capacity), nodes, 3), -1, dtype=np.int32)
    links[:, :, RESIDENT] = 0
    ends = np.full((len(capacity), lanes, 3), -1, dtype=np.int64)
    ends[:, :, TOTAL] = 0
    plan = np.full((n, 5), -1, dtype=np.int64)
    plan[:, TIP], plan[:, OWN], plan[:, KEY] = tree.tip, tree.own, tree.key
    waiting = np.flatnonzero((tree.follows >= 0) & ~refused)
    plan[tree.follows[waiting], FOLLOWER] = waiting
    plan[:, PROMPT_BLOCKS] = facts[:, PROMPT] // block
    found = np.zeros((n, 3), dtype=np.int64)
    found[:, HIT] = -1
    late = nodes if caching.lag > 0 and system.routing == "prefix_aware" else 0
    return Cache(
        on=True,
        nodes=links,
        refs=np.zeros(nodes, dtype=np.int32),
        ends=ends,
        tree=segments,
        plan=plan,
        found=found,
        capacity=np.array(capacity, dtype=np.int64),
        tiers=np.array(
            [[t.seconds_per_token * block, t.latency, where(t)] for t in caching.tiers]
        ).reshape(-1, 3),
        links=np.zeros((len(caching.tiers), lanes)),
        traffic=np.zeros(len(caching.tiers), dtype=np.int64),
        asked=np.full(n, -1.0),
        record=record,
        lag=caching.lag if late else 0.0,
        seen=np.zeros(late, dtype=np.int32),
        changed=np.full(late, -math.inf),
    )


def where(tier: Tier) -> float:
    """Return where a tier's blocks are, as `tiers` has it."""
    return float(PEERS if tier.peers else TOGETHER if tier.shared else EACH)


NO_CACHE = Cache(
    on=False,
    nodes=np.zeros((1, 0, 3), dtype=np.int32),
    refs=np.zeros(0, dtype=np.int32),
    ends=np.zeros((1, 0, 3), dtype=np.int64),
    tree=np.zeros((0, 3), dtype=np.int64),
    plan=np.zeros((0, 5), dtype=np.int64),
    found=np.zeros((0, 3), dtype=np.int64),
    capacity=np.zeros(1, dtype=np.int64),
    tiers=np.zeros((0, 3)),
    links=np.zeros((0, 0)),
    traffic=np.zeros(0, dtype=np.int64),
    asked=np.zeros(0),
    record=0,
    lag=0.0,
    seen=np.zeros(0, dtype=np.int32),
    changed=np.zeros(0),
)


@njit(cache=True)
def node_of(cache: Cache, lane: int, segment: int) -> int:
    """Return the node of a segment at a lane."""
    return lane * cache.tree.shape[0] + segment


@njit(cache=True)
def own_node(cache: Cache, lane: int, request: int) -> int:
    """Return the node of a request's own blocks at a lane."""
    segment = cache.plan[request, OWN]
    if segment >= 0:
        return lane * cache.tree.shape[0] + segment
    return cache.ends.shape[1] * cache.tree.shape[0] + request


@njit(cache=True)
def shared_blocks(cache: Cache, request: int) -> int:
    """Return the blocks of the segments that a prompt shares [blocks]."""
    tip = cache.plan[request, TIP]
    return cache.tree[tip, BEFORE] + cache.tree[tip, BLOCKS_OF] if tip >= 0 else 0


@njit(cache=True)
def note(cache: Cache, node: int, now: float) -> None:
    """Keep what a node holds, for routers that learn of the coming change later."""
    if cache.lag > 0.0:
        if cache.changed[node] <= now - cache.lag:
            cache.seen[node] = cache.nodes[0, node, RESIDENT]
        cache.changed[node] = now


@njit(cache=True)
def unlink(cache: Cache, level: int, lane: int, node: int) -> None:
    """Take a node out of its list; its blocks stay with it."""
    nodes, ends = cache.nodes[level], cache.ends[level][lane]
    older, newer = nodes[node, OLDER], nodes[node, NEWER]
    if older >= 0:
        nodes[older, NEWER] = newer
    else:
        ends[OLDEST] = newer
    if newer >= 0:
        nodes[newer, OLDER] = older
    else:
        ends[NEWEST] = older
    ends[TOTAL] -= nodes[node, RESIDENT]


@njit(cache=True)
def link(cache: Cache, level: int, lane: int, node: int, blocks: int) -> None:
    """Put a node with this many blocks at the newest end of a list."""
    nodes, ends = cache.nodes[level], cache.ends[level][lane]
    newest = ends[NEWEST]
    nodes[node, RESIDENT] = blocks
    nodes[node, OLDER] = newest
    nodes[node, NEWER] = -1
    if newest >= 0:
        nodes[newest, NEWER] = node
    else:
        ends[OLDEST] = node
    ends[NEWEST] = node
    ends[TOTAL] += blocks


@njit(cache=True)
def trim(cache: Cache, level: int, lane: int, allowed: int, now: float) -> None:
    """Give up the oldest blocks until no more than `allowed` are in the list."""
    nodes, ends = cache.nodes[level], cache.ends[level][lane]
    while ends[TOTAL] > allowed and ends[OLDEST] >= 0:
        node = ends[OLDEST]
        excess = ends[TOTAL] - allowed
        if level == 0:
            note(cache, node, now)
        if nodes[node, RESIDENT] > excess:
            nodes[node, RESIDENT] -= excess
            ends[TOTAL] = allowed
        else:
            unlink(cache, level, lane, node)
            nodes[node, RESIDENT] = 0


@njit(cache=True)
def depth(cache: Cache, level: int, lane: int, request: int) -> int:
    """Return how many blocks of a prompt are at a level, from the first on [blocks]."""
    nodes, tree = cache.nodes[level], cache.tree
    own = nodes[own_node(cache, lane, request), RESIDENT]
    if own > 0:
        return shared_blocks(cache, request) + own
    segment = cache.plan[request, TIP]
    while segment >= 0:
        there = nodes[node_of(cache, lane, segment), RESIDENT]
        if there > 0:
            return tree[segment, BEFORE] + there
        segment = tree[segment, PARENT]
    return 0


@njit(cache=True)
def seen_depth(cache: Cache, lane: int, request: int, now: float) -> int:
    """Return what a router thinks that a lane holds of a prompt [blocks]."""
    if cache.record > 0:
        return depth(cache, cache.record, lane, request)
    if cache.lag == 0.0:
        return depth(cache, 0, lane, request)
    segment = cache.plan[request, TIP]
    while segment >= 0:
        node = node_of(cache, lane, segment)
        known = cache.nodes[0, node, RESIDENT]
        if cache.changed[node] > now - cache.lag:
            known = cache.seen[node]
        if known > 0:
            return cache.tree[segment, BEFORE] + known
        segment = cache.tree[segment, PARENT]
    return 0


@njit(cache=True)
def lookup(cache: Cache, lane: int, request: int, whole: int, block: int) -> int:
    """Return the tokens of a prompt of `whole` that need no computing [tokens]."""
    there = max(depth(cache, 0, lane, request), cache.found[request, LOADED])
    cache.found[request, DEPTH] = there
    return min(there, (whole - 1) // block) * block


@njit(cache=True)
def in_use(cache: Cache, lane: int, request: int) -> int:
    """Return how many blocks of a prompt running requests hold already [blocks]."""
    segment = cache.plan[request, TIP]
    while segment >= 0:
        if cache.refs[node_of(cache, lane, segment)] > 0:
            return cache.tree[segment, BEFORE] + cache.tree[segment, BLOCKS_OF]
        segment = cache.tree[segment, PARENT]
    return 0


@njit(cache=True)
def attach(cache: Cache, lane: int, request: int, hit: int, now: float) -> None:
    """Let a running request hold the blocks of its prompt.

    hit : tokens of it that it found
    """
    nodes, found = cache.nodes[0], cache.found
    own = own_node(cache, lane, request)
    if nodes[own, RESIDENT] > 0 and cache.refs[own] == 0:
        note(cache, own, now)
        unlink(cache, 0, lane, own)
        nodes[own, RESIDENT] = 0
    segment = cache.plan[request, TIP]
    while segment >= 0:
        node = node_of(cache, lane, segment)
        blocks = cache.tree[segment, BLOCKS_OF]
        if cache.refs[node] == 0:
            note(cache, node, now)
            if nodes[node, RESIDENT] > 0:
                unlink(cache, 0, lane, node)
            nodes[node, RESIDENT] = blocks
        cache.refs[node] += 1
        segment = cache.tree[segment, PARENT]
    if found[request, HIT] < 0:
        found[request, HIT] = hit
    copy(cache, lane, request, 0, now)


@njit(cache=True)
def copy(cache: Cache, lane: int, request: int, own: int, now: float) -> None:
    """Copy what a prompt shares, and `own` blocks beyond that, to the tiers."""
    for tier in range(cache.tiers.shape[0]):
        if cache.tiers[tier, WHERE] != PEERS:
            remember(cache, 1 + tier, home(cache, tier, lane), request, own, now)


@njit(cache=True)
def home(cache: Cache, tier: int, lane: int) -> int:
    """Return under which lane a tier keeps what a lane leaves."""
    return 0 if cache.tiers[tier, WHERE] == TOGETHER else lane


@njit(cache=True)
def remember(cache: Cache, level: int, lane: int, request: int, own: int, now: float) -> None:
    """Note a request's segments, and `own` blocks beyond them, at a level other than 0."""
    nodes = cache.nodes[level]
    if own > 0:
        node = own_node(cache, lane, request)
        own = max(own, nodes[node, RESIDENT])
        if nodes[node, RESIDENT] > 0:
            unlink(cache, level, lane, node)
        link(cache, level, lane, node, own)
    segment = cache.plan[request, TIP]
    while segment >= 0:
        node = node_of(cache, lane, segment)
        if nodes[node, RESIDENT] > 0:
            unlink(cache, level, lane, node)
        if cache.tree[segment, BLOCKS_OF] > 0:
            link(cache, level, lane, node, cache.tree[segment, BLOCKS_OF])
        segment = cache.tree[segment, PARENT]
    trim(cache, level, lane, cache.capacity[level], now)


@njit(cache=True)
def detach(cache: Cache, lane: int, request: int, full: int, now: float) -> int:
    """Let a request leave its blocks behind, of which `full` are computed and full.

    Returns the blocks that other running requests hold still [blocks].
    """
    nodes, tree = cache.nodes[0], cache.tree
    full = max(full, cache.found[request, DEPTH])
    cache.found[request, LOADED] = 0
    held = 0
    node = own_node(cache, lane, request)
    own = full - shared_blocks(cache, request)
    if own > 0 and cache.refs[node] == 0 and nodes[node, RESIDENT] == 0:
        note(cache, node, now)
        link(cache, 0, lane, node, own)
    copy(cache, lane, request, own, now)
    segment = cache.plan[request, TIP]
    while segment >= 0:
        node = node_of(cache, lane, segment)
        cache.refs[node] -= 1
        if cache.refs[node] > 0:
            held += tree[segment, BLOCKS_OF]
        else:
            note(cache, node, now)
            blocks = min(max(full - tree[segment, BEFORE], 0), tree[segment, BLOCKS_OF])
            nodes[node, RESIDENT] = 0
            if blocks > 0:
                link(cache, 0, lane, node, blocks)
        segment = tree[segment, PARENT]
    return held
