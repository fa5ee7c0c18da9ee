"""Fluid path of a lane whose request rate changes slowly: waiting prompts, decodes, step time.

Within a short time dt a lane runs dt/f steps; each takes the prompt tokens that wait or arrive, up
to its room beside n decodes, and moves every decode one token on. Decodes pass K equal stages, so
that the number of their steps has the squared CV 1/K of the output lengths.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bestserve.host.compiled import njit

Floats = NDArray[np.float64]


@njit(cache=True)
def _between(x: float, knots: Floats) -> tuple[int, float]:
    """Return the cell of ascending `knots` that holds x and how far in it is."""
    i = 0
    while i < knots.size - 2 and knots[i + 1] <= x:
        i += 1
    part = (x - knots[i]) / (knots[i + 1] - knots[i])
    return i, float(min(max(part, 0.0), 1.0))


@njit(cache=True)
def _step(table: Floats, fills: Floats, decodes: Floats, fill: float, n: float) -> float:
    """Return the time of a step that fills its room by `fill` beside n decodes [s]."""
    i, a = _between(fill, fills)
    j, b = _between(n, decodes)
    low = table[i, j] * (1 - b) + table[i, j + 1] * b
    high = table[i + 1, j] * (1 - b) + table[i + 1, j + 1] * b
    return float(low * (1 - a) + high * a)


@njit(cache=True)
def fluid_path(
    rates: Floats,
    dt: float,
    tokens: float,
    steps: float,
    stages: int,
    budget: float,
    slots: float,
    table: Floats,
    fills: Floats,
    decodes: Floats,
    drag: Floats,
) -> Floats:
    """Return fill, decodes, tokens waiting and served, step time and clock along a path [6, t].

    rates : requests per second in each `dt`; tokens : mean prompt; steps : E[D]; stages : K;
    budget : tokens of a step; slots : decodes at most; table : step times by `fills` of the room
    that decodes leave and by `decodes` [i, j; s]; drag : by `fills`, how much longer than the mean
    step are those that decodes meet [i]
    """
    out = np.empty((6, rates.size))
    stage = np.zeros(stages)
    waiting, clock, f = 0.0, 0.0, table[0, 0]
    for t in range(rates.size):
        n = stage.sum()
        room = max(budget - n, 1.0)
        offered = waiting + rates[t] * tokens * dt
        fill = 0.0
        for _ in range(3):
            free = slots - n + n * min(dt / (f * steps), 1.0)
            fill = min(min(offered, max(free, 0.0) * tokens) * f / (dt * room), 1.0)
            f = 0.5 * f + 0.5 * _step(table, fills, decodes, fill, max(n, 1.0))
        most = min(room * dt / f, max(slots - n + n * min(dt / (f * steps), 1.0), 0.0) * tokens)
        served = min(offered, most)
        waiting = offered - served
        i, a = _between(fill, fills)
        met = f * (drag[i] * (1 - a) + drag[i + 1] * a)
        met = min(met, _step(table, fills, decodes, 1.0, max(n, 1.0)))
        count = dt / met
        come = served / tokens
        leave = stages * count / steps
        stays = np.exp(-leave)
        for i in range(stages):
            left = stage[i] * stays + come * (1.0 - stays) / leave
            come += stage[i] - left
            stage[i] = left
        clock += count
        out[0, t], out[1, t], out[2, t], out[3, t] = fill, n, waiting, served
        out[4, t], out[5, t] = met, clock
    return out
