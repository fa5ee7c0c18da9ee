"""What speaks against an answer besides its model: whom the constants were fitted to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from bestserve.catalog import list_hardware
from bestserve.catalog.acceptance import acceptance_of
from bestserve.lowering import Lowered, lower
from bestserve.lowering.prefixes import caching
from bestserve.lowering.speculation import speculates
from bestserve.models.trust import Trust
from bestserve.results.ranking import RankedStrategy
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy


def trust_in(problem: Problem, strategy: str, trust: Trust) -> Trust:
    """Return the trust in an answer, low if its calibration was fitted to something else.

    What is not known of splitting is said, and lowers nothing: no measurement contradicts it.
    """
    parsed = Strategy.parse(strategy)
    foreign = calibration_doubts(problem, {pool.tp for pool in parsed.pools})
    foreign += image_doubts(problem) + strategy_doubts(problem, parsed)
    return _doubted(trust, foreign, splitting_doubts(problem) if parsed.disaggregated else ())


def _doubted(trust: Trust, foreign: tuple[str, ...], said: tuple[str, ...]) -> Trust:
    return Trust(trust.high and not foreign, (*trust.reasons, *foreign, *said))


def trusted(problem: Problem, table: tuple[RankedStrategy, ...]) -> tuple[RankedStrategy, ...]:
    """Return a ranking's rows with the trust of `trust_in`; doubts are looked up once per tp."""
    parsed = [Strategy.parse(r.strategy) for r in table]
    sizes = [frozenset(pool.tp for pool in strategy.pools) for strategy in parsed]
    images = image_doubts(problem)
    foreign = {tps: calibration_doubts(problem, tps) + images for tps in set(sizes)}
    splitting = splitting_doubts(problem)
    return tuple(
        replace(
            r,
            trust=_doubted(
                r.trust,
                foreign[tps] + strategy_doubts(problem, s),
                splitting if s.disaggregated else (),
            ),
        )
        for r, s, tps in zip(table, parsed, sizes, strict=True)
    )


def calibration_doubts(problem: Problem, tps: Collection[int] = ()) -> tuple[str, ...]:
    """Return what a problem's calibration record was not fitted to, one sentence each.

    tps : tensor parallel sizes in use. Empty without a record, or where it fits.
    """
    if problem.calibration is None or problem.step_time is not None:
        return ()
    from bestserve.catalog.calibration import load_calibration, name_for

    plain, record = Lowered(problem), load_calibration(problem.calibration)
    hardware = plain.hardware.name
    if not record.provenance.gpus and hardware not in list_hardware():
        # `measure` wrote both: a hardware record of its own, and constants of the board it extends.
        hardware = ""
    return record.doubts(
        hardware=hardware,
        model=name_for(record, plain.model),
        engine=plain.engine.name,
        tps=tps,
    )


def image_doubts(problem: Problem) -> tuple[str, ...]:
    """Return what is not known of images in prompts, in a sentence."""
    if not problem.workload.images_per_request:
        return ()
    return ("images: their tower's time follows from its shapes, no measured run confirms it",)


def strategy_doubts(problem: Problem, strategy: Strategy) -> tuple[str, ...]:
    """Return what is not known of a strategy's drafts and caches, one sentence each."""
    return acceptance_doubts(problem, strategy) + cache_doubts(problem, strategy)


def cache_doubts(problem: Problem, strategy: Strategy) -> tuple[str, ...]:
    """Return what is not known of the prefix caches of pipelines, in a sentence."""
    if all(pool.pp == 1 for pool in strategy.pools) or problem.step_time is not None:
        return ()
    if caching(lower(problem), None, gpus=1) is None:
        return ()
    return (
        "a pipeline is taken as lanes that are routed to and keep prefixes apart; engines "
        "schedule them together, over one cache",
    )


def acceptance_doubts(problem: Problem, strategy: Strategy) -> tuple[str, ...]:
    """Return what is not known of how many of a strategy's drafts are accepted, in a sentence."""
    config = problem.speculative_config
    if config is None:
        return ()
    if not any(speculates(config, pool.drafts) for pool in strategy.pools if pool.role != "p"):
        return ()
    if config.acceptance is None:
        return ("acceptance of drafts is assumed: state it with --acceptance",)
    if acceptance_of(config).by_length:
        return (
            f"on {config.acceptance} acceptance of drafts follows the length of answers: load and "
            "TPOT need different means of it",
        )
    return ()


def splitting_doubts(problem: Problem) -> tuple[str, ...]:
    """Return what is not known of prefill and decode apart on a problem's engine, in a sentence."""
    if problem.step_time is not None:
        return ()
    engine = lower(problem).engine
    if engine.knows_splitting:
        return ()
    return (f"what splitting prefill from decode costs {engine.name}'s host is taken as nothing",)
