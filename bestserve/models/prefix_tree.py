"""Which requests share which blocks: a tree of segments, drawn for a workload or read from hashes.

A segment is a run of prompt tokens that the same requests share; a prompt is a path from a root
and then tokens of its own. What one turn of a session adds, its answer included, is a segment that
all later turns share.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InputError
from bestserve.models.prefixes import Law, Sharing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixTree:
    """What n requests share.

    parent : of each segment, −1 for a root; parents come first; end : prompt tokens up to its end
    tip : last segment that a prompt shares, −1 none [n]
    own : segment that a request's own tokens and its answer are for later ones, −1: none [n]
    key : session or group that affine routing goes by [n]
    follows : request whose answer a request waits for, −1: none [n]; pause : and how long then [s].
    The requests that wait for none come first.
    """

    parent: Ints
    end: Ints
    tip: Ints
    own: Ints
    key: Ints
    follows: Ints
    pause: Floats

    def __post_init__(self) -> None:
        n, segments = len(self.tip), len(self.parent)
        if {len(self.own), len(self.key), len(self.follows), len(self.pause)} != {n}:
            raise InputError("prefix tree: tip, own, key, follows and pause need one length")
        if len(self.end) != segments or np.any(self.parent >= np.arange(segments)):
            raise InputError("prefix tree: parents come before their segments")
        if max(self.tip.max(initial=-1), self.own.max(initial=-1)) >= segments:
            raise InputError("prefix tree: tip or own names no segment")
        if np.any(np.diff((self.follows >= 0).astype(np.int8)) < 0):
            raise InputError("prefix tree: requests that wait for none come first")
        if np.any(self.follows >= np.arange(n)) or not np.all(self.pause >= 0):
            raise InputError("prefix tree: a request follows an earlier one, after a pause ≥ 0 s")

    @property
    def heads(self) -> int:
        """Requests that wait for no other."""
        return int(np.count_nonzero(self.follows < 0))

    def blocks(self, block: int) -> Ints:
        """Return parent, blocks before and blocks of each segment int64[segments, 3].

        A block belongs to the segment in which its last token lies.
        """
        until = self.end // block
        before = np.where(self.parent >= 0, until[self.parent], 0)
        return np.stack([self.parent, before, until - before], axis=1)


def pick(law: Law, u: Floats) -> Floats:
    """Return values of a law for uniforms in [0, 1)."""
    edges = np.cumsum(law.weights)
    at = np.searchsorted(edges / edges[-1], u, side="right")
    return law.values[np.minimum(at, len(law.values) - 1)]


def whole(values: Floats, rng: np.random.Generator, least: int) -> Ints:
    """Round up or down at random, so that means stay; `least` or more."""
    low = np.floor(values)
    rounded = low + (rng.random(len(values)) < values - low)
    return np.maximum(rounded, least).astype(np.int64)


def draw(sharing: Sharing, n: int, rng: np.random.Generator) -> tuple[PrefixTree, Ints, Ints]:
    """Return the tree, prompt and output lengths [tokens] of n requests.

    Sessions are drawn until they have n requests together; the last is cut. First turns come
    first, then second ones, and so on, each in the order of its session.
    """
    mean = max(sharing.turns.mean, 1.0)
    sessions = n if mean == 1.0 else min(int(n / mean * 1.2) + 50, n)
    turns = whole(pick(sharing.turns, rng.random(sessions)), rng, 1)
    while turns.sum() < n:
        turns = np.append(turns, whole(pick(sharing.turns, rng.random(sessions)), rng, 1))
    count = int(np.searchsorted(np.cumsum(turns), n)) + 1
    turns = turns[:count]
    turns[-1] -= turns.sum() - n

    groups = max(sharing.groups, 1)
    prefix = whole(pick(sharing.prefix, _strata(groups, rng)), rng, 0)
    group = rng.choice(groups, count, p=sharing.popularity())
    if sharing.groups == 0:
        prefix, group = np.zeros(1, dtype=np.int64), np.zeros(count, dtype=np.int64)
    turn, session = _by_turn(turns)
    own = np.where(
        turn == 0,
        whole(pick(sharing.first, _strata(n, rng)), rng, 1),
        whole(pick(sharing.own, _strata(n, rng)), rng, 1),
    )
    output = whole(pick(sharing.output, _strata(n, rng)), rng, 1)
    pause = pick(sharing.pause, rng.random(n))
    if sharing.pause_random:
        pause = pause * rng.standard_exponential(n)
    if sharing.questions > 0 and not sharing.conversing:
        return _asked_again(sharing, prefix, group, output, rng)
    return _sessions(turn, session, turns, prefix, group, own, output, pause)


def _strata(n: int, rng: np.random.Generator) -> Floats:
    u: Floats = (rng.permutation(n) + rng.random(n)) / n
    return u


def _by_turn(turns: Ints) -> tuple[Ints, Ints]:
    """Return turn and session of each request, first turns first."""
    session = np.repeat(np.arange(len(turns)), turns)
    turn = np.arange(turns.sum()) - np.repeat(np.cumsum(turns) - turns, turns)
    order = np.lexsort((session, turn))
    return turn[order], session[order]


def _sessions(
    turn: Ints,
    session: Ints,
    turns: Ints,
    prefix: Ints,
    group: Ints,
    own: Ints,
    output: Ints,
    pause: Floats,
) -> tuple[PrefixTree, Ints, Ints]:
    n, groups = len(turn), len(prefix)
    place = np.full((len(turns), int(turns.max())), -1, dtype=np.int64)
    place[session, turn] = np.arange(n)
    follows = np.where(turn > 0, place[session, turn - 1], -1)
    added = np.zeros(place.shape, dtype=np.int64)
    added[session, turn] = own + output
    before = np.cumsum(added, axis=1) - added
    prompt = prefix[group[session]] + before[session, turn] + own
    # What a turn leaves is a segment only if another turn comes.
    more = turn + 1 < turns[session]
    segment = np.where(more, groups + np.cumsum(more) - 1, -1)
    parent = np.full(groups + int(more.sum()), -1, dtype=np.int64)
    end = np.zeros(len(parent), dtype=np.int64)
    end[:groups] = prefix
    tip = np.where(turn > 0, segment[np.maximum(follows, 0)], group[session])
    parent[segment[more]] = tip[more]
    # The last token of an answer has no KV when its request ends.
    end[segment[more]] = (prompt + output - 1)[more]
    tree = PrefixTree(
        parent=parent,
        end=end,
        tip=tip,
        own=segment,
        key=session if turns.max() > 1 else group[session],
        follows=follows,
        pause=np.where(turn > 0, pause, 0.0),
    )
    return tree, prompt, output


def _asked_again(
    sharing: Sharing, prefix: Ints, group: Ints, output: Ints, rng: np.random.Generator
) -> tuple[PrefixTree, Ints, Ints]:
    """Return requests whose questions are among a few of each group."""
    groups, n = len(prefix), len(group)
    questions = groups * sharing.questions
    length = whole(pick(sharing.own, _strata(questions, rng)), rng, 1)
    question = group * sharing.questions + rng.integers(0, sharing.questions, n)
    parents = np.repeat(np.arange(groups), sharing.questions)
    total = prefix[parents] + length
    tree = PrefixTree(
        parent=np.append(np.full(groups, -1), parents),
        end=np.append(prefix, total),
        tip=groups + question,
        own=np.full(n, -1),
        key=group,
        follows=np.full(n, -1),
        pause=np.zeros(n),
    )
    return tree, total[question], output


def from_hashes(hash_ids: Sequence[Sequence[Hashable]], input_len: Ints, block: int) -> PrefixTree:
    """Return the tree of prompts whose blocks are named by hashes, in order.

    block : tokens of a hash [tokens]; the last one may name a shorter piece. Blocks that always
    follow each other are one segment.

    >>> tree = from_hashes([[1, 2, 3], [1, 2, 4]], np.array([1536, 1536]), 512)
    >>> tree.end.tolist(), tree.tip.tolist()
    ([1024, 1536, 1536], [1, 2])
    """
    child: dict[tuple[int, Hashable], int] = {}
    above: list[int] = []
    depth: list[int] = []
    visits: list[int] = []
    last: list[int] = []
    for ids in hash_ids:
        node = -1
        for key in ids:
            following = child.get((node, key))
            if following is None:
                following = child[node, key] = len(above)
                above.append(node)
                depth.append(1 if node < 0 else depth[node] + 1)
                visits.append(0)
            node = following
            visits[node] += 1
        last.append(node)
    # A block closes a segment where a prompt ends or the ways part.
    closing = [True] * len(above)
    for node, parent in enumerate(above):
        if parent >= 0 and visits[node] == visits[parent]:
            closing[parent] = False
    segment = np.cumsum(closing) - 1
    top: list[int] = []
    parents: list[int] = []
    tokens: list[int] = []
    for node, parent in enumerate(above):
        over = -1 if parent < 0 else (int(segment[parent]) if closing[parent] else top[parent])
        top.append(over)
        if closing[node]:
            parents.append(over)
            tokens.append(depth[node] * block)
    n = len(last)
    tip = np.array([int(segment[node]) if node >= 0 else -1 for node in last], dtype=np.int64)
    end = np.array(tokens, dtype=np.int64)
    # The piece at the end of a prompt may be shorter than a block.
    np.minimum.at(end, tip[tip >= 0], np.asarray(input_len, dtype=np.int64)[tip >= 0])
    for node, over in enumerate(parents):
        if over >= 0:
            end[node] = max(end[node], end[over])
    return PrefixTree(
        parent=np.array(parents, dtype=np.int64),
        end=end,
        tip=tip,
        own=np.full(n, -1),
        key=np.array([child.get((-1, ids[0]), 0) if ids else i for i, ids in enumerate(hash_ids)]),
        follows=np.full(n, -1),
        pause=np.zeros(n),
    )


def from_sessions(sessions: Ints, input_len: Ints, output_len: Ints) -> PrefixTree:
    """Return the tree of prompts that repeat what their session said before, in order of arrival.

    A prompt shorter than that begins anew.

    >>> tree = from_sessions(np.array([7, 7, 8]), np.array([10, 40, 5]), np.array([20, 5, 5]))
    >>> tree.end.tolist(), tree.tip.tolist()
    ([29], [-1, 0, -1])
    """
    n = len(sessions)
    latest: dict[int, int] = {}
    tip, own = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    parent: list[int] = []
    end: list[int] = []
    for i, session in enumerate(sessions.tolist()):
        before = latest.get(session, -1)
        if before >= 0 and input_len[i] >= input_len[before] + output_len[before]:
            own[before] = tip[i] = len(parent)
            parent.append(int(tip[before]))
            end.append(int(input_len[before] + output_len[before] - 1))
        latest[session] = i
    return PrefixTree(
        parent=np.array(parent, dtype=np.int64),
        end=np.array(end, dtype=np.int64),
        tip=tip,
        own=own,
        key=np.asarray(sessions, dtype=np.int64),
        follows=np.full(n, -1),
        pause=np.zeros(n),
    )
