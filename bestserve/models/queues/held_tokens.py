"""Law of the KV tokens that running requests hold, and what follows from a full cache.

A running request of prompt l holds l + j tokens in its j-th of D decode steps, or, where the engine
reserves a share r of the answer at admission, l + max(rD, j). In processor sharing the requests
that run are independent, whatever their number n, and each is seen at a step drawn evenly from all
steps (Kelly, Reversibility and Stochastic Networks, 3.3), so the moments of what one holds are
those over E[D] steps. n of them hold the sum, taken as Pearson III (three moments).

An engine that grows on demand evicts the latest request when growth passes the capacity, and takes
it back when it fits. While more is wanted than the cache holds, the room left is what the next
admission of A tokens lacks, spread over 0 … A: a step in which all grow g tokens evicts with chance
g/E[A], unless somebody leaves at its start, which exp(−n/E[D]) of the steps are spared. A request
grows (1 − r)·E[D] tokens in all, so

    evictions per request = P(held > K) exp(−n/E[D]) (1 − r) E[D]/E[A]

with n running: where that is small, as many recomputed tokens as a request grows in a full cache.
Where few requests of much the same length fill the cache, the room is not spread evenly; its
density at 0 is then that of n sums, Σ_n f_n(K), in place of their mean 1/E[held].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.queues.requests import Requests
from bestserve.models.special import gamma_tails, normal_cdf
from bestserve.models.system import Lane

NO_SKEW = 1e-3
"""Skewness below which the sum is taken as normal: the gamma law of Pearson III has no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTokens:
    """What one running request of a lane holds, and what the lane's cache holds.

    mean, variance, third : of the tokens held in a step, central moments [tokens^i]; admitted :
    mean tokens taken at admission [tokens]; room : mean tokens free when requests always wait
    (the next one does not fit) [tokens]; growth : tokens grown beyond those, per request [tokens];
    steps : decode steps of a request [1]; capacity : tokens in whole blocks [tokens]
    """

    mean: float
    variance: float
    third: float
    admitted: float
    room: float
    growth: float
    steps: float
    capacity: float

    @classmethod
    def of(cls, lane: Lane, requests: Requests) -> HeldTokens:
        """Return the law for the requests of a lane.

        >>> from bestserve.models.queues.requests import prepare
        >>> from bestserve.models.step.step_time import StepTime
        >>> from bestserve.models.system import Lengths
        >>> one = np.ones(1)
        >>> fixed = Lengths(inputs=1000 * one, input_weights=one, outputs=201 * one,
        ...                 output_weights=one)
        >>> step = StepTime(w=6e-3, c=26e-6, e=0.0, a=0.0, k=5e-8)
        >>> held = HeldTokens.of(Lane(step=step, kv_capacity_tokens=50_000), prepare(fixed))
        >>> held.mean, round(held.full_number, 2)   # 1000 + (1 + … + 200)/200; 49500/1100.5
        (1100.5, 44.98)
        """
        r, block = requests, lane.kv_block
        steps, weight, kv = r.steps, r.steps_weight, r.steps_kv
        reserved = np.floor(lane.kv_reserve * steps)
        # Σ_j max(reserved, j)^i over the steps of a request, i = 0 … 3
        own = [steps] + [
            reserved ** (i + 1) + _power_sum(i, steps) - _power_sum(i, reserved) for i in (1, 2, 3)
        ]
        total = max(float(weight @ steps), 1e-12)
        m1 = float(weight @ (kv[0] * own[0] + own[1])) / total
        m2 = float(weight @ (kv[1] * own[0] + 2 * kv[0] * own[1] + own[2])) / total
        m3 = kv[2] * own[0] + 3 * kv[1] * own[1] + 3 * kv[0] * own[2] + own[3]
        variance = m2 - m1**2 + (block**2 - 1) / 12
        third = float(weight @ m3) / total - 3 * m1 * m2 + 2 * m1**3
        # what is drafted needs room too, and is seldom kept
        pad = (block - 1) / 2 + r.drafting.drafts
        taken = kv[0] + reserved
        admitted = float(weight @ taken)
        squared = float(weight @ (kv[1] + 2 * kv[0] * reserved + reserved**2))
        return cls(
            mean=m1 + pad,
            variance=max(variance, 0.0),
            third=max(third, 0.0),
            admitted=admitted + pad,
            room=squared / admitted / 2,
            growth=float(weight @ (steps - reserved)),
            steps=max(r.d1, 1e-12),
            capacity=block * math.floor(lane.kv_capacity_tokens / block)
            if math.isfinite(lane.kv_capacity_tokens)
            else math.inf,
        )

    @property
    def full_number(self) -> float:
        """How many run on average when requests always wait and slots never bind [sequences].

        One at least where one fits.
        """
        if self.capacity < self.mean:
            return 0.0
        return max((self.capacity - self.room) / max(self.mean, 1.0), 1.0)

    def full(self, running: Floats) -> Floats:
        """Return the chance that so many sequences want more than the cache holds [n, 1].

        Half an admission early: that much room is lost when the next one does not fit.
        """
        if not math.isfinite(self.capacity):
            return np.zeros(running.size)
        return self._beyond(self.capacity - self.admitted / 2, running)

    def evictions(self, running: float) -> float:
        """Return the evictions per request with so many sequences running, or as many as fit.

        0 where answers are reserved; growth/admitted when requests always wait.
        """
        if self.growth <= 0.0 or not math.isfinite(self.capacity):
            return 0.0
        often = float(self.full(np.array([running]))[0]) * self._crowding()
        spared = math.exp(-min(running, self.full_number) / self.steps)
        return often * spared * self.growth / self.admitted

    def _crowding(self) -> float:
        """Return how much denser than on average sums of held tokens lie at the capacity, ≥ 1."""
        near = round(self.capacity / self.mean)
        density = 0.0
        for n in range(max(near - 8, 1), max(near + 8, 1) + 1):
            deviation = math.sqrt(n * max(self.variance, 1.0))
            z = (self.capacity - n * self.mean) / deviation
            density += math.exp(-(z**2) / 2) / (deviation * math.sqrt(2 * math.pi))
        return max(self.mean * density, 1.0)

    def _beyond(self, tokens: float, running: Floats) -> Floats:
        """Return the chance that so many sequences hold more than `tokens` [n, 1]."""
        if self.variance <= 0:
            return np.asarray(running * self.mean > tokens, dtype=np.float64)
        n = np.maximum(running, 1e-9)
        z = (tokens - n * self.mean) / np.sqrt(n * self.variance)
        skew = self.third / (self.variance**1.5 * np.sqrt(n))
        shape = 4.0 / np.maximum(skew, NO_SKEW) ** 2
        gamma = gamma_tails(shape, np.maximum(shape + z * np.sqrt(shape), 0.0))
        return np.where(running <= 0, 0.0, np.where(skew < NO_SKEW, normal_cdf(-z), gamma))


def safe_seqs(lane: Lane, requests: Requests, eviction_rate: float) -> int:
    """Return the largest `max_num_seqs` that keeps evictions at or below a rate [sequences].

    eviction_rate : evictions per request when all slots are always taken; at lighter loads there
    are fewer. The answer is at least 1 and at most the lane's own `max_num_seqs`, which it is where
    answers are reserved at admission or the cache has no end: nothing is evicted.

    Against the simulator at saturation the measured rate is 0.1 to 0.9 of the one stated. Ages are
    taken as independent: requests of one length that all start at once stay in step, and evict
    more.
    """
    held = HeldTokens.of(lane, requests)
    low, high = 1, lane.max_num_seqs
    while low < high:
        middle = (low + high + 1) // 2
        if held.evictions(float(middle)) <= eviction_rate:
            low = middle
        else:
            high = middle - 1
    return low


def _power_sum(power: int, n: Floats) -> Floats:
    """Return 1^power + … + n^power for power 1, 2 or 3 (Faulhaber)."""
    if power == 1:
        return n * (n + 1) / 2
    if power == 2:
        return n * (n + 1) * (2 * n + 1) / 6
    return (n * (n + 1) / 2) ** 2
