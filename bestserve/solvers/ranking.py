"""Rank all strategies of a problem by goodput.

Under random routing and marginal objectives a pool's goodput is its instance's times the number
of instances, and a disaggregated strategy's is the smaller of its two pools'. So instances are
evaluated once each, all replica counts follow by arithmetic, and only the leading strategies are
evaluated as whole systems. With joint or end-to-end objectives the same product is an upper
bound, and strategies are evaluated in its order until none left can beat what is found.

Formulas know Poisson arrivals that are routed at random. For others they put strategies in order,
as if arrivals were such, and the leaders are simulated as they are; the rest is left out.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

import numpy as np

from bestserve.errors import BestserveError, InputError
from bestserve.lowering import Lowered, kv_transfer, lower
from bestserve.lowering.lanes import Limits
from bestserve.models.attainment import margin
from bestserve.models.goodput import Goodput, decode_goodput, goodput, prefill_goodput
from bestserve.models.lane_arrivals import known_part
from bestserve.models.latency import evaluator
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Lane, Role, System, Target
from bestserve.results.document import AnswerStatus
from bestserve.results.ranking import RankedStrategy, Ranking, Rejected
from bestserve.solvers.enumerate import Candidate, candidates, limited, maximal_pairs, not_tried
from bestserve.solvers.hybrids import Hybrids, leading_shapes
from bestserve.solvers.limits import Tuning
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Pool, Strategy

Progress = Callable[[str], None]
LEADERS = 24
"""Strategies evaluated as whole systems at least, however the bounds fall."""

HEAD = 8
"""Strategies at the head of the table that no bound below may reach."""

ROUNDING = 2e-3
"""Relative overshoot of an objective that the tolerance of the search explains [1]."""

WORTH = 0.6
"""Goodput per GPU, over the best of the role, from which other limits than the engine's are of
interest."""

SUITABLE = 2
"""Best instances of a role whose limits are tried on pipelines that nobody asked for."""

WORTHWHILE = 0.01
"""Gain per GPU from which a pipeline that the problem does not ask for is worth its stages."""

RATIO_ROWS = 6
"""Prefill:decode ratios kept in the table per pair of instance shapes."""


NUMERICAL = (ArithmeticError, ValueError, IndexError)
"""What models may raise in regimes that nobody has met; LinAlgError is a ValueError."""

P = ParamSpec("P")
Answer = TypeVar("Answer")


@dataclass(frozen=True, order=True)
class Bound:
    """An upper bound on a strategy's goodput [requests/s], and the strategy."""

    rate: float
    pools: tuple[tuple[int, int], ...]
    """(index of the candidate, replicas) of each pool."""


