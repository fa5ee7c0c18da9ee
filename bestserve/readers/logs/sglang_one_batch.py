"""SGLang `bench_one_batch` and `bench_one_batch_server`: one batch, all at once; JSONL.

The first runs steps without scheduler or server and times them apart: a prefill step is the TTFT of
the whole batch, the median decode step its TPOT. The second sends the batch to a server and notes
when the last request had its first token, which is the batch's largest TTFT, not its mean.
"""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import built
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "sglang-one-batch"

_KEYS = frozenset({"run_name", "batch_size", "input_len", "output_len"})
_SERVER = frozenset({"latency", "overall_throughput"})
_STEPS = frozenset({"prefill_latency", "total_latency"})


DRAFTED = 1.05
"""Tokens of a step beyond which some were drafted."""


def sniff(source: Source) -> bool:
    """Whether a batch and the times of either tool are there."""
    keys = keys_of(source.value)
    return (
        source.kind in ("json", "jsonl") and keys >= _KEYS and (keys >= _SERVER or keys >= _STEPS)
    )


def read(source: Source) -> list[TidyRow]:
    """One row a line."""
    return [
        _row(Record.of(value, f"{source.name} line {line}", source))
        for line, value in source.records()
    ]


def _row(record: Record) -> TidyRow:
    served = "latency" in record
    batch, output = record.size("batch_size"), record.positive("output_len")
    whole = record.positive("latency" if served else "total_latency")
    accepted = record.data.get("acc_length")  # -1 where nothing is drafted
    drafted = isinstance(accepted, int | float) and accepted > DRAFTED
    figures = _server(record, whole, output) if served else _steps(record, output)
    figures["e2el_mean_ms"] = None if whole is None else whole * MS
    name = record.text("run_name")
    return built(
        record.where,
        NAME,
        figures,
        fields={
            "source": "SGLang bench_one_batch" + ("_server" if served else ""),
            "engine": "SGLang",
            "request_rate": float("inf"),
            "arrivals": "burst",
            "batch_size": batch,
            "num_prompts": batch,
            "completed": batch,
            "duration": whole,
            "req_throughput": batch / whole if batch and whole else None,
            "out_tok_throughput": batch * output / whole if batch and output and whole else None,
            "input_len_mean": record.positive("input_len"),
            "output_len_mean": output,
            "in_process": not served,
            "speculative_decoding": True if drafted else None,
        },
        notes=(f"run {name}" if name and name != "default" else None,),
    )


def _steps(record: Record, output: float | None) -> dict[str, Any]:
    prefill = record.positive("prefill_latency", MS)
    return {
        "ttft_mean_ms": prefill,
        "ttft_p50_ms": prefill,
        "tpot_p50_ms": record.positive("median_decode_latency", MS),
        "tpot_mean_ms": _rest(record.positive("total_latency", MS), prefill, output),
    }


def _server(record: Record, whole: float | None, output: float | None) -> dict[str, Any]:
    last = record.positive("last_ttft", MS)
    rest = _rest(None if whole is None else whole * MS, last, output)
    return {"ttft_max_ms": last, "tpot_mean_ms": rest}


def _rest(whole: float | None, first: float | None, output: float | None) -> float | None:
    """Return the time per token after the first [ms]."""
    if whole is None or first is None or output is None or output <= 1 or whole < first:
        return None
    return (whole - first) / (output - 1)
