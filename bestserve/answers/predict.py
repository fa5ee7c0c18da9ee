"""Latencies of one strategy at one rate: the formulas' where a run at that rate agrees with them,
else the run's.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from bestserve.answers.speculation import speculated
from bestserve.errors import InputError
from bestserve.lowering import Lowered, decode_breakdown
from bestserve.models import latencies
from bestserve.models.attainment import attainment, marginal_attainment
from bestserve.models.distribution import Distribution
from bestserve.models.lane_arrivals import refuse_uncovered, refuse_untold, uncovered
from bestserve.models.latency import Latencies, latency
from bestserve.models.refused import REFUSABLE
from bestserve.models.status import LatencyStatus
from bestserve.models.system import System, Target
from bestserve.models.token_times import Reader, Readers
from bestserve.models.trust import TRUSTED, Trust
from bestserve.results.document import AnswerStatus, Summary
from bestserve.results.prediction import Prediction
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

if TYPE_CHECKING:
    from bestserve.simulator import Requests, SimulationResult

Method = Literal["auto", "analytic", "simulated"]

TOLERANCE = 0.05
"""Relative difference of formulas and run up to which they agree: of a mean and a P90 beyond the
run's own error, of a P99, whose formulas are off more often, with it."""

STATUS = {
    LatencyStatus.OK: AnswerStatus.OK,
    LatencyStatus.UNSTABLE: AnswerStatus.UNSTABLE,
    LatencyStatus.NO_LAW: AnswerStatus.NO_LAW,
    LatencyStatus.NO_SLOT: AnswerStatus.NO_CAPACITY,
    LatencyStatus.SOME_REFUSED: AnswerStatus.SOME_REFUSED,
}
"""Outcome of the models in the words of the answers; others are `AnswerStatus.UNSTABLE`'s kin."""


@dataclass(frozen=True)
class Service:
    """One strategy of a problem, asked about at one rate or at several.

    What does not depend on the rate is found once: the system, a trace's requests, saturation.
    """

    lowered: Lowered
    strategy: Strategy

    @cached_property
    def system(self) -> System:
        """The queueing system. Raises InfeasibleError."""
        return self.lowered.system(self.strategy)

    @cached_property
    def target(self) -> Target | None:
        """The objectives, if there are any."""
        slo = self.lowered.problem.slo
        return None if slo is None else slo.target()

    @property
    def reader(self) -> Reader | Readers | None:
        """Whose deadlines runs watch."""
        return None if self.target is None else self.target.reader

    @cached_property
    def given(self) -> Requests | None:
        """What simulations run instead of sampling the workload."""
        from bestserve.answers.referee import TRACED

        return recorded_requests(self.lowered.problem, TRACED)

    @cached_property
    def saturated(self) -> float:
        """The highest rate that can be sustained [req/s]."""
        from bestserve.answers.saturation import sustained

        return sustained(self.system, self.given)

    def at(self, request_rate: float | None, method: Method = "auto") -> Prediction:
        """Return the prediction; arguments and errors as `bestserve.predict`."""
        method = checked_method(method)
        rate = checked_rate(self.lowered.problem, request_rate)
        if method == "analytic":
            refuse_uncovered(self.system)
            if self.target is not None:
                refuse_untold(self.target)
        if method == "simulated" or uncovered(self.system):
            return self.simulated(rate)
        found = latency(self.system, rate)
        if method == "analytic":
            return _analytic(self, rate, found)
        return self.witnessed(rate, found)

    def witnessed(self, rate: float, found: Latencies) -> Prediction:
        """Return the formulas' answer if a run at the rate agrees with it, else the run's.

        What the formulas doubt is trusted as far as the run tells it.
        """
        from bestserve.answers.precision import BODY, TAIL, tail_doubts, telling_run, told
        from bestserve.answers.referee import coverage

        enough = coverage(self.system, self.given)
        if not enough.high:
            return _analytic(self, rate, replace(found, trust=found.trust & enough))
        limit = self.saturated
        if rate >= limit:
            unsettled = latencies.unstable(rate, limit, LatencyStatus.UNSTABLE)
            return _analytic(self, rate, replace(unsettled, trust=TRUSTED))
        known = found.status is LatencyStatus.OK
        running = found.mean_batch if known else 0.0
        result = telling_run(self.system, rate, self.given, running, self.reader)
        if self.target is not None and self.target.without_formula:
            return _from_run(self, rate, result)
        found = replace(found, stability_rate=limit)
        if known and _agree(found, result, BODY):
            trust = TRUSTED if found.trust.high else told(result)
            if _agree(found, result, TAIL):
                return _analytic(self, rate, replace(found, trust=trust))
            if found.trust.high and not told(result).high:
                # the longest run tells less than the formulas, whose tail it does not bear out
                trust = Trust(True, tail_doubts(result))
                return _analytic(self, rate, replace(found, trust=trust))
        return _from_run(self, rate, result)

    def simulated(self, rate: float, most: float = math.inf) -> Prediction:
        """Return what a run at the rate shows; `most` as of `telling_run`."""
        from bestserve.answers.precision import telling_run

        result = telling_run(self.system, rate, self.given, reader=self.reader, most=most)
        return _from_run(self, rate, result)


