"""What fits on a GPU, how many requests the cache holds, and what a wanted number would take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestserve.answers.caching import working_set
from bestserve.catalog.engines import ALIASES, list_engines, preset_for
from bestserve.errors import InputError, UnknownNameError
from bestserve.lowering import Lowered, lower
from bestserve.lowering.drafter import refuse_undrafted, with_drafter
from bestserve.lowering.shapes import shape_problem
from bestserve.lowering.speculation import speculates
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.device import Parallelism
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.memory import MemoryPlan, memory_plan
from bestserve.readers.startup_log import GIB, StartupLog, read_startup_log
from bestserve.results.caching import WorkingSet
from bestserve.results.document import AnswerStatus
from bestserve.results.memory import Memory, Printed, Wanted
from bestserve.specs.problem import Problem
from bestserve.specs.speculation import SpeculativeConfig
from bestserve.specs.strategy import Pool, Strategy

MOST_RATE = 1e6
"""Highest rate at which a working set is counted [requests/s]."""

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Tensor-parallel sizes tried for the least number of GPUs."""


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """The engine's own words for what decides its cache.

    max_model_len : longest request that is admitted [tokens]; default: the model's longest context
    block_size : tokens of a block of the cache; enforce_eager : no CUDA graphs
    engine_version : "0.19": decides what the engine counts
    concurrency, context : wanted requests at once, and their length [tokens]
    startup_log : path of a server's log, to compare with and take the reserve from
    speculative_config : vLLM's, as a mapping or JSON: what drafts stands beside the model
    request_rate : at which the working set of conversations is counted [requests/s]
    """

    max_model_len: int | None = None
    block_size: int | None = None
    enforce_eager: bool = False
    engine_version: str = ""
    concurrency: float | None = None
    context: float | None = None
    startup_log: str | None = None
    speculative_config: str | Mapping[str, Any] | None = None
    request_rate: float | None = None


def memory(problem: Problem, strategy: str | Strategy, settings: MemorySettings) -> Memory:
    """Return the memory of one instance of a strategy. Raises InputError, DataError."""
    if problem.step_time is not None:
        raise InputError("memory needs model and hardware, not step-time coefficients")
    pool, *others = Strategy.parse(strategy).pools
    lowered = lower(_versioned(problem, settings.engine_version))
    engine = _engine(lowered, settings, pool.max_num_seqs, pool.max_num_batched_tokens)
    reason = shape_problem(
        lowered.model,
        lowered.device,
        pool.parallelism,
        pool.parallelism.gpus,
        across_nodes=problem.tp_across_nodes,
    )
    if reason:
        raise InputError(f"{pool.options}: {reason}")
    log = read_startup_log(settings.startup_log) if settings.startup_log else None
    length = _length(lowered, settings)
    speculation = problem.speculative_config
    if settings.speculative_config:
        speculation = SpeculativeConfig.parse(settings.speculative_config)
    refuse_undrafted(pool, speculation)
    if not speculates(speculation, pool.drafts):
        speculation = None
    held = _Held(lowered, with_drafter(lowered.model.architecture, speculation))
    mean = sum(lowered.mean_lengths)

    def plan(at: float, constants: EngineConstants = engine) -> MemoryPlan:
        return held.plan(pool.parallelism, constants, at)

    before = plan(length)
    calibrated = _calibrated(log, before)
    if calibrated is not None:
        engine = dataclasses.replace(
            engine, memory_reserve=calibrated, memory_sharded=0.0, memory_graphs=0.0
        )
    at_limit, at_mean = plan(length, engine), plan(mean, engine)
    concurrency = at_limit.kv_capacity_tokens * at_limit.lanes / length
    status = AnswerStatus.OK if concurrency >= 1 else AnswerStatus.NO_CAPACITY
    if at_limit.kv_bytes <= 0:
        status = AnswerStatus.INFEASIBLE_MEMORY
    return Memory(
        strategy=str(Strategy.parse(strategy)),
        model=lowered.model.name,
        hardware=lowered.hardware.name,
        engine=engine.name,
        status=status,
        reason="" if status is AnswerStatus.OK else at_limit.explain(),
        memory_bytes=at_limit.memory,
        gpu_memory_utilization=at_limit.utilization,
        weights_bytes=at_limit.weights,
        weights={
            "attention": at_limit.weights_attention,
            "feed-forward": at_limit.weights_ffn,
            "experts": at_limit.weights_experts,
            "embedding and head": at_limit.weights_embedding,
            "rest": at_limit.weights_other,
        },
        activation_bytes=at_limit.activations,
        reserve_bytes=at_limit.reserve,
        kv_cache_bytes=at_limit.kv_bytes,
        kv_bytes_per_token=at_limit.kv_bytes_per_token,
        max_model_len=length,
        kv_tokens=at_limit.kv_capacity_tokens * at_limit.lanes,
        concurrency=concurrency,
        mean_length=mean,
        concurrency_at_workload=at_mean.kv_serving_tokens * at_mean.lanes / mean,
        longest_context=_longest(held, pool.parallelism, engine),
        startup=_startup(engine, at_limit, length, even=held.even),
        wanted=_wanted(held, pool.parallelism, engine, settings, length),
        compared=_compared(log, before),
        calibrated_reserve=calibrated,
        working_set=_working_set(lowered, strategy, settings, status),
        notes=(*_notes(lowered.model.notes, speculation), *_elsewhere(pool, others)),
        problem=problem,
    )


