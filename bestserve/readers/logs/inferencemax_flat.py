"""InferenceMAX token-position files: vLLM's flat form with SECONDS and no `_ms` in the keys."""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import arrivals_of, built, keyed_stats, mean_of
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.logs._settings import stated_settings
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "inferencemax-flat"
BARE_CONSTANTS = True

_KEYS = frozenset({"model_id", "num_prompts", "completed", "duration", "median_ttft"})


def sniff(source: Source) -> bool:
    """Whether the run has vLLM's keys without the unit."""
    return source.kind in ("json", "jsonl") and keys_of(source.value) >= _KEYS


def read(source: Source) -> list[TidyRow]:
    """One row a run."""
    rows: list[TidyRow] = []
    for line, value in source.records():
        at = f" line {line}" if source.kind == "jsonl" else ""
        rows.append(_row(Record.of(value, f"{source.name}{at}", source)))
    return rows


def _row(record: Record) -> TidyRow:
    figures: dict[str, Any] = {}
    for metric in ("ttft", "tpot", "itl", "e2el"):
        figures |= keyed_stats(record, metric, metric, MS)
    completed, prompts = record.count("completed"), record.count("num_prompts")
    rate = record.positive("request_rate", inf=True)
    concurrency = record.size("max_concurrency")
    return built(
        record.where,
        NAME,
        {**figures, "good_throughput": record.number("request_goodput")},
        fields={
            "source": "InferenceMAX",
            "date": record.text("date"),
            "model": record.text("model_id"),
            "request_rate": rate,
            "concurrency": concurrency,
            "arrivals": arrivals_of(rate, concurrency, "poisson"),
            "num_prompts": prompts,
            "completed": completed,
            "failed": None if prompts is None or completed is None else max(prompts - completed, 0),
            "duration": record.number("duration"),
            "req_throughput": record.number("request_throughput"),
            "out_tok_throughput": record.number("output_throughput"),
            "input_len_mean": mean_of(record.number("total_input_tokens"), completed),
            "output_len_mean": mean_of(record.number("total_output_tokens"), completed),
            **stated_settings(record),
        },
    )
