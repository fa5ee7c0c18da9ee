"""Rank all strategies of a problem by goodput.

Under random routing and marginal objectives a pool's goodput is its instance's times the number
of instances, and a disaggregated strategy's is the smaller of its two pools'. So instances are
evaluated once each, all replica counts follow by arithmetic, and only the leading strategies are
evaluated as whole systems. With joint or end-to-end objectives the same product is an upper
bound, and strategies are evaluated in its order until none left can beat what is found.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bestserve.errors import InfeasibleError, InputError
from bestserve.lowering import Lowered, lower
from bestserve.models import status as analytic
from bestserve.models.goodput import Goodput, decode_goodput, goodput, margin, prefill_goodput
from bestserve.models.latency import latency
from bestserve.models.step.device import Parallelism
from bestserve.models.system import Lane, Role, System, Target
from bestserve.results.document import Status
from bestserve.results.ranking import Binding, RankedStrategy, Ranking, Rejected
from bestserve.solvers.enumerate import Candidate, candidates, maximal_pairs
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Pool, Strategy

Progress = Callable[[str], None]
Referee = Callable[[System, Target, Goodput], Goodput]
"""Takes the analytic goodput as its starting point."""

LEADERS = 40
"""Strategies evaluated as whole systems at least, however the bounds fall."""

REFEREED = 8
"""Strategies at the head of the table that the referee may look at."""

ROUNDING = 2e-3
"""Relative overshoot of an objective that the tolerance of the search explains [1]."""

COSTLY_BUDGET = 1024
"""Token budgets below it take three to four times longer to evaluate (prompts take many steps), so
they are searched only where one look says that they beat the larger budgets of the instance."""

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
    started = time.perf_counter()
    lowered = lower(checked_problem(problem))
    assert problem.slo is not None
    search = _Search(lowered, problem.slo.target(), progress or (lambda _: None))
    rows = search.run(referee)
    return Ranking(
        problem=problem,
        table=tuple(rows),
        rejected=tuple(search.rejected),
        considered=search.considered,
        seconds=time.perf_counter() - started,
    )


def checked_problem(problem: Problem) -> Problem:
    """Return the problem if goodput is defined for it. Raises InputError otherwise."""
    if problem.slo is None:
        raise InputError("goodput needs objectives; give slo, for example 'ttft:500 tpot:50'")
    if problem.workload.closed:
        raise InputError(
            "goodput is a rate of open arrivals; leave max_concurrency out of the workload, or "
            "use predict and simulate for a closed loop"
        )
    return problem


class _Search:
    """The state of one search: instances evaluated so far and what was rejected."""

    def __init__(self, lowered: Lowered, target: Target, progress: Progress) -> None:
        self.lowered, self.target, self.progress = lowered, target, progress
        self.separable = lowered.problem.routing == "random" and not (
            target.joint or target.e2el is not None
        )
        self.instances: list[tuple[Candidate, Goodput]] = []
        self.rejected: list[Rejected] = []
        self.considered = 0

    def run(self, referee: Referee | None) -> list[RankedStrategy]:
        bounds: list[Bound] = []
        if "collocated" in self.lowered.problem.layouts:
            bounds += self.collocated_bounds()
        if "disaggregated" in self.lowered.problem.layouts:
            bounds += self.disaggregated_bounds()
        bounds.sort(key=lambda b: (-b.rate, b.pools))
        rows = sorted(self.evaluate(bounds), key=_order)
        if referee is not None:
            head = [self.refereed(row, referee) for row in rows[:REFEREED]]
            rows = sorted([r for r in head if r is not None] + rows[REFEREED:], key=_order)
        return rows

    def feasible(self, role: Role) -> list[int]:
        """Evaluate one instance of each candidate of a role; return those with a goodput."""
        found, rejected = candidates(self.lowered, role)
        self.rejected += rejected
        kept = []
        rates: dict[Parallelism, list[float]] = {}
        for candidate in found:
            seen = rates.setdefault(candidate.parallelism, [])
            costly = (candidate.max_num_batched_tokens or COSTLY_BUDGET) < COSTLY_BUDGET
            if costly and not self.beats(candidate, max(seen, default=0.0)):
                continue
            name = f"{role}{candidate.pool(1).options}"
            self.progress(name)
            result = self.alone(candidate)
            seen.append(result.rate)
            if result.rate <= 0:
                self.rejected.append(unmet(self.lowered, name, (candidate.pool(1),), result))
                continue
            self.instances.append((candidate, result))
            kept.append(len(self.instances) - 1)
        return kept

    def beats(self, candidate: Candidate, rate: float) -> bool:
        """Whether one collocated lane meets the objectives above this rate [requests/s]."""
        if rate == 0:
            return True
        at = latency(self.lowered.collocated(candidate.lane, 1), rate)
        return margin(at, self.target)[0] > 0

    def alone(self, candidate: Candidate) -> Goodput:
        """Return the goodput of one lane alone."""
        lane, target = candidate.lane, self.target
        if candidate.role == "m":
            return goodput(self.lowered.collocated(lane, 1), target)
        evaluate = prefill_goodput if candidate.role == "p" else decode_goodput
        return evaluate(lane, self.lowered.lengths, target, self.lowered.arrivals)

    def lanes(self, pool: tuple[int, int]) -> tuple[Lane, int]:
        """Return the lane of a pool and how many the pool has."""
        candidate = self.instances[pool[0]][0]
        return candidate.lane, pool[1] * candidate.lanes_per_instance

    def unit(self, i: int) -> float:
        """Return the goodput of one instance [requests/s]."""
        candidate, result = self.instances[i]
        return result.rate * candidate.lanes_per_instance

    def gpus_of(self, i: int) -> int:
        """Return the GPUs of one instance."""
        return self.instances[i][0].parallelism.gpus

    def collocated_bounds(self) -> list[Bound]:
        bounds = []
        for i in self.feasible("m"):
            count = self.lowered.problem.gpus // self.gpus_of(i)
            self.considered += count
            bounds.append(Bound(count * self.unit(i), ((i, count),)))
        return bounds

    def disaggregated_bounds(self) -> list[Bound]:
        gpus = self.lowered.problem.gpus
        prefills, decodes = self.feasible("p"), self.feasible("d")
        bounds: list[Bound] = []
        for i, j in itertools.product(prefills, decodes):
            sizes = self.gpus_of(i), self.gpus_of(j)
            x, y = maximal_pairs(gpus, *sizes)
            every_x = np.arange(1, (gpus - sizes[1]) // sizes[0] + 1)
            self.considered += int(np.sum((gpus - every_x * sizes[0]) // sizes[1]))
            rates = np.minimum(x * self.unit(i), y * self.unit(j))
            for k in np.argsort(-rates, kind="stable")[:RATIO_ROWS]:
                bounds.append(Bound(float(rates[k]), ((i, int(x[k])), (j, int(y[k])))))
        return bounds

    def evaluate(self, bounds: list[Bound]) -> list[RankedStrategy]:
        """Evaluate whole systems in the order of their bounds; stop where none can lead."""
        rows: list[RankedStrategy] = []
        for done, bound in enumerate(bounds):
            if done >= LEADERS:
                goodputs = sorted((r.goodput for r in rows), reverse=True)
                if len(goodputs) >= REFEREED and bound.rate <= goodputs[REFEREED - 1]:
                    break
            strategy = self.strategy(bound)
            self.progress(str(strategy))
            composed = self.composed(bound, strategy) if self.separable else None
            found = composed or evaluate_system(
                self.lowered, strategy, self.system(bound), self.target, None
            )
            if isinstance(found, Rejected):
                self.rejected.append(found)
            else:
                rows.append(found)
        return rows

    def composed(self, bound: Bound, strategy: Strategy) -> RankedStrategy | None:
        """Put a strategy together from its pools; None if it must be evaluated as a whole."""
        pools = [(self.instances[i][1], self.lanes((i, n))[1]) for i, n in bound.pools]
        found, count = min(pools, key=lambda pool: pool[0].rate * pool[1])
        if strategy.disaggregated:
            at = latency(self.system(bound), bound.rate)
            # KV transfer, which the decode pool alone does not see, may break the TPOT objective.
            if margin(at, self.target)[0] < -ROUNDING:
                return None
        else:
            at = replace(found.at, stability_rate=found.at.stability_rate * count)
        low, high = (min(getattr(g, end) * n for g, n in pools) for end in ("low", "high"))
        trust = found.trust & at.firm
        whole = replace(found, rate=bound.rate, low=low, high=high, at=at, trust=trust)
        return ranked(self.lowered, strategy, whole, self.target, "analytic")

    def refereed(self, row: RankedStrategy, referee: Referee) -> RankedStrategy | None:
        """Return the row, simulated if its trust is low; None if the referee finds no goodput."""
        if row.trust.high:
            return row
        self.progress(f"simulating {row.strategy}")
        strategy = Strategy.parse(row.strategy)
        system = self.lowered.system(strategy)
        found = evaluate_system(self.lowered, strategy, system, self.target, referee)
        if isinstance(found, Rejected):
            self.rejected.append(found)
            return None
        return found

    def strategy(self, bound: Bound) -> Strategy:
        """Return the strategy that a bound is about."""
        return Strategy(pools=tuple(self.instances[i][0].pool(n) for i, n in bound.pools))

    def system(self, bound: Bound) -> System:
        """Return the queueing system of a bound's strategy."""
        lanes = [self.lanes(pool) for pool in bound.pools]
        if len(lanes) == 1:
            return self.lowered.collocated(*lanes[0])
        shapes = [self.instances[i][0].parallelism for i, _ in bound.pools]
        return self.lowered.disaggregated(*lanes[0], *lanes[1], self.lowered.transfer(*shapes))


