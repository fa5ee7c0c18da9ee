"""A problem with its names resolved, and the lanes and systems of its strategies.

`Lowered` resolves a problem once (catalogue, formats, lengths, arrivals); `lane` and `system`
turn each parallelism and each strategy into the numbers that queues and simulator take.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from bestserve.catalog import load_engine, load_hardware, load_model
from bestserve.errors import InfeasibleError, InputError
from bestserve.lowering.lengths import lower_lengths
from bestserve.lowering.shapes import shape_problem
from bestserve.models.step.breakdown import Breakdown, step_breakdown
from bestserve.models.step.coefficients import step_time_coefficients
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.memory import MemoryPlan, memory_plan
from bestserve.models.step.step_time import StepTime
from bestserve.models.step.step_work import StepWork
from bestserve.models.system import (
    Arrivals,
    Collocated,
    Disaggregated,
    Lane,
    Lengths,
    Role,
    System,
    Transfer,
)
from bestserve.results.document import AnswerStatus
from bestserve.specs.hardware import Hardware
from bestserve.specs.model import Model
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Pool, Strategy

KV_TRANSFER_SETUP = 3e-3
"""Set-up of one KV transfer [s]; assumed, of the order of the 2 ms measured for Mooncake."""

PROMPTS_PER_CLIENT = 10
"""Prompts a closed-loop client sends when num_prompts is not given (InferenceMAX's protocol)."""

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


@dataclass(frozen=True)
class Lowered:
    """A problem with its names resolved."""

    problem: Problem
    constants: OperatorConstants = field(default=DEFAULT)

    @cached_property
    def model(self) -> Model:
        """The model record."""
        model = self.problem.model
        assert model is not None
        return model if isinstance(model, Model) else load_model(model)

    @cached_property
    def hardware(self) -> Hardware:
        """The hardware record."""
        hardware = self.problem.hardware
        assert hardware is not None
        return hardware if isinstance(hardware, Hardware) else load_hardware(hardware)

    @cached_property
    def device(self) -> Device:
        """The GPU with the problem's own node size and network, if given."""
        changes: dict[str, float] = {}
        if self.problem.gpus_per_node is not None:
            changes["gpus_per_node"] = self.problem.gpus_per_node
        if self.problem.network_bandwidth is not None:
            changes["network_bandwidth"] = self.problem.network_bandwidth
        return dataclasses.replace(self.hardware.device(), **changes)  # type: ignore[arg-type]

    @cached_property
    def engine(self) -> EngineConstants:
        """The engine preset with the problem's own limits."""
        p = self.problem
        engine = p.engine if isinstance(p.engine, EngineConstants) else load_engine(p.engine)
        if p.step_time is None:
            engine = engine.for_device(self.device)
        changes: dict[str, object] = {}
        if p.gpu_memory_utilization is not None:
            changes["gpu_memory_utilization"] = p.gpu_memory_utilization
        if p.enable_chunked_prefill is not None:
            changes["policy"] = "chunked" if p.enable_chunked_prefill else "prefill_priority"
        return dataclasses.replace(engine, **changes)  # type: ignore[arg-type]

    @cached_property
    def formats(self) -> Formats:
        """Number formats of weights and KV cache."""
        p = self.problem
        found = self.model.formats(precision=p.precision, kv_cache_dtype=p.kv_cache_dtype)
        if p.kv_cache_dtype == "auto":
            found = dataclasses.replace(found, kv_bytes=min(found.kv_bytes, self.engine.kv_bytes))
        return found

    @cached_property
    def lengths(self) -> Lengths:
        """Input and output lengths as atoms."""
        return lower_lengths(self.problem.workload)

    @cached_property
    def mean_lengths(self) -> tuple[float, float]:
        """Mean prompt and output length [tokens]."""
        law = self.lengths
        return float(law.inputs @ law.input_weights), float(law.outputs @ law.output_weights)

    @cached_property
    def arrivals(self) -> Arrivals:
        """How requests reach the service."""
        w = self.problem.workload
        if w.max_concurrency is not None:
            prompts = w.num_prompts or PROMPTS_PER_CLIENT * w.max_concurrency
            return Arrivals(kind="closed", concurrency=w.max_concurrency, num_prompts=prompts)
        if w.trace is not None:
            from bestserve.readers.recorded import recorded

            times = recorded(w).arrivals
            if times is not None:
                return Arrivals(kind="trace", times=times)
        return Arrivals(burstiness=w.burstiness)

    def lane(
        self,
        parallelism: Parallelism,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        *,
        role: Role = "m",
    ) -> LaneResult:
        """Return one lane of an instance with this parallelism and role, or why there is none."""
        p = self.problem
        seqs = max_num_seqs or p.max_num_seqs
        tokens = max_num_batched_tokens or p.max_num_batched_tokens
        if p.step_time is not None:
            return self._own_lane(parallelism, seqs, tokens)
        reason = shape_problem(
            self.model, self.device, parallelism, p.gpus, across_nodes=p.tp_across_nodes
        )
        if reason:
            return LaneResult(None, 1, None, AnswerStatus.INFEASIBLE_SHAPE, reason)
        engine = dataclasses.replace(
            self.engine.for_role(role),
            max_num_seqs=seqs or self.engine.max_num_seqs,
            max_num_batched_tokens=tokens or self.engine.max_num_batched_tokens,
        )
        arch = self.model.architecture
        input_len, output_len = self.mean_lengths
        context = self.model.max_position_embeddings
        if 0 < context < input_len + output_len:
            length = input_len + output_len
            reason = (
                f"a mean request has {length:,.0f} tokens, {self.model.name} reads at most "
                f"{context:,}; to go beyond, set rope_scaling in its config.json and give that "
                f'file, e.g. {{"rope_type": "yarn", "factor": {math.ceil(length / context)}, '
                f'"original_max_position_embeddings": {context}}}'
            )
            return LaneResult(None, 1, None, AnswerStatus.INFEASIBLE_SHAPE, reason)
        plan = memory_plan(
            arch,
            self.device,
            parallelism,
            self.formats,
            engine,
            context_len=input_len + output_len,
            constants=self.constants,
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
        lane = Lane(
            step=self._step_time(parallelism, role),
            policy=engine.policy,
            max_num_seqs=max(1, engine.max_num_seqs * parallelism.dp // parallelism.pp),
            max_num_batched_tokens=engine.max_num_batched_tokens * parallelism.dp,
            kv_capacity_tokens=plan.kv_capacity_tokens,
            kv_reserve=engine.kv_reserve,
            kv_block=engine.kv_block,
            t_req=engine.t_req_moe if self.model.architecture.is_moe else engine.t_req,
            t_req_token=engine.t_req_token,
            stream_interval=engine.stream_interval,
        )
        return LaneResult(lane, plan.lanes, plan, AnswerStatus.OK)

    @cached_property
    def _step_times(self) -> dict[tuple[Parallelism, Role], StepTime]:
        return {}

    def _step_time(self, parallelism: Parallelism, role: Role) -> StepTime:
        """Return the step time of an instance, found once: batch limits do not change it."""
        key = parallelism, role
        if key not in self._step_times:
            input_len, output_len = self.mean_lengths
            self._step_times[key] = step_time_coefficients(
                self.model.architecture,
                self.device,
                parallelism,
                self.formats,
                self.engine.for_role(role),
                input_len=input_len * (1 - self.problem.workload.prefix_cache_hit),
                output_len=output_len,
                constants=self.constants,
            )
        return self._step_times[key]

    def _own_lane(
        self, parallelism: Parallelism, seqs: int | None, tokens: int | None
    ) -> LaneResult:
        p = self.problem
        assert p.step_time is not None
        if parallelism.gpus > 1:
            reason = "step_time describes one instance: write 2m-tp1 for two of them"
            return LaneResult(None, 1, None, AnswerStatus.INFEASIBLE_SHAPE, reason)
        lane = Lane(
            step=p.step_time,
            policy=self.engine.policy,
            max_num_seqs=seqs or self.engine.max_num_seqs,
            max_num_batched_tokens=tokens or self.engine.max_num_batched_tokens,
            kv_capacity_tokens=p.kv_capacity_tokens or float("inf"),
            kv_reserve=self.engine.kv_reserve,
            kv_block=self.engine.kv_block,
        )
        return LaneResult(lane, 1, None, AnswerStatus.OK)

    def pool_result(self, pool: Pool) -> LaneResult:
        """Return one lane of a pool, or why it cannot be built."""
        limits = pool.max_num_seqs, pool.max_num_batched_tokens
        return self.lane(pool.parallelism, *limits, role=pool.role)

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
        if not parsed.disaggregated:
            return self.collocated(*lanes[0])
        transfer = self.transfer(*(p.parallelism for p in parsed.pools))
        return self.disaggregated(*lanes[0], *lanes[1], transfer)

    def collocated(self, lane: Lane, replicas: int) -> Collocated:
        """Return `replicas` lanes under this problem's workload."""
        return Collocated(
            lane=lane,
            replicas=replicas,
            lengths=self.lengths,
            arrivals=self.arrivals,
            routing=self.problem.routing,
        )

    def disaggregated(
        self, prefill: Lane, n_prefill: int, decode: Lane, n_decode: int, transfer: Transfer
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
        )

    def decode_breakdown(self, pool: Pool, sequences: float) -> Breakdown | None:
        """Return what a decode step of a pool with this many sequences waits for.

        None without model and hardware (own step-time coefficients).
        """
        if self.problem.step_time is not None:
            return None
        lengths = self.lengths
        steps = np.maximum(lengths.outputs - 1.0, 1e-9)
        share = steps * lengths.output_weights
        inputs = self.mean_lengths[0]
        context = inputs + float(share @ steps) / float(share.sum()) / 2
        work = StepWork.grid(context=context, decodes=max(sequences, 1.0))
        return step_breakdown(
            self.model.architecture,
            self.device,
            pool.parallelism,
            self.formats,
            self.engine.for_role(pool.role),
            work,
            self.constants,
        )

    @property
    def transfer_latency(self) -> float:
        """What a request waits between its two instances, besides moving its KV cache [s]."""
        if self.problem.step_time is not None:
            return KV_TRANSFER_SETUP
        return KV_TRANSFER_SETUP + self.engine.handover

    def transfer(self, prefill: Parallelism, decode: Parallelism) -> Transfer:
        """Return the KV transfer between two instances.

        Inside a node if all GPUs of the problem share one, over the network otherwise; each rank
        of the smaller side moves its share over its own link.
        """
        if self.problem.step_time is not None:
            return Transfer(latency=self.transfer_latency)
        plan = memory_plan(self.model.architecture, self.device, prefill, self.formats, self.engine)
        one_node = self.problem.gpus <= self.device.gpus_per_node
        bandwidth = self.device.link_bandwidth if one_node else self.device.network_bandwidth
        if bandwidth <= 0:
            where = "inside the node" if one_node else "across nodes"
            raise InputError(
                f"{self.hardware.name}: no link bandwidth {where} is recorded, so KV cannot be "
                "transferred; give network_bandwidth or leave out disaggregated layouts"
            )
        links = min(prefill.tp, decode.tp)
        return Transfer(
            latency=self.transfer_latency,
            seconds_per_token=plan.kv_bytes_per_token_total / (bandwidth * links),
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
