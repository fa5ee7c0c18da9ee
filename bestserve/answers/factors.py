"""The few factors that calibration fits and intervals vary, and the constants each one scales.

Every factor multiplies its constants: 1 is the preset. Their priors are log-normal about 1, with
the spread that presets showed over groups of measurements that they had not been fitted to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from bestserve.lowering import Lowered
from bestserve.models.step.constants import OperatorConstants
from bestserve.models.step.engine import EngineConstants


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One factor.

    constants : full names of what it scales ("gemm.compute_bf16", "engine.a_step")
    sd : prior standard deviation of its logarithm [1]; low, high : bounds
    needs : the measurement that identifies it, in words; moe : only for mixtures of experts
    """

    name: str
    constants: tuple[str, ...]
    sd: float
    low: float
    high: float
    needs: str
    moe: bool = False


FACTORS: tuple[Factor, ...] = (
    Factor(
        name="a_step",
        constants=("engine.a_step", "engine.a_step_moe"),
        sd=0.6,
        low=0.05,
        high=20.0,
        needs="TPOT at one or two requests in flight",
    ),
    Factor(
        name="a_seq",
        constants=("engine.a_seq", "engine.a_seq_moe"),
        sd=0.6,
        low=0.05,
        high=20.0,
        needs="TPOT at 64 or more requests in flight",
    ),
    Factor(
        name="t_req",
        constants=("engine.t_req", "engine.t_req_moe"),
        sd=0.7,
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
        sd=0.2,
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
        sd=0.1,
        low=0.5,
        high=1.3,
        needs="TPOT of long contexts or of a model that fills the GPU",
    ),
    Factor(
        name="gamma",
        constants=("engine.gamma",),
        sd=0.35,
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
        sd=0.35,
        low=0.1,
        high=5.0,
        needs="TTFT of prompts of 4,000 tokens and TPOT at 64 or more requests in flight, of a "
        "mixture of experts",
        moe=True,
    ),
    Factor(
        name="phi",
        constants=("engine.phi_moe",),
        sd=0.25,
        low=0.5,
        high=3.0,
        needs="TTFT of a mixture of experts at two prompt lengths",
        moe=True,
    ),
)
"""In the order of the parameter vector."""

BY_NAME: dict[str, Factor] = {f.name: f for f in FACTORS}


def factors_for(moe: bool) -> tuple[Factor, ...]:
    """Return the factors that matter for a dense model or a mixture of experts."""
    return tuple(f for f in FACTORS if moe or not f.moe)


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
    if not factors:
        return lowered
    engine_changes: dict[str, float] = {}
    groups: dict[str, dict[str, float]] = {}
    for name, value in scaled_values(factors, lowered.constants, lowered.engine).items():
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
    problem = lowered.problem.model_copy(update={"engine": engine})
    return dataclasses.replace(lowered, problem=problem, constants=operators)
