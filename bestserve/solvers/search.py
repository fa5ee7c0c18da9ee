"""Rank all strategies of a problem by goodput.

Under random routing and marginal objectives a pool's goodput is its instance's times the number
of instances, and a disaggregated strategy's is the smaller of its two pools'. So instances are
evaluated once each, all replica counts follow by arithmetic, and only the leading strategies are
evaluated as whole systems. With joint or end-to-end objectives the same product is an upper
bound, and strategies are evaluated in its order until none left can beat what is found.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bestserve.lowering import Lowered, lower
from bestserve.models.goodput import Goodput, goodput, prefill_goodput, decode_goodput
from bestserve.models.system import System, Target
from bestserve.results import Binding, Confidence, RankedStrategy, Ranking, Rejected, Status
from bestserve.solvers.enumerate import Candidate, candidates, maximal_pairs
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

Progress = Callable[[str], None]
Referee = Callable[[System, Target], Goodput]

LEADERS = 40
"""Strategies evaluated as whole systems at least, however the bounds fall."""

RATIO_ROWS = 6
"""Prefill:decode ratios kept in the table per pair of instance shapes."""


@dataclass(frozen=True, order=True)
class Bound:
    """An upper bound on a strategy's goodput [requests/s], and the strategy."""

    rate: float
    pools: tuple[tuple[int, int], ...]
    """(index of the candidate, replicas) of each pool."""


def rank_strategies(
    problem: Problem, *, referee: Referee | None = None, progress: Progress | None = None
) -> Ranking:
    """Return the ranking of all strategies that fit `problem.gpus`.

    `referee` re-evaluates leading strategies whose analytic goodput carries low trust (the
    simulator; None leaves them as they are, marked low).

    Raises InputError if the problem has no SLO. Infeasible strategies are in `rejected`.
    """
    from bestserve.errors import InputError

    started = time.perf_counter()
    if problem.slo is None:
        raise InputError("ranking needs objectives; give slo, for example 'ttft:500 tpot:50'")
    if problem.workload.closed:
        raise InputError(
            "goodput is a rate of open arrivals; leave max_concurrency out of the workload to "
            "rank, or use predict and simulate for a closed loop"
        )
    search = _Search(lower(problem), problem.slo.target(), progress or (lambda _: None))
    rows, rejected, considered = search.run(referee)
    return Ranking(
        problem=problem,
        table=tuple(rows),
        rejected=tuple(rejected),
        considered=considered,
        seconds=time.perf_counter() - started,
    )


