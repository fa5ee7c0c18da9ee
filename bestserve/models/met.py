"""Which requests meet which objectives, from what is known of each of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bestserve.arrays import Bools, Floats, Ints, Ints32
from bestserve.errors import InputError
from bestserve.models.system import Target
from bestserve.models.token_target import Seen

LATENCIES = ("ttft", "tpot", "e2el")


def met(
    latencies: Mapping[str, Floats],
    steps: Floats | Ints | Ints32,
    seen: Seen | None,
    target: Target,
) -> dict[str, Bools | Floats]:
    """Return which requests met each objective asked for, and all of them ("joint") [n].

    latencies : of each request by name [s]: refused ones have no finite ttft and meet nothing,
    answers of one token have no tpot and meet any; steps : output tokens after the first;
    seen : what they met token by token

    A separate ITL objective is about gaps: its entries are weights whose mean is their share.

    Raises InputError for objectives on tokens that nobody watched.

    >>> target = Target(ttft=1.0, e2el=2.0, e2el_per_token=0.1)
    >>> run = {"ttft": np.array([0.5, 0.5]), "e2el": np.array([2.5, 3.5])}
    >>> {name: share.tolist() for name, share in met(run, np.array([10, 10]), None, target).items()}
    {'ttft': [True, True], 'e2el': [True, False], 'joint': [True, False]}
    """
    served = np.isfinite(latencies["ttft"])
    joint = served.copy()
    out: dict[str, Bools | Floats] = {}
    for name in LATENCIES:
        threshold = getattr(target, name)
        if threshold is None:
            continue
        limit = threshold + target.e2el_per_token * steps if name == "e2el" else threshold
        within = served & ((latencies[name] <= limit) | np.isnan(latencies[name]))
        out[name] = within
        joint &= within
    if target.tokens is not None:
        if seen is None:
            raise InputError(
                "nothing here watches single tokens; goodput, rank, predict, simulate, allocate "
                "and validate do, in Python simulate(..., reader=target.reader)"
            )
        for token, within in seen.meeting(target.tokens).items():
            out[token] = seen.gaps_within() if token == "itl" and not target.joint else within
            joint &= within
    return {**out, "joint": joint}


def shares(found: Mapping[str, Bools | Floats]) -> dict[str, float]:
    """Return the share of requests (of gaps, for a separate ITL objective) that met each [1]."""
    return {name: float(each.mean()) if each.size else 0.0 for name, each in found.items()}
