"""Hits of a prefix cache in the formulas: an LRU cache of finite size under random reuse.

Che's approximation [H. Che, Y. Tung, Z. Wang, IEEE JSAC 20 (2002) 1305]: what nobody has asked for
during a characteristic time T is gone, and T is such that what is left fills the memory. A group's
prefix, asked for at rate λ, is there with 1 − exp(−λT); a session's history if its last turn at the
lane was less than T ago. Memory is what running requests leave; every request leaves its own
tokens behind, which then age out.

Left out: bounds on load (`prefix_hash`, `prefix_aware` count as affine), what loads from tiers cost
(they count as room), and that running requests hold their blocks however old they are.
`validation/prefixes.md` has the errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammainc

from bestserve.arrays import Floats
from bestserve.models.prefix_tree import draw
from bestserve.models.prefixes import Sharing
from bestserve.models.system import Collocated, Lane, Lengths, System

DRAWN = 4_800
"""Requests drawn for the laws of prompts and histories."""

ATOMS = 24
"""Atoms of the prompts that find equally much."""

SPREADING = (
    "random",
    "round_robin",
    "least_outstanding",
    "power_of_two",
    "least_kv",
    "reported_kv",
)
"""Routing that knows nothing of prefixes: a session's turns meet any lane."""

LONG = 1e9
"""A characteristic time that stands for a cache that never gives anything up [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """What a lane's cache does at a rate.

    time : characteristic time [s]; share : of the prompt tokens that are found [1]
    room : memory that running requests leave [tokens]; wanted : what is asked for again [tokens]
    lengths : laws of prompts, found tokens and answers; found : its atoms' shares of a prompt
    """

    time: float
    share: float
    room: float
    wanted: float
    lengths: Lengths


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sample:
    """Requests drawn. ends : tokens up to the end of each segment above a prompt, from the last
    one on, [n, levels], −1 beyond the root; turns : levels that are turns of its own session [n];
    left : later turns [n]; added : own tokens and answer, and history [n] [tokens]
    """

    prompt: Floats
    output: Floats
    ends: Floats
    turns: Floats
    left: Floats
    history: Floats


@lru_cache(maxsize=64)
def _sample(sharing: Sharing) -> _Sample:
    tree, prompt, output = draw(sharing, DRAWN, np.random.default_rng(0))
    levels = []
    at = tree.tip.copy()
    while np.any(at >= 0):
        levels.append(np.where(at >= 0, tree.end[at], -1))
        at = np.where(at >= 0, tree.parent[at], -1)
    ends = np.stack(levels, axis=1).astype(np.float64) if levels else np.zeros((len(prompt), 0))
    n = len(prompt)
    turns = np.zeros(n)
    left = np.zeros(n)
    for i in range(n):
        if tree.follows[i] >= 0:
            turns[i] = turns[tree.follows[i]] + 1
    for i in range(n - 1, -1, -1):
        if tree.follows[i] >= 0:
            left[tree.follows[i]] = left[i] + 1
    prefix = np.take_along_axis(ends, turns.astype(int)[:, None], axis=1)[:, 0]
    if sharing.questions:
        prefix, turns = ends[:, 1], turns + 1
    return _Sample(
        prompt=prompt.astype(np.float64),
        output=output.astype(np.float64),
        ends=ends,
        turns=turns,
        left=left,
        history=(prompt + output).astype(np.float64) - np.maximum(prefix, 0.0),
    )


def hits(system: System, rate: float) -> Hits:
    """Return what the caches find when the whole system gets `rate` [requests/s]."""
    caching = system.caching
    assert caching is not None
    assert caching.sharing is not None
    sharing, tandem = caching.sharing, not isinstance(system, Collocated)
    lane, lanes = (
        (system.lane, system.replicas)
        if isinstance(system, Collocated)
        else (system.prefill, system.prefill_replicas)
    )
    anywhere = any(tier.peers for tier in caching.tiers)  # what another lane holds is fetched
    spread = lanes if (caching.routed or system.routing) in SPREADING and not anywhere else 1
    each = rate / lanes
    sample = _sample(sharing)
    answered = np.ones_like(sample.output) if tandem else sample.output
    # From a full cache down: without one a lane may stay too busy to ever fill it.
    share, now, time, room = 1.0, 0.0, 0.0, lane.kv_capacity_tokens
    for _ in range(16):
        busy, stay = _running(lane, each, sample, share, answered)
        held = float(np.mean(sample.history - (answered if not tandem else sample.output) / 2))
        room = max(lane.kv_capacity_tokens - busy * max(held, 0.0), lane.kv_block * 1.0)
        room += sum(t.capacity_tokens / (lanes if t.shared else 1) for t in caching.tiers)
        cycle = sharing.pause.mean + stay
        time = _time(sharing, sample, room, each, (lanes, spread), cycle, tandem)
        found = _found(sharing, sample, rate / spread, spread, time, cycle, lane.kv_block)
        now = float((found[0] * found[1]).sum() / sample.prompt.sum())
        if abs(now - share) < 1e-4:
            break
        share = 0.5 * (share + now)
    return Hits(
        time=time,
        share=now,
        room=room,
        wanted=_occupied(sharing, sample, LONG, each, (lanes, spread), cycle, tandem, reused=True),
        lengths=_lengths(sharing, sample, found),
    )


def _running(
    lane: Lane, rate: float, sample: _Sample, share: float, answered: Floats
) -> tuple[float, float]:
    """Return how many requests run at a lane at a time, and how long one does [s] (Little)."""
    prompt, output = float(sample.prompt.mean()), float(answered.mean())
    new = max(prompt * (1.0 - share), 1.0)
    work = lane.step(new, new * (prompt - new / 2), 0.0, 1.0, True)
    idle = max(1.0 - rate * work, 0.05)
    n = 1.0
    for _ in range(60):
        step = lane.step(n, 0.0, n * (prompt + output / 2), n, False)
        stay = work + max(output - 1.0, 0.0) * step / idle
        n = 0.5 * (n + min(max(rate * stay, 1e-3), float(lane.max_num_seqs)))
    return n, stay


def _occupied(
    sharing: Sharing,
    sample: _Sample,
    time: float,
    rate: float,
    spread: tuple[int, int],
    cycle: float,
    tandem: bool,
    *,
    reused: bool = False,
) -> float:
    """Return the tokens that a cache with this characteristic time holds.

    reused : count only what is asked for again
    """
    lanes, at = spread
    popularity = sharing.popularity()
    # at 1 lane a group: each of `lanes` has its part of the groups, with all their requests
    asked = rate * lanes / at * popularity
    total = 0.0
    if sharing.groups:
        total = sharing.prefix.mean * float(-np.expm1(-asked * time).sum()) * at / lanes
    if sharing.questions:
        often = np.repeat(asked / sharing.questions, sharing.questions)
        total += sharing.own.mean * float(-np.expm1(-often * time).sum()) * at / lanes
        own = sample.output if not tandem else np.zeros_like(sample.output)
    else:
        own = sample.history - (sample.output if tandem else 0.0)
    again = np.zeros_like(own)
    held = np.full(len(own), 0.0 if reused else 1.0) * time
    missing = np.ones_like(own)
    for j in range(1, int(sample.left.max(initial=0.0)) + 1):
        chance = np.where(sample.left >= j, (1 / at) * (1 - 1 / at) ** (j - 1), 0.0)
        again += chance * _least(sharing, j, cycle, time)
        missing -= chance
    return total + rate * float(np.mean(own * (again + missing * held)))


def _least(sharing: Sharing, turns: int, cycle: float, time: float) -> float:
    """Return the mean of the lesser of `turns` cycles and a time [s]."""
    if cycle <= 0.0:
        return 0.0
    if not sharing.pause_random:
        return min(turns * cycle, time)
    x = time / cycle
    return float(time * (1 - gammainc(turns, x)) + turns * cycle * gammainc(turns + 1, x))


def _time(
    sharing: Sharing,
    sample: _Sample,
    room: float,
    rate: float,
    spread: tuple[int, int],
    cycle: float,
    tandem: bool,
) -> float:
    """Return the characteristic time at which what is held fills the room [s]."""
    if not math.isfinite(room):
        return LONG
    if _occupied(sharing, sample, LONG, rate, spread, cycle, tandem) <= room:
        return LONG

    def over(log_time: float) -> float:
        held = _occupied(sharing, sample, math.exp(log_time), rate, spread, cycle, tandem)
        return math.log(held / room)

    return math.exp(brentq(over, math.log(1e-6), math.log(LONG), xtol=1e-3))


def _found(
    sharing: Sharing,
    sample: _Sample,
    rate: float,
    spread: int,
    time: float,
    cycle: float,
    block: int,
) -> tuple[Floats, Floats]:
    """Return tokens found and how likely that is, [n, levels + 1] each; the last: none."""
    n, levels = sample.ends.shape
    popularity = sharing.popularity()
    # a request's group is drawn by popularity; its prefix is asked for as often
    root = float(popularity @ -np.expm1(-rate * popularity * time)) if sharing.groups else 0.0
    chance = np.zeros((n, levels + 1))
    rest = np.ones(n)
    for j in range(levels):
        own = sample.turns > j
        if sharing.questions:
            often = popularity / sharing.questions
            turn = float(popularity @ -np.expm1(-rate * often * time))
            chance[:, j] = np.where(own, turn, 0.0)
        else:
            turn = (1 / spread) * (1 - 1 / spread) ** j * _within(sharing, j + 1, cycle, time)
            chance[:, j] = np.where(own, turn, 0.0)
        rest -= chance[:, j]
    at_root = (sample.turns == np.arange(levels)[:, None]).T
    chance[:, :levels] += np.where(at_root, (rest * root)[:, None], 0.0)
    chance[:, levels] = 1.0 - chance[:, :levels].sum(axis=1)
    most = np.floor((sample.prompt - 1) / block) * block
    tokens = np.minimum(np.floor(np.maximum(sample.ends, 0) / block) * block, most[:, None])
    return np.append(tokens, np.zeros((n, 1)), axis=1), chance


def _within(sharing: Sharing, turns: int, cycle: float, time: float) -> float:
    """Return the chance that `turns` cycles take less than a time."""
    if cycle <= 0.0:
        return 1.0
    if not sharing.pause_random:
        return float(turns * cycle < time)
    return float(gammainc(turns, time / cycle))


def _lengths(sharing: Sharing, sample: _Sample, found: tuple[Floats, Floats]) -> Lengths:
    """Return laws of prompts and of what they find: atoms of requests that find equally much."""
    tokens, chance = found
    inputs, cached, weights = [], [], []
    for j in range(tokens.shape[1]):
        kept = chance[:, j] > 1e-6
        if not kept.any():
            continue
        order = np.argsort(sample.prompt[kept], kind="stable")
        prompt, hit = sample.prompt[kept][order], tokens[kept, j][order]
        weight = chance[kept, j][order]
        for part in np.array_split(np.arange(len(prompt)), min(ATOMS, len(prompt))):
            total = float(weight[part].sum())
            inputs.append(float(weight[part] @ prompt[part]) / total)
            cached.append(float(weight[part] @ hit[part]) / total)
            weights.append(total)
    share = np.array(weights)
    return Lengths(
        inputs=np.array(inputs),
        input_weights=share / share.sum(),
        outputs=sharing.output.values,
        output_weights=sharing.output.weights,
        cached=np.minimum(np.array(cached), np.array(inputs) - 1.0),
    )


def with_hits(system: System, rate: float) -> System:
    """Return a system whose lengths say what its caches find at a rate [requests/s].

    A system without prefix caches is returned as it is.
    """
    if system.caching is None or system.caching.sharing is None:
        return system
    return replace(system, lengths=hits(system, rate).lengths, caching=None)
