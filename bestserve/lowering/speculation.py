"""Speculative decoding of one lane: what drafting takes, what is accepted, which experts it reads.

A pass of the drafter takes as long as its weights, or as its host, whichever is more; each further
token as much as compute and elementwise work of the drafter's layers. Tokens of one sequence share
experts: γ + 1 of them read as many as 1 + (1 − κ)γ that choose for themselves.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bestserve.catalog.acceptance import acceptance_of
from bestserve.lowering.drafter import drafter
from bestserve.lowering.resolved import Resolved
from bestserve.models.acceptance import widest_spread
from bestserve.models.speculation import Speculation
from bestserve.models.speculation_table import best_schedule
from bestserve.models.step.closed_form import closed_form
from bestserve.models.step.coefficients import step_time_coefficients
from bestserve.models.step.device import Formats, Parallelism
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Role
from bestserve.specs.speculation import SpeculativeConfig
from bestserve.specs.strategy import TABLE, Drafts

SHARED = 0.5
"""κ: share of an expert read that a further token of a sequence saves. Four tokens of one sequence
read 2.5 tokens' worth of experts, not 4 (Cohere, 21 April 2026)."""

USUAL_DRAFTS = {"mtp": 1}
"""Drafts where neither problem nor strategy says how many; of other methods `COMMON`."""
COMMON = 3

TABLE_MOST = 8
"""Drafts at most in a table, where the problem does not say."""


def speculates(config: SpeculativeConfig | None, drafts: Drafts) -> bool:
    """Whether a pool keeps what drafts; prefill pools compute its KV cache, and draft nothing."""
    return config is not None and drafts != 0


def lower_speculation(
    resolved: Resolved,
    parallelism: Parallelism,
    role: Role,
    drafts: Drafts,
    lane: tuple[StepTime, int],
) -> Speculation:
    """Return what a lane drafts. Raises InputError.

    drafts : of the pool, None for what the problem states; lane : its step time and slots, which a
    table is made for
    """
    step, slots = lane
    config = resolved.problem.speculative_config
    if config is None or not speculates(config, drafts):
        return Speculation()
    costs = draft_costs(resolved, config, parallelism)
    if role == "p":
        return Speculation(draft_token=costs.draft_token)
    schedule = stated_schedule(config, drafts)
    most = TABLE_MOST if schedule is None else max(count for _, count in schedule)
    known = acceptance_of(config)
    chances = known.positions(max(most, known.spread_at))
    spread = min(known.spread, widest_spread(chances[: known.spread_at]))
    full = dataclasses.replace(
        costs,
        schedule=((1, most),),
        acceptance=chances,
        spread=spread,
        spread_at=known.spread_at,
        experts=_shared_experts(resolved, parallelism, role, step, most),
    )
    if schedule is None:
        lengths = resolved.mean_lengths
        schedule = best_schedule(step, full, lengths[0] + lengths[1] / 2, slots)
    return dataclasses.replace(full, schedule=schedule)


def stated_schedule(
    config: SpeculativeConfig, drafts: Drafts
) -> tuple[tuple[int, int], ...] | None:
    """Return (decodes from which, drafts) as stated; None where the table is to be found."""
    if isinstance(drafts, int):
        return ((1, drafts),)
    if drafts == TABLE:
        return None
    if config.num_speculative_tokens_per_batch_size is not None:
        return tuple((low, count) for low, _, count in config.num_speculative_tokens_per_batch_size)
    return ((1, usual_drafts(config)),)


def usual_drafts(config: SpeculativeConfig) -> int:
    """Return the drafts per decode and step that a configuration means [tokens]."""
    return config.num_speculative_tokens or USUAL_DRAFTS.get(config.method, COMMON)


def draft_costs(
    resolved: Resolved, config: SpeculativeConfig, parallelism: Parallelism
) -> Speculation:
    """Return a `Speculation` with the costs of drafting and nothing else."""
    engine = resolved.engine
    if resolved.problem.step_time is not None or not config.drafter:
        own = 0.0 if not config.drafter else engine.draft_pass
        each = own if config.draft_time is None else config.draft_time
        return Speculation(draft_step=engine.draft_step, draft_pass=each)
    arch = drafter(resolved.model.architecture, config)
    tp = config.draft_tensor_parallel_size or parallelism.tp
    input_len, output_len = resolved.mean_lengths
    own_step = step_time_coefficients(
        arch,
        resolved.device,
        Parallelism(tp=tp),
        _formats(resolved, config),
        dataclasses.replace(
            engine, a_step=0.0, a_step_moe=0.0, a_seq=0.0, a_seq_moe=0.0, cuda_graphs=True
        ),
        input_len=input_len,
        output_len=output_len,
        constants=resolved.constants,
    )
    one, many = own_step.token_time(np.array([1.0, 64.0]))
    experts = 0.0
    if own_step.moe:
        experts = (many - one) / 63.0
    taken = float(max(own_step.a_step + one, engine.draft_pass))
    return Speculation(
        draft_step=engine.draft_step,
        draft_pass=taken if config.draft_time is None else config.draft_time,
        draft_token=float(own_step.c + own_step.e + experts),
        draft_context=float(own_step.k),
    )


def _formats(resolved: Resolved, config: SpeculativeConfig) -> Formats:
    """Return the number formats of what drafts: a head's weights are bf16, whatever the model's."""
    if config.method == "mtp":
        return resolved.formats
    if config.method == "draft_model":
        from bestserve.catalog import load_model

        assert config.model is not None
        return dataclasses.replace(
            load_model(config.model).formats(), kv_bytes=resolved.formats.kv_bytes
        )
    return Formats(kv_bytes=resolved.formats.kv_bytes)


def _shared_experts(
    resolved: Resolved, parallelism: Parallelism, role: Role, step: StepTime, most: int
) -> tuple[tuple[float, ...], ...]:
    """Return m(T) of verified tokens with 0 … `most` drafts; empty for dense models [s]."""
    if not step.moe or resolved.problem.step_time is not None:
        return ()
    input_len, output_len = resolved.mean_lengths
    tables = [step.moe]
    for drafts in range(1, most + 1):
        apart = (1.0 + (1.0 - SHARED) * drafts) / (1.0 + drafts)
        moe = dataclasses.replace(resolved.constants.moe, apart=apart)
        found = closed_form(
            resolved.model.architecture,
            resolved.device,
            parallelism,
            resolved.formats,
            resolved.engine.for_role(role),
            input_len=input_len,
            output_len=output_len,
            constants=dataclasses.replace(resolved.constants, moe=moe),
        )
        tables.append(tuple(float(m) for m in found.table))
    return tuple(tables)