def _working_set(
    lowered: Lowered, strategy: str | Strategy, settings: MemorySettings, status: AnswerStatus
) -> WorkingSet | None:
    """Return what the workload asks for again, where it says so and there is a cache for it."""
    rate = settings.request_rate
    if rate is not None and not 0 < rate <= MOST_RATE:
        raise InputError(f"request_rate = {rate:g} must be above 0 and at most {MOST_RATE:g} req/s")
    if status is not AnswerStatus.OK:
        return None
    return working_set(lowered, Strategy.parse(strategy), rate)


def _notes(own: tuple[str, ...], speculation: SpeculativeConfig | None) -> tuple[str, ...]:
    if speculation is None:
        return own
    counted = tuple(note for note in own if "multi-token prediction" not in note)
    if speculation.method != "mtp":
        counted = own
    return (*counted, f"memory for drafting by {speculation.method} is counted")


def _elsewhere(pool: Pool, others: Sequence[Pool]) -> tuple[str, ...]:
    """Say whose memory this is, and what to ask for that of the other pool's instances."""
    alone, *rest = (
        Pool.of(
            "m",
            1,
            p.parallelism,
            max_num_seqs=p.max_num_seqs,
            max_num_batched_tokens=p.max_num_batched_tokens,
            drafts=p.drafts,
        )
        for p in (pool, *others)
    )
    return tuple(
        f"this is a prefill instance; of a decode instance: bestserve memory 1m{other.options}"
        for other in rest
        if other != alone
    )


def _versioned(problem: Problem, version: str) -> Problem:
    if not version or isinstance(problem.engine, EngineConstants):
        return problem
    name = ALIASES.get(problem.engine.lower(), problem.engine.lower())
    preset = preset_for(name, version)
    if preset not in list_engines():
        raise UnknownNameError("engine", preset, list_engines())
    return problem.replaced(engine=preset)


def _engine(
    lowered: Lowered, settings: MemorySettings, seqs: int | None, tokens: int | None
) -> EngineConstants:
    engine = lowered.engine
    problem = lowered.problem
    changes: dict[str, Any] = {
        "max_num_seqs": seqs or problem.max_num_seqs,
        "max_num_batched_tokens": tokens or problem.max_num_batched_tokens,
        "kv_block": settings.block_size,
    }
    if settings.enforce_eager:
        changes["cuda_graphs"] = False
    return dataclasses.replace(engine, **{k: v for k, v in changes.items() if v is not None})


def _length(lowered: Lowered, settings: MemorySettings) -> float:
    own = lowered.model.max_position_embeddings
    if settings.max_model_len is None:
        return float(own or sum(lowered.mean_lengths))
    if settings.max_model_len < 1:
        raise InputError(f"max_model_len = {settings.max_model_len} must be at least 1")
    if own and settings.max_model_len > own:
        raise InputError(
            f"max_model_len = {settings.max_model_len:,}: {lowered.model.name} reads at most "
            f"{own:,}; set rope_scaling in its config.json to go beyond"
        )
    return float(settings.max_model_len)


@dataclass(frozen=True)
class _Held:
    """What an instance's GPUs hold: the model, and a draft head beside it."""

    lowered: Lowered
    architecture: Architecture

    def plan(self, parallelism: Parallelism, engine: EngineConstants, length: float) -> MemoryPlan:
        """Return the memory of a shape for requests of `length` tokens."""
        return memory_plan(
            self.architecture,
            self.lowered.device,
            parallelism,
            self.lowered.formats,
            engine,
            context_len=length,
            constants=self.lowered.constants,
        )

    @property
    def even(self) -> bool:
        """Whether all layers keep every token."""
        kinds = {group.attention.kind for group in self.architecture.groups}
        return kinds <= {"full", "chunked", "mla", "none"}


