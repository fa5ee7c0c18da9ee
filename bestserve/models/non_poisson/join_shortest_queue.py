"""How many requests a step collects where a router keeps lanes level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Level:
    """Lanes whose numbers of requests a router keeps equal.

    Arrivals of a lane follow its departures, and those come with the ends of its steps. While a
    step of length T runs, its lane loses nothing, the other k − 1 lose λT each and all of them get
    kλT: that leaves T/k of its arrivals, and what makes up for its own last departures. These are
    U on average, filled at rate kλ:

        c(T) = b T + (1 − b) U/λ (1 − e^{−kλT}),   E c(T) = E T,   b = 1/k.

    What all lanes have in common, 1/k of the fluctuation, is not smoothed but grows as alone, by
    1/(1 − σ)²; b is raised so that the single lane has the fluctuation of both parts (ad hoc).

    lanes : k; rate : λ of a lane [1/s]; missing : U/λ [s]; part : b
    """

    lanes: int
    rate: float
    missing: float
    part: float

    @classmethod
    def of(cls, lanes: int, rate: float, times: Floats, share: Floats, stall: float) -> Level:
        """Return the router of lanes whose steps take `times` [m, s] with probability `share`.

        stall : σ, share of the time that prompts take
        """
        filled = float(share @ -np.expm1(-lanes * rate * times))
        gain = 1.0 / lanes / (1.0 - stall) ** 2 + (1.0 - 1.0 / lanes)
        part = (1.0 - gain**-0.5) / max(stall, 1e-6)
        return cls(lanes, rate, float(share @ times) / filled, part)

    def collected(self, times: Floats) -> Floats:
        """Return the time in which Poisson arrivals are as many as in steps of `times` [m, s]."""
        filled = self.missing * -np.expm1(-self.lanes * self.rate * times)
        return np.asarray(times * self.part + (1.0 - self.part) * filled)

    def edges(self, times: Floats, bins: int) -> Floats:
        """Return when each of `bins` equal parts of a step's arrivals has come [m, bins + 1, s]."""
        part = np.linspace(0.0, 1.0, 65)
        found = np.empty((times.size, bins + 1))
        for i, time in enumerate(times):
            by = self.collected(part * time)
            found[i] = np.interp(np.linspace(0.0, by[-1], bins + 1), by, part * time)
        return found
