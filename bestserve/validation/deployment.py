"""From a measured row to what was deployed: model, GPU, engine, formats, parallelism.

Nothing is guessed. Where a row leaves something open, a stated rule may decide; its sentence is
kept in `Deployment.notes`. Otherwise the row is refused with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from bestserve.catalog import find_model, load_engine, load_model
from bestserve.errors import BestserveError, UnknownNameError
from bestserve.models.step.device import Parallelism, Precision
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.parameters import parameter_counts
from bestserve.models.system import Role
from bestserve.readers.tidy import TidyRow
from bestserve.specs.figure import Figure
from bestserve.specs.hardware import Hardware
from bestserve.specs.model import Model
from bestserve.specs.speculation import SpeculativeConfig
from bestserve.validation.boards import NODE, hardware_of
from bestserve.validation.drafting import drafted
from bestserve.validation.engines import (
    MOST_SEQUENCES,
    TGI_LIMITS,
    EngineChoice,
    choose_engine,
    scheduled_ahead,
    tensorrt_settings,
)
from bestserve.validation.outcome import Noted, Outcome, UnpredictableError
from bestserve.validation.sources import Suite

FITTING_SHARE = 0.6
"""Without a stated tp, the smallest that leaves 40 % of the memory for KV cache and activations:
what submitters of the MLPerf results chose on 80, 96, 141, 180 and 192 GB boards."""

IN_PROCESS_SEQ = 90e-6
"""Host time per sequence and step that a client in vLLM V0's own process adds, answering streams
between steps [s]; fitted on AccelMark's rows (tp 1, seven GPUs)."""

IN_PROCESS_LIMITS = {"max_num_seqs": 128, "max_num_batched_tokens": 2048}
"""vLLM V1's SchedulerConfig; only the server and the offline class replace them by larger ones."""

ROCM_2024_REACH = {"vllm": 0.2, "tgi": 0.5}
"""Factor on the GEMM efficiency of CDNA boards under the 16-bit kernels of ROCm 6.1 (2024), which
were not tuned for every shape: 10 and 24 % of the peak. Fitted on Llama-3.1-405B, tp 8, MI300X, the
only such rows; a factor of 1.5 either way."""

V0_CHUNKED_ABOVE, V0_CHUNK = 32768, 512
"""vLLM V0's default: context above which prompts are chunked, and its token budget then."""


_PRECISIONS: dict[str, Precision] = {
    "bf16": "bf16",
    "fp16": "bf16",
    "bfloat16": "bf16",
    "float16": "bf16",
    "fp8": "fp8",
    "w8a8": "int8",
    "int8": "int8",
    "w8a16": "w8a16",
    "w4a16": "int4",
    "int4": "int4",
    "awq": "int4",
    "awq-int4": "int4",
    "gptq": "int4",
    "fp4": "nvfp4",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
}


