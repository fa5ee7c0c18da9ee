"""All strategies worth ranking: shapes of one instance, batch limits, replica counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bestserve.lowering import LaneResult, Lowered
from bestserve.models.step.device import Parallelism
from bestserve.models.system import Lane, Role
from bestserve.results.document import Status
from bestserve.results.ranking import Rejected
from bestserve.specs.strategy import Pool

Ints = NDArray[np.int64]

TOKEN_BUDGETS: dict[Role, tuple[int, ...]] = {"m": (2048, 1024, 512), "p": (16384,), "d": ()}
"""Values of max_num_batched_tokens tried besides the engine's own where it is open, falling."""

MAX_PIPELINE = 8
"""Pipeline depth tried on its own accord when a model fits no other way."""


@dataclass(frozen=True)
class Candidate:
    """One shape of instance with its batch limits, for one role."""

    role: Role
    parallelism: Parallelism
    max_num_batched_tokens: int | None
    lane: Lane
    lanes_per_instance: int

    def pool(self, replicas: int) -> Pool:
        """Return `replicas` of these instances as a pool."""
        limit = self.max_num_batched_tokens
        return Pool.of(self.role, replicas, self.parallelism, max_num_batched_tokens=limit)


def shapes(lowered: Lowered) -> list[Parallelism]:
    """Return the parallelisms of one instance worth trying, smallest first.

    Dense: tp × pp. MoE: also expert parallelism over the tp ranks, and attention data
    parallelism with experts over all ranks (within and across nodes).
    """
    p = lowered.problem
    if p.step_time is not None:
        return [Parallelism()]
    node = lowered.device.gpus_per_node
    widest = p.gpus if p.tp_across_nodes else min(node, p.gpus)
    tps = p.tensor_parallel_sizes or tuple(powers_of_two(widest))
    pps = p.pipeline_parallel_sizes
    moe = lowered.model.architecture.is_moe
    found = [Parallelism(tp=tp, pp=pp) for tp in tps for pp in pps]
    if moe:
        found += [Parallelism(tp=tp, pp=pp, ep=tp) for tp in tps if tp > 1 for pp in pps]
        if p.tensor_parallel_sizes is None:
            wide = powers_of_two(min(p.gpus, 4 * node))
            found += [Parallelism(dp=n, ep=n) for n in wide if n > 1]
    found = [s for s in found if s.gpus <= p.gpus]
    if pps == (1,) and not any(lowered.lane(s).lane for s in found):
        deep = [Parallelism(tp=tp, pp=pp) for pp in range(2, MAX_PIPELINE + 1) for tp in tps]
        found += [s for s in deep if s.gpus <= p.gpus]
    return sorted(dict.fromkeys(found), key=lambda s: (s.gpus, s.tp, s.pp, s.ep))


def candidates(lowered: Lowered, role: Role) -> tuple[list[Candidate], list[Rejected]]:
    """Return the instances that can be built for a role, and the shapes that cannot."""
    p = lowered.problem
    kept: list[Candidate] = []
    rejected: list[Rejected] = []
    for shape in shapes(lowered):
        budgets: list[int | None] = [None]
        if p.max_num_batched_tokens is None:
            own = lowered.engine.max_num_batched_tokens
            budgets += [b for b in TOKEN_BUDGETS[role] if b != own]
        for budget in budgets:
            result = lowered.lane(shape, max_num_batched_tokens=budget, role=role)
            if result.lane is None:
                rejected.append(reject(role, shape, result))
                break
            kept.append(Candidate(role, shape, budget, result.lane, result.lanes_per_instance))
    if not kept and not rejected:
        sizes = ", ".join(map(str, p.tensor_parallel_sizes or ()))
        asked = f"none of tensor_parallel_sizes {sizes}" if sizes else "no parallelism"
        why = f"{asked} fits {p.gpus} GPUs"
        rejected.append(Rejected(role, Status.INFEASIBLE_SHAPE, why))
    return kept, rejected


def reject(role: Role, shape: Parallelism, result: LaneResult) -> Rejected:
    """Return the record of a shape that cannot be built."""
    pool = Pool.of(role, 1, shape)
    return Rejected(f"{role}{pool.options}", result.status, result.reason)


def maximal_pairs(gpus: int, prefill: int, decode: int) -> tuple[Ints, Ints]:
    """Return all (x, y) with x prefill and y decode instances that leave no room for another.

    `prefill` and `decode` are the GPUs of one instance of each. Arrays of equal length, x rising.

    >>> [v.tolist() for v in maximal_pairs(16, 4, 8)]
    [[2], [1]]
    """
    x = np.arange(1, (gpus - decode) // prefill + 1, dtype=np.int64)
    y = (gpus - x * prefill) // decode
    last = np.append(y[:-1] != y[1:], True) if x.size else np.zeros(0, dtype=bool)
    return x[last], y[last]


def powers_of_two(limit: int) -> list[int]:
    """Return 1, 2, 4, … up to `limit`."""
    return [1 << i for i in range(limit.bit_length()) if 1 << i <= limit]
