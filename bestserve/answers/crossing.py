"""The rate at which runs begin to miss a target: one search, and how exactly it tells that rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bestserve.answers.simulated import Look, Simulated
from bestserve.models.binding import Binding
from bestserve.models.system import Target

LEAST = 1e-3
"""Share of saturation that stands for no load: objectives missed there are infeasible."""

HALFWAY = 0.6
"""Share of saturation at which a search starts that has no guess."""

CLOSE, CLOSEST = 0.03, 0.01
"""Width of a bracket at which the crossing is interpolated, and where there is nothing to
interpolate because the queue grows at its upper end [ln]."""

OUTWARD = (CLOSE, 0.12, 0.35, 1.0, 2.0, 4.0, 8.0)
"""Steps from a guess until the crossing is passed [ln]."""

LOOKS = 20
"""Runs inside a bracket at most."""

LOWER = (0.85, 0.6, 0.35)
"""Shares of a goodput at which objectives are looked at again: they may hold beyond a gap."""

FAR_FROM_MISSED = 2.0
"""Room beyond which nothing is told by more of it [ln]."""

CLEAR = 0.1
"""Room from which a short run is believed that objectives hold [ln]."""

GAP = 0.01
"""By how much an objective must be missed there, which runs may do by chance [ln]."""

BATCHES = 16
"""Parts of a run whose scatter tells its sampling error: long beside the time a queue remembers."""

SHARES = (Binding.JOINT, Binding.DEADLINE, Binding.STALL, Binding.FLUIDITY, Binding.ITL)
"""What is met by a share of the requests."""

LookAt = Callable[[float], Look]


@dataclass(frozen=True, slots=True)
class Crossing:
    """Looks at two rates: the target holds at the lower one and is missed at the upper one."""

    below: Look
    above: Look

    @property
    def finite(self) -> bool:
        """Whether both looks tell how far the target is met, so that a line joins them."""
        return math.isfinite(self.above.room - self.below.room)

    @property
    def part(self) -> float:
        """Where between the looks the target stops being met [1], linear in ln(rate).

        Near saturation latency grows as one over what is left of the capacity: its inverse falls
        in a line where its logarithm falls off a cliff.
        """
        met, missed = _inverse(self.below), _inverse(self.above)
        return met / max(met - missed, 1e-12)

    @property
    def rate(self) -> float:
        """The highest rate at which the target holds [req/s]."""
        if not self.finite:
            return self.below.rate
        return self.below.rate * (self.above.rate / self.below.rate) ** self.part

    @property
    def width(self) -> float:
        """ln(above / below)."""
        return math.log(self.above.rate / self.below.rate)

    @property
    def binding(self) -> Binding:
        """What stops a higher rate."""
        return self.above.binding

    @property
    def evicts(self) -> bool:
        """Whether a full cache evicts in either run."""
        return self.below.evicts or self.above.evicts

    def error(self, target: Target) -> float:
        """Return the standard error of ln(rate): that of the share met, over its slope.

        Where the queue grows at the upper rate: that of the arrivals in the run, and the bracket.
        """
        if self.below.result is None:
            return math.inf
        if self.above.result is None or not self.finite:
            return math.hypot(self.width / 2, 1.0 / math.sqrt(len(self.below.result)))
        margins = self.above.result.margins(target)
        name = min(margins, key=lambda m: margins[m])
        slope = (self.below.result.margins(target)[name] - margins[name]) / self.width
        if slope <= 0:
            return math.inf
        # Where latency turns steep, only the upper run shows by how much jams differ.
        each = (look.met(target)[name] for look in (self.below.result, self.above.result))
        return max(map(_error_of_mean, each)) / slope


def highest(runs: Simulated, target: Target, near: float | None = None) -> Crossing | None:
    """Return the crossing of a target near a guess [req/s]; None if it is missed at any rate.

    Without a guess the search starts at `HALFWAY` of saturation.
    """
    near = near or HALFWAY * runs.limit
    if runs.refuses or not near > 0:
        return None

    def look(rate: float) -> Look:
        return runs.look(rate, target)

    ends = bracket(look, near)
    return None if ends is None else closed_in(look, ends)


def bracket(look: LookAt, start: float) -> Crossing | None:
    """Return looks below and above the crossing, in growing steps from a guess; None: none below.

    Beyond saturation nothing holds, so that there is always one above.
    """
    last = look(start)
    met = last.room >= 0
    for step in OUTWARD:
        other = look(start * math.exp(step if met else -step))
        if (other.room >= 0) != met:
            return Crossing(last, other) if met else Crossing(other, last)
        last = other
    return None


def closed_in(look: LookAt, ends: Crossing, close: float = CLOSE) -> Crossing:
    """Return the bracket made `close`: secants, kept inside it, halves where one end stays."""
    stayed = 0
    for _ in range(LOOKS):
        if ends.width <= (close if ends.finite else min(close, CLOSEST)):
            break
        part = ends.part if ends.finite and stayed < 2 else 0.5
        margin = min(0.4 * close / ends.width, 0.5)
        at = ends.below.rate * math.exp(ends.width * min(max(part, margin), 1 - margin))
        look_there = look(at)
        if look_there.room >= 0:
            ends, stayed = Crossing(look_there, ends.above), max(stayed, 0) + 1
        else:
            ends, stayed = Crossing(ends.below, look_there), min(stayed, 0) - 1
        stayed = stayed if abs(stayed) < 3 else 0
    return ends


def lowest(
    runs: Simulated, short: Simulated, target: Target, highest: Crossing
) -> tuple[Crossing, str | None]:
    """Return the lowest crossing seen, and what to say where it is not the only one.

    Fewer requests may fare worse: prompts that wait for each other share steps. A short run says
    where they clearly do not.
    """
    rate = highest.below.rate
    seen = [short.look(share * rate, target) for share in LOWER]
    seen = [look if look.room > CLEAR else runs.look(look.rate, target) for look in seen]
    missed = [look for look in seen if look.room < -GAP]
    if not missed:
        return highest, None
    above = min(missed, key=lambda look: look.rate)
    lower = [look for look in seen if look.rate < above.rate and look.room >= 0]
    below = lower[0] if lower else runs.look(LEAST * rate, target)
    if below.room < 0:
        return highest, f"the objectives are missed at {above.rate:.4g} requests/s and less"
    low = closed_in(lambda rate: runs.look(rate, target), Crossing(below, above))
    return low, f"the objectives hold again at {rate:.4g} requests/s"


def _inverse(look: Look) -> float:
    """Return threshold over percentile, less 1; of shares of requests: how far they are met."""
    if look.binding in SHARES:
        return look.room
    return math.expm1(min(look.room, FAR_FROM_MISSED))


def _error_of_mean(met: np.ndarray) -> float:
    """Return the standard error of a share: from batches, whose neighbours may fare alike."""
    batches = met[: met.size - met.size % BATCHES].reshape(BATCHES, -1).mean(axis=1)
    variance = float(batches.var(ddof=1))
    if variance == 0.0:
        return 0.0
    off = batches - batches.mean()
    alike = float(off[1:] @ off[:-1]) / float(off @ off)
    return math.sqrt(variance * (1 + 2 * max(alike, 0.0)) / BATCHES)
