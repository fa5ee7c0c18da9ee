"""Hybrids worth ranking: pools of two kinds of lanes between aggregation and disaggregation.

The family is wide (shapes, counts, two token budgets, a share), but most of it is told apart by
three looks. The TPOT objective picks the decode lanes' budget: the largest one whose full step
still meets it, or a rung beside. A fluid bound, full steps without a pause, leaves out what cannot
reach the best so far. One evaluation at that rate, at the share that loads both pools alike, puts
the rest in order; only the first of these are searched, and their share with them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bestserve.lowering import Lowered, kv_transfer
from bestserve.models.attainment import margin
from bestserve.models.goodput import Goodput, goodput
from bestserve.models.hybrid import balanced_share, fluid_bound, full_step
from bestserve.models.lane_arrivals import known_part
from bestserve.models.latency import latency
from bestserve.models.queues.requests import prepare
from bestserve.models.step.device import Parallelism
from bestserve.models.system import Hybrid, Lane, Role, Target
from bestserve.results.document import AnswerStatus
from bestserve.results.ranking import RankedStrategy, Rejected
from bestserve.solvers.enumerate import maximal_pairs
from bestserve.specs.strategy import Pool, Strategy

RUNGS = (64, 128, 256, 512, 1024, 2048)
"""Token budgets of lanes that lean to decode [tokens]."""

WIDE = 2048
"""Budget of lanes that lean to prefill, besides the engine's own [tokens]."""

SEARCHED = 8
"""Hybrids whose goodput is searched for."""

BESIDE = (0.7, 1.3)
"""Other shares looked at, over the one that loads both pools alike: queues want one below."""

SHAPES = 3
"""Pairs of instance shapes, of the leading strategies, that hybrids are made of."""

