"""Prefix caches in answers: working sets, the hits that a rate needs, routers and tiers ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

from bestserve.answers.goodput import court_of, verdict
from bestserve.answers.predict import checked_rate, recorded_requests
from bestserve.answers.ranking import ranking
from bestserve.errors import InfeasibleError, InputError, nearest_names
from bestserve.lowering import Lowered, lower
from bestserve.models.goodput import goodput
from bestserve.models.lane_arrivals import known_part
from bestserve.models.prefix_hits import SPREADING, hits
from bestserve.models.system import Collocated, Routing, System
from bestserve.results.caching import CachePlan, CachePlans, HitNeeded, WorkingSet
from bestserve.solvers.ranking import checked_problem
from bestserve.specs.prefixes import KvTier
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

Progress = Callable[[str], None]

MOST_SHARE = 0.99
"""Largest share of cached tokens that is tried: some of a prompt is always new."""

SHARE_STEP = 0.005
"""To which the needed share is found [1]."""

SLOW = 1e-3
"""Rate at which running requests take next to nothing of a cache [requests/s]."""

MEASURED = 6000
"""Requests of the run that tells a plan's hit share at its goodput."""


def working_set(lowered: Lowered, strategy: Strategy, rate: float | None) -> WorkingSet | None:
    """Return what a workload asks for again, and how much of it fits one instance's cache.

    rate : [requests/s]; without one, what running requests hold is left out
    None where the workload does not say what prompts share, or where that depends on a rate that
    is not given (conversations).
    """
    if not lowered.problem.workload.shares:
        return None
    if rate is None and lowered.problem.workload.conversation is not None:
        return None
    system = lowered.system(strategy)
    caching = system.caching
    if caching is None:
        return None
    lanes = system.replicas if isinstance(system, Collocated) else system.prefill_replicas
    bare = replace(system, caching=replace(caching, tiers=()))
    at = SLOW if rate is None else rate
    found = hits(bare, at)
    by_prefix = hits(replace(bare, routing="session_affine"), at)
    return WorkingSet(
        tokens=by_prefix.wanted * lanes,
        at_each=found.wanted,
        room=found.room,
        tiers=sum(t.capacity_tokens / (lanes if t.shared else 1) for t in caching.tiers),
        instances=lanes,
        rate=rate or 0.0,
    )


def hit_needed(problem: Problem, strategy: str | Strategy, request_rate: float | None) -> HitNeeded:
    """Return the least share of cached prompt tokens with which a strategy carries a rate.

    By the formulas, every prompt finding the same share; a run bears the answer out. Raises
    InputError without objectives, InfeasibleError for a strategy that cannot be built.
    """
    lowered = lower(checked_problem(problem))
    rate = checked_rate(problem, request_rate)
    parsed = Strategy.parse(strategy)
    system = lowered.system(parsed)
    court = court_of(lowered)

    def carried(share: float) -> float:
        found = goodput(known_part(with_share(system, share)), court.target)
        return max(found.rate, 0.0)

    plain = carried(0.0)
    share: float | None = 0.0
    if plain < rate:
        low, high = 0.0, MOST_SHARE
        if carried(high) < rate:
            share = None
        while share is not None and high - low > SHARE_STEP:
            middle = 0.5 * (low + high)
            low, high = (low, middle) if carried(middle) >= rate else (middle, high)
            share = high
    told = None
    if share is not None:
        told = verdict(replace(with_share(system, share), routing="random"), court).found.rate
    # Beyond what it carries today running requests pile up and leave a cache no room.
    held = min(rate, max(plain, SLOW))
    sharing = system.caching is not None and system.caching.sharing is not None
    return HitNeeded(
        problem=problem,
        strategy=str(parsed),
        wanted_rate=rate,
        share=share,
        found=found_share(system, held) if sharing else None,
        found_rate=held,
        plain_goodput=plain,
        goodput=told,
    )


def found_share(system: System, rate: float) -> float:
    """Return the share of the prompt tokens that caches find at a rate [requests/s].

    By formula where requests are spread, else from a run: routers bound the load of those that the
    formula sends where the prefix is, which costs hash routing a tenth of the tokens and more.
    """
    from bestserve.simulator import simulate

    if system.routing in SPREADING:
        return hits(system, rate).share
    return simulate(system, rate, requests=MEASURED).hit_share


def with_share(system: System, share: float) -> System:
    """Return a system whose prompts all find a share of their tokens, whatever its caches do."""
    lengths = system.lengths
    lengths = replace(lengths, cached=share * lengths.inputs if share > 0 else lengths.inputs[:0])
    return replace(system, lengths=lengths, caching=None)


def cache_plans(
    problem: Problem,
    routings: Sequence[str],
    gigabytes: Sequence[float] = (),
    progress: Progress | None = None,
) -> CachePlans:
    """Return the best strategy under each routing and each size of host memory.

    routings : names of routings, the first is what others are compared with
    gigabytes : host memory for each instance's KV blocks [10⁹ B]; 0: none; the problem's own host
        tier states the bandwidth, and is what stands where this is empty

    Raises InputError for unknown routings, sizes without a tier's bandwidth, a problem without
    objectives or without a word on what its prompts share.
    """
    checked_problem(problem)
    _checked(problem, routings)
    tier = next((t for t in problem.kv_tiers if not t.peers), None)
    if gigabytes and tier is None:
        raise InputError(
            "sizes of host memory need the bandwidth at which it is read: kv_tiers, or "
            "--kv-offloading-bandwidth"
        )
    say = progress or (lambda _: None)
    plans: list[CachePlan] = []
    failed: list[str] = []
    for size in gigabytes or (tier.gigabytes or 0.0 if tier else 0.0,):
        tiers = _resized(problem, tier, size)
        for routing in routings:
            asked = problem.replaced(routing=routing, kv_tiers=tiers)
            name = f"{routing}, {size:g} GB"
            say(name)
            try:
                plans.append(_plan(asked, routing, size))
            except InfeasibleError as error:
                failed.append(f"{name}: {error}")
    if not plans:
        raise InfeasibleError(f"no plan carries anything: {failed[0]}")
    return CachePlans(problem=problem, plans=tuple(plans), failed=tuple(failed))


def _checked(problem: Problem, routings: Sequence[str]) -> None:
    known = get_args(Routing)
    for routing in routings:
        if routing not in known:
            near = ", ".join(nearest_names(routing, known) or known)
            raise InputError(f"routing {routing[:40]!r}: nearest known: {near}")
    if not (problem.workload.shares or problem.workload.trace):
        raise InputError(
            "routers and tiers matter to prompts that share something: give prefixes, a "
            "conversation, or a trace with hashes or sessions"
        )


def _resized(problem: Problem, tier: KvTier | None, size: float) -> tuple[KvTier, ...]:
    if tier is None:
        return problem.kv_tiers
    own = (tier.model_copy(update={"gigabytes": size}),) if size > 0 else ()
    return (*own, *(t for t in problem.kv_tiers if t is not tier))


def _plan(problem: Problem, routing: str, size: float) -> CachePlan:
    from bestserve.answers.referee import TRACED
    from bestserve.simulator import simulate

    best = ranking(problem).best
    system = lower(problem).system(Strategy.parse(best.strategy))
    given = recorded_requests(problem, TRACED)
    run = simulate(system, best.goodput, requests=MEASURED, given=given)
    return CachePlan(routing=routing, gigabytes=size, best=best, hit_share=run.hit_share)
