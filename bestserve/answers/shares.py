"""What each pool of a hybrid does at its goodput: shares from a short run under its own routing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bestserve.lowering import Lowered
from bestserve.models.hybrid import full_step
from bestserve.models.queues.requests import prepare
from bestserve.models.system import Hybrid
from bestserve.results.ranking import RankedStrategy
from bestserve.simulator import simulate
from bestserve.specs.strategy import Strategy

REQUESTS = 4000
"""Of the run: shares to about 1 %."""


def shared_out(lowered: Lowered, row: RankedStrategy) -> RankedStrategy:
    """Return the row of a hybrid with what its pools do; any other as it is."""
    strategy = Strategy.parse(row.strategy)
    if not strategy.hybrid:
        return row
    system = lowered.system(strategy)
    assert isinstance(system, Hybrid)
    run = simulate(system, row.goodput, requests=REQUESTS)
    kept = run.kept
    busy = [float(np.mean(pool.utilisation)) for pool in run.pools]
    shares = {
        "local_prefill_share": float(np.mean(run.replica[kept] < 0)),
        "local_decode_share": system.local_decode_share,
        "full_step": full_step(system.decode, prepare(system.lengths)),
        "prefill_busy": busy[0],
        "decode_busy": busy[1],
    }
    return replace(row, shares=shares)
