"""What goes into the bulk chain and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.distribution import Distribution
from bestserve.models.queues.lattice import thinned, weighted_quantile

ONE_PROMPT = 3
"""Equally likely sizes that stand for one prompt behind a tagged one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Law of the prompts' tokens.

    tokens, share : atoms [m; tokens, 1]; mean, square : first two moments; large : 99.9 %
    quantile; sizes : `ONE_PROMPT` equally likely sizes with the same mean
    """

    tokens: Floats
    share: Floats
    mean: float
    square: float
    large: float
    sizes: Floats

    @classmethod
    def of(cls, tokens: Floats, share: Floats) -> Prompts:
        """Return the law of weighted atoms; shares sum to 1."""
        return cls(
            tokens=tokens,
            share=share,
            mean=float(share @ tokens),
            square=float(share @ tokens**2),
            large=weighted_quantile(tokens, share, 0.999),
            sizes=thinned(tokens, share, ONE_PROMPT),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkServer:
    """One server.

    budget : M, tokens taken at most [tokens]; packed : M_E, taken when more wait [tokens]
    step : f, time of a step with x prompt tokens, x [m] > 0 → [m, s]
    vacation : time of a step without prompts [s]; service : time that each prompt takes when
    nothing else runs [m, s]; idle : share of the prompt-free time in which the server stands idle
    [1]; idle_budget : tokens of a step that nothing decodes in
    shared : whether decodes take part in steps with prompts
    cut : False for whole prompts of random length, so that what a full step takes is random
    """

    budget: float
    packed: float
    step: Callable[[Floats], Floats]
    vacation: float
    service: Floats
    idle: float
    shared: bool = False
    cut: bool = True
    idle_budget: float = math.inf

    @property
    def largest(self) -> float:
        """Tokens of a step at most; equal prompts beyond the budget, one a step, are above it."""
        return max(self.budget, self.packed) if self.cut else self.budget


@dataclass(frozen=True, slots=True)
class Pace:
    """Steps while something decodes; fields as in `BulkWait`."""

    busy: float
    tau: float
    spacing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLaw:
    """Step durations that follow a first token, as a sequence; all while something decodes.

    mean : stationary mean [s]; r0, r1 : autocovariance at lags 0 and 1, then falling by `decay`
    per step, so that its sum over all lags is r0 + 2 r1/(1 − decay) [s²]
    unstalled : probability that the step after a first token has no prompt
    excess : Σ (E[step after a first token] − mean) over all later steps [s]
    start : variance that the state at the first token adds to the sum, less the stationary [s²]
    """

    mean: float
    r0: float
    r1: float
    decay: float
    unstalled: float
    excess: float
    start: float

    @property
    def long_run(self) -> float:
        """Variance of the sum of many steps, per step [s²]; rounding aside not negative."""
        return max(self.r0 + 2 * self.r1 / (1 - self.decay), 0.0)

    def excess_of(self, steps: Floats) -> Floats:
        """Return the part of `excess` that falls into the first steps [c, s]."""
        return self.excess * (1 - self.decay**steps)

    def variance_of(self, steps: Floats) -> Floats:
        """Return the stationary variance of the sum of `steps` steps [c, s²]."""
        r = self.decay
        tail = (steps - 1 - r * (1 - r ** (steps - 1)) / (1 - r)) / (1 - r)
        return np.asarray(steps * self.r0 + 2 * self.r1 * np.maximum(tail, 0.0))

    def slope_of(self, steps: Floats) -> Floats:
        """Return the growth of `variance_of` with one more step [c, s²]."""
        return np.asarray(self.variance_of(steps + 1) - self.variance_of(steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """Time that steps with prompts take between two without, where nothing else runs meanwhile.

    between : mean, variance and third cumulant after a step without prompts [s, s², s³]; after :
    those after a first token; unstalled : chance of none after it; means : mean after steps of the
    lengths asked for [m, s]
    """

    between: tuple[float, float, float]
    after: tuple[float, float, float]
    unstalled: float
    means: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkWait:
    """What a Poisson arrival meets.

    ttft : arrival to the end of the step that takes its last token; busy : share of the time in
    steps with prompts, tau : mean step time [s] and backlog : mean V at step starts [tokens], all
    three while something decodes; spacing : all time per such step [s]; batch_tokens : mean
    prompt tokens of a step that ends a prompt; load : λ E[l] f(M_E)/M_E; saturated : share of
    arrivals that wait more than one step; cut_off : share of E[tokens²] in prompts beyond the grid;
    steps: the step durations that follow a first token, stalls : where they hold up decodes (both
    if asked for)
    """

    ttft: Distribution
    busy: float
    tau: float
    spacing: float
    batch_tokens: float
    backlog: float
    load: float
    saturated: float
    cut_off: float = 0.0
    steps: StepLaw | None = None
    stalls: Stalls | None = None
