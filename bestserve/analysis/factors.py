"""What is uncertain about a prediction: lognormal factors, their priors, and how they act."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bestserve.analysis.parameters import at_value, parameter
from bestserve.errors import InputError
from bestserve.lowering import Lowered
from bestserve.models.step.constants import OperatorConstants


@dataclass(frozen=True, slots=True)
class Factor:
    """An uncertain factor around 1: sd of its logarithm, where that is from, what measures it."""

    name: str
    sd: float
    source: str
    measurement: str


FEW_SHOT = "prior of few-shot calibrations on public serving results (dense models)"
MOE_FIT = "prior from leave-one-group-out fits of mixture-of-experts models"

DEVICE = Factor(
    "device_time",
    0.20,
    FEW_SHOT,
    "time decode steps at two batch sizes: TPOT of closed loops with 1 and 32 clients",
)
COMPUTE = Factor(
    "compute_time",
    0.35,
    FEW_SHOT,
    "time the prefill of one long prompt: TTFT of a lone request of 8,000 tokens",
)
A_STEP = Factor(
    "a_step", 0.8, FEW_SHOT, "TPOT of one lone client with short prompts, or an engine trace"
)
A_SEQ = Factor("a_seq", 0.8, FEW_SHOT, "TPOT against the number of clients: 8, 64, 256")
T_REQ = Factor("t_req", 0.6, FEW_SHOT, "TTFT of a lone request with a prompt of a few tokens")
GAMMA = Factor("gamma", 0.35, MOE_FIT, "TPOT of one lone client")
PHI = Factor("phi", 0.25, MOE_FIT, "TTFT of lone requests with prompts of 1,000 and 8,000 tokens")
PREFILL_HOST = Factor(
    "prefill_host",
    0.8,
    "one split SGLang service spent 10 ms a request, the log of another allows 2 ms at most",
    "TTFT of 32 short prompts sent at once to one prefill instance",
)

DENSE = (DEVICE, COMPUTE, A_STEP, A_SEQ, T_REQ)
EXPERTS = (
    DEVICE,
    COMPUTE,
    dataclasses.replace(A_STEP, sd=0.6, source=MOE_FIT),
    dataclasses.replace(A_SEQ, sd=0.5, source=MOE_FIT),
    dataclasses.replace(T_REQ, sd=0.8, source=MOE_FIT),
    GAMMA,
    PHI,
)


def default_factors(lowered: Lowered) -> tuple[Factor, ...]:
    """Return the priors, with the standard errors of a calibration record where it has them."""
    if lowered.problem.step_time is not None:
        raise InputError(
            "a problem with its own step_time says nothing about its uncertainty; give factors, "
            "for example Factor('step_time.w', 0.1, 'own fit', 'time more decode steps')"
        )
    experts = lowered.model.architecture.is_moe
    priors = EXPERTS if experts else DENSE
    if "disaggregated" in lowered.problem.layouts and lowered.engine.prefill_host > 0:
        priors = (*priors, PREFILL_HOST)
    if lowered.problem.calibration is None:
        return priors
    from bestserve.catalog.calibration import load_calibration

    record = load_calibration(lowered.problem.calibration).constants
    operators = [n for n in record if not n.startswith("engine.")]
    measured = []
    for name, constant in record.items():
        if constant.value > 0 and constant.sd > 0:
            source = f"standard error of the calibration record: {constant.source}"
            own = Factor(name, constant.sd / constant.value, source, f"repeat the fit of {name}")
            measured.append(own)
    kept = [
        p
        for p in priors
        if (p not in (DEVICE, COMPUTE) or not operators)
        and not any(n.startswith(f"engine.{p.name}") for n in record)
    ]
    return (*measured, *kept)


def scaled(lowered: Lowered, scales: dict[str, float]) -> Lowered:
    """Return a lowered problem with its uncertain factors multiplied.

    Names: device_time, compute_time; a_step, a_seq, t_req, gamma, phi, prefill_host of the engine;
    constants of the models ("gemm.memory"); figures of the problem ("step_time.w",
    "hardware.link_bandwidth").
    """
    constants = lowered.constants
    engine_scales: dict[str, float] = {}
    for name, scale in scales.items():
        group, _, figure = name.partition(".")
        if name == "device_time":
            constants = _all_slower(constants, scale)
        elif name == "compute_time":
            constants = _slower(constants, scale, _is_compute)
        elif name in ENGINE_FIELDS:
            engine_scales |= dict.fromkeys(ENGINE_FIELDS[name], scale)
        elif group == "engine":
            engine_scales[figure] = scale
        elif hasattr(constants, group):
            own = getattr(constants, group)
            moved = dataclasses.replace(own, **{figure: getattr(own, figure) * scale})
            constants = dataclasses.replace(constants, **{group: moved})
        else:
            value = parameter(lowered, name).value * scale
            lowered = dataclasses.replace(at_value(lowered, name, value), constants=constants)
    lowered = dataclasses.replace(lowered, constants=constants)
    if not engine_scales:
        return lowered
    engine = lowered.engine
    values: dict[str, Any] = {f: getattr(engine, f) * s for f, s in engine_scales.items()}
    # Below 1 a factor on slow steps would make them fast: the prior stops there.
    values |= {f: max(v, 1.0) for f, v in values.items() if f.startswith("phi")}
    changed = dataclasses.replace(engine, **values)
    return dataclasses.replace(lowered, problem=lowered.problem.replaced(engine=changed))


ENGINE_FIELDS = {
    "a_step": ("a_step", "a_step_moe"),
    "a_seq": ("a_seq", "a_seq_moe"),
    "t_req": ("t_req", "t_req_moe"),
    "gamma": ("gamma",),
    "phi": ("phi_moe",),
    "prefill_host": ("prefill_host",),
}

_EFFICIENCIES = ("compute", "memory", "link", "rate")
"""Beginnings of the names of constants that divide a time."""


def _is_compute(group: str, field: str) -> bool:
    # Factors of a GPU generation multiply an efficiency that is scaled already.
    name = field.removeprefix("prefill_").removeprefix("decode_")
    return name.startswith("compute")


def _is_rate(group: str, field: str) -> bool:
    name = field.removeprefix("prefill_").removeprefix("decode_")
    return name.startswith(_EFFICIENCIES) or (group == "collective" and name.endswith("_link"))


def _slower(
    constants: OperatorConstants, scale: float, chosen: Callable[[str, str], bool]
) -> OperatorConstants:
    """Divide the chosen efficiencies by a scale."""
    groups = {}
    for item in dataclasses.fields(constants):
        group = getattr(constants, item.name)
        names = [f.name for f in dataclasses.fields(group) if chosen(item.name, f.name)]
        changes = {n: getattr(group, n) / scale for n in names}
        groups[item.name] = dataclasses.replace(group, **changes)
    return dataclasses.replace(constants, **groups)


def _all_slower(constants: OperatorConstants, scale: float) -> OperatorConstants:
    """Multiply all device times: efficiencies divided, kernel launches multiplied."""
    slower = _slower(constants, scale, _is_rate)
    groups = {}
    for item in dataclasses.fields(slower):
        group = getattr(slower, item.name)
        names = [
            f.name
            for f in dataclasses.fields(group)
            if f.name == "launch" or f.name.endswith(("_launch", "_latency"))
        ]
        changes = {n: getattr(group, n) * scale for n in names}
        groups[item.name] = dataclasses.replace(group, **changes)
    return dataclasses.replace(slower, **groups)
