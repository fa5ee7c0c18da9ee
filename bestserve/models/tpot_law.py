"""The law of TPOT from moments per output length, read in two ways.

Where a decode meets few prompts TPOT is a sum of single stalls (`lumps`), where it meets many a
smooth law of the same three moments (`mixture`). Neither is exact in between: how far the two are
apart tells how much there is to doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.models.distribution import Distribution
from bestserve.models.queues.requests import Requests
from bestserve.models.queues.tpot.compound_poisson import lump_mixture
from bestserve.models.queues.tpot.mixture import Components, mixture
from bestserve.models.schedulers.engine import LaneLatency

FEW_PROMPTS = 4.0
"""Mean prompts met by a decode up to which TPOT is a sum of single stalls: beyond it, three moments
tell more of the 99th percentile."""


@dataclass(frozen=True, slots=True)
class TpotLaw:
    """What a lane does to the decodes of its requests, ready to be read as a law.

    parts : components of the smooth law; each_token : whether every token is a message
    """

    requests: Requests
    met: LaneLatency
    parts: Components
    each_token: bool

    def law(self) -> Distribution:
        """Return the law of TPOT [s], of single stalls where they are few and tell its mean."""
        if self._few_prompts():
            found = self._lumps()
            if found.told:
                return found
        return self._smooth()

    def apart(self, p: float) -> float:
        """Return |ratio − 1| of the p-quantiles of both readings; 0 where there is but one."""
        if not self.each_token or self.met.single is None:
            return 0.0
        return abs(self._smooth().quantile(p) / max(self._lumps().quantile(p), 1e-300) - 1.0)

    def _few_prompts(self) -> bool:
        requests, met = self.requests, self.met
        if not self.each_token or met.single is None:
            return False
        stalls = requests.class_weight @ (requests.classes * (met.mean - met.calm_mean))
        return bool(stalls < FEW_PROMPTS * (requests.weight @ met.single))

    def _smooth(self) -> Distribution:
        parts = self.parts
        return mixture(
            self.requests.class_weight[parts.cls] * parts.share,
            parts.mean,
            parts.variance,
            parts.third,
            parts.low,
            parts.high,
        )

    def _lumps(self) -> Distribution:
        requests, met = self.requests, self.met
        assert met.single is not None
        d = requests.classes
        smooth = d**2 * met.calm_variance
        return lump_mixture(
            requests.class_weight,
            d,
            met.calm_mean,
            d * (met.mean - met.calm_mean),
            np.maximum(d**2 * met.variance - smooth, 0.0),
            smooth,
            met.single,
            requests.weight,
        )
