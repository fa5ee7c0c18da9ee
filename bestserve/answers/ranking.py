"""The ranking with its witnesses: the rows that decide are simulated at their goodput."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from bestserve.answers.doubts import trusted
from bestserve.answers.draft_choice import draft_choice
from bestserve.answers.economics import priced
from bestserve.answers.errors import Calibration, calibration, moved, own_errors, with_errors
from bestserve.answers.factors import ACCEPTANCE, acceptance_assumed
from bestserve.answers.hearing import RACED, Hearing, claimed
from bestserve.answers.predict import Service
from bestserve.answers.prediction_intervals import prediction_intervals
from bestserve.answers.shares import shared_out
from bestserve.lowering import Lowered, lower
from bestserve.models.lane_arrivals import refuse_uncovered, refuse_untold, uncovered
from bestserve.models.latencies import Latencies
from bestserve.models.system import Target
from bestserve.results.ranking import RankedStrategy, Ranking, Rejected
from bestserve.solvers.ranking import checked_problem, rank_strategies
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Drafts, Strategy

Progress = Callable[[str], None]


def ranking(problem: Problem, *, verify: bool = True, progress: Progress | None = None) -> Ranking:
    """Return the ranking; arguments and errors as `bestserve.rank`."""
    lowered = lower(checked_problem(problem))
    found = rank_strategies(lowered, progress=progress)
    say = progress or (lambda _: None)
    slo = problem.slo
    assert slo is not None
    target = slo.target()
    if found.table and (
        target.without_formula
        or any(uncovered(lowered.system(r.strategy)) for r in found.table[:RACED])
    ):
        if not verify:
            refuse_untold(target)
            refuse_uncovered(lowered.system(found.best.strategy))
        found = Hearing(lowered, found, say).raced()
    elif found.table and verify:
        found = Hearing(lowered, found, say).witnessed()
    if not found.table:
        return found
    first = Strategy.parse(found.best.strategy)
    seen = moved(lowered, first, found.best.goodput)
    constants = calibration(lowered, first, seen, target)
    return replace(
        found,
        table=tuple(
            shared_out(lowered, priced(lowered, row))
            for row in trusted(
                problem,
                _with_intervals(found.table, constants, _acceptance(lowered, found.table, target)),
            )
        ),
        intervals=_intervals_at_best(lowered, found.best, seen),
        defaults=_with_own_limits(lowered, found, verify),
        drafting=draft_choice(lowered, first),
    )


def _with_intervals(
    table: tuple[RankedStrategy, ...], constants: Calibration, accepted: tuple[float | None, ...]
) -> tuple[RankedStrategy, ...]:
    """Return the rows with their intervals, and ties with the first one marked.

    constants : how they move the first row; they move all strategies alike
    accepted : how unknown acceptance moves each row [ln]; what moves both ties nothing
    """
    first = own_errors(table[0])
    out = []
    for row, drafts in zip(table, accepted, strict=True):
        own = own_errors(row)
        apart = (accepted[0] or 0.0) - (drafts or 0.0)
        open_to = math.hypot(*first.values(), *own.values(), apart)
        tied = row is not table[0] and math.log(table[0].goodput / row.goodput) <= open_to
        row = with_errors(row, {**own, **replace(constants, acceptance=drafts).parts})
        out.append(replace(row, tied=tied, trust=row.trust & constants.trust))
    return tuple(out)


def _acceptance(
    lowered: Lowered, table: tuple[RankedStrategy, ...], target: Target
) -> tuple[float | None, ...]:
    """Return how far acceptance that nobody states moves each row [ln]; None where it is stated.

    Rows that draft alike in one layout move alike: the best of them is looked at.
    """
    if not acceptance_assumed(lowered.problem):
        return (None,) * len(table)
    told: dict[tuple[str, Drafts], float | None] = {}
    out = []
    for row in table:
        parsed = Strategy.parse(row.strategy)
        alike = (parsed.layout, parsed.pools[-1].drafts)
        if alike not in told:
            at = moved(lowered, parsed, row.goodput, ACCEPTANCE.name)
            told[alike] = calibration(lowered, parsed, at, target).acceptance
        out.append(told[alike])
    return tuple(out)


def _with_own_limits(lowered: Lowered, found: Ranking, verify: bool) -> RankedStrategy | None:
    """Return the first strategy with the engine's own limits; None if these are its limits."""
    strategy = Strategy.parse(found.best.strategy)
    own = {"max_num_seqs": None, "max_num_batched_tokens": None}
    plain = Strategy(pools=tuple(pool.model_copy(update=own) for pool in strategy.pools))
    if plain == strategy:
        return None
    listed = next((row for row in found.table if row.strategy == str(plain)), None)
    if listed is not None:
        return listed
    row = claimed(lowered, plain)
    if row is None or not verify:
        return row
    # what runs make of the winner's claim they likely make of this one
    first = found.best if found.best.method == "analytic" else claimed(lowered, strategy)
    share = 1.0 if first is None else row.goodput / first.goodput
    near, floor = found.best.goodput * share, found.best.goodput
    heard = Hearing(lowered, found, lambda _: None).roughly(row, floor, near)
    return None if isinstance(heard, Rejected) else heard


def _intervals_at_best(
    lowered: Lowered, best: RankedStrategy, seen: Mapping[str, Latencies]
) -> Mapping[str, tuple[float, float]]:
    """Return where 90 % of measured runs of the winner at its goodput would lie [s]."""
    parsed = Strategy.parse(best.strategy)
    service, slo = Service(lowered, parsed), lowered.problem.slo
    untold = slo is not None and slo.target().without_formula
    if untold or uncovered(service.system):
        found = service.simulated(best.goodput, most=1)
    else:
        found = service.at(best.goodput, "analytic")
    return prediction_intervals(lowered, parsed, found, seen)
