"""The law of TPOT from moments per output length, read in two ways.

Where a decode meets few prompts TPOT is a sum of single stalls (`lumps`), where it meets many a
smooth law of the same three moments (`mixture`). Neither is exact in between: how far the two are
apart tells how much there is to doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bestserve.models.distribution import Distribution
from bestserve.models.queues.requests import Requests
from bestserve.models.queues.tpot.compound_poisson import Atoms, Sums, compound_poisson_mixture
from bestserve.models.queues.tpot.mixture import Components, mixture
from bestserve.models.schedulers.engine import LaneLatency

FEW_PROMPTS = 4.0
"""Mean prompts met by a decode up to which TPOT is a sum of single stalls: beyond it, three moments
tell more of the 99th percentile."""


@dataclass(frozen=True)
class TpotLaw:
    """What a lane does to the decodes of its requests, ready to be read as a law.

    parts : components of the smooth law; each_token : whether every token is a message
    """

    requests: Requests
    lane: LaneLatency
    parts: Components
    each_token: bool

    def law(self) -> Distribution:
        """Return the law of TPOT [s], of single stalls where they are few and tell its mean."""
        if self._few_prompts():
            found = self._single_stalls
            if found.told:
                return found
        return self._smooth

    def discrepancy(self, p: float) -> float:
        """Return |ratio − 1| of the p-quantiles of both readings; 0 where there is but one."""
        if not self.each_token or self.lane.stall_atoms is None:
            return 0.0
        return abs(self._smooth.quantile(p) / max(self._single_stalls.quantile(p), 1e-300) - 1.0)

    def _few_prompts(self) -> bool:
        requests, lane = self.requests, self.lane
        if not self.each_token or lane.stall_atoms is None:
            return False
        stalls = requests.class_weight @ (requests.classes * (lane.mean - lane.unstalled.mean))
        return bool(stalls < FEW_PROMPTS * (requests.weight @ lane.stall_atoms))

    @cached_property
    def _smooth(self) -> Distribution:
        parts = self.parts
        return mixture(self.requests.class_weight[parts.cls] * parts.share, parts.laws)

    @cached_property
    def _single_stalls(self) -> Distribution:
        requests, lane = self.requests, self.lane
        assert lane.stall_atoms is not None
        d = requests.classes
        smooth = d**2 * lane.unstalled.variance
        return compound_poisson_mixture(
            requests.class_weight,
            d,
            lane.unstalled.mean,
            smooth,
            Sums(
                mean=d * (lane.mean - lane.unstalled.mean),
                variance=np.maximum(d**2 * lane.variance - smooth, 0.0),
            ),
            Atoms(lane.stall_atoms, requests.weight),
        )
