"""Lanes of an instance: what fits its memory, what its limits are, what its steps take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bestserve.lowering.drafter import with_drafter
from bestserve.lowering.resolved import Resolved
from bestserve.lowering.shapes import shape_problem
from bestserve.lowering.speculation import lower_speculation, speculates
from bestserve.models.step.device import Parallelism
from bestserve.models.step.memory import MemoryPlan, memory_plan
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Lane, Role
from bestserve.results.document import AnswerStatus
from bestserve.specs.strategy import Drafts

MOST_CHUNKS = 100
"""Steps that a mean prompt may take: beyond, no one serves, and the models have no grid for it."""


@dataclass(frozen=True)
class LaneResult:
    """A lane, or why there is none."""

    lane: Lane | None
    lanes_per_instance: int
    plan: MemoryPlan | None
    status: AnswerStatus
    reason: str = ""


class Limits(NamedTuple):
    """What a pool may decide; None: what the problem states, or the engine's own.

    max_num_seqs : running sequences; max_num_batched_tokens : of a step [tokens]; drafts : tokens
    speculated per decode
    """

    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    drafts: Drafts = None


def build_lane(
    resolved: Resolved,
    parallelism: Parallelism,
    limits: Limits,
    role: Role,
    step_time: Callable[[], StepTime],
) -> LaneResult:
    """Return one lane of an instance with this parallelism and role, or why there is none.

    step_time : finds the coefficients, asked for only where there is a lane
    """
    p = resolved.problem
    seqs, tokens, drafts = limits
    if p.step_time is not None:
        return _own_lane(resolved, parallelism, limits, role)
    reason = shape_problem(
        resolved.model, resolved.device, parallelism, p.gpus, across_nodes=p.tp_across_nodes
    )
    if reason:
        return LaneResult(None, 1, None, AnswerStatus.INFEASIBLE_SHAPE, reason)
    engine = dataclasses.replace(
        resolved.engine_for(role),
        max_num_seqs=seqs or resolved.engine.max_num_seqs,
        max_num_batched_tokens=tokens or resolved.engine.max_num_batched_tokens,
    )
    arch = resolved.model.architecture
    if speculates(p.speculative_config, drafts):
        arch = with_drafter(arch, p.speculative_config)
    input_len, output_len = resolved.mean_lengths
    context = resolved.model.max_position_embeddings
    if 0 < context < input_len + output_len:
        length = input_len + output_len
        reason = (
            f"a mean request has {length:,.0f} tokens, {resolved.model.name} reads at most "
            f"{context:,}; to go beyond, set rope_scaling in its config.json and give that "
            f'file, e.g. {{"rope_type": "yarn", "factor": {math.ceil(length / context)}, '
            f'"original_max_position_embeddings": {context}}}'
        )
        return LaneResult(None, 1, None, AnswerStatus.INFEASIBLE_SHAPE, reason)
    plan = memory_plan(
        arch,
        resolved.device,
        parallelism,
        resolved.formats,
        engine,
        context_len=input_len + output_len,
        constants=resolved.constants,
    )
    if not plan.fits:
        memory = plan.kv_bytes <= 0
        status = AnswerStatus.INFEASIBLE_MEMORY if memory else AnswerStatus.NO_CAPACITY
        return LaneResult(None, 1, plan, status, plan.explain())
    hit = p.workload.prefix_cache_hit
    if input_len * (1 - hit) > MOST_CHUNKS * engine.max_num_batched_tokens:
        steps = input_len * (1 - hit) / engine.max_num_batched_tokens
        reason = (
            f"a mean prompt would take {steps:,.0f} steps of max_num_batched_tokens = "
            f"{engine.max_num_batched_tokens}; raise it"
        )
        return LaneResult(None, 1, plan, AnswerStatus.INFEASIBLE_SHAPE, reason)
    step, slots = step_time(), max(1, engine.max_num_seqs * parallelism.dp // parallelism.pp)
    lane = Lane(
        step=step,
        policy=engine.policy,
        max_num_seqs=slots,
        max_num_batched_tokens=engine.max_num_batched_tokens * parallelism.dp,
        kv_capacity_tokens=plan.kv_serving_tokens,
        kv_reserve=engine.kv_reserve,
        kv_block=engine.kv_block,
        t_req=engine.t_req_moe if resolved.model.architecture.is_moe else engine.t_req,
        t_req_token=engine.t_req_token,
        stream_interval=engine.stream_interval,
        async_scheduling=engine.async_scheduling,
        speculation=lower_speculation(resolved, parallelism, role, drafts, (step, slots)),
    )
    return _roomy(LaneResult(lane, plan.lanes, plan, AnswerStatus.OK))


def _roomy(found: LaneResult) -> LaneResult:
    """Return a lane, or why there is none: a step must hold a decode with its drafts."""
    lane = found.lane
    assert lane is not None
    width = lane.speculation.drafts_beside(1) + 1
    if width <= lane.max_num_batched_tokens:
        return found
    reason = (
        f"a step holds max_num_batched_tokens = {lane.max_num_batched_tokens}, a decode and its "
        f"drafts {width}; raise it"
    )
    return dataclasses.replace(
        found, lane=None, status=AnswerStatus.INFEASIBLE_SHAPE, reason=reason
    )


def _own_lane(
    resolved: Resolved, parallelism: Parallelism, limits: Limits, role: Role
) -> LaneResult:
    p = resolved.problem
    seqs, tokens, drafts = limits
    assert p.step_time is not None
    if parallelism.gpus > 1:
        reason = "step_time describes one instance: write 2m-tp1 for two of them"
        return LaneResult(None, 1, None, AnswerStatus.INFEASIBLE_SHAPE, reason)
    slots = seqs or resolved.engine.max_num_seqs
    lane = Lane(
        step=p.step_time,
        policy=resolved.engine.policy,
        max_num_seqs=slots,
        max_num_batched_tokens=tokens or resolved.engine.max_num_batched_tokens,
        kv_capacity_tokens=p.kv_capacity_tokens or float("inf"),
        kv_reserve=resolved.engine.kv_reserve,
        kv_block=resolved.engine.kv_block,
        async_scheduling=resolved.engine.async_scheduling,
        speculation=lower_speculation(resolved, parallelism, role, drafts, (p.step_time, slots)),
    )
    return _roomy(LaneResult(lane, 1, None, AnswerStatus.OK))
