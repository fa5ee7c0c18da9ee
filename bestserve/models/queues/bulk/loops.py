"""Compiled inner loops of the bulk chain: waiting and last steps, ramp histograms."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bestserve.arrays import Floats
from bestserve.host.compiled import njit

U_BINS = 4
"""Parts of a step in progress, by how much of it has elapsed."""


class Cells(NamedTuple):
    """The chain's grid in cells, and its steps.

    h : bin of the histogram of times [s]; budget : m, cells of a step at most; full : mean cells of
    a full step, f_full : its time [s]; last : time of a step with 0.1, 1, 2, … cells, a full one
    [s]; rate : λ [1/s]; prompt : mean cells of a prompt, sizes : equally likely cells of one
    cut : whether prompts are cut to fit
    """

    h: float
    budget: int
    full: float
    f_full: float
    last: Floats
    rate: float
    prompt: float
    sizes: Floats
    cut: bool


class StepsInProgress(NamedTuple):
    """Steps that arrivals meet, in groups [g].

    weights : their shares [1]; lengths : their times [s]; inside : chance that all who wait after
    one fit the next step [1]
    """

    weights: Floats
    lengths: Floats
    inside: Floats


class LaterSteps(NamedTuple):
    """What follows the step in progress, by cells up to a request's own last one.

    overruns, f_next : how likely the rest does not fit the next step, up to a factor, and mean time
    of that full step [m + 1]; before, remain : time before the request's own step [s] and cells
    left for it, single : chance that it is a step of its own [cells]
    """

    overruns: Floats
    f_next: Floats
    before: Floats
    remain: Floats
    single: Floats


@njit(cache=True, inline=True)
def _spread(slope: Floats, density: float, start: float, width: float) -> None:
    """Add a step of `density` over [start, start + width], as second difference; in cells."""
    last = slope.size - 2.0
    left = min(max(start, 0.0), last)
    right = min(max(start + width, 0.0), last)
    i, j = int(left), int(right)
    part = density * (left - i)
    slope[i] += density - part
    slope[i + 1] += part
    part = density * (right - j)
    slope[j] -= density - part
    slope[j + 1] -= part


@njit(cache=True, inline=True)
def _ramp(slope: Floats, per_h: float, mass: float, start: float, width: float) -> None:
    """Spread `mass` evenly over [start, start + width] [s], but over a cell at least."""
    start *= per_h
    width *= per_h
    if width < 1.0:
        start -= (1.0 - width) / 2
        width = 1.0
    _spread(slope, mass / width * per_h, start, width)


@njit(cache=True)
def add_ramps(
    slope: Floats, h: float, mass: Floats, start: Floats, width: Floats
) -> tuple[float, float]:
    """Add mass [r, c] over start [c] … + width [r] to `slope`; return the mass and its moment."""
    total = 0.0
    moment = 0.0
    for r in range(mass.shape[0]):
        for c in range(mass.shape[1]):
            if mass[r, c] > 0.0:
                _ramp(slope, 1.0 / h, mass[r, c], start[c], width[r])
                total += mass[r, c]
                moment += mass[r, c] * (start[c] + width[r] / 2)
    return total, moment


@njit(cache=True)
def fitting(
    slope: Floats,
    h: float,
    waiting: Floats,
    weights: Floats,
    time: Floats,
    width: Floats,
    unbound: bool,
) -> tuple[Floats, Floats, float, float]:
    """Add arrivals that all fit the next step; return their law by its size, and the rest.

    waiting : law of who waits at the next step, per step in progress [r, states], negative rounding
    included; weights : of the steps in progress; time : of the next step by its size [sizes, s],
    width : of the step in progress [r, s]; unbound : whether the last size stands for all that the
    grid does not reach

    Returns masses by size, chance that all fit per step in progress [r], mass added and its moment
    [s].
    """
    sizes = time.size
    by_size, inside = np.zeros(sizes), np.zeros(weights.size)
    total = 0.0
    moment = 0.0
    for r in range(weights.size):
        for c in range(sizes):
            inside[r] += max(waiting[r, c], 0.0)
        for c in range(sizes):
            chance = max(waiting[r, c], 0.0)
            if unbound and c == sizes - 1:
                chance += max(1.0 - inside[r], 0.0)
            mass = chance * weights[r]
            if mass > 0.0:
                by_size[c] += mass
                total += mass
                moment += mass * (time[c] + width[r] / 2)
                _ramp(slope, 1.0 / h, mass, time[c], width[r])
        if unbound:
            inside[r] = max(inside[r], 1.0)
    return by_size, inside, total, moment


@njit(cache=True, inline=True)
def _last_step(cells: float, full: float, last: Floats) -> float:
    """Return the time of a step with that many cells: last = f at 0.1, 1, 2, …, k, full."""
    x = min(cells, full)
    k = last.size - 2
    if x <= 0.1:
        return float(last[0])
    if x < 1.0 and k >= 1:
        return float(last[0] + (last[1] - last[0]) * (x - 0.1) / 0.9)
    j = min(int(x), k)
    left = float(j) if j > 0 else 0.1
    right = j + 1.0 if j < k else full
    return float(last[j] + (last[j + 1] - last[j]) * (x - left) / max(right - left, 1e-12))


@njit(cache=True, inline=True)
def finish(final: Floats, cells: float, mass: float) -> None:
    """Note the state, at least 1, in which a request's last step starts."""
    x = min(max(cells, 1.0), final.size - 1.0)
    i = int(x + 1e-9)
    part = max(x - i, 0.0)
    final[i] += mass * (1.0 - part)
    if part > 0.0:
        final[i + 1] += mass * part