class _Search:
    def __init__(self, lowered: Lowered, target: Target, progress: Progress) -> None:
        self.lowered, self.target, self.progress = lowered, target, progress
        self.pool_of: list[Candidate] = []
        self.unit: list[float] = []
        self.rejected: list[Rejected] = []
        self.considered = 0

    def run(self, referee: Referee | None) -> tuple[list[RankedStrategy], list[Rejected], int]:
        bounds: list[Bound] = []
        if "collocated" in self.lowered.problem.layouts:
            bounds += self.collocated_bounds()
        if "disaggregated" in self.lowered.problem.layouts:
            bounds += self.disaggregated_bounds()
        bounds.sort(key=lambda b: (-b.rate, b.pools))
        rows = self.evaluate(bounds, referee)
        return rows, self.rejected, self.considered

    def instances(self, role: str) -> list[int]:
        """Evaluate one instance of each candidate of a role; return the feasible ones."""
        found, rejected = candidates(self.lowered, role)  # type: ignore[arg-type]
        self.rejected += rejected
        feasible = []
        for candidate in found:
            self.progress(f"{role}{candidate.pool(1).options}")
            result = self.instance_goodput(candidate)
            if result.rate <= 0:
                name = f"{role}{candidate.pool(1).options}"
                self.rejected.append(Rejected(name, Status.INFEASIBLE_SLO, result.detail))
                continue
            self.pool_of.append(candidate)
            self.unit.append(result.rate * candidate.lanes_per_instance)
            feasible.append(len(self.pool_of) - 1)
        return feasible

    def instance_goodput(self, candidate: Candidate) -> Goodput:
        low, lengths, arrivals = candidate.lane, self.lowered.lengths, self.lowered.arrivals
        if candidate.role == "p":
            return prefill_goodput(low, lengths, self.target, arrivals)
        if candidate.role == "d":
            return decode_goodput(low, lengths, self.target, arrivals)
        return goodput(self.lowered.collocated(low, 1), self.target)

    def collocated_bounds(self) -> list[Bound]:
        bounds = []
        for i in self.instances("m"):
            count = self.lowered.problem.gpus // self.pool_of[i].parallelism.gpus
            self.considered += count
            bounds.append(Bound(count * self.unit[i], ((i, count),)))
        return bounds

    def disaggregated_bounds(self) -> list[Bound]:
        gpus = self.lowered.problem.gpus
        prefills, decodes = self.instances("p"), self.instances("d")
        bounds: list[Bound] = []
        for i in prefills:
            for j in decodes:
                sizes = self.pool_of[i].parallelism.gpus, self.pool_of[j].parallelism.gpus
                x, y = maximal_pairs(gpus, *sizes)
                if not x.size:
                    continue
                self.considered += int(np.sum((gpus - x * sizes[0]) // sizes[1]))
                rates = np.minimum(x * self.unit[i], y * self.unit[j])
                for k in np.argsort(-rates, kind="stable")[:RATIO_ROWS]:
                    pools = ((i, int(x[k])), (j, int(y[k])))
                    bounds.append(Bound(float(rates[k]), pools))
        return bounds

    def evaluate(self, bounds: list[Bound], referee: Referee | None) -> list[RankedStrategy]:
        """Evaluate whole systems in the order of their bounds; prune what cannot lead."""
        rows: list[RankedStrategy] = []
        best: list[float] = []
        for done, bound in enumerate(bounds):
            if done >= LEADERS and len(best) == LEADERS and bound.rate <= best[0]:
                break
            row = self.row(bound, referee)
            if row is None:
                continue
            rows.append(row)
            heapq.heappush(best, row.goodput)
            if len(best) > LEADERS:
                heapq.heappop(best)
        rows.sort(key=lambda r: (-r.goodput, r.gpus, r.strategy))
        return rows

    def row(self, bound: Bound, referee: Referee | None) -> RankedStrategy | None:
        pools = tuple(self.pool_of[i].pool(n) for i, n in bound.pools)
        strategy = Strategy(pools=pools)
        system = self.system(bound)
        result = goodput(system, self.target)
        method = "analytic"
        if not result.trust.high and referee is not None:
            self.progress(f"simulating {strategy}")
            checked = referee(system, self.target)
            result, method = checked, "simulated"
        if result.rate <= 0 or result.at is None:
            self.rejected.append(Rejected(str(strategy), Status.INFEASIBLE_SLO, result.detail))
            return None
        price = self.price()
        at, target = result.at, self.target
        return RankedStrategy(
            strategy=str(strategy),
            gpus=strategy.gpus,
            goodput=result.rate,
            low=result.low,
            high=result.high,
            goodput_per_gpu=result.rate / strategy.gpus,
            goodput_per_dollar=(
                None if price is None else result.rate * 3600 / (price * strategy.gpus)
            ),
            ttft=at.ttft.quantile(target.ttft_percentile),
            tpot=at.tpot.quantile(target.tpot_percentile),
            utilisation=at.utilisation,
            binding=Binding[result.binding.upper()],
            trust=Confidence(result.trust.high, result.trust.reasons),
            method=method,
            nearest_miss=result.detail,
        )

    def system(self, bound: Bound) -> System:
        lowered = self.lowered
        pools = [(self.pool_of[i], n) for i, n in bound.pools]
        lanes = [(c.lane, n * c.lanes_per_instance) for c, n in pools]
        if len(pools) == 1:
            return lowered.collocated(*lanes[0])
        transfer = lowered.transfer(pools[0][0].parallelism, pools[1][0].parallelism)
        return lowered.disaggregated(*lanes[0], *lanes[1], transfer)

    def price(self) -> float | None:
        if self.lowered.problem.step_time is not None:
            return None
        figure = self.lowered.hardware.price_per_hour
        return None if figure is None else figure.value