def _order(row: RankedStrategy) -> tuple[float, ...]:
    """Best first; of equals, which one pool alone decides, the fewer GPUs and the faster."""
    return (-row.goodput, row.gpus, row.tpot, row.ttft, len(row.strategy))


def evaluate_strategy(
    lowered: Lowered, strategy: Strategy, referee: Referee | None, *, always: bool = False
) -> RankedStrategy:
    """Return one strategy's goodput and where it stands there.

    `referee` replaces the analytic answer where that carries low trust, or always.

    Raises InfeasibleError if it cannot be built or a request alone misses the objectives.
    """
    slo = lowered.problem.slo
    assert slo is not None
    system = lowered.system(strategy)
    found = evaluate_system(lowered, strategy, system, slo.target(), referee, always=always)
    if isinstance(found, Rejected):
        raise InfeasibleError(f"{strategy}: {found.reason}")
    return found


def evaluate_system(
    lowered: Lowered,
    strategy: Strategy,
    system: System,
    target: Target,
    referee: Referee | None,
    *,
    always: bool = False,
) -> RankedStrategy | Rejected:
    """Return a strategy's goodput, or the record of why it has none."""
    result, method = goodput(system, target), "analytic"
    if referee is not None and result.rate > 0 and (always or not result.trust.high):
        checked = referee(system, target, result)
        method = "analytic" if checked.at is result.at and checked.rate > 0 else "simulated"
        result = checked
    if result.rate <= 0:
        return unmet(lowered, str(strategy), strategy.pools, result)
    return ranked(lowered, strategy, result, target, method)