@njit(cache=True)
def behind(
    arrivals: float, prompt_cells: float, sizes: Floats, chance: Floats, extra: Floats
) -> None:
    """Fill chances and cells of what arrives behind: nothing, one prompt of `sizes`, several.

    arrivals : their mean; prompt_cells : mean cells of a prompt; chance, extra : [len(sizes) + 2]
    """
    none = math.exp(-arrivals)
    one = arrivals * none
    several = max(1.0 - none - one, 0.0)
    count = sizes.size
    chance[0], extra[0] = none, 0.0
    for i in range(count):
        chance[i + 1], extra[i + 1] = one / count, sizes[i]
    chance[count + 1] = several
    extra[count + 1] = (arrivals - one) * prompt_cells / max(several, 1e-12)


@njit(cache=True)
def found_idle(
    cells: Floats,
    mass: Floats,
    time: Floats,
    idle_budget: float,
    largest: float,
    grid: Cells,
    final: Floats,
) -> tuple[Floats, Floats]:
    """Return what prompts that find the server idle meet: masses and times to their first token.

    A long prompt's last step is filled by arrivals behind it. cells, mass, time : prompts, their
    shares and times when nothing follows [m; cells, 1, s]; idle_budget : cells of a step that
    nothing decodes in; largest : cells that a step takes beside decodes, all of those of one prompt
    that fits `idle_budget`; final : takes the law of the state in which the last step starts
    """
    _, _, full, f_full, last, rate, prompt_cells, sizes, _ = grid
    kinds = sizes.size + 2
    chance, extra = np.empty(kinds), np.empty(kinds)
    masses, times = np.zeros((cells.size, kinds)), np.zeros((cells.size, kinds))
    for i in range(cells.size):
        rounds = 0.0
        if cells[i] > idle_budget:
            rounds = max(math.ceil(cells[i] / idle_budget - 1e-9) - 1.0, 0.0)
        if rounds == 0.0:
            masses[i, 0], times[i, 0] = mass[i], time[i]
            finish(final, min(cells[i], largest), mass[i])
            continue
        remain = cells[i] - rounds * idle_budget
        before = time[i] - _last_step(remain, full, last)
        behind(rate * rounds * f_full, prompt_cells, sizes, chance, extra)
        for k in range(kinds):
            masses[i, k] = mass[i] * chance[k]
            times[i, k] = before + _last_step(remain + extra[k], full, last)
            finish(final, remain + extra[k], masses[i, k])
    return masses.reshape(-1), times.reshape(-1)


