"""Timings with warm-up, repeats and quantiles, on any `Machine`.

Device time is read between two marks in the device queue, host time on the host's clock. Short
operations are repeated inside one captured graph, so that launch gaps do not count as kernel time;
callers pass a *cycle* of the same operation on different buffers, so that no weight is read twice
before the cycle has swept the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bestserve.measure.machine import Machine, Op

SPAN = 2e-3
"""A timed span lasts at least this long where the cycle may be repeated [s]: events resolve about
0.5 us, so 2 ms keeps their error below 0.1 %."""

ROUNDS = 3
"""Lengthenings of a span at most: a short one is mostly launch gap, so it looks long at first."""

MAX_IN_FLIGHT = 400
"""Submissions in a row while the host is timed: CUDA queues about 1,000 launches before it blocks
the host, and a blocked host would look slow."""

LOW, HIGH = 0.1, 0.9


@dataclass(frozen=True, slots=True)
class Timing:
    """Median and 10-90 % quantile interval over repeats [s]."""

    median: float
    low: float
    high: float
    repeats: int

    def scaled(self, factor: float) -> Timing:
        """Return the timing times `factor`."""
        return Timing(self.median * factor, self.low * factor, self.high * factor, self.repeats)


def summarise(samples: Sequence[float]) -> Timing:
    """Return median and quantile interval of samples [s]; `ValueError` when there are none."""
    if not len(samples):
        raise ValueError("no samples to summarise")
    low, median, high = np.quantile(np.asarray(samples, dtype=np.float64), [LOW, 0.5, HIGH])
    return Timing(float(median), float(low), float(high), len(samples))


def repeat(
    machine: Machine, sample: Callable[[], float], *, budget: float, least: int = 5, most: int = 200
) -> Timing:
    """Sample until `budget` host seconds are spent, at least `least`, at most `most` times."""
    end = machine.clock() + budget
    samples = [sample() for _ in range(least)]
    while machine.clock() < end and len(samples) < most:
        samples.append(sample())
    return summarise(samples)


def device_span(machine: Machine, ops: Sequence[Op]) -> float:
    """Run `ops` once and return the device time they took, gaps included [s]."""
    start = machine.mark()
    for op in ops:
        op.run()
    end = machine.mark()
    machine.synchronize()
    return machine.elapsed(start, end)


def kernel_time(
    machine: Machine, cycle: Sequence[Op], *, budget: float = 0.1, flush: bool = False
) -> Timing:
    """Return the device time of one operation of `cycle`, launch gaps hidden where possible [s].

    With `flush`, each timed span is one sweep of the cycle after a cache flush; otherwise the cycle
    is repeated to fill `SPAN`.
    """
    for op in cycle:
        op.run()
    machine.synchronize()
    most = 1 if flush else max(1, MAX_IN_FLIGHT // len(cycle))
    sweeps, timed = 1, _one_launch(machine, cycle)
    for _ in range(ROUNDS):
        single = max(device_span(machine, timed) / sweeps, 1e-9)
        wanted = min(most, int(np.ceil(SPAN / single)))
        if wanted <= 2 * sweeps:
            break
        sweeps, timed = wanted, _one_launch(machine, list(cycle) * wanted)

    def sample() -> float:
        # The device is kept busy while the host launches what is timed: an idle device would wait
        # for the launch between the two marks, and the wait would count as kernel time.
        if flush:
            machine.flush()
        else:
            for op in timed:
                op.run()
        return device_span(machine, timed)

    sample()
    return repeat(machine, sample, budget=budget).scaled(1 / (sweeps * len(cycle)))


def _one_launch(machine: Machine, ops: Sequence[Op]) -> list[Op]:
    """Return `ops` as one graph, or as they are where there are no graphs."""
    graph = machine.capture(ops)
    return list(ops) if graph is None else [graph]


def submission_time(
    machine: Machine, ops: Sequence[Op], *, budget: float = 0.05, most: int = 50
) -> Timing:
    """Return the host time to submit all of `ops` once, without waiting for them [s].

    On a machine that executes at once this is the execution itself.
    """
    once = step_time(machine, ops, budget=0.0, least=1).median
    fit = int(budget / (5 * once)) if once > 0 else MAX_IN_FLIGHT
    sweeps = max(1, min(MAX_IN_FLIGHT // max(1, sum(op.kernels for op in ops)), fit))

    def sample() -> float:
        machine.synchronize()
        start = machine.clock()
        for _ in range(sweeps):
            for op in ops:
                op.run()
        return (machine.clock() - start) / sweeps

    timing = repeat(machine, sample, budget=budget, most=most)
    machine.synchronize()
    return timing


def step_time(
    machine: Machine, ops: Sequence[Op], *, budget: float = 0.2, least: int = 5, most: int = 200
) -> Timing:
    """Return host time from an idle device to the end of `ops`: one serving step [s]."""

    def sample() -> float:
        machine.synchronize()
        start = machine.clock()
        for op in ops:
            op.run()
        machine.synchronize()
        return machine.clock() - start

    sample()
    return repeat(machine, sample, budget=budget, least=least, most=most)


def sync_time(machine: Machine) -> Timing:
    """Return the host time of synchronising with an idle device [s]."""
    machine.synchronize()

    def sample() -> float:
        start = machine.clock()
        machine.synchronize()
        return machine.clock() - start

    return repeat(machine, sample, budget=0.01, least=20)