Pools = tuple[tuple[Role, int, Parallelism], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What ran: everything the step time and the memory plan need.

    drafting : what was speculated, with its acceptance, if anything
    pools : (role, instances, parallelism), one collocated "m" or prefill "p" and decode "d"
    notes : the rules that decided what the row left open
    """

    model: Model
    hardware: Hardware
    engine: EngineChoice
    engine_constants: EngineConstants
    precision: Precision | None
    kv_fp8: bool | None
    pools: Pools
    gpus: int
    drafting: SpeculativeConfig | None = None
    notes: tuple[str, ...] = ()

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode ran on different instances."""
        return len(self.pools) == 2

    @property
    def moe(self) -> bool:
        """Whether the model routes tokens to experts."""
        return self.model.architecture.is_moe


def deployment_of(row: TidyRow, suite: Suite) -> Deployment:
    """Return what a row of a suite deployed. Raises `UnpredictableError` with the reason."""
    drafting = drafted(row) if row.speculative_decoding else None
    model = _model(row)
    board = hardware_of(row)
    engine = choose_engine(row)
    if suite.schedules_ahead(row, engine.family):
        engine = scheduled_ahead(engine)
    weights = _precision(row, model, board.value, suite)
    pools = _pools(row, model, board.value, weights.value, suite)
    constants = _engine_constants(row, engine, board.value, model, suite)
    tuned = _with_kernels_of_2024(board.value, engine, weights.value or model.weights)
    kv = _kv_fp8(row, suite)
    used = sum(n * p.gpus for _, n, p in pools.value)
    return Deployment(
        model=model,
        hardware=tuned.value,
        engine=engine,
        engine_constants=constants.value,
        precision=weights.value,
        kv_fp8=kv.value,
        pools=pools.value,
        gpus=max(used, row.num_gpus or 0),
        drafting=drafting,
        notes=(
            *board.notes,
            *((engine.note,) if engine.note else ()),
            *weights.notes,
            *pools.notes,
            *constants.notes,
            *tuned.notes,
            *kv.notes,
        ),
    )


def _kv_fp8(row: TidyRow, suite: Suite) -> Noted[bool | None]:
    """Return whether the KV cache has 8-bit numbers; None: as the engine does."""
    if row.kv_cache_dtype is not None:
        return Noted("fp8" in row.kv_cache_dtype.lower())
    if any(note.startswith("cmd: ") for note in row.notes):
        return Noted(None)  # the whole command, and it says nothing of the cache
    if suite.kv_fp8:
        return Noted(True, (f"fp8 KV cache: {suite.name}",))
    return Noted(None)


def _engine_constants(
    row: TidyRow,
    choice: EngineChoice,
    hardware: Hardware,
    model: Model,
    suite: Suite,
) -> Noted[EngineConstants]:
    """Return the preset with the limits of this GPU and those that the row states."""
    engine = load_engine(choice.preset).for_device(hardware.device())
    notes: list[str] = []
    changes: dict[str, object] = dict(suite.limits(row, choice.family))
    words = suite.kernel_words(row, choice.family)
    if changes:
        limits = ", ".join(f"{name} {value}" for name, value in changes.items())
        notes.append(f"{limits}: {suite.name}")
    if words:
        changes["kernel_words"] = words
        notes.append(f"kernels by {', '.join(words)}")
    if suite.mixes_chunks(row, choice.family):
        changes["policy"] = "chunked"
        notes.append(f"running requests in prefill batches: {suite.name}")
    if interval := suite.stream_interval(row, choice.family):
        changes["stream_interval"] = interval
        notes.append(f"stream interval {interval}: {suite.name}")
    changes |= {
        name: getattr(row, name)
        for name in (
            "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "stream_interval",
        )
        if getattr(row, name) is not None
    }  # fmt: skip
    if row.max_num_seqs is not None:
        changes["max_num_seqs"] = min(row.max_num_seqs, MOST_SEQUENCES)
    if choice.family == "vllm":
        changes.update(_vllm_prefill(row, choice, engine, model, suite))
        if suite.runs_eagerly(row):
            changes |= {"cuda_graphs": False, "phi": 1.0, "phi_moe": 1.0}
            notes.append(f"without CUDA graphs: {suite.name}")
        if row.in_process and choice.preset != "vllm-v0":
            changes |= IN_PROCESS_LIMITS
            notes.append("an engine without a server keeps the scheduler's own limits")
    if choice.family == "tensorrt-llm":
        changes |= tensorrt_settings(row, choice)
    if choice.family == "tgi":
        changes = {**TGI_LIMITS, **changes}
    if row.in_process and choice.preset == "vllm-v0":
        changes["a_seq"] = engine.a_seq + IN_PROCESS_SEQ
        changes["a_seq_moe"] = engine.a_seq_moe + IN_PROCESS_SEQ
        notes.append("the client shares the engine's process: more host time per sequence")
    return Noted(replace(engine, **changes), tuple(notes))  # type: ignore[arg-type]


def _with_kernels_of_2024(
    hardware: Hardware, choice: EngineChoice, weights: Precision
) -> Noted[Hardware]:
    """Return an AMD board with what the 16-bit kernels of vLLM V0's years reached on it."""
    old = choice.preset == "vllm-v0" and hardware.generation in ("cdna3", "cdna4")
    if not old or weights != "bf16":
        return Noted(hardware)
    reach = ROCM_2024_REACH[choice.family]
    figure = Figure(value=reach, unit="1", kind="measured", source="replay of rows of 2024")
    note = f"16-bit kernels of ROCm 6.1: {reach:g} of later GEMM rates"
    return Noted(hardware.model_copy(update={"compute_reach": figure}), (note,))


def _vllm_prefill(
    row: TidyRow, choice: EngineChoice, engine: EngineConstants, model: Model, suite: Suite
) -> dict[str, object]:
    """Return the policy and token budget that follow from vLLM's rules.

    V0 chunks prompts by default only beyond 32,768 tokens of context, 512 at a time; without
    chunks a whole prompt must fit one step, so the budget is raised to the longest sequence.
    """
    stated = row.max_model_len or suite.context_limit(row)
    longest = stated or model.max_position_embeddings
    chunked = row.chunked_prefill
    if chunked is None and choice.preset == "vllm-v0":
        chunked = longest > V0_CHUNKED_ABOVE
    if chunked is None:
        return {}
    if chunked:
        own = {"max_num_batched_tokens": V0_CHUNK} if choice.preset == "vllm-v0" else {}
        if row.max_num_batched_tokens is not None:
            own = {}
        if (row.num_scheduler_steps or 1) > 1:
            own = {"max_num_batched_tokens": _multi_step_budget(row)}
        return {"policy": "chunked", **own}
    # V1 keeps mixing decodes with prompts; it only stops cutting them.
    out: dict[str, object] = {
        "policy": "prefill_priority" if choice.preset == "vllm-v0" else "mixed"
    }
    if row.max_num_batched_tokens is None:
        out["max_num_batched_tokens"] = max(engine.max_num_batched_tokens, longest)
    return out


def _multi_step_budget(row: TidyRow) -> int:
    """Return the tokens per step of vLLM V0 that schedules several steps at a time.

    Prompts get the token budget in the first of them only; each prompt token brings its share of
    decodes.
    """
    budget = row.max_num_batched_tokens or V0_CHUNK
    per_token = (row.output_len_mean or 0.0) / (row.input_len_mean or 1.0)
    return max(1, round(budget / (row.num_scheduler_steps or 1) * (1.0 + per_token)))


@lru_cache(maxsize=512)
def _load(name: str, stated: bool) -> Model | None:
    """Return the model; only what the user stated may be the path of a file."""
    try:
        return load_model(name) if stated else find_model(name)
    except UnknownNameError:
        return None
    except BestserveError as error:
        raise UnpredictableError(Outcome.MODEL_UNKNOWN, str(error)) from None


def _model(row: TidyRow) -> Model:
    if row.model is None:
        raise UnpredictableError(Outcome.MODEL_UNKNOWN, "not stated; give --model")
    found = _load(row.model, "model" in row.stated)
    if found is None:
        raise UnpredictableError(Outcome.MODEL_UNKNOWN, row.model[:120])
    return found


def _precision(
    row: TidyRow, model: Model, hardware: Hardware, suite: Suite
) -> Noted[Precision | None]:
    """Return the weight format that overrides the checkpoint's own, or None."""
    if suite.name == "MLPerf":
        family = choose_engine(row).family
        own: Precision = (
            "nvfp4" if hardware.generation == "blackwell" and family == "tensorrt-llm" else "fp8"
        )
        stated = _PRECISIONS.get((row.precision or "").lower())
        if stated in (None, "bf16"):
            note = (
                f"{own} weights: MLPerf's data type names the reference; closed submissions of "
                "this model run the vendor's quantised code"
            )
            return Noted(own, (note,))
        return Noted(stated)
    if row.precision is None:
        return Noted(None)
    wanted = _PRECISIONS.get(row.precision.strip().lower())
    if wanted is None:
        raise UnpredictableError(Outcome.NOT_MODELLED, f"precision {row.precision[:40]!r}")
    held = {model.weights, model.experts} if model.architecture.is_moe else {model.weights}
    if wanted in held or model.quantisation or (wanted == "fp8" and "fp8_block" in held):
        return Noted(None)  # the checkpoint says it better than the row's word
    return Noted(None if held & {"mxfp4", "nvfp4", "int4"} else wanted)


def _pools(
    row: TidyRow,
    model: Model,
    hardware: Hardware,
    precision: Precision | None,
    suite: Suite,
) -> Noted[Pools]:
    if row.disaggregated:
        return _split_pools(row, suite)
    notes: tuple[str, ...] = ()
    dp = row.attention_dp or 1
    tp = row.attention_tp or (row.tp or 0)
    if dp > 1 and row.attention_tp is None and tp % dp == 0 and (row.num_gpus or 0) == tp:
        tp //= dp
    if not tp:
        tp, notes = _smallest_tp(row, model, hardware, precision, suite)
    pp = row.pp or 1
    if dp > 1 and not model.architecture.is_moe:
        raise UnpredictableError(
            Outcome.CONTRADICTION, "attention data parallelism of a dense model"
        )
    ep = min(row.ep or 1, tp * dp)
    parallelism = Parallelism(tp=tp, pp=pp, dp=dp, ep=ep)
    total = row.num_gpus or parallelism.gpus * (row.replicas or 1)
    if row.num_gpus and parallelism.gpus > row.num_gpus:
        raise UnpredictableError(
            Outcome.CONTRADICTION, f"tp·pp·dp = {parallelism.gpus} on {row.num_gpus} GPUs"
        )
    replicas = row.replicas or max(1, total // parallelism.gpus)
    if row.num_gpus and replicas * parallelism.gpus > row.num_gpus:
        raise UnpredictableError(
            Outcome.CONTRADICTION,
            f"{replicas} instances of {parallelism.gpus} GPUs on {row.num_gpus}",
        )
    if row.replicas is None and replicas > 1:
        notes += (f"{replicas} replicas fill the {row.num_gpus} GPUs",)
    return Noted((("m", replicas, parallelism),), notes)


def _split_pools(row: TidyRow, suite: Suite) -> Noted[Pools]:
    if row.prefill_workers is None or row.decode_workers is None:
        raise UnpredictableError(
            Outcome.PARALLELISM_MISSING, "numbers of prefill and decode workers"
        )
    tps = (row.prefill_tp or row.tp, row.decode_tp or row.tp)
    workers = (row.prefill_workers, row.decode_workers)
    notes: tuple[str, ...] = ()
    if None in tps:
        gpus = row.num_gpus or (NODE if suite.one_node else None)
        if gpus is None or gpus % sum(workers):
            raise UnpredictableError(
                Outcome.PARALLELISM_MISSING, "tp of prefill and decode workers"
            )
        each = gpus // sum(workers)
        tps = (tps[0] or each, tps[1] or each)
        notes = (f"tp {each}: {gpus} GPUs divided evenly over {sum(workers)} workers",)
    dp = row.prefill_attention_dp, row.decode_attention_dp
    ep, pp = (row.prefill_ep, row.decode_ep), (row.prefill_pp, row.decode_pp)
    shapes = [
        Parallelism(tp=t or 1, pp=p or 1, dp=d or 1, ep=min(e or 1, (t or 1) * (d or 1)))
        for t, p, d, e in zip(tps, pp, dp, ep, strict=True)
    ]
    return Noted((("p", workers[0], shapes[0]), ("d", workers[1], shapes[1])), notes)


def _smallest_tp(
    row: TidyRow,
    model: Model,
    hardware: Hardware,
    precision: Precision | None,
    suite: Suite,
) -> Noted[int]:
    """Return tp where it is not stated: 1 on one GPU, else the smallest that leaves KV room."""
    if row.num_gpus == 1:
        return Noted(1)
    if row.num_gpus is None or not suite.tp_by_memory:
        raise UnpredictableError(Outcome.PARALLELISM_MISSING, "give --tensor-parallel-size")
    formats = model.formats(precision=precision)
    counts = parameter_counts(model.architecture)
    experts = counts.experts
    size = experts * formats.parts.experts.bytes
    size += (counts.total - experts) * formats.parts.ffn.bytes
    share = size / hardware.memory_bytes.value / FITTING_SHARE
    tp = 1 << max(0, math.ceil(math.log2(share)))
    tp = min(tp, row.num_gpus)
    note = f"tp {tp}: smallest whose weights take at most {FITTING_SHARE:.0%} of the memory"
    return Noted(tp, (note,))
