"""Node packing: chains are exact by counting, other sizes need patterns."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.solvers.allocation.packing import fits, is_chain, maximal_patterns


def packs(sizes: list[int], nodes: list[int]) -> bool:
    """Place the items one by one with backtracking."""
    if not sizes:
        return True
    first, *rest = sorted(sizes, reverse=True)
    for i, room in enumerate(nodes):
        if room >= first and (i == 0 or room != nodes[i - 1]):
            left = sorted([*nodes[:i], room - first, *nodes[i + 1 :]])
            if packs(rest, left):
                return True
    return False


@given(
    st.dictionaries(st.sampled_from([1, 2, 3, 4, 5, 6, 8]), st.integers(0, 4), min_size=1),
    st.integers(0, 26),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_fits_equals_exhaustive_placing(counts: dict[int, int], gpus: int) -> None:
    nodes = [8] * (gpus // 8) + ([gpus % 8] if gpus % 8 else [])
    items = [size for size, count in counts.items() for _ in range(count)]
    if sum(items) > 26:
        return
    assert fits(counts, gpus, 8) == packs(items, sorted(nodes))


def test_counting_gpus_is_exact_for_chains() -> None:
    for counts in product(range(4), repeat=4):
        sizes = dict(zip((1, 2, 4, 8), counts, strict=True))
        total = sum(s * c for s, c in sizes.items())
        for gpus in (12, 14, 21):
            # A node-sized instance needs a whole node; below that, only the total counts.
            whole = sizes[8] <= gpus // 8
            assert fits(sizes, gpus, 8) == (whole and total <= gpus)


@pytest.mark.parametrize(
    ("sizes", "count"), [((1, 2, 4, 8), 10), ((1, 2, 3, 4, 6, 8), 18), ((3, 6), 2)]
)
def test_number_of_maximal_patterns_of_a_node_of_eight(sizes: tuple[int, ...], count: int) -> None:
    """Counts as in the study of node patterns: 10, 18 and 2."""
    patterns = maximal_patterns(sizes, 8)
    assert len(patterns) == count
    room = 8 - patterns @ np.array(sizes)
    assert np.all(room >= 0)
    assert np.all(room < min(sizes))


def test_three_on_eight_wastes_two() -> None:
    assert fits({3: 6}, 24, 8)
    assert not fits({3: 7}, 24, 8)
    assert not is_chain([3], 8)


def test_an_instance_larger_than_a_node_takes_whole_nodes_and_a_fragment() -> None:
    assert fits({12: 2}, 24, 8)
    assert not fits({12: 2, 2: 1}, 24, 8)
    assert fits({12: 1, 4: 3}, 24, 8)
    assert is_chain([12, 4, 16], 8)
