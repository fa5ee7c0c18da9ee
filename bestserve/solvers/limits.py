"""Batch limits as decisions: `max_num_batched_tokens` and `max_num_seqs` of one instance.

Goodput over either limit has one hill, apart from plateaus where a limit does not bind. So a few
rungs far apart find the hill, the rungs between them its top, and a rung costs one look unless it
beats the best so far.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator

from bestserve.lowering import Lowered
from bestserve.models.goodput import Goodput
from bestserve.models.queues.held_tokens import safe_seqs
from bestserve.models.queues.requests import prepare
from bestserve.models.system import Role
from bestserve.solvers.enumerate import Candidate, limited
from bestserve.specs.speculation import MOST_DRAFTS, SpeculativeConfig
from bestserve.specs.strategy import TABLE, Drafts, Strategy

COARSE: dict[Role, tuple[int, ...]] = {"m": (2048, 1024, 512, 256), "p": (16384, 2048), "d": ()}
"""Token budgets far apart, tried in this order after the engine's own."""

BUDGETS = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
"""Rungs of `max_num_batched_tokens` [tokens]."""

SEQS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Rungs of `max_num_seqs` [sequences]."""

ROOM = (1.1, 1.5)
"""Limits on sequences that are tried, in mean numbers running at the goodput."""

EVICTIONS = 0.01
"""Evictions per request, all slots taken, that a limit on sequences lets happen."""

NEAR_FULL = 0.7
"""Sequences running at the goodput, over those that hardly evict, from which a cache fills now and
then: the engine's limit gives way to the number that hardly evicts."""

GAIN = 3e-3
"""Relative gain for which a limit is changed: what the search of a goodput resolves, twice."""

DRAFTS: tuple[Drafts, ...] = (3, 1, 2, 5, 7, 0, TABLE)
"""Numbers of drafts that are tried, likely ones first, so that later ones need only a look; up to
the problem's `num_speculative_tokens`."""

Evaluate = Callable[[Candidate, float], Goodput | None]
"""Goodput of a candidate if it holds at the rate given [requests/s]; None if not."""


class Tuning:
    """The best limits of one instance found so far."""

    def __init__(
        self, lowered: Lowered, first: tuple[Candidate, Goodput], least: float, evaluate: Evaluate
    ) -> None:
        """`first` has the engine's own limits; `least` : what is worth knowing [requests/s]."""
        self.lowered, self.evaluate, self.least = lowered, evaluate, least
        self.candidate, self.found = first
        self.tried = {self.candidate.limits}

    def run(self) -> tuple[Candidate, Goodput]:
        """Return the instance with the best limits, and its goodput."""
        problem, role = self.lowered.problem, self.candidate.role
        if problem.speculative_config is not None and role != "p":
            self.choose_drafts(problem.speculative_config)
        if problem.max_num_batched_tokens is None:
            for budget in COARSE[role]:
                self.consider(max_num_batched_tokens=budget)
            if role != "d":
                self.climb_budgets()
        if problem.max_num_seqs is None and role != "p" and self.found.rate > 0:
            self.limit_sequences()
        return self.candidate, self.found

    def consider(self, *, anyway: bool = False, **changes: Drafts) -> bool:
        """Take limits with these changes if they are better, or anyway; return whether they were.

        changes : fields of `bestserve.lowering.lanes.Limits`
        """
        limits = self.candidate.limits._replace(**changes)  # type: ignore[arg-type]
        if limits in self.tried:
            return False
        self.tried.add(limits)
        other = limited(self.lowered, self.candidate, limits)
        if other is None:
            return False
        floor = 0.0 if anyway else max(self.found.rate * (1 + GAIN), self.least)
        found = self.evaluate(other, floor)
        if found is None or found.rate <= 0:
            return False
        self.candidate, self.found = other, found
        return True

    def choose_drafts(self, config: SpeculativeConfig) -> None:
        """Take the number of drafts that carries most, or the best table."""
        most = config.num_speculative_tokens or MOST_DRAFTS
        for drafts in DRAFTS:
            if drafts == TABLE or (isinstance(drafts, int) and drafts <= most):
                self.consider(drafts=drafts)

    def climb_budgets(self) -> None:
        """Go up and down the rungs of the token budget while that helps."""
        own = self.lowered.engine.max_num_batched_tokens
        for step in (1, -1):
            while self.found.rate > 0:
                at = self.candidate.max_num_batched_tokens or own
                rung = next_rung(BUDGETS, at, step)
                if rung is None or rung == own:
                    break
                if not self.consider(max_num_batched_tokens=rung):
                    break

    def limit_sequences(self) -> None:
        """Limit sequences where a cache fills, or where more of them than needed slow each other.

        Limits are an engine's, of one rank and one pipeline stage; a lane has those of all ranks.
        """
        lane, shape = self.candidate.lane, self.candidate.parallelism
        scale = shape.pp / shape.dp
        running = self.found.at.mean_batch
        safe = safe_seqs(
            lane, prepare(self.lowered.lengths, lane.speculation.law(running)), EVICTIONS
        )
        if safe < lane.max_num_seqs and running > NEAR_FULL * safe:
            self.consider(max_num_seqs=max(math.floor(safe * scale), 1), anyway=True)
            return
        for room in ROOM:
            rung = next_rung(SEQS, math.ceil(room * running * scale) - 1, 1)
            if rung is not None and rung < lane.max_num_seqs * scale:
                self.consider(max_num_seqs=rung)


def beside(lowered: Lowered, strategy: Strategy) -> Iterator[Strategy]:
    """Return the strategies of which one limit is another: a rung away, or the engine's own.

    Limits that the problem states stay.
    """
    problem, engine = lowered.problem, lowered.engine
    own = {"max_num_batched_tokens": engine.max_num_batched_tokens}
    for i, pool in enumerate(strategy.pools):
        asked = {"max_num_batched_tokens": BUDGETS} if pool.role != "d" else {}
        asked |= {"max_num_seqs": SEQS} if pool.role != "p" else {}
        for name, rungs in asked.items():
            if getattr(problem, name) is not None:
                continue
            at = getattr(pool, name)
            values: list[int | None] = [] if at is None else [None]
            if at is not None or name in own:
                near = at or own[name]
                values += [r for r in (next_rung(rungs, near, s) for s in (1, -1)) if r]
            for value in values:
                pools = list(strategy.pools)
                pools[i] = pool.model_copy(update={name: value})
                yield Strategy(pools=tuple(pools))


def next_rung(rungs: tuple[int, ...], at: int, step: int) -> int | None:
    """Return the next rung above (step 1) or below (−1) a limit; None beyond the ends.

    >>> next_rung(BUDGETS, 1024, 1), next_rung(BUDGETS, 1000, -1), next_rung(BUDGETS, 128, -1)
    (1536, 768, None)
    """
    i = bisect_left(rungs, at)
    i = i - 1 if step < 0 else i + (i < len(rungs) and rungs[i] == at)
    return rungs[i] if 0 <= i < len(rungs) else None
