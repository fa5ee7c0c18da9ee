"""Shares of requests that meet latency objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bestserve.errors import InputError
from bestserve.models.system import Target

if TYPE_CHECKING:
    from bestserve.simulator.result import SimulationResult


def shares(result: SimulationResult, target: Target) -> dict[str, float]:
    """Return, over the window's requests, the share meeting each objective and all [1]."""
    counted = slice(*result.window)
    everyone = result.window[1] - result.window[0]
    if everyone == 0:
        return {"joint": 0.0}
    served = ~result.refused[counted]
    joint = served.copy()
    out: dict[str, float] = {}
    for metric in ("ttft", "tpot", "e2el"):
        threshold = getattr(target, metric)
        if threshold is None:
            continue
        values = getattr(result, metric)[counted]
        good = served & ((values <= threshold) | np.isnan(values))
        joint &= good
        out[metric] = float(np.count_nonzero(good)) / everyone
    out["joint"] = float(np.count_nonzero(joint)) / everyone
    return out


def margins(result: SimulationResult, target: Target) -> dict[str, float]:
    """Return by how much each requirement is met, share − required; < 0: missed [1]."""
    asked = [m for m in ("ttft", "tpot", "e2el") if getattr(target, m) is not None]
    if not asked:
        raise InputError("the target asks for nothing: give a ttft, tpot or e2el threshold")
    share = shares(result, target)
    if target.joint:
        return {"joint": share["joint"] - target.attainment}
    return {m: share.get(m, 0.0) - getattr(target, f"{m}_percentile") for m in asked}
