"""The latencies of one system at one rate, and their composition from moments per output length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bestserve.arrays import Floats, Ints32
from bestserve.models.distribution import Distribution
from bestserve.models.met import LATENCIES, met, shares
from bestserve.models.queues.requests import Requests
from bestserve.models.queues.tpot.mixture import Components, cut, mixture
from bestserve.models.queues.tpot.pearson import Laws, Unstalled
from bestserve.models.schedulers.engine import LaneLatency
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Lane, Target
from bestserve.models.token_target import Seen
from bestserve.models.tpot_law import TpotLaw
from bestserve.models.trust import (
    QUEUED,
    SHORT,
    TRUSTED,
    Limits,
    Sight,
    Situation,
    Trust,
    doubt,
)

ONE_MESSAGE = 1e-6
"""Share of its TPOT that an answer keeps which leaves in one message: in place of 0, whose law has
no width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputClasses:
    """TPOT by output length: what joint attainment and E2EL need.

    steps : tokens after the first, D [c]; weight : shares of the requests with D > 0 [c];
    mean, variance, third : central moments of TPOT [c; s, s², s³]; parts : its components;
    no_decode : share of the requests that end with their first token
    """

    steps: Floats
    weight: Floats
    mean: Floats
    variance: Floats
    third: Floats
    parts: Components
    no_decode: float

    def cdf(self, tpot: Floats) -> Floats:
        """Return P(TPOT ≤ tpot) per class [c, g]; `tpot` is [1, g] or [c, g] [s]."""
        x = tpot if tpot.shape[0] == 1 else tpot[self.parts.cls]
        F = np.zeros((self.steps.size, tpot.shape[1]))
        np.add.at(F, self.parts.cls, self.parts.share[:, None] * self.parts.cdf(x))
        return F


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What single requests met in a run [n, s]: their latencies as they belong together.

    Infinite for requests that were refused; tpot is 0 for answers of one token.
    steps : decode steps [n]; seen : token by token, where a reader was named
    """

    ttft: Floats
    tpot: Floats
    e2el: Floats
    steps: Floats | Ints32
    seen: Seen | None = None

    def meeting(self, target: Target) -> float:
        """Return the share of requests that meet all objectives of `target` together [1]."""
        values = {name: getattr(self, name) for name in LATENCIES}
        return shares(met(values, self.steps, self.seen, target))["joint"]


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """What requests meet at one rate.

    ttft, tpot, e2el : laws of time to first token, time per output token (requests of two tokens
    or more) and end-to-end latency [s]; infinite when unstable
    rate : request rate of the whole system [1/s]; utilisation : share of the time that the busiest
    lane runs steps; stability_rate : saturated rate of the whole system [1/s]
    mean_batch : running sequences per (decode) lane
    trust : may this be used without simulating; structural : its part that holds for a goodput at
    this rate whatever limits it; situation, reading : what else a goodput needs to be judged
    itl_mean : mean time between messages, of one step's tokens each [s]
    observed : the requests themselves, where a run and no formula is the source
    refused : share of the requests that the KV cache cannot hold; the laws are of the others [1]
    paths : shares of requests that fare differently, and how; empty: all fare alike
    """

    ttft: Distribution
    tpot: Distribution
    rate: float
    utilisation: float
    stability_rate: float
    mean_batch: float
    trust: Trust
    status: LatencyStatus
    classes: OutputClasses | None = None
    structural: Trust = TRUSTED
    situation: Situation | None = None
    reading: TpotLaw | None = None
    observed: Observed | None = None
    refused: float = 0.0
    paths: tuple[tuple[float, Latencies], ...] = ()
    itl_mean: float = np.nan

    @property
    def no_decode(self) -> float:
        """Share of the requests that end with their first token [1]."""
        if self.observed is not None:
            return float(np.mean(self.observed.tpot == 0.0))
        return 0.0 if self.classes is None else self.classes.no_decode

    def percentile(self, name: str, p: float) -> float:
        """Return what a share p of all requests stays within [s].

        Infinite for more than are served; answers of one token have no TPOT: 0 holds for them.
        """
        p = p / (1.0 - self.refused)
        at_once = self.no_decode if name == "tpot" else 0.0
        if at_once > 0.0:
            p = (p - at_once) / (1.0 - at_once)
        law: Distribution = getattr(self, name)
        return np.inf if p > 1.0 else law.quantile(p) if p > 0.0 else 0.0

    @cached_property
    def e2el(self) -> Distribution:
        """End-to-end latency [s]: as observed, or TTFT + D·TPOT, both independent given D."""
        if self.observed is not None:
            return Distribution.empirical(self.observed.e2el)
        if self.paths:
            weights = [weight for weight, _ in self.paths]
            return Distribution.mixture([found.e2el for _, found in self.paths], weights)
        return self.ttft if self.classes is None else _end_to_end(self.ttft, self.classes)


def unstable(rate: float, limit: float, status: LatencyStatus | None = None) -> Latencies:
    """Return infinite laws: of a system that never settles, or whose law is not to be had.

    status : why, when the rate has nothing to do with it; else it is above `limit` or not [1/s]
    """
    status = status or (LatencyStatus.UNSTABLE if rate >= limit else LatencyStatus.NO_LAW)
    never = Distribution.point(float("inf"))
    return Latencies(
        ttft=never,
        tpot=never,
        rate=rate,
        utilisation=1.0,
        stability_rate=limit,
        mean_batch=float("nan"),
        trust=Trust.of(status.value if status is LatencyStatus.NO_LAW else None),
        status=status,
    )


def compose(
    requests: Requests,
    lane: Lane,
    ttft: Distribution,
    decoding: LaneLatency,
    *,
    rate: float,
    limit: float,
    utilisation: float,
    structural: Trust,
    situation: Situation,
) -> Latencies:
    """Return the percentiles of TPOT and E2EL from the moments per output class."""
    d = requests.class_tokens
    mean, variance, third = decoding.mean, decoding.variance, decoding.third
    if d.size == 0:
        zero = Distribution.point(0.0)
        tpot, classes, reading = zero, None, None
    else:
        keep = np.ones_like(d)
        if lane.stream_interval > 1:
            # the first message leaves with token `stream_interval`, or with the last one
            held = np.minimum(lane.stream_interval - 1, d)
            ttft = ttft.shift(float(requests.class_weight @ (held * mean)))
            keep = np.maximum(1.0 - held / d, ONE_MESSAGE)
            mean, variance, third = mean * keep, variance * keep**2, third * keep**3
        low = 0.0 if lane.stream_interval > 1 else decoding.low
        alone = decoding.unstalled
        parts = cut(
            Laws(mean, variance, third, low, decoding.high),
            Unstalled(alone.share, alone.mean * keep, alone.variance * keep**2),
        )
        reading = TpotLaw(requests, decoding, parts, lane.stream_interval == 1)
        tpot = reading.law()
        if not tpot.told:
            untold = Trust.of(
                "three moments do not tell the law of TPOT: few requests stall for long"
            )
            tpot = replace(tpot, mean=tpot.read_mean)
            structural = structural & untold
        if requests.drafting.drafts and not situation.decodes_apart and situation.steps < SHORT:
            structural = structural & Trust.of(
                "drafts leave answers few steps: how single prompts stall them has no reading"
            )
        classes = OutputClasses(
            steps=d,
            weight=requests.class_weight,
            mean=mean,
            variance=variance,
            third=third,
            parts=parts,
            no_decode=requests.no_decode,
        )
    return Latencies(
        ttft=ttft,
        tpot=tpot,
        rate=rate,
        utilisation=utilisation,
        stability_rate=limit,
        mean_batch=decoding.running,
        structural=structural,
        situation=situation,
        trust=structural,
        status=LatencyStatus.OK,
        classes=classes,
        reading=reading,
        itl_mean=_between_messages(requests, lane, decoding),
    )


def _between_messages(requests: Requests, lane: Lane, decoding: LaneLatency) -> float:
    """Return the mean time between two messages, over all gaps [s]."""
    steps = float(requests.class_weight @ requests.classes)
    spans = float(requests.class_weight @ (requests.class_tokens * decoding.mean))
    return lane.stream_interval * spans / steps if steps else np.nan


def judged(found: Latencies) -> Latencies:
    """Return latencies with the trust that their mean and P90 deserve.

    Doubts of 99th percentiles alone are said, and lower nothing.
    """
    if found.situation is None:
        return found
    law, s = found.reading, found.situation
    names: tuple[Limits, ...] = ("ttft",) if law is None else ("ttft", "tpot at a rate")
    body, tail = (
        [doubt(name, s, Sight(discrepancy=law.discrepancy(p) if law else 0.0)) for name in names]
        for p in (0.9, 0.99)
    )
    waits = s.queued > QUEUED
    body.append("requests wait for a slot or for KV memory" if waits else None)
    trust = found.trust & Trust.of(*body)
    said = [f"99th percentiles: {why}" for why in tail if why and trust.high]
    return replace(found, trust=Trust(trust.high, (*trust.reasons, *said[:1])))


def _end_to_end(ttft: Distribution, c: OutputClasses) -> Distribution:
    d = c.steps
    law = mixture(
        c.weight,
        Laws(
            mean=ttft.mean + d * c.mean,
            variance=ttft.variance + d**2 * c.variance,
            third=max(ttft.third_cumulant, 0.0) + d**3 * np.maximum(c.third, 0.0),
            low=float(ttft.x[0]),
            high=np.inf,
        ),
    )
    if not law.told:
        law = replace(law, mean=law.read_mean)
    if c.no_decode > 0:
        return Distribution.mixture([law, ttft], [1 - c.no_decode, c.no_decode])
    return law
