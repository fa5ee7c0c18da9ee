"""Every figure of a problem that can be changed: its name, value, unit, and how to change it.

Names are "group.figure": hardware.memory_bandwidth, workload.input_len, engine.a_step, slo.ttft,
step_time.w; a bare name is a field of the problem itself (gpus=16, hardware=h200). Changes are
values in the figure's unit or factors written "x1.5"; an objective written as text names its unit,
"20ms" or "0.02s", because the command line's `--goodput tpot:20` means milliseconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from bestserve.analysis.figures import Parameter, known_figure, stretched
from bestserve.analysis.shared_figures import (
    SHARED_UNITS,
    set_tiers,
    shared,
    shared_changed,
    tiers,
)
from bestserve.catalog.acceptance import acceptance_of
from bestserve.catalog.engines import SPLIT
from bestserve.catalog.engines import UNITS as ENGINE_UNITS
from bestserve.errors import InputError, UnknownNameError
from bestserve.lowering import Lowered
from bestserve.specs.hardware import UNITS as HARDWARE_UNITS
from bestserve.specs.lengths import LogNormal
from bestserve.specs.problem import Problem
from bestserve.specs.slo import METRICS, SLO
from bestserve.specs.workload import Workload
from bestserve.units import is_factor, parse_change, parse_duration

HARDWARE = tuple(
    n
    for n in HARDWARE_UNITS
    if n not in ("memory_nominal", "gpus_per_node", "power", "price_per_hour")
)
"""Hardware figures that move a prediction; the rest are information, price or whole nodes."""

ENGINE = (
    "a_step",
    "a_step_moe",
    "a_seq",
    "a_seq_moe",
    "phi",
    "phi_moe",
    "t_req",
    "t_req_moe",
    "t_req_token",
    "gamma",
    *SPLIT,
    "gpu_memory_utilization",
    "memory_reserve",
)

STEP_TIME_UNITS = {
    "w": "s",
    "c": "s/token",
    "e": "s/token",
    "a": "s/token²",
    "k": "s/token",
    "a_step": "s",
    "a_seq": "s/sequence",
    "phi": "1",
}

WORKLOAD_UNITS = {
    "input_len": "tokens",
    "input_cv": "1",
    "output_len": "tokens",
    "output_cv": "1",
    "burstiness": "1",
    "prefix_cache_hit": "1",
    **SHARED_UNITS,
}

AT_LEAST_ONE = ("phi", "phi_moe", "prefill_phi")
"""Factors that slow steps down: below 1 they would mean nothing."""

FIELDS = tuple(f for f in Problem.model_fields if f not in ("workload", "slo", "step_time"))


def parameters(lowered: Lowered) -> tuple[Parameter, ...]:
    """Return the positive figures of a problem, hardware first; those at 0 have no elasticity."""
    found = [
        *_step_time(lowered),
        *_hardware(lowered),
        *_workload(lowered.problem.workload),
        *tiers(lowered.problem),
        *_engine(lowered),
        *_slo(lowered.problem.slo),
        *_speculation(lowered.problem),
    ]
    return tuple(p for p in found if p.value > 0)


def parameter(lowered: Lowered, name: str) -> Parameter:
    """Return one figure by name. UnknownNameError lists the nearest ones."""
    known = {p.name: p for p in parameters(lowered)}
    if name not in known:
        raise UnknownNameError("figure", name, known, "write group.figure, e.g. slo.ttft")
    return known[name]


def perturbed(problem: Problem, name: str, factor: float) -> Problem:
    """Return the problem with one figure multiplied by a factor."""
    return changed(problem, {name: f"x{factor!r}"})


def at_value(lowered: Lowered, name: str, value: float) -> Lowered:
    """Return a lowered problem with one figure at a value [its unit], calibration kept."""
    problem = _changed(lowered, {name: value})
    return dataclasses.replace(lowered, problem=problem)


def changed(problem: Problem, changes: Mapping[str, float | str]) -> Problem:
    """Return the problem with figures set or scaled: {"hardware.memory_bandwidth": "x1.5"}.

    Raises InputError for an unknown figure, an unusable value, or a figure that the problem's
    calibration record sets.
    """
    fields = {n: v for n, v in changes.items() if "." not in n}
    for name in fields:
        if name not in FIELDS:
            raise UnknownNameError("figure", name, FIELDS, "write group.figure, e.g. slo.ttft")
    set_to = {n: _field(problem, n, v) for n, v in fields.items()}
    base = problem.replaced(**set_to) if fields else problem
    figures = {n: v for n, v in changes.items() if "." in n}
    if not figures:
        return base
    if base.calibration is not None:
        from bestserve.catalog.calibration import load_calibration

        for name in figures:
            if name in load_calibration(base.calibration).constants:
                raise InputError(
                    f"{name} comes from the calibration record {base.calibration}; "
                    "change it there or leave the record out"
                )
    return _changed(Lowered(base), figures)


def _field(problem: Problem, name: str, value: float | str) -> Any:
    if name in ("tensor_parallel_sizes", "pipeline_parallel_sizes", "layouts"):
        parts = tuple(str(value).split("+"))
        return parts if name == "layouts" else tuple(int(p) for p in parts)
    before = getattr(problem, name)
    if not is_factor(value):
        return value
    if not isinstance(before, int | float):
        raise InputError(f"{name}={value}: a factor needs a number, and {name} is {before!r}")
    scaled = parse_change(name, value, "1", before)
    return round(scaled) if isinstance(before, int) else scaled


def _changed(lowered: Lowered, changes: Mapping[str, float | str]) -> Problem:
    groups: dict[str, dict[str, float | str]] = {}
    for name, to in changes.items():
        group, _, figure = name.partition(".")
        groups.setdefault(group, {})[figure] = to
    replaced: dict[str, Any] = {}
    for group, wanted in groups.items():
        replaced |= _GROUPS[group](lowered, wanted) if group in _GROUPS else _refuse(group)
    return lowered.problem.replaced(**replaced)


def _refuse(group: str) -> dict[str, Any]:
    raise UnknownNameError("group of figures", group, _GROUPS, f"known: {', '.join(_GROUPS)}")


def _duration(name: str, to: float | str, before: float) -> float:
    """Read a time: a number is in seconds, text names its unit or is a factor of `before`."""
    if not isinstance(to, str) or is_factor(to):
        return parse_change(name, to, "s", before)
    text = to.strip()
    if text[-1:] in "0123456789.":
        raise InputError(f"{name}={text[:40]} names no unit; write {name}={text[:40]}ms or …s")
    return parse_duration(text)


# -- hardware ------------------------------------------------------------------------------------


def _hardware(lowered: Lowered) -> list[Parameter]:
    if lowered.problem.step_time is not None:
        return []
    network = lowered.problem.network_bandwidth
    found = []
    for name, figure in lowered.hardware.figures().items():
        if name in HARDWARE:
            own = network if name == "network_bandwidth" and network is not None else figure.value
            found.append(Parameter(f"hardware.{name}", own, figure.unit))
    return found


def _set_hardware(lowered: Lowered, changes: Mapping[str, float | str]) -> dict[str, Any]:
    if lowered.problem.step_time is not None:
        raise InputError("this problem brings its own step_time, so it has no hardware figures")
    replaced: dict[str, Any] = {}
    record = dict(changes)
    own = lowered.problem.network_bandwidth
    if own is not None and "network_bandwidth" in record:
        to = record.pop("network_bandwidth")
        replaced["network_bandwidth"] = parse_change("hardware.network_bandwidth", to, "B/s", own)
    if "sms" in record:
        sms = parse_change("hardware.sms", record["sms"], "1", lowered.hardware.sms.value)
        record["sms"] = float(round(sms))
    return replaced | {"hardware": lowered.hardware.with_changes(record)}


# -- workload ------------------------------------------------------------------------------------


def _workload(workload: Workload) -> list[Parameter]:
    found = []
    for side in ("input", "output"):
        laws = _laws(workload, side)
        if laws:
            mean = sum(share * law.mean_tokens for share, law in laws)
            found.append(Parameter(f"workload.{side}_len", mean, "tokens", low=1.0))
        if len(laws) == 1 and isinstance(laws[0][1], LogNormal):
            found.append(Parameter(f"workload.{side}_cv", laws[0][1].cv, "1"))
    if not workload.closed and workload.trace is None:
        found.append(Parameter("workload.burstiness", workload.burstiness, "1"))
    hit = Parameter("workload.prefix_cache_hit", workload.prefix_cache_hit, "1", high=0.999)
    return [*found, hit, *shared(workload)]


def _laws(workload: Workload, side: str) -> list[tuple[float, Any]]:
    if workload.classes:
        return [(c.share, getattr(c, f"{side}_len")) for c in workload.classes]
    law = getattr(workload, f"{side}_len")
    return [] if law is None else [(1.0, law)]


def _set_workload(lowered: Lowered, changes: Mapping[str, float | str]) -> dict[str, Any]:
    workload = lowered.problem.workload
    for name, to in changes.items():
        known_figure("workload", name, WORKLOAD_UNITS)
        known = {p.name: p.value for p in _workload(workload)}
        full = f"workload.{name}"
        if full not in known:
            raise InputError(f"{full} cannot be changed: this workload's lengths do not state it")
        value = parse_change(full, to, WORKLOAD_UNITS[name], known[full])
        if name in ("burstiness", "prefix_cache_hit"):
            workload = workload.scaled(**{name: value})
        elif name in SHARED_UNITS:
            if known[full] == 0:
                raise InputError(f"{full} is 0 in this workload: state it before it is changed")
            workload = shared_changed(workload, name, value / known[full])
        elif name.endswith("_cv"):
            side = name.removesuffix("_cv")
            law = _laws(workload, side)[0][1]
            workload = workload.scaled(**{f"{side}_len": LogNormal(law.mean, cv=value)})
        else:
            if value < 1:
                raise InputError(f"{full}={to} makes {value:g} tokens; the least is 1")
            workload = _stretched(workload, name, value / known[full])
    return {"workload": workload}


def _stretched(workload: Workload, name: str, factor: float) -> Workload:
    if workload.classes:
        classes = tuple(
            type(c)(
                **{
                    **{k: getattr(c, k) for k in type(c).model_fields},
                    name: stretched(getattr(c, name), factor),
                }
            )
            for c in workload.classes
        )
        return workload.scaled(classes=classes)
    return workload.scaled(**{name: stretched(getattr(workload, name), factor)})


# -- engine, objectives, own coefficients --------------------------------------------------------


def _engine(lowered: Lowered) -> list[Parameter]:
    if lowered.problem.step_time is not None:
        return []
    experts = lowered.model.architecture.is_moe
    unused = (
        ("a_step", "a_seq", "phi", "t_req")
        if experts
        else ("a_step_moe", "a_seq_moe", "phi_moe", "t_req_moe", "gamma")
    )
    return [
        Parameter(
            f"engine.{name}",
            getattr(lowered.engine, name) or 0.0,
            ENGINE_UNITS[name],
            low=1.0 if name in AT_LEAST_ONE else 0.0,
            high=1.0 if name == "gpu_memory_utilization" else math.inf,
        )
        for name in ENGINE
        if name not in unused
    ]


def _set_engine(lowered: Lowered, changes: Mapping[str, float | str]) -> dict[str, Any]:
    # The preset itself: limits that depend on the GPU are applied when the problem is lowered.
    from bestserve.catalog import load_engine
    from bestserve.models.step.engine import EngineConstants

    stated = lowered.problem.engine
    engine = stated if isinstance(stated, EngineConstants) else load_engine(stated)
    replaced: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, to in changes.items():
        known_figure("engine", name, ENGINE)
        before = getattr(lowered.engine, name)
        value = parse_change(f"engine.{name}", to, ENGINE_UNITS[name], before)
        if name in AT_LEAST_ONE and value < 1:
            raise InputError(f"engine.{name} = {value:g} must be at least 1")
        if name == "gpu_memory_utilization":
            replaced[name] = value
        else:
            values[name] = value
    return replaced | {"engine": dataclasses.replace(engine, **values)}


def _slo(slo: SLO | None) -> list[Parameter]:
    if slo is None:
        return []
    stated = [(m, getattr(slo, m)) for m in METRICS]
    return [Parameter(f"slo.{m}", value, "s") for m, value in stated if value is not None]


def _set_slo(lowered: Lowered, changes: Mapping[str, float | str]) -> dict[str, Any]:
    slo = lowered.problem.slo
    if slo is None:
        raise InputError("this problem states no objectives, so there are none to change")
    values = {n: getattr(slo, n) for n in type(slo).model_fields}
    for name, to in changes.items():
        known_figure("slo", name, METRICS)
        values[name] = _duration(f"slo.{name}", to, values[name] or 0.0)
    return {"slo": SLO(**values)}


def _speculation(problem: Problem) -> list[Parameter]:
    config = problem.speculative_config
    if config is None:
        return []
    return [Parameter("speculation.acceptance", acceptance_of(config).chances[0], "1", high=0.99)]


def _set_speculation(lowered: Lowered, changes: Mapping[str, float | str]) -> dict[str, Any]:
    """Scale the chances of all drafts as that of the first one is changed."""
    config = lowered.problem.speculative_config
    if config is None:
        raise InputError("this problem speculates nothing: give speculative_config")
    chances = acceptance_of(config).chances
    for name, to in changes.items():
        known_figure("speculation", name, ("acceptance",))
        value = parse_change("speculation.acceptance", to, "1", chances[0])
        if not 0 < value < 1:
            raise InputError(f"speculation.acceptance = {value:g} must be between 0 and 1")
        chances = tuple(min(c * value / chances[0], 0.99) for c in chances)
    return {"speculative_config": config.model_copy(update={"acceptance": chances})}


def _step_time(lowered: Lowered) -> list[Parameter]:
    step = lowered.problem.step_time
    if step is None:
        return []
    found = [
        Parameter(f"step_time.{n}", getattr(step, n), unit, low=1.0 if n == "phi" else 0.0)
        for n, unit in STEP_TIME_UNITS.items()
    ]
    kv = lowered.problem.kv_capacity_tokens
    return [*found, Parameter("step_time.kv_capacity_tokens", kv or 0.0, "tokens")]


def _set_step_time(lowered: Lowered, changes: Mapping[str, float | str]) -> dict[str, Any]:
    problem = lowered.problem
    if problem.step_time is None:
        raise InputError("this problem computes its step time from model and hardware")
    replaced: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, to in changes.items():
        known_figure("step_time", name, (*STEP_TIME_UNITS, "kv_capacity_tokens"))
        if name == "kv_capacity_tokens":
            before = problem.kv_capacity_tokens or 0.0
            replaced[name] = parse_change(f"step_time.{name}", to, "tokens", before)
        else:
            before = getattr(problem.step_time, name)
            values[name] = parse_change(f"step_time.{name}", to, STEP_TIME_UNITS[name], before)
    try:
        step = dataclasses.replace(problem.step_time, **values)
    except ValueError as error:
        raise InputError(str(error)) from None
    return replaced | {"step_time": step}


_GROUPS = {
    "hardware": _set_hardware,
    "workload": _set_workload,
    "kv_tiers": set_tiers,
    "engine": _set_engine,
    "slo": _set_slo,
    "step_time": _set_step_time,
    "speculation": _set_speculation,
}