def predict_strategy(
    lowered: Lowered, strategy: Strategy, request_rate: float | None, method: Method
) -> Prediction:
    """Return the prediction at one rate; arguments and errors as `bestserve.predict`."""
    return Service(lowered, strategy).at(request_rate, method)


def checked_method(method: str) -> Method:
    """Return the method. Raises InputError for one that is none."""
    known = get_args(Method)
    if method not in known:
        raise InputError(f"method = {str(method)[:40]!r} is none of {', '.join(known)}")
    found: Method = method  # type: ignore[assignment]
    return found


def checked_rate(problem: Problem, request_rate: float | None) -> float:
    """Return the rate of open arrivals, or 0 for a closed loop. Raises InputError.

    A trace with arrival times has a rate of its own, taken where none is stated.
    """
    if problem.workload.closed:
        if request_rate is not None:
            raise InputError(
                "a closed loop (max_concurrency) sets its own rate; leave request_rate out"
            )
        return 0.0
    if request_rate is None and problem.workload.trace is not None:
        from bestserve.readers.recorded import recorded

        request_rate = recorded(problem.workload).summary().rate
        if not math.isfinite(request_rate):
            raise InputError("request_rate is needed: the trace has no arrival times over a span")
    if request_rate is None:
        raise InputError("request_rate is needed: requests per second that arrive")
    if not 0 < request_rate < float("inf"):
        raise InputError(f"request_rate = {request_rate} must be positive and finite")
    return float(request_rate)


def recorded_requests(
    problem: Problem, requests: int | None, *, cache_tokens: float = 0.0
) -> Requests | None:
    """Return a trace's requests with their lengths as they came; None without a trace.

    requests : how many; None: all; cache_tokens : of a prefix cache shared by all replicas
    """
    if problem.workload.trace is None:
        return None
    from bestserve.readers.recorded import recorded
    from bestserve.simulator import trace_requests

    trace = recorded(problem.workload)
    hit = problem.workload.prefix_cache_hit
    if trace.shares and not (hit or cache_tokens) and problem.enable_prefix_caching is not False:
        return trace_requests(trace, requests, sharing=True)
    return trace_requests(trace, requests, cache_tokens=cache_tokens, hit_share=hit)


def _agree(found: Latencies, result: SimulationResult, statistics: Collection[str]) -> bool:
    """Whether formulas and run differ in some statistics by no more than `TOLERANCE` allows."""
    from bestserve.answers.precision import TAIL

    for metric in ("ttft", "tpot"):
        law, run = getattr(found, metric), result.summary(metric)
        formulas = _summary(law)
        for statistic in statistics:
            formula, seen = getattr(formulas, statistic), getattr(run, statistic)
            if not seen > 0:
                continue
            low, high = run.interval(statistic)
            error = (high - low) / 2 if math.isfinite(high - low) else 0.0
            allowed = TOLERANCE * seen + (-error if statistic in TAIL else error)
            if abs(formula - seen) > allowed:
                return False
    return True


