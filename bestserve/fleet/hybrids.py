"""Hybrids as pools of a fleet: a few instances of two kinds on one GPU type, planned as one.

Such a unit does all of a request's work, so that to the programme it is a collocated instance of as
many GPUs. It fits into a machine; its KV is charged to no network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from bestserve.lowering import Lowered, kv_transfer
from bestserve.models.system import Hybrid
from bestserve.solvers.enumerate import shapes
from bestserve.specs.strategy import Pool, Strategy

COUNTS = ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2))
"""Prefill-leaning and decode-leaning instances of a unit."""

NARROW = (128, 256, 512)
"""Token budgets of decode-leaning instances [tokens]."""


def units(lowered: Lowered) -> Iterator[tuple[Strategy, Hybrid]]:
    """Yield the units of a model on a GPU type, and what they are to the models."""
    node = lowered.device.gpus_per_node
    for shape in shapes(lowered):
        for (x, y), budget in itertools.product(COUNTS, NARROW):
            if (x + y) * shape.gpus > node or shape.pp > 1:
                continue
            back = Pool.of("d", y, shape, max_num_batched_tokens=budget)
            pools = Pool.of("p", x, shape), back.model_copy(update={"local": True})
            if any(lowered.pool_result(pool).lane is None for pool in pools):
                continue
            strategy = Strategy(pools=pools)
            front, behind = (lowered.pool_lane(pool) for pool in pools)
            transfer = kv_transfer(lowered, shape, shape)
            yield strategy, lowered.hybrid(strategy, front, behind, transfer)
