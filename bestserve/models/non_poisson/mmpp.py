"""Lanes whose request rate changes slowly, in phases of many steps.

A fluid path of the lane (`queues.fluid`) tells how full steps are, how many sequences decode and
what waits at each time. Around it requests meet what they meet at the constant rate that fills
steps as much, in steps as long as the path's; while prompts wait, they meet that backlog instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bestserve.models.distribution import Distribution
from bestserve.models.non_poisson.fluid import fluid_path
from bestserve.models.schedulers.engine import Engine, LaneLatency

Floats = NDArray[np.float64]

CYCLES = 240
"""Rounds of phases on a path."""

PARTS, MOST_PARTS = 30, 60_000
"""Pieces of the shortest phase, and of a path at most."""

KNOTS = np.array([0.05, 0.2, 0.4, 0.55, 0.7, 0.8, 0.88])
"""Shares of the saturated rate at which constant rates are looked at."""

SETTLED = 5
"""Those of `KNOTS` at which a lane settles within a phase: longer queues take longer to build."""

FILLS = np.array([0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0])
"""Shares of the room for prompts at which step times are tabulated."""

QUANTILES = (np.arange(24) + 0.5) / 24
"""Levels at which the law of TTFT at one time is cut."""

EVERY = 3
"""Times of the path per one whose TTFT is looked at."""

SENT = 4000
"""Times of the path, about, from which requests are sent for TPOT."""

MOST_STAGES = 8


@dataclass(frozen=True, slots=True)
class Phases:
    """A request rate that takes the relative values `rates` in turn, for mean `stays` [p; 1, s]."""

    rates: Floats
    stays: Floats

    def path(self) -> tuple[Floats, float]:
        """Return rates of mean 1 along a path and its time step [t; 1, s].

        Exponential stays are stratified, so that their means are kept.
        """
        rng = np.random.default_rng(7)
        dt = max(float(self.stays.min()) / PARTS, CYCLES * float(self.stays.sum()) / MOST_PARTS)
        stay = -np.log1p(-(np.arange(CYCLES) + 0.5) / CYCLES)
        stay /= stay.mean()
        spans = np.stack([rng.permutation(stay) * s for s in self.stays], axis=1).ravel()
        ends = np.cumsum(spans)
        at = (np.arange(int(ends[-1] / dt)) + 0.5) * dt
        rates = np.tile(self.rates, CYCLES)[np.searchsorted(ends, at)]
        return rates / rates.mean(), dt


@dataclass(frozen=True, slots=True)
class _Fluid:
    """A lane as a fluid: `table` [i, j; s] of step times by `FILLS` and `decodes` [j].

    stages : of a decode; drag : how much longer than the mean step those that decodes meet are, by
    `FILLS`
    """

    engine: Engine
    decodes: Floats
    table: Floats
    stages: int
    drag: Floats

    @classmethod
    def of(cls, engine: Engine, split: bool) -> _Fluid:
        """Return the fluid of a lane, its drag 1."""
        r = engine.requests
        scv = r.d2 / max(r.d1, 1e-12) ** 2 - 1.0
        stages = int(np.clip(round(1.0 / max(scv, 1.0 / MOST_STAGES)), 1, MOST_STAGES))
        slots = max(min(float(engine.slots), engine.budget - 1.0), 2.0)
        decodes = np.geomspace(1.0, slots, 14)
        table = np.stack([_mean_steps(engine, float(n), split) for n in decodes], axis=1)
        return cls(engine, decodes, table, stages, np.ones(FILLS.size))

    def run(self, rates: Floats, dt: float) -> Floats:
        """Return `fluid_path` at `rates` [t, 1/s]."""
        r = self.engine.requests
        return fluid_path(
            rates,
            dt,
            r.p1,
            max(r.d1, 1e-3),
            self.stages,
            self.engine.budget,
            float(self.decodes[-1]),
            self.table,
            FILLS,
            self.decodes,
            self.drag,
        )

    def still(self, rates: Floats, means: Floats) -> tuple[Floats, Floats]:
        """Return fill and step time at constant `rates`, TPOT being `means` [g; 1, s]."""
        far = [
            self.run(np.full(400, rate), max(self.engine.requests.d1 * mean / 20, 1e-4))[:, -1]
            for rate, mean in zip(rates, means, strict=True)
        ]
        found = np.array(far)
        return found[:, 0], found[:, 4]

    def dragged(self, rates: Floats, means: Floats) -> _Fluid:
        """Return the fluid whose decodes take `means` [s] at constant `rates` [1/s]."""
        fluid = self
        for _ in range(3):
            fill, met = fluid.still(rates, means)
            drag = np.interp(fill, FILLS, fluid.drag) * means / met
            at = np.concatenate(([0.0], np.maximum.accumulate(fill), [1.0]))
            at = at + 1e-9 * np.arange(at.size)
            now = np.interp(FILLS, at, np.concatenate(([1.0], drag, [1.0])))
            fluid = replace(fluid, drag=now)
        return fluid


def _mean_steps(engine: Engine, n: float, split: bool) -> Floats:
    """Return mean step times beside n decodes with `FILLS` of their room filled on average [s].

    Prompts come whole: a Poisson number in each step; what exceeds the room is cut off.
    """
    from scipy.special import gammaln

    l1, room = engine.requests.p1, max(engine.budget - n, 1.0)
    mean = np.geomspace(1e-3, 6.0 * max(room / l1, 2.0), 24)
    count = np.arange(1.0, mean[-1] + 6.0 * mean[-1] ** 0.5 + 2.0)
    chance = np.exp(count * np.log(mean[:, None]) - mean[:, None] - gammaln(count + 1.0))
    chance[:, -1] += np.maximum(-np.expm1(-mean) - chance.sum(axis=1), 0.0)
    took = np.minimum(count * l1, room)
    rest = engine.decode(n)
    added = engine.prompt_step(took, n, split) - rest
    tokens = np.concatenate(([0.0], chance @ took, [room]))
    return rest + np.interp(
        FILLS * room, tokens, np.concatenate(([0.0], chance @ added, added[-1:]))
    )


def slow_latency(
    engine: Engine,
    rate: float,
    phases: Phases,
    limit: float,
    split: bool,
    constant: Callable[[float], LaneLatency | None],
) -> LaneLatency | None:
    """Return the latencies of a lane whose rate, `rate` on average [1/s], changes with `phases`.

    limit : saturated rate [1/s]; split : whether prompts are cut to fit the budget;
    constant : latencies at a constant rate
    """
    r = engine.requests
    here = constant(rate)
    knots, laws = [], []
    for knot in KNOTS * limit:
        met = constant(float(knot))
        if met is not None:
            knots.append(knot)
            laws.append(met)
    if here is None or len(laws) < 2:
        return here
    at = np.array(knots)
    means = np.array([max(float(r.class_weight @ m.mean), m.low) for m in laws])
    fluid = _Fluid.of(engine, split).dragged(at[:SETTLED], means[:SETTLED])
    relative, dt = phases.path()
    lead = min(int(2 * phases.stays.sum() / dt), relative.size)
    whole = fluid.run(np.concatenate((relative[-lead:], relative)) * rate, dt)[:, lead:]
    time = dt * np.arange(1.0, relative.size + 1.0)
    fill, met_step = fluid.still(at, means)
    index = np.maximum.accumulate(fill) + 1e-12 * np.arange(fill.size)
    local = np.interp(whole[0], index, at)
    longer = whole[4] / np.interp(local, at, met_step)
    quantiles = np.array([np.interp(QUANTILES, m.ttft.F, m.ttft.x) for m in laws])
    done = np.cumsum(whole[3])
    behind: Floats = np.interp(done + whole[2], done, time) - time
    queued = whole[2] > 0.01 * r.p1
    some = slice(None, None, EVERY)
    mine = np.stack([np.interp(local[some], at, q) for q in quantiles.T], axis=1)
    mine *= longer[some, None]
    # behind a backlog there is half a step to wait, on average, and the own one
    rest = whole[4, some, None] * (0.5 + QUANTILES) + whole[4, some, None] / 2
    mine = np.where(queued[some, None], rest, mine) + behind[some, None]
    ttft = _sampled(mine, relative[some])

    moments = _tpot(r.classes, here.mean, r.class_weight, relative, time, behind, whole[5])
    return replace(
        here,
        ttft=ttft,
        mean=moments[0],
        variance=here.variance + moments[1],
        third=here.third + np.maximum(moments[2], 0.0),
        high=max(here.high, float(fluid.table.max())),
        running=float(whole[1].mean()),
        single=None,
    )


def _sampled(values: Floats, weight: Floats) -> Distribution:
    """Return the law of `values` [t, q], each row with its weight [t]."""
    mass = np.repeat(weight / values.shape[1], values.shape[1])
    order = np.argsort(values, axis=None)
    x, F = values.ravel()[order], np.cumsum(mass[order])
    keep = np.unique(np.linspace(0, x.size - 1, 400).astype(np.int64))
    mean = float(values.ravel() @ mass / mass.sum())
    return Distribution.from_cdf(x[keep], F[keep] / F[-1], mean)


def _tpot(
    d: Floats,
    constant: Floats,
    share: Floats,
    weight: Floats,
    time: Floats,
    behind: Floats,
    clock: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Return central moments of TPOT by output class along a path [c; s, s², s³].

    constant, share : TPOT of the classes at a constant rate [c, s] and their shares; weight, time,
    behind, clock : rates, times, waits and clock of steps of the path [t]
    """
    begin = np.flatnonzero(clock < clock[-1] - d.max(initial=0.0))
    begin = begin[:: max(begin.size // SENT, 1)]
    if begin.size == 0 or d.size == 0:
        return constant, np.zeros(d.size), np.zeros(d.size)
    w = weight[begin] / weight[begin].sum()
    start = time[begin] + behind[begin]
    first = np.interp(start, time, clock)
    found = np.empty((3, d.size))
    for i, steps in enumerate(d):
        tpot = (np.interp(first + steps, clock, time) - start) / steps
        tpot *= constant[i] / float(share @ constant)
        mean = float(w @ tpot)
        found[:, i] = mean, w @ (tpot - mean) ** 2, w @ (tpot - mean) ** 3
    return found[0], found[1], found[2]
