"""Figures of what prompts share and of where their KV is offloaded, and how to change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bestserve.analysis.figures import Parameter, known_figure, stretched
from bestserve.errors import InputError
from bestserve.lowering import Lowered
from bestserve.specs.prefixes import KvTier
from bestserve.specs.problem import Problem
from bestserve.specs.workload import Workload
from bestserve.units import parse_change

SHARED_UNITS = {
    "prefix_len": "tokens",
    "prefix_groups": "1",
    "turns": "1",
    "think_time": "s",
}

TIER_UNITS = {"gigabytes": "GB", "bandwidth": "B/s"}
"""Figures of offloading tiers; a change scales all of them alike."""


def shared(workload: Workload) -> list[Parameter]:
    """Return what prompts share: how much, how often it is asked for, how long between."""
    found = []
    if workload.prefixes is not None:
        groups = workload.prefixes
        found.append(Parameter("workload.prefix_len", groups.prefix_len.mean_tokens, "tokens"))
        found.append(Parameter("workload.prefix_groups", groups.groups, "1", low=1.0, whole=True))
    if workload.conversation is not None:
        talk = workload.conversation
        found.append(Parameter("workload.turns", talk.turns.mean_tokens, "1", low=1.0, whole=True))
        found.append(Parameter("workload.think_time", talk.think_time, "s"))
    return found


def shared_changed(workload: Workload, name: str, factor: float) -> Workload:
    """Return the workload with one of these figures multiplied by a factor."""
    part = "prefixes" if name.startswith("prefix_") else "conversation"
    before = getattr(workload, part)
    values = {k: getattr(before, k) for k in type(before).model_fields}
    if name == "prefix_groups":
        values["groups"] = max(1, round(values["groups"] * factor))
    elif name == "think_time":
        values[name] *= factor
    else:
        values[name] = stretched(values[name], factor)
    return workload.scaled(**{part: type(before)(**values)})


def tiers(problem: Problem) -> list[Parameter]:
    """Return size and bandwidth of the first tier of each kind: what holds KV, what is read."""
    if not problem.kv_tiers:
        return []
    sizes = [t.gigabytes for t in problem.kv_tiers if t.gigabytes is not None]
    found = [Parameter("kv_tiers.gigabytes", sizes[0], "GB")] if sizes else []
    return [*found, Parameter("kv_tiers.bandwidth", problem.kv_tiers[0].bandwidth, "B/s")]


def set_tiers(lowered: Lowered, changes: Mapping[str, float | str]) -> dict[str, Any]:
    """Return the problem fields that change; UnknownNameError, InputError as `changed`."""
    changed = lowered.problem.kv_tiers
    known = {p.name: p.value for p in tiers(lowered.problem)}
    for name, to in changes.items():
        known_figure("kv_tiers", name, TIER_UNITS)
        full = f"kv_tiers.{name}"
        if full not in known:
            raise InputError(f"{full} cannot be changed: this problem has no such tier")
        factor = parse_change(full, to, TIER_UNITS[name], known[full]) / known[full]
        changed = tuple(
            t if getattr(t, name) is None
            else KvTier(**{**dict(t), name: getattr(t, name) * factor})
            for t in changed
        )  # fmt: skip
    return {"kv_tiers": changed}
