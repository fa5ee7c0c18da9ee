"""The requests of a benchmark's trace, with the blocks that their prompts have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.lowering import Lowered
from bestserve.lowering.prefixes import lower_sharing
from bestserve.models.prefix_tree import PrefixTree, draw

BLOCK = 64
"""Tokens of a prompt that share one hash in a written trace."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Lengths [n] [tokens], hashes of blocks, whose answer a request waits for, how long [s]."""

    inputs: Ints
    outputs: Ints
    hashes: list[list[int]]
    follows: Ints
    pause: Floats


def alike_prompts(lowered: Lowered, count: int, seed: int) -> Prompts:
    """Return prompts that all begin with what the workload's cache finds."""
    from bestserve.simulator.inputs import sample_lengths

    requests = sample_lengths(lowered.lengths, count, seed)
    found = requests.cached if requests.cached is not None else np.zeros(count)
    hashes, fresh = [], 1 << 20  # above the ids of any shared prefix
    for inputs, hit in zip(requests.input_len, found, strict=True):
        shared = int(hit) // BLOCK
        own = -(-int(inputs) // BLOCK) - shared
        hashes.append([*range(shared), *range(fresh, fresh + own)])
        fresh += own
    return Prompts(
        inputs=requests.input_len.astype(np.int64),
        outputs=requests.output_len.astype(np.int64),
        hashes=hashes,
        follows=np.full(count, -1),
        pause=np.zeros(count),
    )


def shared_prompts(lowered: Lowered, count: int, seed: int) -> Prompts:
    """Return prompts of the workload's groups and sessions."""
    sharing = lower_sharing(lowered.problem.workload)
    tree, inputs, outputs = draw(sharing, count, np.random.default_rng(seed))
    names: dict[tuple[int, int], int] = {}
    hashes = []
    for i, tokens in enumerate(inputs):
        keys = block_keys(tree, i, int(tokens))
        hashes.append([names.setdefault(key, len(names)) for key in keys])
    return Prompts(inputs, outputs, hashes, tree.follows, tree.pause)


def block_keys(tree: PrefixTree, request: int, tokens: int) -> list[tuple[int, int]]:
    """Return what names each block of a prompt: a segment and a place in it, or the request alone.

    A block that a segment ends within is the next one's, or the request's own; the last one may be
    a shorter piece.
    """
    path = []
    node = int(tree.tip[request])
    while node >= 0:
        path.append(node)
        node = int(tree.parent[node])
    path.reverse()
    own = int(tree.own[request])
    alone = own if own >= 0 else -1 - request
    ends = [int(tree.end[node]) for node in path]
    filled = [min((j + 1) * BLOCK, tokens) for j in range(-(-tokens // BLOCK))]
    return [
        (next((s for s, end in zip(path, ends, strict=True) if full <= end), alone), j)
        for j, full in enumerate(filled)
    ]
