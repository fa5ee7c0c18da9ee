"""A resolved problem, and the lanes and systems of its strategies.

`lane` and `system` turn each parallelism and each strategy into the numbers that queues and
simulator take.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from bestserve.errors import DataError, InfeasibleError, InputError, shown
from bestserve.lowering.drafter import refuse_undrafted
from bestserve.lowering.images import with_tower
from bestserve.lowering.lanes import LaneResult, Limits, build_lane
from bestserve.lowering.prefixes import caching
from bestserve.lowering.resolved import Resolved
from bestserve.lowering.transfer import kv_transfer
from bestserve.models.hybrid import balanced_share
from bestserve.models.prefixes import Caching
from bestserve.models.step.breakdown import Breakdown, step_breakdown
from bestserve.models.step.coefficients import step_time_coefficients
from bestserve.models.step.device import Parallelism
from bestserve.models.step.step_time import StepTime
from bestserve.models.step.step_work import StepWork
from bestserve.models.system import (
    Collocated,
    Disaggregated,
    Flow,
    Hybrid,
    Lane,
    Role,
    System,
    Transfer,
)
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Drafts, Pool, Strategy


@dataclass(frozen=True)
class Lowered(Resolved):
    """A problem's systems: lane by lane, pool by pool, strategy by strategy."""

    def lane(
        self,
        parallelism: Parallelism,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        *,
        role: Role = "m",
        drafts: Drafts = None,
    ) -> LaneResult:
        """Return one lane of an instance with this parallelism and role, or why there is none.

        Found once, because strategies share their instances.
        """
        seqs = max_num_seqs or self.problem.max_num_seqs
        tokens = max_num_batched_tokens or self.problem.max_num_batched_tokens
        key = parallelism, Limits(seqs, tokens, drafts), role
        if key not in self._lanes:
            step_time = partial(self._step_time, parallelism, role)
            self._lanes[key] = build_lane(self, *key, step_time)
        return self._lanes[key]

    @cached_property
    def _lanes(self) -> dict[tuple[Parallelism, Limits, Role], LaneResult]:
        return {}

    @cached_property
    def _step_times(self) -> dict[tuple[Parallelism, Role], StepTime]:
        return {}

    def _step_time(self, parallelism: Parallelism, role: Role) -> StepTime:
        """Return the step time of an instance, found once: batch limits do not change it."""
        key = parallelism, role
        if key not in self._step_times:
            input_len, output_len = self.mean_lengths
            try:
                with np.errstate(all="ignore"):  # what overflows is refused below
                    step = step_time_coefficients(
                        self.model.architecture,
                        self.device,
                        parallelism,
                        self.formats,
                        self.engine_for(role),
                        input_len=input_len * (1 - self.problem.workload.prefix_cache_hit),
                        output_len=output_len,
                        constants=self.constants,
                    )
            except ValueError as error:  # peaks, bandwidths or latencies beyond any hardware
                raise DataError(
                    f"hardware {shown(self.hardware.name)}: its figures give no step time "
                    f"({error}); check peaks, bandwidths and latencies"
                ) from None
            self._step_times[key] = with_tower(step, self, parallelism) if self.images else step
        return self._step_times[key]

    def pool_result(self, pool: Pool) -> LaneResult:
        """Return one lane of a pool, or why it cannot be built.

        Raises InputError where the pool is to draft and nothing says by what.
        """
        refuse_undrafted(pool, self.problem.speculative_config)
        limits = pool.max_num_seqs, pool.max_num_batched_tokens
        return self.lane(pool.parallelism, *limits, role=pool.work, drafts=pool.drafts)

    def pool_lane(self, pool: Pool) -> tuple[Lane, int]:
        """Return a pool's lane and how many of them the pool has. Raises InfeasibleError."""
        result = self.pool_result(pool)
        if result.lane is None:
            raise InfeasibleError(f"{pool.replicas}{pool.role}{pool.options}: {result.reason}")
        return result.lane, pool.replicas * result.lanes_per_instance

    def system(self, strategy: Strategy | str) -> System:
        """Return the queueing system of a strategy.

        Raises InfeasibleError if a pool cannot be built or the GPUs do not suffice.
        """
        parsed = Strategy.parse(strategy)
        if parsed.gpus > self.problem.gpus:
            raise InfeasibleError(
                f"{parsed} needs {parsed.gpus} GPUs, the problem has {self.problem.gpus}; "
                "raise gpus or take fewer replicas"
            )
        lanes = [self.pool_lane(p) for p in parsed.pools]
        first = self.caching(parsed.pools[0])
        if not parsed.disaggregated:
            return self.collocated(*lanes[0], first)
        transfer = kv_transfer(self, *(p.parallelism for p in parsed.pools))
        if parsed.hybrid:
            return self.hybrid(parsed, lanes[0], lanes[1], transfer)
        return self.disaggregated(*lanes[0], *lanes[1], transfer, first)

    @cached_property
    def _caching(self) -> Caching | None:
        """The prefix caches of pools without tiers."""
        return caching(self, None, 1)

    def caching(self, pool: Pool) -> Caching | None:
        """Return the prefix caches of a pool that takes prompts, if it has any."""
        if not self.problem.kv_tiers:
            return self._caching
        return caching(self, self.pool_result(pool).plan, pool.parallelism.gpus)

    def collocated(self, lane: Lane, replicas: int, caching: Caching | None = None) -> Collocated:
        """Return `replicas` lanes under this problem's workload."""
        return Collocated(
            lane=lane,
            replicas=replicas,
            lengths=self.lengths,
            arrivals=self.arrivals,
            routing=self.problem.routing,
            caching=caching or self._caching,
        )

    def disaggregated(
        self,
        prefill: Lane,
        n_prefill: int,
        decode: Lane,
        n_decode: int,
        transfer: Transfer,
        caching: Caching | None = None,
    ) -> Disaggregated:
        """Return prefill and decode pools under this problem's workload."""
        return Disaggregated(
            prefill=prefill,
            prefill_replicas=n_prefill,
            decode=decode,
            decode_replicas=n_decode,
            transfer=transfer,
            lengths=self.lengths,
            arrivals=self.arrivals,
            routing=self.problem.routing,
            caching=caching or self._caching,
        )

    def hybrid(
        self,
        strategy: Strategy,
        prefill: tuple[Lane, int],
        decode: tuple[Lane, int],
        transfer: Transfer,
    ) -> Hybrid:
        """Return the hybrid that a strategy asks for, of so many lanes, under this workload.

        A share that it leaves open balances the pools. Raises InfeasibleError where prompts share
        prefixes, InputError where decodes are to flow without a TPOT objective.
        """
        front, back = strategy.pools
        if prefill[0].speculation.most or decode[0].speculation.most:
            raise InfeasibleError(
                f"{strategy}: hybrids know no speculative decoding; add -spec0, or take another "
                "layout"
            )
        if self._caching is not None:
            raise InfeasibleError(
                f"{strategy}: hybrids know no prefix caches; set enable_prefix_caching to false, "
                "or take another layout"
            )
        system = Hybrid(
            prefill=prefill[0],
            prefill_replicas=prefill[1],
            decode=decode[0],
            decode_replicas=decode[1],
            local_prefill_share=(back.local_percent or 0) / 100,
            local_decode_share=_kept(front),
            longest_local=back.longest_local or 0,
            prefill_queue=back.prefill_queue or 0,
            flow=self._flow(back),
            transfer=transfer,
            lengths=self.lengths,
            arrivals=self.arrivals,
            routing=self.problem.routing,
        )
        if back.local and back.local_percent is None:
            system = replace(system, local_prefill_share=balanced_share(system))
        return system

    def _flow(self, pool: Pool) -> Flow | None:
        if pool.flow_percent is None:
            return None
        slo = self.problem.slo
        if slo is None or slo.tpot is None:
            raise InputError("-flow moves decodes by their TPOT objective: give one in slo")
        return Flow(watermark=pool.flow_percent / 100, tpot=slo.tpot)


