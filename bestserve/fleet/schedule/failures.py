"""Instances fail and are repaired: how many are up, and how many must be there for that.

An instance is up for an exponential time, then under repair, whatever the others do: of n instances
in the long run Bin(n, a) are up, a = 1/(1 + repair time/time between failures). This is the machine
repair model with a repairman for each (Feller, An Introduction to Probability Theory, vol. 1,
XVII.7), and holds whatever law the repair times have.
"""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Ints


def up_share(gpus: int, gpu_hours_between_failures: float, repair_time: float) -> float:
    """Return the share of time that an instance of `gpus` GPUs is up [1]; repair_time [s].

    >>> round(up_share(8, 50_000, 1800), 6)
    0.99992
    """
    return 1.0 / (1.0 + gpus * repair_time / (gpu_hours_between_failures * 3600.0))


def at_least(working: int, of: int, up: float) -> float:
    """Return how often at least `working` of `of` instances are up [1].

    >>> round(at_least(1, 2, 0.9), 4)
    0.99
    """
    from scipy.special import bdtrc

    return float(bdtrc(working - 1, of, up)) if working > 0 else 1.0


def totals(up: float, availability: float, most: int) -> Ints:
    """Return how many instances keep k of them up as often as required, k = 0 to `most`.

    >>> totals(0.99, 0.999, 4)
    array([0, 2, 3, 4, 5])
    """
    found = [0]
    for k in range(1, most + 1):
        n = max(found[-1] + 1, k)
        while at_least(k, n, up) < availability:
            n += 1
        found.append(n)
    return np.array(found, dtype=np.int64)
