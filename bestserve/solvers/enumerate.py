"""All strategies worth ranking: shapes of one instance, batch limits, replica counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Ints
from bestserve.lowering import LaneResult, Lowered
from bestserve.lowering.lanes import Limits
from bestserve.lowering.speculation import usual_drafts
from bestserve.models.step.device import Parallelism
from bestserve.models.system import Lane, Role
from bestserve.results.document import AnswerStatus
from bestserve.results.ranking import Rejected
from bestserve.specs.problem import LAYOUTS
from bestserve.specs.strategy import Drafts, Pool

TOKEN_BUDGETS: dict[Role, tuple[int, ...]] = {"m": (2048, 1024, 512), "p": (16384,), "d": ()}
"""Values of max_num_batched_tokens that fleets try besides the engine's own, falling."""

PIPELINES = (1, 2, 4)
"""Pipeline depths tried where the problem names none."""

MAX_PIPELINE = 8
"""Pipeline depth tried when a model fits no other way."""

WIDEST_NODES = 4
"""Nodes that experts are spread over at most."""

MAX_ODD = 16
"""Largest tp that is no power of two."""


@dataclass(frozen=True)
class Candidate:
    """One shape of instance with its batch limits, for one role; None: the engine's own limit."""

    role: Role
    parallelism: Parallelism
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    lane: Lane
    lanes_per_instance: int
    drafts: Drafts = None

    @property
    def limits(self) -> Limits:
        """Its batch limits, and what its decodes draft."""
        return Limits(self.max_num_seqs, self.max_num_batched_tokens, self.drafts)

    @property
    def share(self) -> float:
        """GPUs of one lane."""
        return self.parallelism.gpus / self.lanes_per_instance

    def pool(self, replicas: int) -> Pool:
        """Return `replicas` of these instances as a pool."""
        return Pool.of(self.role, replicas, self.parallelism, **self.limits._asdict())


def limited(lowered: Lowered, candidate: Candidate, limits: Limits) -> Candidate | None:
    """Return the candidate with other limits; None if it cannot be built with them."""
    shape, role = candidate.parallelism, candidate.role
    seqs, budget, drafts = limits
    found = lowered.lane(shape, seqs, budget, role=role, drafts=drafts)
    if found.lane is None:
        return None
    return Candidate(role, shape, seqs, budget, found.lane, found.lanes_per_instance, drafts)


def shapes(lowered: Lowered) -> list[Parallelism]:
    """Return the parallelisms of one instance worth trying, smallest first.

    Dense: tp × pp. MoE: also expert parallelism over the tp ranks, and attention data
    parallelism with experts over all ranks (within and across nodes).
    """
    p = lowered.problem
    if p.step_time is not None:
        return [Parallelism()]
    tps = tensor_parallel_sizes(lowered)
    pps = p.pipeline_parallel_sizes or PIPELINES
    moe = lowered.model.architecture.is_moe
    found = [Parallelism(tp=tp, pp=pp) for tp in tps for pp in pps]
    if moe:
        found += [Parallelism(tp=tp, pp=pp, ep=tp) for tp in tps if tp > 1 for pp in pps]
        if p.tensor_parallel_sizes is None:
            wide = powers_of_two(min(p.gpus, WIDEST_NODES * lowered.device.gpus_per_node))
            found += [Parallelism(dp=n, ep=n) for n in wide if n > 1]
    found = [s for s in found if s.gpus <= p.gpus]
    if p.pipeline_parallel_sizes is None and not any(lowered.lane(s).lane for s in found):
        deep = [Parallelism(tp=tp, pp=pp) for pp in range(2, MAX_PIPELINE + 1) for tp in tps]
        found += [s for s in deep if s.gpus <= p.gpus]
    return sorted(dict.fromkeys(found), key=lambda s: (s.pp > 1, s.gpus, s.tp, s.pp, s.ep))


def tensor_parallel_sizes(lowered: Lowered) -> tuple[int, ...]:
    """Return the tp asked for, or powers of two and the divisors of the GPUs within a node."""
    p = lowered.problem
    if p.tensor_parallel_sizes is not None:
        return p.tensor_parallel_sizes
    widest = p.gpus if p.tp_across_nodes else min(lowered.device.gpus_per_node, p.gpus)
    heads = {g.attention.num_heads for g in lowered.model.architecture.groups}
    odd = [
        n
        for n in range(3, min(widest, MAX_ODD) + 1)
        if p.gpus % n == 0 and not any(h % n for h in heads if h)
    ]
    return tuple(sorted({*powers_of_two(widest), *odd}))


def not_tried(lowered: Lowered) -> tuple[str, ...]:
    """Return what a ranking leaves out, one phrase each; what the problem rules out among it."""
    p = lowered.problem
    out = [f"{layout} instances (layouts)" for layout in LAYOUTS if layout not in p.layouts]
    if p.speculative_config is not None and "hybrid" in p.layouts:
        out.append("hybrids that draft (speculative_config)")
    if p.step_time is not None:
        return (*out, "other instances than the one whose step time was given")
    device, moe = lowered.device, lowered.model.architecture.is_moe
    if p.tensor_parallel_sizes is None and not p.tp_across_nodes and p.gpus > device.gpus_per_node:
        out.append("tensor parallelism over nodes (tp_across_nodes)")
    if p.tensor_parallel_sizes is not None:
        asked = ", ".join(map(str, p.tensor_parallel_sizes))
        out.append(f"tp other than {asked} (tensor_parallel_sizes)")
    if p.gpus > 1:
        depths = ", ".join(map(str, p.pipeline_parallel_sizes or PIPELINES))
        out.append(f"pipelines of other depths than {depths} (pipeline_parallel_sizes)")
        if p.pipeline_parallel_sizes is None:
            out.append("pipelines that a look says gain less than 1 % per GPU")
    if moe and p.gpus > 2:
        out.append("data-parallel attention of tensor-parallel ranks (dp × tp with ep)")
    if moe and p.gpus > WIDEST_NODES * device.gpus_per_node:
        out.append(f"experts over more than {WIDEST_NODES} nodes")
    if p.gpus > 1:
        out.append("pools of unlike instances")
    return tuple(out)


def candidates(lowered: Lowered, role: Role) -> tuple[list[Candidate], list[Rejected]]:
    """Return the instances that can be built for a role at the engine's own limits, and others."""
    p = lowered.problem
    kept: list[Candidate] = []
    rejected: list[Rejected] = []
    config = p.speculative_config
    drafts = None if config is None or role == "p" else usual_drafts(config)
    for shape in shapes(lowered):
        result = lowered.lane(shape, role=role, drafts=drafts)
        if result.lane is None:
            rejected.append(reject(role, shape, result))
            continue
        lanes = result.lanes_per_instance
        kept.append(Candidate(role, shape, None, None, result.lane, lanes, drafts))
    if not kept and not rejected:
        sizes = ", ".join(map(str, p.tensor_parallel_sizes or ()))
        asked = f"none of tensor_parallel_sizes {sizes}" if sizes else "no parallelism"
        why = f"{asked} fits {p.gpus} GPUs"
        rejected.append(Rejected(role, AnswerStatus.INFEASIBLE_SHAPE, why))
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
