"""Whether instances fit the nodes: exact by GPU counts for chains of sizes, else by patterns.

An instance stays inside a node unless it is larger than one; then it takes whole nodes and one
fragment. If the fragment sizes and the node size form a divisibility chain (1, 2, 4, 8), filling
nodes largest-first never wastes a GPU, so counting GPUs is exact. Sizes such as 3 or 6 need the
patterns in which a node can be cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from bestserve.arrays import Ints


def fragments(size: int, node_size: int) -> tuple[int, int]:
    """Return the whole nodes and the remaining GPUs that one instance of `size` GPUs takes."""
    return divmod(size, node_size)


def is_chain(sizes: Iterable[int], node_size: int) -> bool:
    """Return whether counting GPUs packs instances of these sizes exactly.

    >>> is_chain([1, 2, 4, 8, 16], 8), is_chain([2, 3], 8)
    (True, False)
    """
    parts = {fragments(size, node_size)[1] for size in sizes} - {0}
    ordered = sorted(parts | {node_size})
    return all(big % small == 0 for small, big in pairwise(ordered))


def maximal_patterns(sizes: Sequence[int], node_size: int) -> Ints:
    """Return the ways to cut a node to which no further instance can be added [pattern, size].

    >>> maximal_patterns([3, 6], 8).tolist()
    [[2, 0], [0, 1]]
    """
    patterns: list[tuple[int, ...]] = []

    def extend(counts: tuple[int, ...], left: int) -> None:
        if len(counts) == len(sizes):
            if left < min(sizes):
                patterns.append(counts)
            return
        for count in range(left // sizes[len(counts)], -1, -1):
            extend((*counts, count), left - count * sizes[len(counts)])

    if min(sizes) > node_size:
        return np.zeros((0, len(sizes)), dtype=np.int64)
    extend((), node_size)
    return np.array(patterns, dtype=np.int64).reshape(-1, len(sizes))


def fits(counts: dict[int, int], gpus: int, node_size: int) -> bool:
    """Return whether `counts` instances per size fit on `gpus` GPUs in nodes of `node_size`.

    Exhaustive: whole nodes first, then every way to fill the remaining nodes one by one.

    >>> fits({3: 6}, 24, 8), fits({3: 7}, 24, 8)
    (True, False)
    """
    nodes, rest = divmod(gpus, node_size)
    parts: dict[int, int] = {}
    for size, count in counts.items():
        whole, part = fragments(size, node_size)
        nodes -= whole * count
        if part:
            parts[part] = parts.get(part, 0) + count
    if nodes < 0:
        return False
    sizes = tuple(sorted((s for s, c in parts.items() if c > 0), reverse=True))
    if is_chain(sizes, node_size):
        # Largest-first is exact for chains, and the only partial node is the last one.
        return _largest_first(sizes, [parts[s] for s in sizes], nodes, node_size, rest)
    return _fill(sizes, tuple(parts[s] for s in sizes), nodes, node_size, rest)


def _largest_first(
    sizes: Sequence[int], counts: list[int], nodes: int, node_size: int, rest: int
) -> bool:
    """Return whether filling by descending size places every instance."""
    full, last = nodes * node_size, rest
    for size, count in zip(sizes, counts, strict=True):
        in_last = min(count, last // size)
        last -= in_last * size
        full -= (count - in_last) * size
    return full >= 0


@lru_cache(maxsize=4096)
def _fill(
    sizes: tuple[int, ...], counts: tuple[int, ...], nodes: int, node_size: int, rest: int
) -> bool:
    """Return whether the instances fit; tries every maximal filling of the next node."""
    if not any(counts):
        return True
    if sum(s * c for s, c in zip(sizes, counts, strict=True)) > nodes * node_size + rest:
        return False
    room = rest if rest else node_size if nodes else 0
    usable = [i for i, s in enumerate(sizes) if counts[i] and s <= room]
    if room and not usable:
        return rest > 0 and _fill(sizes, counts, nodes, node_size, 0)
    if not room:
        return False
    after = (nodes, 0) if rest else (nodes - 1, 0)
    for pattern in maximal_patterns([sizes[i] for i in usable], room):
        left = list(counts)
        for i, used in zip(usable, pattern, strict=True):
            left[i] = max(0, left[i] - int(used))
        if _fill(sizes, tuple(left), after[0], node_size, after[1]):
            return True
    return False