def unmet(lowered: Lowered, name: str, pools: Sequence[Pool], result: Goodput) -> Rejected:
    """Return the record of why a strategy, or an instance of it, has no goodput."""
    if result.status is not analytic.Status.SOME_REFUSED:
        status = Status.INFEASIBLE_SLO if result.detail else Status.NO_CAPACITY
        return Rejected(name, status, result.detail or status.value)
    plans = [lowered.pool_result(pool).plan for pool in pools]
    tightest = min(
        (plan for plan in plans if plan is not None),
        key=lambda plan: plan.kv_capacity_tokens,
        default=None,
    )
    arithmetic = "" if tightest is None else f"; {tightest.explain()}"
    return Rejected(name, Status.SOME_REFUSED, f"{result.detail}{arithmetic}")


def ranked(
    lowered: Lowered, strategy: Strategy, result: Goodput, target: Target, method: str
) -> RankedStrategy:
    """Return the table row of a strategy with this goodput."""
    price = _price(lowered)
    at = result.at
    return RankedStrategy(
        strategy=str(strategy),
        gpus=strategy.gpus,
        goodput=result.rate,
        low=result.low,
        high=result.high,
        goodput_per_gpu=result.rate / strategy.gpus,
        goodput_per_dollar=(
            None if price is None else 3600 * result.rate / (price * strategy.gpus)
        ),
        ttft=at.ttft.quantile(target.ttft_percentile),
        tpot=at.tpot.quantile(target.tpot_percentile),
        utilisation=min(result.rate / at.stability_rate, 1.0),
        binding=Binding[result.binding.upper()],
        trust=result.trust,
        method=method,
    )


def _price(lowered: Lowered) -> float | None:
    if lowered.problem.price_per_hour is not None or lowered.problem.step_time is not None:
        return lowered.problem.price_per_hour
    figure = lowered.hardware.price_per_hour
    return None if figure is None else figure.value
