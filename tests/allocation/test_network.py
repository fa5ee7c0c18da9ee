"""KV transfer: without a network everything is collocated; with an endless one nothing changes."""

from __future__ import annotations

import itertools
from types import ModuleType

import numpy as np
import pytest

from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.search import search
from bestserve.solvers.allocation.tables import COLLOCATED

EXACT = Options(gap=0.0)


def test_no_network_means_collocated(oracle: ModuleType) -> None:
    for seed in range(6):
        tables, required = oracle.random_problem(seed, "max_goodput")
        cut = tables.with_supply(nic=np.zeros(tables.supply.count))
        found = search(cut, required, EXACT)
        if found.plan is not None:
            assert np.all(tables.pools.role[found.plan.pool] == COLLOCATED)
            assert found.plan.flows.size == 0


def test_a_network_that_never_binds_changes_nothing(oracle: ModuleType) -> None:
    for seed in range(6):
        tables, required = oracle.random_problem(seed, "max_headroom")
        endless = tables.with_supply(nic=np.full(tables.supply.count, 1e6))
        free, wide = search(tables, required, EXACT), search(endless, required, EXACT)
        assert (free.plan is None) == (wide.plan is None)
        if free.plan is not None and wide.plan is not None:
            assert wide.plan.objective == pytest.approx(free.plan.objective, rel=2e-6)


def test_less_network_never_helps(oracle: ModuleType) -> None:
    tables, required = oracle.random_problem(8, "max_goodput", side="network")
    worths = []
    for bandwidth in (2.0, 1.0, 0.5, 0.2):
        linked = tables.with_supply(nic=np.full(tables.supply.count, bandwidth))
        found = search(linked, required, EXACT)
        worths.append(found.plan.objective if found.plan is not None else 0.0)
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(worths))
    assert worths[0] > worths[-1]
