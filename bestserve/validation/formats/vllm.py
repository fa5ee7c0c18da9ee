"""vLLM `vllm bench serve` (and the older `benchmark_serving.py`), versions 0.6 to 0.25.

One flat object a run; a sweep is a list of them. TPOT is already ours. The log states neither
GPU, parallelism nor engine; what the user passed with `--metadata key=value` sits beside the
results and is taken where its key is a setting.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bestserve.errors import DataError
from bestserve.untrusted import Source, keys_of, listed
from bestserve.validation.formats._record import (
    Record,
    lengths,
    per_token,
    placed,
    summarised,
)
from bestserve.validation.formats._settings import stated_settings
from bestserve.validation.tidy import RequestLog, TidyRow, regime_of, status_of

NAME = "vllm-bench-serve"
BARE_CONSTANTS = True  # Python's json module writes NaN for the mean of nothing

_KEYS = frozenset({"model_id", "num_prompts", "completed", "total_output_tokens", "duration"})
_STATS = {"mean": "mean", "median": "p50", "std": "std"}


def sniff(source: Source) -> bool:
    """Whether the records have the keys that every version writes."""
    if source.kind not in ("json", "jsonl"):
        return False
    records = listed(source.value)
    return bool(records) and keys_of(records[0]) >= _KEYS


def read(source: Source) -> list[TidyRow]:
    """One row a run."""
    rows: list[TidyRow] = []
    for line, value in source.records():
        runs = listed(value)
        for index, run in enumerate(runs):
            at = f"line {line}" if source.kind == "jsonl" else f"run {index}"
            several = len(runs) > 1 or source.kind == "jsonl"
            where = f"{source.name} {at}" if several else source.name
            rows.append(_row(Record.of(run, where, source), where))
    return rows


def _row(record: Record, where: str) -> TidyRow:
    completed = record.count("completed")
    failed = record.count("failed")
    prompts = record.count("num_prompts")
    requests, silent = _details(record)
    if failed is None and prompts is not None and completed is not None:
        failed = max(prompts - completed, 0)
    rate = record.positive("request_rate", inf=True)
    concurrency = record.size("max_concurrency")
    throughput = record.number("request_throughput")
    total_in = record.number("total_input_tokens")
    total_out = record.number("total_output_tokens")
    figures: dict[str, float | None] = {}
    if completed:
        for metric in ("ttft", "tpot", "itl", "e2el"):
            figures |= _figures(record, metric)
        if total_out is not None and total_out <= completed:
            # one-token answers have no TPOT; the client prints 0
            figures = {k: v for k, v in figures.items() if not k.startswith(("tpot", "itl"))}
    if requests is not None:
        figures = _completed_figures(figures, requests, silent)
    goodput = record.number("request_goodput")
    if goodput is None:
        goodput = record.number("request_goodput:")  # versions 0.6 to 0.8
    figures["good_throughput"] = goodput
    row: dict[str, Any] = placed(figures)
    paced = rate is not None and math.isfinite(rate)
    burstiness = record.positive("burstiness")
    return TidyRow(
        id=where,
        source="vllm bench serve",
        date=record.text("date"),
        model=record.text("model_id"),
        request_rate=rate,
        concurrency=concurrency,
        regime=regime_of(rate, concurrency, throughput),
        arrivals=_arrivals(paced, concurrency, burstiness),
        burstiness=burstiness if paced else None,
        num_prompts=prompts,
        completed=completed,
        failed=failed,
        duration=record.number("duration"),
        req_throughput=throughput if completed else None,
        out_tok_throughput=record.number("output_throughput") if completed else None,
        input_len_mean=total_in / completed if completed and total_in else None,
        output_len_mean=total_out / completed if completed and total_out else None,
        input_len_std=_std(requests, "input_len"),
        output_len_std=_std(requests, "output_len"),
        requests=requests,
        notes=_notes(record, silent),
        status=status_of(
            completed,
            row.get("ttft_mean_ms", row.get("ttft_p50_ms")),
            row.get("tpot_mean_ms", row.get("tpot_p50_ms")),
        ),
        origin=where,
        format=NAME,
        **row,
        **stated_settings(record),
    )


def _figures(record: Record, metric: str) -> dict[str, float | None]:
    out = {f"{metric}_{ours}_ms": record.number(f"{theirs}_{metric}_ms")
           for theirs, ours in _STATS.items()}  # fmt: skip
    for key in record.data:
        if isinstance(key, str) and key.startswith("p") and key.endswith(f"_{metric}_ms"):
            share = key[1:].split("_", 1)[0]
            if share.replace(".", "", 1).isdecimal() and share != "50":
                out[f"{metric}_p{share}_ms"] = record.number(key)
    return out


def _arrivals(paced: bool, concurrency: int | None, burstiness: float | None) -> str:
    if not paced:
        return "burst" if concurrency is None else "closed"
    return "poisson" if burstiness in (None, 1.0) else "gamma"


def _notes(record: Record, silent: int) -> tuple[str, ...]:
    notes: list[str] = []
    if silent:
        notes.append(
            f"{silent} requests ended without a token of text; the client's mean TTFT counts them"
            " as 0, TTFT here is over the others"
        )
    backend = record.text("endpoint_type") or record.text("backend")
    if backend:
        notes.append(f"client backend {backend}")
    if record.text("label"):
        notes.append(f"label {record.text('label')}")
    if record.text("ramp_up_strategy"):
        notes.append(f"WARNING ramp-up {record.text('ramp_up_strategy')}: the rate is not constant")
    return tuple(notes)


def _std(requests: RequestLog | None, name: str) -> float | None:
    values = getattr(requests, name) if requests else None
    return None if values is None or not len(values) else float(np.std(values))


def _completed_figures(
    printed: dict[str, float | None], requests: RequestLog, silent: int
) -> dict[str, float | None]:
    """What the client printed, completed from the per-request arrays.

    TTFT is recomputed where requests without a token of text are in the printed figures.
    """
    computed: dict[str, float | None] = {}
    for metric in ("ttft", "tpot", "e2el"):
        values = getattr(requests, metric)
        if values is not None:
            computed |= summarised(metric, values)
    stated = {k: v for k, v in printed.items() if v is not None}
    if silent:
        stated = {k: v for k, v in stated.items() if not k.startswith(("ttft", "e2el"))}
    return {**computed, **stated}


def _details(record: Record) -> tuple[RequestLog | None, int]:
    """Per-request arrays of the answered requests, and how many ended without a token of text.

    A model that ends its answer at once leaves TTFT 0 and no error in these logs.
    """
    outputs = record.array("output_lens")
    ttft = record.array("ttfts")
    if outputs is None or ttft is None:
        return None, 0
    inputs, start = record.array("input_lens"), record.array("start_times")
    columns: dict[str, Any] = {"ttfts": ttft, "input_lens": inputs, "start_times": start}
    for name, column in columns.items():
        if column is not None and len(column) != len(outputs):
            raise DataError(
                f"{record.where}: {name} has {len(column)} entries, output_lens {len(outputs)}"
            )
    errors = record.data.get("errors")
    if isinstance(errors, list) and len(errors) == len(outputs):
        sound = np.array([not error for error in errors], dtype=bool)
    else:
        sound = (ttft > 0) | (outputs > 0)
    good = sound & (ttft > 0) & (outputs > 0)
    output_len = lengths(outputs, record, "output_lens")
    decode = _decode_times(record, len(outputs))
    e2el = None if decode is None else (ttft + decode)[good]
    log = RequestLog(
        input_len=None if inputs is None else lengths(inputs, record, "input_lens")[good],
        output_len=output_len[good],
        ttft=ttft[good],
        e2el=e2el,
        tpot=None if e2el is None else per_token(e2el, ttft[good], output_len[good]),
        start=None if start is None or not len(start) else (start - start.min())[good],
    )
    return log, int((sound & ~good).sum())


def _decode_times(record: Record, count: int) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Time from first to last token [s] of each request: the sum of its gaps."""
    gaps = record.data.get("itls")
    if gaps is None:
        return None
    if not isinstance(gaps, list) or len(gaps) != count:
        raise DataError(f"{record.where}: itls is not a list of {count} lists")
    total = np.zeros(count)
    for index in range(count):
        one = Record({"itls": gaps[index]}, f"{record.where} request {index}", record.source)
        array = one.array("itls")
        if array is None:
            raise one.fail("itls", "expected a list of numbers")
        total[index] = array.sum()
    return total
