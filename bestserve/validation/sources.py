"""What is publicly known about how benchmark suites load a server, beyond what their rows say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bestserve.readers.tidy import TidyRow
from bestserve.validation.engines import engine_version


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
    base_model : completes prompts with a base model, which ends many answers with their first token
    rate_meets_objectives : its offered rates are the highest that met the objectives in the notes
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
    base_model: bool = False
    rate_meets_objectives: bool = False
    chat_lengths: bool = False
    why: str = ""

    def limits(self, row: TidyRow, family: str) -> dict[str, float]:
        """Return the scheduler limits that the suite configures.

        family : of the engine, as `engines.engine_family` calls it
        """
        out: dict[str, float] = {}
        if self.fills_memory:
            out |= {"max_num_seqs": 2048, "kv_reserve": 0.0, "gpu_memory_utilization": 0.95}
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

    def stream_interval(self, row: TidyRow, family: str) -> int:
        """Return the tokens per message that the suite configures, 0 where it leaves the default.

        family : of the engine, as `engines.engine_family` calls it
        """
        data = row.dataset_or_lengths or ""
        for engine, pattern, interval in self.stream_intervals:
            if engine == family and re.search(pattern, f"{row.model} tp{row.tp} {data}"):
                return interval
        return 0


SUITES: tuple[Suite, ...] = (
    Suite(
        name="InferenceMAX",
        pattern=r"infer(ence)?(max|x)\b|InferenceX",
        spread=0.8,
        kv_fp8=True,
        # Seen in the rows: TTFT of 1k/1k exceeds that of 1k/8k by 14 to 19 TPOT unless tp is 8.
        stream_intervals=(("tensorrt-llm", r"[Ll]lama-3.*70[Bb].* tp[124] .*1024/1024", 20),),
        why="its launch scripts: num_prompts = 10 x concurrency, random-range-ratio 0.8, fp8 KV",
    ),
    Suite(
        name="aic-auto-gap-analysis",
        pattern=r"gap-analysis",
        spread=1.0,
        budget_is_prompt_and_batch=True,
        slots_one_short=r"^tensorrt-llm .*Llama-3\.1-8B",
        why=(
            "fixed lengths; 10 prompts a client and a token budget of prompt + batch, as its "
            "configuration generator sets it, fit its TTFT best; TTFT of the 8B runs grows with "
            "output length · TPOT / (clients - 1)"
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
        context=4096,
        long_context=30208,
        long_prompts=100,
        eager_formats=("FP8", "W8A8", "W8A16", "W4A16"),
        eager_from=(0, 20),
        why=(
            "its runners and suite files; 344 tokens answered to each of sharegpt_standard_v1's "
            "first 100 prompts, cut at 512 (a published sample result); long-context runs end "
            "sooner than 200 requests could arrive, and last as long as 100 take"
        ),
    ),
    Suite(
        name="dstack 405B",
        pattern=r"405B H100 vs MI300X",
        base_model=True,
        why="its raw logs: Llama-3.1-405B, 38 % of the ShareGPT prompts answered by the end token",
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