def rank_strategies(problem: Problem | Lowered, *, progress: Progress | None = None) -> Ranking:
    """Return the ranking, by formulas, of all strategies that fit `problem.gpus`.

    Raises InputError if the problem has no SLO. Infeasible strategies are in `rejected`.
    """
    started = time.perf_counter()
    lowered = problem if isinstance(problem, Lowered) else lower(checked_problem(problem))
    slo = lowered.problem.slo
    assert slo is not None
    search = _Search(lowered, slo.target().common, progress or (lambda _: None))
    rows = search.run()
    return Ranking(
        problem=lowered.problem,
        table=tuple(rows),
        rejected=tuple(search.rejected),
        considered=search.considered,
        not_tried=not_tried(lowered),
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
        self.separable = not (target.joint or target.e2el is not None)
        self.instances: list[tuple[Candidate, Goodput]] = []
        self.plain: dict[Candidate, tuple[Candidate, Goodput]] = {}
        self.rejected: list[Rejected] = []
        self.considered = 0

    def run(self) -> list[RankedStrategy]:
        bounds: list[Bound] = []
        if "collocated" in self.lowered.problem.layouts:
            bounds += self.collocated_bounds()
        if "disaggregated" in self.lowered.problem.layouts:
            bounds += self.disaggregated_bounds()
        bounds.sort(key=lambda b: (-b.rate, b.pools))
        rows = self.evaluate(bounds)
        problem = self.lowered.problem
        if "hybrid" in problem.layouts and problem.speculative_config is None:
            rows += self.hybrids(sorted(rows, key=best_first))
        return sorted(rows, key=best_first)

    def hybrids(self, rows: list[RankedStrategy]) -> list[RankedStrategy]:
        """Return the leading hybrids, of the shapes that lead without them."""
        shapes = leading_shapes(sorted(rows, key=best_first))
        if not shapes:
            alone = sorted(self.feasible("m"), key=lambda i: -self.unit(i) / self.gpus_of(i))
            shapes = [(self.instances[i][0].parallelism,) * 2 for i in alone]
        search = Hybrids(self.lowered, self.target, shapes, self.progress)
        found = search.run(max((row.goodput for row in rows), default=0.0))
        self.considered += search.considered
        self.rejected += search.rejected
        return [ranked(self.lowered, s, g, self.target, "analytic") for s, g in found]

    def feasible(self, role: Role) -> list[int]:
        """Evaluate instances of a role, choose their limits; return those with a goodput.

        Pipelines that the problem does not ask for stay out unless they gain something.
        """
        found, rejected = candidates(self.lowered, role)
        self.rejected += rejected
        asked = self.lowered.problem.pipeline_parallel_sizes is not None
        flat = [c for c in found if asked or c.parallelism.pp == 1]
        kept = self.with_limits(flat)
        floor = (1 + WORTHWHILE) * self.best_share(kept)
        leading = sorted(kept, key=lambda pair: -pair[1].rate / pair[0].share)[:SUITABLE]
        limits = {c.limits: None for c, _ in leading}
        kept += self.with_limits(
            [c for c in found if c not in flat and self.promising(c, [*limits], floor * c.share)],
            floor,
        )
        self.instances += kept
        return list(range(len(self.instances) - len(kept), len(self.instances)))

    def promising(self, candidate: Candidate, limits: list[Limits], rate: float) -> bool:
        """Whether an instance holds at a rate [requests/s] with limits that suit others."""
        tried = (limited(self.lowered, candidate, limit) for limit in limits)
        return rate == 0 or any(c and self.contained(c, rate) for c in tried)

    def with_limits(
        self, found: list[Candidate], least: float = 0.0
    ) -> list[tuple[Candidate, Goodput]]:
        """Return instances with their best limits, and collocated ones at the engine's own, too.

        least : goodput per GPU that others already have [requests/s]
        """
        first = [(c, self.contained(c, 0.0)) for c in found]
        known = [(c, result) for c, result in first if result is not None]
        worth = max(WORTH * self.best_share(known), least)
        kept = []
        for candidate, result in known:
            tuning = Tuning(
                self.lowered, (candidate, result), worth * candidate.share, self.contained
            )
            chosen, better = tuning.run()
            if better.rate <= 0:
                name = f"{candidate.role}{candidate.pool(1).options}"
                self.rejected.append(unmet(self.lowered, name, (candidate.pool(1),), result))
                continue
            kept.append((chosen, better))
            if chosen is candidate or result.rate <= 0:
                continue
            if candidate.role == "m":
                kept.append((candidate, result))
            elif candidate.role == "p":
                self.plain[chosen] = (candidate, result)
        return [(c, result) for c, result in kept if result.rate >= least * c.share]

    def best_share(self, found: list[tuple[Candidate, Goodput]]) -> float:
        """Return the highest goodput per GPU [requests/s]."""
        return max((result.rate / c.share for c, result in found), default=0.0)

    def contained(self, candidate: Candidate, floor: float) -> Goodput | None:
        """Return the goodput of one lane if it is above a floor [requests/s]; None if not.

        A numerical failure is recorded.
        """
        name = f"{candidate.role}{candidate.pool(1).options}"
        self.progress(name)
        result = contained(name, self.alone, candidate, floor)
        if isinstance(result, Rejected):
            self.rejected.append(result)
            return None
        return None if floor > 0 and result.rate <= 0 else result

    def alone(self, candidate: Candidate, floor: float) -> Goodput:
        """Return the goodput of one lane alone; none where it does not hold at `floor`."""
        lane, target = candidate.lane, self.target
        if candidate.role == "m":
            return goodput(known_part(self.lowered.collocated(lane, 1)), target, floor=floor)
        evaluate = prefill_goodput if candidate.role == "p" else decode_goodput
        return evaluate(lane, self.lowered.lengths, target, floor=floor)

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
                prefill = self.simplest(i, float(rates[k]) / int(x[k]))
                bounds.append(Bound(float(rates[k]), ((prefill, int(x[k])), (j, int(y[k])))))
        return bounds

    def simplest(self, i: int, rate: float) -> int:
        """Return the same instance at the engine's own limits, if these carry a rate, too [req/s].

        Where decode pools limit a strategy, nothing is gained by tuning its prefill pools.
        """
        plain = self.plain.get(self.instances[i][0])
        if plain is None or plain[1].rate * plain[0].lanes_per_instance < rate:
            return i
        if plain not in self.instances:
            self.instances.append(plain)
        return self.instances.index(plain)

    def evaluate(self, bounds: list[Bound]) -> list[RankedStrategy]:
        """Evaluate whole systems in the order of their bounds; stop where none can lead."""
        rows: list[RankedStrategy] = []
        for done, bound in enumerate(bounds):
            if done >= LEADERS:
                goodputs = sorted((r.goodput for r in rows), reverse=True)
                if len(goodputs) >= HEAD and bound.rate <= goodputs[HEAD - 1]:
                    break
            strategy = self.strategy(bound)
            self.progress(str(strategy))
            found = contained(str(strategy), self.row, bound, strategy)
            if isinstance(found, Rejected):
                self.rejected.append(found)
            else:
                rows.append(found)
        return rows

    def row(self, bound: Bound, strategy: Strategy) -> RankedStrategy | Rejected:
        """Return the row of a strategy, put together from its pools where that is exact."""
        composed = self.composed(bound, strategy) if self.separable else None
        return composed or self.whole(bound, strategy)

    def composed(self, bound: Bound, strategy: Strategy) -> RankedStrategy | None:
        """Put a strategy together from its pools; None if it must be evaluated as a whole."""
        pools = [(self.instances[i][1], self.lanes((i, n))[1]) for i, n in bound.pools]
        found, count = min(pools, key=lambda pool: pool[0].rate * pool[1])
        if strategy.disaggregated:
            at = evaluator(self.system(bound))(bound.rate)
            # KV transfer, which the decode pool alone does not see, may break the TPOT objective.
            if margin(at, self.target)[0] < -ROUNDING:
                return None
        else:
            at = replace(found.at, stability_rate=found.at.stability_rate * count)
        low, high = (min(getattr(g, end) * n for g, n in pools) for end in ("low", "high"))
        trust = found.trust & at.structural
        whole = replace(found, rate=bound.rate, low=low, high=high, at=at, trust=trust)
        return ranked(self.lowered, strategy, whole, self.target, "analytic")

    def whole(self, bound: Bound, strategy: Strategy) -> RankedStrategy | Rejected:
        """Evaluate a strategy as one system."""
        found = goodput(self.system(bound), self.target)
        if found.rate <= 0:
            return unmet(self.lowered, str(strategy), strategy.pools, found)
        return ranked(self.lowered, strategy, found, self.target, "analytic")

    def strategy(self, bound: Bound) -> Strategy:
        """Return the strategy that a bound is about."""
        return Strategy(pools=tuple(self.instances[i][0].pool(n) for i, n in bound.pools))

    def system(self, bound: Bound) -> System:
        """Return the queueing system of a bound's strategy as formulas know it."""
        lanes = [self.lanes(pool) for pool in bound.pools]
        if len(lanes) == 1:
            return known_part(self.lowered.collocated(*lanes[0]))
        shapes = [self.instances[i][0].parallelism for i, _ in bound.pools]
        transfer = kv_transfer(self.lowered, *shapes)
        return known_part(self.lowered.disaggregated(*lanes[0], *lanes[1], transfer))


def contained(
    name: str, work: Callable[P, Answer], *args: P.args, **named: P.kwargs
) -> Answer | Rejected:
    """Return what comes of one strategy; a numerical failure is its own and ends no ranking.

    What the user has to know (`BestserveError`) goes on its way, and so does any other error.
    """
    try:
        found = work(*args, **named)
        rate = getattr(found, "rate", getattr(found, "goodput", 0.0))
        if not math.isfinite(rate):
            raise FloatingPointError(f"its goodput is {rate}")
    except BestserveError:
        raise
    except NUMERICAL as error:
        return Rejected(name, AnswerStatus.FAILED, f"{type(error).__name__}: {error}")
    return found


def best_first(row: RankedStrategy) -> tuple[float, ...]:
    """Sort key: of equals, which one pool alone decides, the fewer GPUs and the faster."""
    return (-row.goodput, row.gpus, row.tpot, row.ttft, len(row.strategy))


def unmet(lowered: Lowered, name: str, pools: Sequence[Pool], result: Goodput) -> Rejected:
    """Return the record of why a strategy, or an instance of it, has no goodput."""
    if result.status is not LatencyStatus.SOME_REFUSED:
        status = AnswerStatus.INFEASIBLE_SLO if result.detail else AnswerStatus.NO_CAPACITY
        return Rejected(name, status, result.detail or status.value)
    plans = [lowered.pool_result(pool).plan for pool in pools]
    tightest = min(
        (plan for plan in plans if plan is not None),
        key=lambda plan: plan.kv_capacity_tokens,
        default=None,
    )
    arithmetic = "" if tightest is None else f"; {tightest.explain()}"
    return Rejected(name, AnswerStatus.SOME_REFUSED, f"{result.detail}{arithmetic}")


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
        binding=result.binding,
        trust=result.trust,
        method=method,
    )


def _price(lowered: Lowered) -> float | None:
    if lowered.problem.price_per_hour is not None or lowered.problem.step_time is not None:
        return lowered.problem.price_per_hour
    figure = lowered.hardware.price_per_hour
    return None if figure is None else figure.value