Shapes = tuple[Parallelism, Parallelism]
RATIOS = 8
"""Ratios of the two kinds of instances tried per pair of shapes, spread evenly: the share of
prompts on decode instances makes up for what lies between."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """Instances of one kind: one of them as a pool, its lanes and how many it has."""

    one: Pool
    lane: Lane
    each: int

    def pool(self, replicas: int) -> Pool:
        """Return so many instances."""
        return self.one.model_copy(update={"replicas": replicas})

    def lanes(self, replicas: int) -> tuple[Lane, int]:
        """Return the lane of so many instances, and how many they have."""
        return self.lane, replicas * self.each


@dataclass(frozen=True, slots=True)
class Split:
    """A hybrid of so many instances of two kinds, before its share is chosen."""

    front: Pool
    back: Pool
    system: Hybrid

    def strategy(self, *, drawn: bool) -> Strategy:
        """Return the strategy; drawn : whether the pool goes by a share, which is then stated."""
        percent = round(100 * self.system.local_prefill_share) if drawn else None
        back = self.back.model_copy(update={"local_percent": percent})
        return Strategy(pools=(self.front, back))

    def at(self, share: float) -> Split:
        """Return the hybrid with another share of prompts on decode lanes, in whole percents."""
        share = min(max(round(share, 2), 0.01), 0.99)
        return replace(self, system=replace(self.system, local_prefill_share=share))


def leading_shapes(rows: Sequence[RankedStrategy]) -> list[Shapes]:
    """Return the shapes of the prompts' and the decodes' instances of strategies, first to last."""
    pools = [Strategy.parse(row.strategy).pools for row in rows]
    return list(dict.fromkeys((p[0].parallelism, p[-1].parallelism) for p in pools))


class Hybrids:
    """One search over the hybrids of a problem."""

    def __init__(
        self,
        lowered: Lowered,
        target: Target,
        shapes: Sequence[Shapes],
        progress: Progress,
    ) -> None:
        """Shapes : of prefill-leaning and decode-leaning instances, likely best first."""
        self.lowered, self.target, self.shapes = lowered, target, shapes[:SHAPES]
        self.progress = progress
        self.considered = 0
        self.rejected: list[Rejected] = []
        self.drawn = lowered.problem.routing != "least_ttft"

    def run(self, best: float) -> list[tuple[Strategy, Goodput]]:
        """Return the leading hybrids; best : goodput that others have [req/s]."""
        problem = self.lowered.problem
        shares = problem.workload.shares or self.lowered.hashed
        if shares and problem.enable_prefix_caching is not False:
            why = "hybrids know no prefix caches, which this workload has"
            self.rejected.append(Rejected("hybrid", AnswerStatus.INFEASIBLE_SHAPE, why))
            return []
        if problem.speculative_config is not None:
            why = "hybrids know no speculative decoding, which this problem has"
            self.rejected.append(Rejected("hybrid", AnswerStatus.INFEASIBLE_SHAPE, why))
            return []
        heard = sorted(self.screened(best), key=lambda found: -found[0])
        rows: list[tuple[Strategy, Goodput]] = []
        for _, split in heard[:SEARCHED]:
            strategy, found = self.searched(split)
            if found.rate > 0:
                rows.append((strategy, found))
        return rows

    def screened(self, best: float) -> Iterator[tuple[float, Split]]:
        """Yield hybrids that a fluid bound leaves, and how far they meet the target at `best`."""
        for split in self.splits():
            self.considered += 1
            if fluid_bound(split.system) <= best:
                continue
            split = split.at(balanced_share(split.system))
            rate = best or fluid_bound(split.system) / 2
            self.progress(str(split.strategy(drawn=False)))
            yield margin(latency(self.known(split), rate), self.target)[0], split

    def searched(self, split: Split) -> tuple[Strategy, Goodput]:
        """Return the goodput of a hybrid at its best share."""
        share = split.system.local_prefill_share
        found = goodput(self.known(split), self.target)
        for factor in BESIDE:
            other = split.at(factor * share)
            better = goodput(self.known(other), self.target, floor=found.rate)
            if better.rate > found.rate:
                split, found = other, better
        return split.strategy(drawn=self.drawn), found

    def known(self, split: Split) -> Hybrid:
        """Return the hybrid as formulas know it."""
        known = known_part(split.system)
        assert isinstance(known, Hybrid)
        return known

    def splits(self) -> Iterator[Split]:
        """Yield the hybrids of all shapes, counts and budgets."""
        gpus = self.lowered.problem.gpus
        for wide, narrow in self.shapes:
            fronts = [p for b in self.wide_budgets() if (p := self.kind("p", wide, b))]
            backs = [p for b in self.narrow_budgets(narrow) if (p := self.kind("d", narrow, b))]
            counts = list(zip(*maximal_pairs(gpus, wide.gpus, narrow.gpus), strict=True))
            counts = counts[:: math.ceil(len(counts) / RATIOS) or 1]
            transfer = kv_transfer(self.lowered, wide, narrow)
            for front, back, (x, y) in itertools.product(fronts, backs, counts):
                if front.lane.max_num_batched_tokens <= back.lane.max_num_batched_tokens:
                    continue
                pools = front.pool(int(x)), back.pool(int(y))
                system = self.lowered.hybrid(
                    Strategy(pools=pools), front.lanes(int(x)), back.lanes(int(y)), transfer
                )
                yield Split(*pools, system)

    def kind(self, role: Role, shape: Parallelism, budget: int | None) -> Kind | None:
        """Return one kind of instances, if it can be built."""
        one = Pool.of(role, 1, shape, max_num_batched_tokens=budget)
        one = one.model_copy(update={"local": role == "d"})
        found = self.lowered.pool_result(one)
        return None if found.lane is None else Kind(one, found.lane, found.lanes_per_instance)

    def wide_budgets(self) -> list[int | None]:
        """Return budgets of prefill-leaning instances; None: the engine's own."""
        own = self.lowered.engine.max_num_batched_tokens
        return [None] if own == WIDE else [None, WIDE]

    def narrow_budgets(self, shape: Parallelism) -> list[int]:
        """Return the rungs around the largest one whose full step meets the TPOT objective."""
        tpot, rungs = self.target.tpot, RUNGS
        if tpot is None:
            return list(rungs[-3:])
        requests = prepare(self.lowered.lengths)
        lanes = [self.lowered.lane(shape, None, rung, role="m").lane for rung in rungs]
        steps = [full_step(lane, requests) if lane else math.inf for lane in lanes]
        fitting = max((i for i, step in enumerate(steps) if step <= tpot), default=0)
        if steps[0] > tpot:
            least = f"a full step of {rungs[0]} tokens takes {1e3 * steps[0]:.3g} ms"
            why = f"{least}, TPOT may be {1e3 * tpot:.3g} ms: prompts beside decodes break it"
            name = Pool.of("d", 1, shape).options
            self.rejected.append(Rejected(f"d{name}-prefill", AnswerStatus.INFEASIBLE_SLO, why))
        return list(rungs[max(fitting - 1, 0) : fitting + 2])
