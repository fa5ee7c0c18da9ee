"""llmperf summaries: flat `results_*` figures [s] of a closed loop, alone, listed or by key.

llmperf divides the whole latency by the output tokens ("inter-token latency", TTFT included), so
TPOT is derived from the means: (e2el − ttft)/(n_out − 1).
"""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import built
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of, printable

NAME = "llmperf"
BARE_CONSTANTS = True  # statistics of nothing

_KEYS = frozenset({"num_concurrent_requests", "results_ttft_s_mean"})
_SHARES = ("25", "50", "75", "90", "95", "99")
TPOT_NOTE = "TPOT derived from the means: (E2EL − TTFT)/(output tokens − 1)"


def sniff(source: Source) -> bool:
    """Whether the document or its first entry is a summary."""
    return source.kind in ("json", "jsonl") and any(
        keys_of(one) >= _KEYS for _, one in _summaries(source.value)[:1]
    )


def _summaries(value: Any) -> list[tuple[str, Any]]:
    """Summaries with their place: one, a list of them, or one per concurrency."""
    if keys_of(value) >= _KEYS:
        return [("", value)]
    if isinstance(value, list):
        return [(f"[{i}]", one) for i, one in enumerate(value)]
    if isinstance(value, dict):
        return [(f"[{printable(str(key), 40)}]", one) for key, one in value.items()]
    return []


def read(source: Source) -> list[TidyRow]:
    """One row a summary."""
    rows: list[TidyRow] = []
    for line, value in source.records():
        at = f" line {line}" if source.kind == "jsonl" else ""
        for place, one in _summaries(value):
            rows.append(_row(Record.of(one, f"{source.name}{at}{place}", source)))
    return rows


def _row(record: Record) -> TidyRow:
    figures: dict[str, float | None] = {}
    for metric, theirs in (("ttft", "ttft_s"), ("e2el", "end_to_end_latency_s")):
        prefix = f"results_{theirs}"
        figures[f"{metric}_mean_ms"] = record.number(f"{prefix}_mean", MS)
        figures[f"{metric}_std_ms"] = record.number(f"{prefix}_stddev", MS)
        for share in _SHARES:
            figures[f"{metric}_p{share}_ms"] = record.number(f"{prefix}_quantiles_p{share}", MS)
    output = record.number("results_number_output_tokens_mean")
    figures["tpot_mean_ms"] = derived_tpot(figures["e2el_mean_ms"], figures["ttft_mean_ms"], output)
    completed = record.count("results_num_completed_requests")
    per_minute = record.number("results_num_completed_requests_per_min")
    concurrency = record.size("num_concurrent_requests")
    return built(
        record.where,
        NAME,
        figures,
        fields={
            "source": "llmperf",
            "date": record.text("timestamp"),
            "model": record.text("model"),
            "concurrency": concurrency,
            "request_rate": float("inf") if concurrency else None,
            "arrivals": "closed" if concurrency else None,
            "num_prompts": record.count("results_num_requests_started"),
            "completed": completed,
            "failed": record.count("results_number_errors")
            if "results_number_errors" in record
            else record.count("results_num_errors"),
            "duration": completed / (per_minute / 60) if completed and per_minute else None,
            "req_throughput": None if per_minute is None else per_minute / 60,
            "out_tok_throughput": record.number("results_mean_output_throughput_token_per_s"),
            "input_len_mean": record.positive("results_number_input_tokens_mean"),
            "output_len_mean": output or None,
            "input_len_std": record.number("results_number_input_tokens_stddev"),
            "output_len_std": record.number("results_number_output_tokens_stddev"),
            "input_len_asked": record.positive("mean_input_tokens"),
            "output_len_asked": record.positive("mean_output_tokens"),
        },
        notes=(TPOT_NOTE if figures["tpot_mean_ms"] is not None else None,),
    )


def derived_tpot(
    e2el_ms: float | None, ttft_ms: float | None, output_len: float | None
) -> float | None:
    """Mean TPOT [ms] from mean latencies [ms] and mean output length; None where undefined.

    Exact when outputs are equally long; otherwise it weights requests by their output length.
    """
    if e2el_ms is None or ttft_ms is None or output_len is None or output_len <= 1:
        return None
    return (e2el_ms - ttft_ms) / (output_len - 1) if e2el_ms >= ttft_ms else None
