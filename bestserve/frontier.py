"""Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of points that no other point beats in one coordinate at no loss.

    Larger is better in both. Order: falling first coordinate. Of equal points the first stays.

    >>> pareto_front([(3, 1), (2, 2), (1, 1), (3, 1)])
    [0, 1]
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1], i))
    front: list[int] = []
    best = float("-inf")
    for i in order:
        if points[i][1] > best:
            front.append(i)
            best = points[i][1]
    return front
