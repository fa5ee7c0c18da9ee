"""vLLM `vllm bench serve` (and the older `benchmark_serving.py`), versions 0.6 to 0.33.

One flat object a run; a sweep (`vllm bench sweep`) is a list of them, with what it varied beside
the results. TPOT is already ours. The log states neither GPU, parallelism nor engine; what the user
passed with `--metadata key=value` sits beside the results and is taken where its key is a setting.
"""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import (
    arrivals_of,
    built,
    completed_figures,
    detailed,
    keyed_stats,
    mean_of,
    silent_note,
    spread,
)
from bestserve.readers.logs._drafts import drafts
from bestserve.readers.logs._hits import attached
from bestserve.readers.logs._ramps import rising
from bestserve.readers.logs._record import Record
from bestserve.readers.logs._settings import stated_settings
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of, listed

NAME = "vllm-bench-serve"
BARE_CONSTANTS = True  # Python's json module writes NaN for the mean of nothing

_KEYS = frozenset({"model_id", "num_prompts", "completed", "total_output_tokens", "duration"})
_DRAFTS = ("spec_decode_num_drafts", "spec_decode_acceptance_rate", "spec_decode_draft_tokens")
_SECONDS = frozenset({"mean_ttft", "median_ttft", "p99_ttft"})


def sniff(source: Source) -> bool:
    """Whether the first run has the keys that every version writes, in milliseconds."""
    if source.kind not in ("json", "jsonl"):
        return False
    records = listed(source.value)
    keys = keys_of(records[0]) if records else frozenset()
    return keys >= _KEYS and not keys & _SECONDS


_OTHERS = {
    frozenset({"avg_latency", "latencies", "percentiles"}): (
        "written by `vllm bench latency`: the time of one whole batch, without lengths, TTFT and "
        "TPOT; `vllm bench serve` measures those"
    ),
    frozenset({"elapsed_time", "num_requests", "total_num_tokens", "tokens_per_second"}): (
        "written by `vllm bench throughput`: no latencies; `vllm bench serve` measures them"
    ),
}
"""What vLLM's other benchmarks write, and what to say of it."""


def lacking(source: Source) -> str:
    """Return which of vLLM's other benchmarks wrote a file."""
    keys = keys_of(source.value) if source.kind == "json" else frozenset()
    return next((said for theirs, said in _OTHERS.items() if keys >= theirs), "")


def read(source: Source) -> list[TidyRow]:
    """One row a run."""
    rows: list[TidyRow] = []
    for line, value in source.records():
        runs = listed(value)
        for index, run in enumerate(runs):
            at = f"line {line}" if source.kind == "jsonl" else f"run {index}"
            several = len(runs) > 1 or source.kind == "jsonl"
            where = f"{source.name} {at}" if several else source.name
            rows.append(run_row(Record.of(run, where, source)))
    return attached(rows, source)


def run_row(record: Record, name: str = NAME) -> TidyRow:
    """Return the row of one run's flat object.

    name : of the format it was found in
    """
    completed, prompts = record.count("completed"), record.count("num_prompts")
    failed = record.count("failed")
    if failed is None and prompts is not None and completed is not None:
        failed = max(prompts - completed, 0)
    rate = record.positive("request_rate", inf=True)
    concurrency = record.size("max_concurrency")
    total_in = record.number("total_input_tokens")
    total_out = record.number("total_output_tokens")
    printed: dict[str, Any] = {}
    for metric in ("ttft", "tpot", "itl", "e2el"):
        printed |= keyed_stats(record, metric, f"{metric}_ms")
    if completed and total_out is not None and total_out <= completed:
        # one-token answers have no TPOT; the client prints 0
        printed = {k: v for k, v in printed.items() if not k.startswith(("tpot", "itl"))}
    requests, silent = detailed(record)
    goodput = record.number("request_goodput")
    if goodput is None:
        goodput = record.number("request_goodput:")  # versions 0.6 to 0.8
    burstiness = record.positive("burstiness")
    arrivals = arrivals_of(rate, concurrency, "poisson" if burstiness in (None, 1.0) else "gamma")
    backend = record.text("endpoint_type") or record.text("backend")
    label, ramp = record.text("label"), record.text("ramp_up_strategy")
    row = built(
        record.where,
        name,
        {**completed_figures(printed, requests, silent), "good_throughput": goodput},
        fields={
            "source": "vllm bench serve",
            "date": record.text("date"),
            "model": record.text("model_id"),
            "request_rate": rate,
            "concurrency": concurrency,
            "arrivals": arrivals,
            "burstiness": burstiness if arrivals in ("poisson", "gamma") else None,
            "num_prompts": prompts,
            "completed": completed,
            "failed": failed,
            "duration": record.number("duration"),
            "req_throughput": record.number("request_throughput"),
            "out_tok_throughput": record.number("output_throughput"),
            "input_len_mean": mean_of(total_in, completed),
            "output_len_mean": mean_of(total_out, completed),
            "requests": requests,
            "speculative_decoding": True if any(k in record for k in _DRAFTS) else None,
            **_drafted(record),
            **spread(requests),
            **stated_settings(record),
        },
        notes=(
            silent_note(silent),
            f"client backend {backend}" if backend else None,
            f"label {label}" if label else None,
            _ramp_note(record) if ramp else None,
        ),
    )
    return rising(row) if ramp else row


def _drafted(record: Record) -> dict[str, Any]:
    """Return what the server drafted and accepted during the run, as far as the client saw."""
    steps, tokens = (
        record.positive("spec_decode_num_drafts"),
        record.number("spec_decode_draft_tokens"),
    )
    shares = record.data.get("spec_decode_per_position_acceptance_rates")
    return drafts(
        tokens=tokens / steps if steps and tokens is not None else None,
        length=record.number("spec_decode_acceptance_length"),
        by_position=shares if isinstance(shares, list) else None,
    )


def _ramp_note(record: Record) -> str:
    ends = [record.number(f"ramp_up_{end}_rps") for end in ("start", "end")]
    span = f" from {ends[0]:g} to {ends[1]:g} req/s" if None not in ends else ""
    return f"WARNING ramp-up {record.text('ramp_up_strategy')}{span}: the rate is not constant"