def _longest(held: _Held, parallelism: Parallelism, engine: EngineConstants) -> float:
    """Return the longest request that the cache of one lane holds, by bisection [tokens]."""

    def fits(length: int) -> bool:
        plan = held.plan(parallelism, engine, float(length))
        return plan.kv_capacity_tokens * plan.lanes / parallelism.dp >= length

    low, high = 0, held.lowered.model.max_position_embeddings or 10_000_000
    if fits(high):
        return float(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return float(low)


def _wanted(
    held: _Held,
    parallelism: Parallelism,
    engine: EngineConstants,
    settings: MemorySettings,
    length: float,
) -> Wanted | None:
    if settings.concurrency is None and settings.context is None:
        return None
    requests = settings.concurrency if settings.concurrency is not None else 1.0
    context = settings.context if settings.context is not None else length
    if requests <= 0 or context <= 0:
        raise InputError("wanted concurrency and context must be positive")
    lowered = held.lowered
    best: tuple[int, str] = (0, "")
    for tp in SIZES:
        shape = Parallelism(tp=tp, ep=tp if parallelism.ep > 1 else 1)
        if tp > lowered.device.gpus_per_node or shape_problem(
            lowered.model, lowered.device, shape, tp, across_nodes=False
        ):
            continue
        plan = held.plan(shape, engine, context)
        at_once = math.floor(plan.kv_capacity_tokens * plan.lanes / context + 1e-9)
        if at_once >= 1:
            replicas = math.ceil(requests / at_once)
            if not best[0] or tp * replicas < best[0]:
                best = (tp * replicas, f"{replicas}m-tp{tp}")
    return Wanted(
        length=context,
        concurrency=requests,
        gpus=best[0],
        strategy=best[1],
        utilization=_utilization(held.plan(parallelism, engine, context), requests),
    )


def _utilization(plan: MemoryPlan, requests: float) -> float | None:
    """Return the share of memory with which an instance holds this many requests, if any."""
    cache = requests * plan.context_len * plan.kv_bytes_per_token
    if plan.kv_bytes > 0 and plan.kv_capacity_tokens > 0:
        cache = requests * plan.context_len * plan.kv_bytes / (plan.kv_capacity_tokens * plan.lanes)
    beside = plan.activations + plan.reserve
    if plan.rule == "free":
        room = plan.memory - plan.weights - beside
        share = cache / room if room > 0 else math.inf
    elif plan.rule == "static":
        share = (cache + plan.weights) / (plan.memory - plan.reserve)
    else:
        share = (cache + plan.weights + beside) / plan.memory
    return share if share <= 1 else None


def _startup(
    engine: EngineConstants, plan: MemoryPlan, length: float, *, even: bool
) -> tuple[str, ...]:
    """Return the lines that the engine prints when it starts with this plan.

    even : all layers keep every token; of others vLLM's size line counts something else, so it is
        left out
    """
    tokens = plan.kv_capacity_tokens * plan.lanes
    if engine.name.startswith("vllm"):
        if plan.kv_bytes <= 0:
            return ("ValueError: No available memory for the cache blocks.",)
        lines: tuple[str, ...] = (
            f"Model loading took {plan.weights / GIB:.2f} GiB",
            f"Available KV cache memory: {plan.kv_bytes / GIB:.2f} GiB",
        )
        if tokens < length:
            need = plan.kv_bytes_per_token * length / GIB
            return (
                *lines,
                f"ValueError: To serve at least one request with the models's max seq len "
                f"({length:.0f}), ({need:.2f} GiB KV cache is needed, which is larger than the "
                f"available KV cache memory ({plan.kv_bytes / GIB:.2f} GiB)",
            )
        if even:
            lines = (*lines, f"GPU KV cache size: {tokens:,.0f} tokens")
        return (
            *lines,
            f"Maximum concurrency for {length:,.0f} tokens per request: {tokens / length:.2f}x",
        )
    if engine.name.startswith("sglang"):
        return (f"KV Cache is allocated. #tokens: {max(tokens, 0):.0f}",)
    return (f"max tokens in paged KV cache: {max(tokens, 0):.0f}",)


def _calibrated(log: StartupLog | None, plan: MemoryPlan) -> float | None:
    """Return the reserve with which the log's cache comes out, if it states one [B].

    What the log's own weights and memory differ by from ours goes into the reserve as well.
    """
    if log is None:
        return None
    cache = log.kv_cache
    if cache is None and log.concurrency is not None and log.length is not None:
        cache = log.concurrency * log.length * plan.kv_bytes_per_token
    if cache is None and log.tokens is not None:
        cache = log.tokens * plan.kv_bytes_per_token
    if cache is None:
        return None
    if plan.rule == "free":
        return max(0.0, plan.memory - plan.weights - plan.activations - cache / plan.utilization)
    if plan.rule == "static":
        return max(0.0, plan.memory - (cache + plan.weights) / plan.utilization)
    return max(0.0, plan.utilization * plan.memory - plan.weights - plan.activations - cache)


def _compared(log: StartupLog | None, plan: MemoryPlan) -> tuple[Printed, ...]:
    if log is None:
        return ()
    gib = (
        ("memory", log.total, plan.memory),
        ("weights", log.weights, plan.weights),
        ("activations", log.activations, plan.activations),
        ("outside PyTorch", log.outside, plan.reserve),
        ("kv_cache", log.kv_cache, plan.kv_bytes),
    )
    found = [
        Printed(what, printed / GIB, predicted / GIB, "GiB")
        for what, printed, predicted in gib
        if printed is not None
    ]
    tokens = plan.kv_capacity_tokens * plan.lanes
    if log.tokens is not None:
        found.append(Printed("kv_tokens", log.tokens, tokens, "tokens"))
    if log.concurrency is not None and log.length:
        found.append(Printed("concurrency", log.concurrency, tokens / log.length, "x"))
    return tuple(found)
