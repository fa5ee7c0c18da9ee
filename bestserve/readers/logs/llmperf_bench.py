"""llmperf-bench tables: llmperf's figures per concurrency, condensed to means.

Its latency per token is the whole latency over the output tokens, but
neither the realised output length nor the model is in the file, so TPOT is left out: with the
length asked for, it came out a third low in published tables.
"""

from __future__ import annotations

from bestserve.readers.logs._build import built
from bestserve.readers.logs._record import Record
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of, printable

NAME = "llmperf-bench"
_KEYS = frozenset({"concurrency", "first-time-to-token_mean_in_ms", "latency_ms_per_token"})


def sniff(source: Source) -> bool:
    """Whether the first entry has the condensed figures."""
    if source.kind != "json" or not isinstance(source.value, dict):
        return False
    return keys_of(next(iter(source.value.values()), None)) >= _KEYS


def read(source: Source) -> list[TidyRow]:
    """One row a concurrency."""
    return [
        _row(Record.of(value, f"{source.name} [{printable(str(key), 40)}]", source))
        for key, value in source.value.items()
    ]


def _row(record: Record) -> TidyRow:
    return built(
        record.where,
        NAME,
        {"ttft_mean_ms": record.number("first-time-to-token_mean_in_ms")},
        fields={
            "source": "llmperf-bench",
            "concurrency": record.size("concurrency"),
            "request_rate": float("inf"),
            "arrivals": "closed",
            "input_len_asked": record.positive("input_token_length"),
            "output_len_asked": record.positive("output_token_length"),
            "out_tok_throughput": record.number("throughput_token_per_s"),
        },
        notes=("TPOT left out: the file divides whole latencies by tokens it does not count",),
    )
