"""Headroom of a deployment, and the fewest GPUs for a rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from bestserve.answers.doubts import trust_in
from bestserve.answers.economics import priced
from bestserve.answers.goodput import goodput_of
from bestserve.answers.predict import checked_rate
from bestserve.answers.ranking import ranking
from bestserve.errors import InfeasibleError, InputError
from bestserve.lowering import lower
from bestserve.results.capacity import Headroom, Size, Tried
from bestserve.results.ranking import RankedStrategy
from bestserve.solvers.ranking import checked_problem
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

Progress = Callable[[str], None]

MOST_MORE = 8
"""Numbers of GPUs that are tried beyond what the formulas hold for enough."""
MOST_GPUS = 4096
"""Largest deployment that is looked at."""


def headroom_of(problem: Problem, strategy: str | Strategy, request_rate: float | None) -> Headroom:
    """Return the answer; arguments and errors as `bestserve.headroom`."""
    lowered = lower(checked_problem(problem))
    rate = checked_rate(problem, request_rate)
    row = priced(lowered, goodput_of(lowered, Strategy.parse(strategy)))
    row = replace(row, trust=trust_in(problem, row.strategy, row.trust))
    return Headroom(problem=problem, request_rate=rate, best=row)


def size_of(
    problem: Problem,
    request_rate: float | None,
    headroom: float = 0.0,
    progress: Progress | None = None,
) -> Size:
    """Return the answer; arguments and errors as `bestserve.size`."""
    rate = checked_rate(checked_problem(problem), request_rate)
    if not 0 <= headroom <= 100:
        raise InputError(f"headroom = {headroom:g} must be a share from 0 to 100, such as 0.2")
    wanted = rate * (1 + headroom)
    tried: dict[int, RankedStrategy | None] = {}

    def enough(gpus: int) -> bool:
        if gpus not in tried:
            if progress is not None:
                progress(f"{gpus} GPUs")
            found = ranking(problem.replaced(gpus=gpus), verify=False)
            # the fewest GPUs among what carries the rate, else the most that is carried
            carrying = [s for s in found.table if s.goodput >= wanted]
            tried[gpus] = (
                min(carrying, key=lambda s: (s.gpus, -s.goodput))
                if carrying
                else (found.table[0] if found.table else None)
            )
        row = tried[gpus]
        return row is not None and row.goodput >= wanted

    high = _enough(enough, tried, wanted)
    low = max((n for n in tried if n < high and not enough(n)), default=0)
    while low + 1 < high:
        middle = (low + high) // 2
        if enough(middle):
            row = tried[middle]
            assert row is not None
            high = min(middle, row.gpus)
        else:
            low = middle
    best = _confirmed(problem, wanted, high, tried, progress)
    rows = tuple(
        Tried(n, row, row is not None and row.goodput >= wanted) for n, row in sorted(tried.items())
    )
    asked = problem.replaced(gpus=best.gpus)
    return Size(problem=asked, request_rate=rate, headroom=headroom, best=best, tried=rows)


def _enough(
    enough: Callable[[int], bool], tried: dict[int, RankedStrategy | None], wanted: float
) -> int:
    """Return a number of GPUs that carries the rate, not far above the fewest."""
    gpus = 1
    while not enough(gpus):
        row = tried[gpus]
        if gpus == MOST_GPUS:
            reached = "nothing fits" if row is None else f"{row.goodput:.4g} req/s"
            raise InfeasibleError(
                f"{MOST_GPUS:,} GPUs do not carry {wanted:.4g} req/s ({reached}): relax the "
                "objectives, or take faster GPUs"
            )
        by_goodput = 0 if row is None else math.ceil(gpus * wanted / row.goodput)
        gpus = min(max(2 * gpus if row is None else by_goodput, gpus + 1), MOST_GPUS)
    row = tried[gpus]
    assert row is not None
    return row.gpus if enough(row.gpus) else gpus


def _confirmed(
    problem: Problem,
    wanted: float,
    gpus: int,
    tried: dict[int, RankedStrategy | None],
    progress: Progress | None,
) -> RankedStrategy:
    """Return the best strategy by runs, on more GPUs where they show less than the formulas."""
    for more in range(MOST_MORE):
        asked = problem.replaced(gpus=gpus + more)
        found = ranking(asked, progress=progress)
        best = found.table[0] if found.table else None
        tried[gpus + more] = best
        if best is not None and best.goodput >= wanted:
            tried[gpus + more] = priced(lower(asked), best)
            return priced(lower(asked), best)
    raise InfeasibleError(
        f"runs do not confirm that {gpus + MOST_MORE - 1:,} GPUs carry {wanted:.4g} req/s, as the "
        "formulas say; ask for less, or name more GPUs and rank"
    )
