"""What is uncertain about the constants: one table for all commands that say how sure they are.

A factor multiplies its constants: 1 is the preset. Its logarithm is normal about 0, with one of
three standard deviations:

prior
    A preset against a group of measurements that nothing was fitted to, its engine's version
    unknown. `calibrate` starts from it.
between
    Deployments of an engine and version that the preset was fitted to. `predict`, `rank`,
    `validate` and `uncertainty` vary constants by it.
after a fit
    The standard errors of a calibration record, where it states them and they are smaller than
    `between` (`spreads`); the same commands take them with `--calibration`.

Acceptance of drafts is no constant of an engine and no record fits it: where nobody states it, its
odds are one more factor, as wide as the bounds of what is assumed of the method (`ACCEPTANCE`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from bestserve.catalog.acceptance import acceptance_of
from bestserve.lowering import Lowered
from bestserve.models.step.constants import OperatorConstants
from bestserve.models.step.device import Parallelism
from bestserve.models.step.engine import EngineConstants
from bestserve.models.system import Lane, Role

if TYPE_CHECKING:
    from bestserve.specs.calibration import Calibration
    from bestserve.specs.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One factor.

    constants : full names of what it scales ("gemm.compute_bf16", "engine.a_step")
    prior, between : standard deviations of its logarithm [1]
    low, high : bounds of a fit; needs : the measurement that identifies it, in words
    moe : only for mixtures of experts; split : only where prefill and decode are apart
    """

    name: str
    constants: tuple[str, ...]
    prior: float
    between: float
    low: float = 0.02
    high: float = 50.0
    needs: str
    moe: bool = False
    split: bool = False


FACTORS: tuple[Factor, ...] = (
    Factor(
        name="a_step",
        constants=("engine.a_step", "engine.a_step_moe"),
        prior=0.6,
        between=0.35,
        low=0.05,
        high=20.0,
        needs="TPOT at one or two requests in flight",
    ),
    Factor(
        name="a_seq",
        constants=("engine.a_seq", "engine.a_seq_moe"),
        prior=0.6,
        between=0.35,
        low=0.05,
        high=20.0,
        needs="TPOT at 64 or more requests in flight",
    ),
    Factor(
        name="t_req",
        constants=("engine.t_req", "engine.t_req_moe"),
        prior=0.7,
        between=0.5,
        low=0.02,
        high=30.0,
        needs="TTFT of short prompts at one or two requests in flight",
    ),
    Factor(
        name="compute",
        constants=(
            "gemm.compute_bf16",
            "gemm.compute_fp8",
            "gemm.compute_int8",
            "gemm.compute_fp4",
            "gemm.compute_weight_only",
            "prefill.compute",
            "mla.prefill_compute",
            "moe.compute_bf16",
            "moe.compute_fp8",
            "moe.compute_fp4",
            "moe.compute_weight_only",
            "moe.compute_listed",
        ),
        prior=0.2,
        between=0.1,
        low=0.3,
        high=2.0,
        needs="TTFT of prompts of 4,000 tokens or more",
    ),
    Factor(
        name="memory",
        constants=(
            "gemm.memory",
            "gemm.memory_fp4",
            "decode.memory",
            "decode.memory_fp8",
            "mla.decode_memory",
            "mla.decode_memory_fp8",
            "moe.memory",
            "moe.memory_listed",
        ),
        prior=0.1,
        between=0.06,
        low=0.5,
        high=1.3,
        needs="TPOT of long contexts or of a model that fills the GPU",
    ),
    Factor(
        name="gamma",
        constants=("engine.gamma",),
        prior=0.35,
        between=0.25,
        low=0.1,
        high=5.0,
        needs="TPOT of a mixture of experts at two loads",
        moe=True,
    ),
    Factor(
        name="experts",
        constants=(
            "moe.compute_bf16",
            "moe.compute_fp8",
            "moe.compute_fp4",
            "moe.compute_weight_only",
            "moe.compute_listed",
            "moe.rate_local",
            "moe.rate_global",
            "moe.rate_listed",
        ),
        prior=0.35,
        between=0.2,
        low=0.1,
        high=5.0,
        needs="TTFT of prompts of 4,000 tokens and TPOT at 64 or more requests in flight, of a "
        "mixture of experts",
        moe=True,
    ),
    Factor(
        name="phi",
        constants=("engine.phi_moe",),
        prior=0.25,
        between=0.15,
        low=0.5,
        high=3.0,
        needs="TTFT of a mixture of experts at two prompt lengths",
        moe=True,
    ),
    # One split SGLang service spent 10 ms a request, the log of another allows 2 ms at most.
    Factor(
        name="prefill_host",
        constants=("engine.prefill_host",),
        prior=0.8,
        between=0.8,
        low=0.02,
        high=30.0,
        needs="TTFT of 32 short prompts sent at once to one prefill instance",
        split=True,
    ),
)
"""In the order of the parameter vector."""

ACCEPTANCE = Factor(
    name="acceptance",
    constants=("speculation.acceptance",),
    prior=0.4,
    between=0.4,
    needs="how many drafts of your own requests are accepted by position, and state it with "
    "--acceptance",
)
"""Odds of a draft being accepted, where that is assumed; as wide as the method's bounds."""

BY_NAME: dict[str, Factor] = {f.name: f for f in (*FACTORS, ACCEPTANCE)}


def factors_for(moe: bool) -> tuple[Factor, ...]:
    """Return the factors that a calibration of a dense model or a mixture of experts fits."""
    return tuple(f for f in FACTORS if (moe or not f.moe) and not f.split)


