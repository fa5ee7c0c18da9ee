"""What is publicly known about how benchmark suites load a server, beyond what their rows say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bestserve.models.system import Routing
from bestserve.readers.tidy import TidyRow
from bestserve.validation.engines import engine_version, full_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """The protocol of one suite.

    pattern : of `TidyRow.source`; prompts_per_client : of its closed loops
    spread : lowest over highest length where lengths are uniform; 1: fixed; None: not known
    kv_fp8 : serves with an 8-bit KV cache; one_node : all its systems are one 8-GPU node
    tp_by_memory : does not state tp, submitters take the smallest that fits
    seconds : length of its open-loop runs [s]; output_mean : mean answer of its data set [tokens]
    stream_intervals : (engine, pattern of "model tpN lengths", tokens per message) it configures
    budget_is_prompt_and_batch : configures max_num_batched_tokens = input length + concurrency
    slots_one_short : pattern of "engine model" whose max_num_seqs is one below the concurrency
    chat_lengths : prompts and answers of a chat data set, of which rows state the means
    clients_in_turn : clients of the runs that send one server the same prompts, one after another
    eager_formats : weight formats with which its runners switch CUDA graphs off, under engine
        versions from `eager_from` on
    repeats_prompts : sends the same prompts in each of its runs at one rate, and at every rate
    context, long_context : max_model_len of its ordinary and its long-context runs [tokens]
    long_prompts : requests of its long-context runs, where rows state another number
    fills_memory : configures as many sequences as the KV cache holds, which grow on demand
    memory_shares : (pattern of the data set, gpu_memory_utilization of its runs)
    base_model : completes prompts with a base model, which ends many answers with their first token
    rate_meets_objectives : its offered rates are the highest that met the objectives in the notes
    stages : (rate [req/s], length of the stage with that rate [s]) of runs whose data set has the
        pattern `stages_of`
    environment : (pattern of "engine model on GPU", setting that its scripts make there)
    scheduled_ahead : pattern of "engine model" that it serves with asynchronous scheduling
    mixed_chunks_from : first SGLang version that it serves with `enable_mixed_chunk`
    by_load : routing that its policies by load amount to; None: fewest requests
    client_period : its client runs once in so long: it sends, and sees, at the ends [s]
    why : where this is known from
    """

    name: str
    pattern: str
    prompts_per_client: int = 10
    spread: float | None = None
    kv_fp8: bool = False
    one_node: bool = False
    tp_by_memory: bool = False
    seconds: float | None = None
    output_mean: float | None = None
    stream_intervals: tuple[tuple[str, str, int], ...] = ()
    budget_is_prompt_and_batch: bool = False
    slots_one_short: str = ""
    clients_in_turn: tuple[int, ...] = ()
    eager_formats: tuple[str, ...] = ()
    eager_from: tuple[int, int] = (0, 0)
    repeats_prompts: bool = False
    context: int | None = None
    long_context: int | None = None
    long_prompts: int | None = None
    fills_memory: bool = False
    memory_shares: tuple[tuple[str, float], ...] = ()
    base_model: bool = False
    rate_meets_objectives: bool = False
    chat_lengths: bool = False
    stages: tuple[tuple[float, float], ...] = ()
    stages_of: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    scheduled_ahead: str = ""
    mixed_chunks_from: tuple[int, int, int] | None = None
    by_load: Routing | None = None
    client_period: float = 0.0
    why: str = ""

    def limits(self, row: TidyRow, family: str) -> dict[str, float]:
        """Return the scheduler limits that the suite configures.

        family : of the engine, as `engines.engine_family` calls it
        """
        out: dict[str, float] = {}
        if self.fills_memory:
            out |= {"max_num_seqs": 2048, "kv_reserve": 0.0, "gpu_memory_utilization": 0.95}
        data = row.dataset_or_lengths or ""
        for pattern, share in self.memory_shares:
            if re.search(pattern, data):
                out["gpu_memory_utilization"] = share
        if row.concurrency is None:
            return out
        prompt = row.input_len_asked or row.input_len_mean
        if self.budget_is_prompt_and_batch and prompt and family != "sglang":
            out["max_num_batched_tokens"] = round(prompt) + row.concurrency
        one_short = self.slots_one_short and re.search(
            self.slots_one_short, f"{family} {row.model}"
        )
        if one_short and row.concurrency > 1:
            out["max_num_seqs"] = row.concurrency - 1
        return out

    def context_limit(self, row: TidyRow) -> int | None:
        """Return the max_model_len that the suite sets [tokens]."""
        return self.long_context if "longctx" in (row.dataset_or_lengths or "") else self.context

    def runs_eagerly(self, row: TidyRow) -> bool:
        """Return whether the suite's runner switches CUDA graphs off for this row."""
        version = engine_version(row.engine_version)
        quantised = (row.precision or "").upper() in self.eager_formats
        return quantised and version is not None and version >= self.eager_from

    def kernel_words(self, row: TidyRow, family: str) -> tuple[str, ...]:
        """Return the settings that choose kernels: those of the notes, then the suite's own."""
        stated = KERNEL_WORD.findall("; ".join(row.notes))
        place = f"{family} {row.model} on {row.gpu}"
        own = [word for pattern, word in self.environment if re.search(pattern, place)]
        return tuple(dict.fromkeys([*stated, *own]))

    def schedules_ahead(self, row: TidyRow, family: str) -> bool:
        """Return whether the host prepares a step while the device runs the one before."""
        known = self.scheduled_ahead and re.search(self.scheduled_ahead, f"{family} {row.model}")
        return bool(row.async_scheduling or known)

    def mixes_chunks(self, row: TidyRow, family: str) -> bool:
        """Return whether SGLang adds running requests to its prefill batches."""
        version = full_version(row.engine_version)
        first = self.mixed_chunks_from
        return family == "sglang" and None not in (first, version) and version >= first  # type: ignore[operator]

    def stage_length(self, row: TidyRow, rate: float) -> float | None:
        """Return the length of a run at a rate [s], where the suite fixes it."""
        if not re.search(self.stages_of, row.dataset_or_lengths or ""):
            return self.seconds
        return dict(self.stages).get(rate, self.seconds)

    def stream_interval(self, row: TidyRow, family: str) -> int:
        """Return the tokens per message that the suite configures, 0 where it leaves the default.

        family : of the engine, as `engines.engine_family` calls it
        """
        data = row.dataset_or_lengths or ""
        for engine, pattern, interval in self.stream_intervals:
            if engine == family and re.search(pattern, f"{row.model} tp{row.tp} {data}"):
                return interval
        return 0