def _analytic(service: Service, rate: float, found: Latencies) -> Prediction:
    lowered, strategy = service.lowered, service.strategy
    problem = lowered.problem
    status = STATUS.get(found.status, AnswerStatus.UNSTABLE)
    limit = found.stability_rate
    base = Prediction(
        problem=problem,
        strategy=str(strategy),
        request_rate=rate,
        status=status,
        stability_limit=limit,
        trust=found.trust,
    )
    if status is not AnswerStatus.OK:
        detail = f"{limit:.4g} req/s can be sustained, {rate:.4g} req/s were asked"
        return replace(base, detail=detail)
    return replace(
        _with_refused(base, found.refused),
        ttft=_summary(found.ttft),
        tpot=_summary(found.tpot),
        e2el=_summary(found.e2el),
        utilisation=rate / limit,
        mean_batch=found.mean_batch,
        **_shares(found, service.target),
        bound=_decode_bound(lowered, strategy, found.mean_batch),
        itl=_finite(found.itl_mean),
        speculation=speculated(lowered, strategy.pools[-1], found.mean_batch),
    )


def _shares(found: Latencies, target: Target | None) -> dict[str, Any]:
    """Return what formulas tell of objectives, as fields of `Prediction`."""
    if target is None:
        return {}
    told = marginal_attainment(found, target)
    return {
        "attainment": None if target.without_formula else attainment(found, target),
        "attainment_by": {n: v for n, v in told.items() if n not in target.without_formula},
    }


def _from_run(service: Service, rate: float, result: SimulationResult) -> Prediction:
    from bestserve.answers.precision import told
    from bestserve.answers.referee import busiest, coverage, mean_batch

    lowered, strategy = service.lowered, service.strategy
    problem = lowered.problem
    closed = problem.workload.closed
    limit = None if closed else service.saturated
    enough = coverage(service.system, service.given)
    base = Prediction(
        problem=problem,
        strategy=str(strategy),
        request_rate=result.throughput if closed else rate,
        status=AnswerStatus.OK,
        stability_limit=limit,
        method="simulated",
        ttft_flavour="benchmark" if closed else "steady",
        trust=enough if closed else enough & told(result),
    )
    if not result.kept.any():
        return replace(base, status=AnswerStatus.NO_CAPACITY, detail=result.status.value)
    if limit is not None and rate >= limit:
        detail = f"{limit:.4g} req/s can be sustained, {rate:.4g} req/s were asked"
        return replace(base, status=AnswerStatus.UNSTABLE, detail=detail)
    batch = mean_batch(result)
    met = result.meeting(service.target) if service.target else {}
    return replace(
        _with_refused(base, float(result.refused.mean())),
        ttft=_measured(result, "ttft"),
        tpot=_measured(result, "tpot"),
        e2el=_measured(result, "e2el"),
        utilisation=busiest(result) if limit is None else rate / limit,
        mean_batch=batch,
        attainment=met.pop("joint", None),
        attainment_by=met,
        readers={} if result.readings is None else result.readers(),
        bound=_decode_bound(lowered, strategy, batch),
        itl=_finite(result.itl_mean),
        speculation=speculated(lowered, strategy.pools[-1], batch),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _with_refused(base: Prediction, share: float) -> Prediction:
    """Return the prediction with the share of refused requests, in words where it is not small."""
    if share <= REFUSABLE:
        return replace(base, refused=share)
    detail = f"{100 * share:.2g} % of the requests are refused; the latencies are of the others"
    return replace(base, status=AnswerStatus.SOME_REFUSED, refused=share, detail=detail)


def _decode_bound(lowered: Lowered, strategy: Strategy, batch: float) -> str:
    """Return what a decode step waits for, largest share first."""
    pool = strategy.pools[-1]
    drafting = lowered.pool_lane(pool)[0].speculation
    width = drafting.drafts_beside(max(batch, 1.0)) + 1
    breakdown = decode_breakdown(lowered, pool, batch, width)
    if breakdown is None:
        return ""
    total = float(breakdown.total[0])
    names = ("compute", "memory", "dispatch", "communication")
    shares = {n: float(getattr(breakdown, n)[0]) / total for n in names}
    ordered = sorted(shares, key=lambda n: -shares[n])
    parts = ", ".join(f"{n} {shares[n]:.0%}" for n in ordered)
    count = max(round(batch), 1)
    noun = "sequence" if count == 1 else "sequences"
    noun += f", {width} tokens each," if width > 1 else ""
    return f"a decode of {count} {noun} takes {total * 1e3:.1f} ms: {parts}"


def _summary(law: Distribution) -> Summary:
    return Summary(law.mean, *(law.quantile(p) for p in (0.5, 0.9, 0.95, 0.99)))


def _measured(result: SimulationResult, metric: str) -> Summary:
    found = result.summary(metric)
    return Summary(found.mean, found.p50, found.p90, found.p95, found.p99)