def varied(lowered: Lowered, split: bool) -> tuple[Factor, ...]:
    """Return the factors that matter for a problem; split : prefill and decode are apart.

    Of a problem with its own step time only what that leaves open.
    """
    drafts = (ACCEPTANCE,) if acceptance_assumed(lowered.problem) else ()
    if lowered.problem.step_time is not None:
        return drafts
    apart = split and lowered.engine.prefill_host > 0
    moe = lowered.model.architecture.is_moe
    own = tuple(f for f in FACTORS if (moe or not f.moe) and (apart or not f.split))
    return own + drafts


def acceptance_assumed(problem: Problem) -> bool:
    """Return whether a problem drafts tokens and nobody says how many are accepted."""
    config = problem.speculative_config
    return config is not None and config.acceptance is None


def spreads(
    calibration: Calibration | None, met: Collection[str] | None = None
) -> dict[str, float]:
    """Return the standard deviation of each factor's logarithm: `between`, or a record's own [1].

    A factor counts as fitted if the record states a standard error of all constants it scales, or
    of those among them that are `met`: a record of 16-bit runs has none for FP4.
    """
    out = {f.name: f.between for f in FACTORS}
    for factor in FACTORS if calibration is not None else ():
        assert calibration is not None
        names = [name for name in factor.constants if met is None or name in met]
        own = [calibration.constants.get(name) for name in names]
        relative = [c.sd / c.value for c in own if c is not None and c.value > 0 and c.sd > 0]
        if names and len(relative) == len(names):
            out[factor.name] = min(max(relative), out[factor.name])
    return out


def spreads_of(lowered: Lowered) -> dict[str, float]:
    """Return `spreads` under a problem's own calibration record, if it has one."""
    drafts = _of_acceptance(lowered.problem)
    path = lowered.problem.calibration
    if path is None:
        return spreads(None) | drafts
    from bestserve.catalog.calibration import load_calibration

    names = {name for factor in FACTORS for name in factor.constants}
    sizes = (Parallelism(tp=2**n) for n in range(11))
    split = next((p for p in sizes if lowered.lane(p).lane is not None), None)
    met = None if split is None else met_constants(lowered, ((split, "m"),), names)
    return spreads(load_calibration(path), met) | drafts


def _of_acceptance(problem: Problem) -> dict[str, float]:
    """Return the standard deviation of the log odds of a draft, by name; nothing if stated [1].

    Nine of ten deployments are taken to lie between the bounds.
    """
    if not acceptance_assumed(problem):
        return {}
    assert problem.speculative_config is not None
    known = acceptance_of(problem.speculative_config)
    assert known.low is not None
    assert known.high is not None
    wide = math.log(known.high / (1 - known.high)) - math.log(known.low / (1 - known.low))
    return {ACCEPTANCE.name: wide / 2 / NormalDist().inv_cdf(0.95)}


PROBE = 1.01
"""By how much a constant is scaled to see whether a deployment meets it at all."""


def met_constants(
    lowered: Lowered, lanes: Sequence[tuple[Parallelism, Role]], names: Collection[str]
) -> set[str]:
    """Return those of the constants that a step or a request of these engine instances depends on.

    names : full names ("gemm.compute_fp4"), the engine's too
    """

    def built(constants: Lowered) -> list[Lane | None]:
        return [constants.lane(split, role=role).lane for split, role in lanes]

    base, found = built(lowered), set()
    for name in names:
        group, field = name.split(".")
        owner = lowered.engine if group == "engine" else getattr(lowered.constants, group)
        if built(with_constants(lowered, {name: PROBE * getattr(owner, field)})) != base:
            found.add(name)
    return found


def scaled_values(
    factors: Mapping[str, float], operators: OperatorConstants, engine: EngineConstants
) -> dict[str, float]:
    """Return the new values of all constants that `factors` change, by full name.

    A constant that several factors scale takes all of them.
    """
    out: dict[str, float] = {}
    for name, factor in factors.items():
        for constant in BY_NAME[name].constants:
            group, field = constant.split(".")
            owner = engine if group == "engine" else getattr(operators, group)
            value = out.get(constant, getattr(owner, field)) * factor
            if field in ("phi", "phi_moe"):
                value = max(value, 1.0)  # a prompt never makes a step faster
            out[constant] = value
    return out


def apply_factors(lowered: Lowered, factors: Mapping[str, float]) -> Lowered:
    """Return the lowered problem with its constants scaled."""
    drafts = factors.get(ACCEPTANCE.name)
    if drafts is not None:
        lowered = _accepting(lowered, drafts)
        factors = {name: f for name, f in factors.items() if name != ACCEPTANCE.name}
    if not factors:
        return lowered
    return with_constants(lowered, scaled_values(factors, lowered.constants, lowered.engine))


def _accepting(lowered: Lowered, factor: float) -> Lowered:
    """Return the lowered problem with the odds of each draft multiplied, and that stated."""
    config = lowered.problem.speculative_config
    assert config is not None
    chances = tuple(a * factor / (1 + a * (factor - 1)) for a in acceptance_of(config).chances)
    moved = config.model_copy(update={"acceptance": chances})
    problem = lowered.problem.model_copy(update={"speculative_config": moved})
    return dataclasses.replace(lowered, problem=problem)


def with_constants(lowered: Lowered, values: Mapping[str, float]) -> Lowered:
    """Return the lowered problem with constants set, by full name."""
    engine_changes: dict[str, float] = {}
    groups: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        group, field = name.split(".")
        (engine_changes if group == "engine" else groups.setdefault(group, {}))[field] = value
    operators = dataclasses.replace(
        lowered.constants,
        **{
            group: dataclasses.replace(getattr(lowered.constants, group), **fields)
            for group, fields in groups.items()
        },
    )
    engine = dataclasses.replace(lowered.engine, **engine_changes)  # type: ignore[arg-type]
    return lowered.with_constants(engine, operators)