KERNEL_WORD = re.compile(r"\b(?:VLLM|SGLANG|TRTLLM)_[A-Z0-9_]+=\w+")
"""Environment variables of engines as notes write them."""

CFS_PERIOD = 0.1
"""After which a Linux container that has used up its CPU time gets more [s]: the default of
cpu.cfs_period_us."""

SUITES: tuple[Suite, ...] = (
    Suite(
        name="InferenceMAX",
        pattern=r"infer(ence)?(max|x)\b|InferenceX",
        spread=0.8,
        kv_fp8=True,
        # Seen in the rows: TTFT of 1k/1k exceeds that of 1k/8k by 14 to 19 TPOT unless tp is 8.
        stream_intervals=(("tensorrt-llm", r"[Ll]lama-3.*70[Bb].* tp[124] .*1024/1024", 20),),
        environment=((r"^vllm .*gpt-oss.* on .*H[12]00", "VLLM_MXFP4_USE_MARLIN=1"),),
        scheduled_ahead=r"^vllm .*gpt-oss",
        why=(
            "its launch scripts: num_prompts = 10 x concurrency, random-range-ratio 0.8, fp8 KV; "
            "gpt-oss with asynchronous scheduling, on Hopper with Marlin (the environment of a "
            "fork's logs)"
        ),
    ),
    Suite(
        name="aic-auto-gap-analysis",
        pattern=r"gap-analysis",
        spread=1.0,
        budget_is_prompt_and_batch=True,
        slots_one_short=r"^tensorrt-llm .*Llama-3\.1-8B",
        mixed_chunks_from=(0, 5, 6),
        why=(
            "fixed lengths; 10 prompts a client and a token budget of prompt + batch, as its "
            "configuration generator sets it, fit its TTFT best; TTFT of the 8B runs grows with "
            "output length · TPOT / (clients - 1); SGLang 0.5.6 lacks the lock-step of 0.5.1, in "
            "which all clients wait for each other's prompts"
        ),
    ),
    Suite(
        name="MLPerf",
        pattern=r"mlperf",
        tp_by_memory=True,
        kv_fp8=True,
        seconds=600.0,
        rate_meets_objectives=True,
        chat_lengths=True,
        fills_memory=True,
        why=(
            "LoadGen rules: Poisson arrivals for at least 600 s; rate x latency is 700 to 900 "
            "requests a replica, more than reserving whole outputs would leave room for"
        ),
    ),
    Suite(
        name="AccelMark",
        pattern=r"accelmark",
        output_mean=344.0,
        repeats_prompts=True,
        memory_shares=((r"suite [AB]\b", 0.95),),
        context=4096,
        long_context=30208,
        long_prompts=100,
        eager_formats=("FP8", "W8A8", "W8A16", "W4A16"),
        eager_from=(0, 20),
        why=(
            "its runners and suite files; 344 tokens answered to each of sharegpt_standard_v1's "
            "first 100 prompts, cut at 512 (a published sample result); long-context runs end "
            "sooner than 200 requests could arrive, and last as long as 100 take; on 24 GB boards "
            "suites A and B queue as with 0.95 of the memory, suite C as with 0.9"
        ),
    ),
    Suite(
        name="dstack 405B",
        pattern=r"405B H100 vs MI300X",
        base_model=True,
        why="its raw logs: Llama-3.1-405B, 38 % of the ShareGPT prompts answered by the end token",
    ),
    Suite(
        name="llm-d routing",
        pattern=r"KV-cache-aware routing",
        stages=(
            *((3.0, 20.0), (10.0, 20.0), (15.0, 20.0), (20.0, 38.0), (22.0, 34.0), (25.0, 30.0)),
            *((30.0, 25.0), (35.0, 21.0), (40.0, 38.0), (43.0, 36.0), (46.0, 33.0), (49.0, 30.0)),
            *((52.0, 29.0), (55.0, 27.0), (57.0, 26.0), (60.0, 25.0)),
        ),
        stages_of=r"150 groups",
        by_load="reported_kv",
        client_period=CFS_PERIOD,
        why=(
            "the same project's later ladder of these sixteen rates states requests and seconds. "
            "Its policy by load adds up a score of active requests, which streams then ended with "
            "the response's headers (llm-d-router issue 317, August 2025), and one of the KV use "
            "that engines report. Its inference-perf kept every core busy (its issue 188 and pull "
            "request 204, August and September 2025), so that a container with a limit on its CPU "
            "time runs it once in a period of the kernel's scheduler. That it did is seen in the "
            "rows: two thirds of the P90 of TTFT are multiples of 100 ms within 3 ms"
        ),
    ),
    Suite(
        name="dstack pd_ratio",
        pattern=r"pd_ratio",
        one_node=True,
        clients_in_turn=(128, 64, 32),
        why=(
            "its README and scripts: one 8-GPU node, divided evenly between the workers; a "
            "round-robin router; runs of 128, 64 and 32 clients in turn with the client's default "
            "seed, so that all send the same prompts"
        ),
    ),
)
OTHER = Suite(name="", pattern="")


def suite_of(row: TidyRow) -> Suite:
    """Return the suite a row comes from; `OTHER` (nothing known) if none."""
    source = row.source or ""
    return next((s for s in SUITES if re.search(s.pattern, source, re.IGNORECASE)), OTHER)