@njit(cache=True)
def queued(
    slope: Floats,
    final: Floats,
    beyond: Floats,
    ahead: Floats,
    progress: StepsInProgress,
    later: LaterSteps,
    grid: Cells,
) -> tuple[float, float]:
    """Add arrivals that do not all fit the step after the one in progress; return mass and moment.

    slope : histogram of the times to the first token, as second difference; final : takes the law
    of the state in which last steps start; ahead : law of the cells up to a tagged request's own
    last one, per step in progress and part of it elapsed [g·U_BINS, cells]; beyond : law of all who
    wait where they do not fit
    """
    weights, lengths, inside = progress
    overruns, f_next, before, remain, single = later
    h, m, full, _, last, rate, prompt_cells, sizes, cut = grid
    rows = ahead.shape[0]
    portion, left, width = np.empty(rows), np.zeros(rows), np.zeros(rows)
    total = 0.0
    moment = 0.0
    for r in range(rows):
        g = r // U_BINS
        portion[r] = weights[g] / U_BINS
        width[r] = lengths[g] / U_BINS
        left[r] = lengths[g] - (r % U_BINS + 1) * width[r]
        # those ahead and the tagged one fit the next step, though not all behind them
        next_step = -inside[g]
        weight = 0.0
        for c in range(m + 1):
            next_step += ahead[r, c]
            weight += max(ahead[r, c], 0.0) * overruns[c]
        part = portion[r] * max(next_step, 0.0) / max(weight, 1e-300)
        c = 0
        while c <= m:
            mass = 0.0
            end = left[r] + f_next[c]
            while c <= m and left[r] + f_next[c] == end:
                mass += part * max(ahead[r, c], 0.0) * overruns[c]
                c += 1
            _ramp(slope, 1.0 / h, mass, end, width[r])
            total += mass
            moment += mass * (end + width[r] / 2)
    mass = beyond.sum()
    if mass > 0.0:
        for c in range(beyond.size):
            final[m + 1 + c] += beyond[c] * total / mass

    per_h = 1.0 / h
    count = sizes.size
    done, state = np.empty(count + 1), np.empty(count + 1)
    none_before, first, broad = np.empty(rows), np.empty(rows), np.empty(rows)
    end = m + 1
    for r in range(rows):
        # chance that nobody arrives behind: of the time before each cell, times that of each row
        none_before[r] = math.exp(-rate * (left[r] + width[r] / 2))
        first[r], broad[r] = left[r] * per_h, width[r] * per_h
        if broad[r] < 1.0:
            first[r] -= (1.0 - broad[r]) / 2
            broad[r] = 1.0
        c = ahead.shape[1]
        while c > end and ahead[r, c - 1] * portion[r] < 1e-9:
            c -= 1
        end = c
    for c in range(m + 1, end):
        rest, own = remain[c], single[c]
        for k in range(count + 1):
            size = sizes[k - 1] if k > 0 else 0.0
            if not cut and rest + size > m:
                size = 0.0
            done[k], state[k] = before[c] + _last_step(rest + size, full, last), 0.0
        quiet = math.exp(-rate * before[c])
        for r in range(rows):
            mass = ahead[r, c] * portion[r]
            if mass < 1e-9:
                continue
            middle = left[r] + width[r] / 2
            density = per_h / broad[r]
            if own > 0.0:
                _spread(slope, mass * own * density, first[r] + done[0] * per_h, broad[r])
                total += mass * own
                moment += mass * own * (middle + done[0])
                finish(final, float(c), mass * own)
                mass *= 1.0 - own
            arrivals = rate * (middle + before[c])
            none = quiet * none_before[r]
            one = arrivals * none
            several = max(1.0 - none - one, 0.0)
            extra = (arrivals - one) * prompt_cells / max(several, 1e-12)
            late = before[c] + _last_step(rest + extra, full, last)
            finish(final, rest + extra, mass * several)
            _spread(slope, mass * several * density, first[r] + late * per_h, broad[r])
            time = several * late
            for k in range(count + 1):
                part = one / count if k > 0 else none
                state[k] += mass * part
                time += part * done[k]
                _spread(slope, mass * part * density, first[r] + done[k] * per_h, broad[r])
            total += mass
            moment += mass * (middle + time)
        for k in range(count + 1):
            finish(final, rest + (sizes[k - 1] if k > 0 else 0.0), state[k])
    return total, moment


@njit(cache=True)
def grouped(
    weight: Floats, length: Floats, rows: Floats, count: int
) -> tuple[Floats, Floats, Floats]:
    """Return at most `count` groups of neighbouring rows: weight, mean length, mean row.

    The first row stays alone.
    """
    n, k = rows.shape
    count = min(count, n)
    mass, mean, merged = np.zeros(count), np.zeros(count), np.zeros((count, k))
    for i in range(n):
        g = 0 if i == 0 else 1 + (i - 1) * (count - 1) // (n - 1)
        mass[g] += weight[i]
        mean[g] += weight[i] * length[i]
        for j in range(k):
            merged[g, j] += weight[i] * rows[i, j]
    for g in range(count):
        safe = max(mass[g], 1e-300)
        mean[g] /= safe
        for j in range(k):
            merged[g, j] /= safe
    return mass, mean, merged