def _kept(pool: Pool) -> float:
    """Return the share of a prefill pool's prompts whose answers it decodes [1]."""
    if not pool.local:
        return 0.0
    return 1.0 if pool.local_percent is None else pool.local_percent / 100


def decode_breakdown(
    lowered: Lowered, pool: Pool, sequences: float, width: int = 1
) -> Breakdown | None:
    """Return what a decode step of a pool with this many sequences waits for.

    width : tokens of each that are verified, which read its context once together. None without
    model and hardware (own step-time coefficients).
    """
    if lowered.problem.step_time is not None:
        return None
    lengths = lowered.lengths
    steps = np.maximum(lengths.outputs - 1.0, 1e-9)
    share = steps * lengths.output_weights
    inputs = lowered.mean_lengths[0]
    context = inputs + float(share @ steps) / float(share.sum()) / 2
    work = StepWork.grid(context=context / width, decodes=max(sequences, 1.0) * width)
    return step_breakdown(
        lowered.model.architecture,
        lowered.device,
        pool.parallelism,
        lowered.formats,
        lowered.engine_for(pool.work),
        work,
        lowered.constants,
    )


def lower(problem: Problem) -> Lowered:
    """Resolve a problem's names; raises UnknownNameError or DataError for what is unknown."""
    lowered = Lowered(problem)
    _ = lowered.engine
    if problem.step_time is None:
        _ = lowered.model
        if reason := unsuited(lowered):
            raise InputError(reason)
    if problem.calibration is not None:
        from bestserve.catalog.calibration import load_calibration

        return load_calibration(problem.calibration).applied(lowered)
    return lowered


def unsuited(lowered: Lowered) -> str:
    """Return why an engine does not run on a problem's GPUs, or an empty string."""
    engine, hardware = lowered.engine, lowered.hardware
    if not (engine.vendor and hardware.vendor) or engine.vendor == hardware.vendor:
        return ""
    return (
        f"{engine.name} runs on {engine.vendor} GPUs, {hardware.name} is made by "
        f"{hardware.vendor}; take another engine, e.g. vllm or sglang"
    )
