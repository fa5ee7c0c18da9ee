"""What whole prompts, taken in order, fill of a token budget when many wait."""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.queues.lattice import split

CELLS = 256


def packed_tokens(prompt: Floats, weight: Floats, budget: float) -> float:
    """Return E[tokens] of a step that takes whole prompts up to `budget`, at least one [tokens].

    Stationary first-come packing: a batch starts with the prompt that did not fit the last one;
    its running sums form a renewal process cut at the budget. Solved on a grid by iterating the
    law of that first prompt.

    prompt, weight : prompt tokens and their shares [m]; budget : tokens [tokens]

    >>> packed_tokens(np.array([1000.0]), np.array([1.0]), 2500.0)
    2000.0
    """
    if prompt.size == 1:
        return float(max(np.floor(budget / prompt[0]), 1.0) * prompt[0])
    mean = float(weight @ prompt)
    if mean * CELLS < budget:
        return budget - float(weight @ prompt**2) / mean / 2
    d = budget / CELLS
    inside = prompt <= budget
    size = CELLS + 2
    pmf = split(prompt[inside] / d, weight[inside], size)[: CELLS + 1]
    cdf = np.cumsum(pmf)
    # renewal masses of the sums that follow a first prompt
    n = 4 * CELLS
    radius = 10.0 ** (-8.0 / n)
    tilt = radius ** np.arange(CELLS + 1)
    renewal = np.fft.irfft(1.0 / (1.0 - np.fft.rfft(pmf * tilt, n)), n)[: CELLS + 1] / tilt
    later = np.fft.rfft(renewal, n)
    first, first_large = pmf.copy(), float(weight[~inside].sum())
    large_tokens = float(weight[~inside] @ prompt[~inside]) / max(first_large, 1e-300)
    share_large = first_large
    for _ in range(8):
        reach = np.fft.irfft(np.fft.rfft(first, n) * later, n)[: CELLS + 1]
        miss = 1.0 - cdf[::-1]  # P(next does not fit | sum = cell)
        ends = reach * miss
        # law of the prompt that does not fit: p(y) · P(sum > budget − y)
        above = np.concatenate(([0.0], np.cumsum(reach[::-1])[:-1]))
        overflow = pmf * above
        total_reach = float(reach.sum()) + first_large
        inside_next = overflow + first_large * pmf
        large_next = total_reach * share_large
        norm = float(inside_next.sum()) + large_next
        first, first_large = inside_next / norm, large_next / norm
    tokens = float(ends @ np.arange(CELLS + 1)) * d
    mass = float(ends.sum())
    scale = (1.0 - first_large) / max(mass, 1e-300)
    return tokens * scale + first_large * large_tokens
