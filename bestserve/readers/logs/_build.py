"""From figures under tidy names to a `TidyRow`: what every reader does last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bestserve.arrays import Floats
from bestserve.errors import DataError
from bestserve.readers.logs._record import Record, lengths, per_token, placed, summarised
from bestserve.readers.tidy import RequestLog, TidyRow, regime_of, status_of

_ENGINES: Mapping[str, str] = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "trt": "TensorRT-LLM",
    "trtllm": "TensorRT-LLM",
    "tensorrt-llm": "TensorRT-LLM",
    "tensorrt_llm": "TensorRT-LLM",
    "tgi": "TGI",
    "text-generation-inference": "TGI",
}
STATS: Mapping[str, str] = {"mean": "mean", "median": "p50", "std": "std"}
"""Statistics as most clients name them in keys, and ours."""


def engine_name(text: str | None) -> str | None:
    """The engine's usual spelling; a name that is not known stays as written."""
    return None if text is None else _ENGINES.get(text.lower(), text)


def arrivals_of(rate: float | None, concurrency: int | None, paced: str | None) -> str | None:
    """How requests arrive: `paced` at a finite rate, otherwise all at once or when one ends."""
    if rate is not None and math.isfinite(rate):
        return paced
    if concurrency is not None:
        return "closed"
    return None if rate is None else "burst"


def built(
    where: str,
    name: str,
    figures: Mapping[str, float | None],
    *,
    fields: Mapping[str, Any],
    notes: tuple[str | None, ...] = (),
    record_id: str | None = None,
) -> TidyRow:
    """One row from latency `figures` [ms, by tidy name] and other `fields` of `TidyRow`.

    Regime and status follow from the fields. Latencies of a run in which nothing completed are
    left out: clients print zeros there.
    """
    stated = {key: value for key, value in fields.items() if value is not None}
    completed = stated.get("completed")
    if completed == 0:
        figures = {}
        for key in ("req_throughput", "out_tok_throughput", "input_len_mean", "output_len_mean"):
            stated.pop(key, None)
    row: dict[str, Any] = placed(figures)
    ttft, tpot = (row.get(f"{m}_mean_ms", row.get(f"{m}_p50_ms")) for m in ("ttft", "tpot"))
    stated.setdefault(
        "regime",
        regime_of(
            stated.get("request_rate"), stated.get("concurrency"), stated.get("req_throughput")
        ),
    )
    return TidyRow(
        id=record_id or where,
        origin=where,
        format=name,
        status=status_of(
            completed, ttft, tpot, stated.get("req_throughput", stated.get("out_tok_throughput"))
        ),
        notes=tuple(note for note in notes if note),
        **row,
        **stated,
    )


def keyed_stats(record: Record, metric: str, theirs: str, scale: float = 1.0) -> dict[str, Any]:
    """Figures of flat keys `mean_<theirs>`, `median_…`, `std_…`, `p99_…` as tidy names [ms]."""
    out: dict[str, float | None] = {
        f"{metric}_{ours}_ms": record.number(f"{stat}_{theirs}", scale)
        for stat, ours in STATS.items()
    }
    for key in record.data:
        if isinstance(key, str) and key.startswith("p") and key.endswith(f"_{theirs}"):
            share = key[1 : -len(theirs) - 1]
            if share.replace(".", "", 1).isdecimal() and share != "50":
                out[f"{metric}_p{share}_ms"] = record.number(key, scale)
    return out


def log_figures(requests: RequestLog) -> dict[str, float | None]:
    """Latency figures of per-request arrays, by tidy name [ms]."""
    out: dict[str, float | None] = {}
    for metric in ("ttft", "tpot", "e2el"):
        values = getattr(requests, metric)
        if values is not None:
            out |= summarised(metric, values)
    return out


def log_lengths(requests: RequestLog) -> dict[str, float]:
    """Mean and spread of the realised lengths, as `TidyRow` keywords."""
    out: dict[str, float] = {}
    for side in ("input_len", "output_len"):
        values = getattr(requests, side)
        if values is not None and len(values) and values.mean() > 0:
            out |= {f"{side}_mean": float(values.mean()), f"{side}_std": float(values.std())}
    return out


def detailed(record: Record) -> tuple[RequestLog | None, int]:
    """Per-request arrays of a vLLM or SGLang log, and how many requests got no token of text.

    A model that ends its answer at once leaves TTFT 0 and no error in these logs; such requests
    and failed ones are left out of the arrays.
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
    gaps = _gaps(record, len(outputs))
    e2el = None if gaps is None else (ttft + np.array([one.sum() for one in gaps]))[good]
    if e2el is not None and not np.isfinite(e2el).all():
        raise DataError(f"{record.where}: itls add up to infinity")
    kept = None if gaps is None else [one for one, counts in zip(gaps, good, strict=True) if counts]
    log = RequestLog(
        input_len=None if inputs is None else lengths(inputs, record, "input_lens")[good],
        output_len=output_len[good],
        ttft=ttft[good],
        e2el=e2el,
        tpot=None if e2el is None else per_token(e2el, ttft[good], output_len[good]),
        start=None if start is None or not len(start) else (start - start.min())[good],
        gaps=None if kept is None else np.concatenate([np.zeros(0), *kept]),
        messages=None if kept is None else np.array([1 + len(one) for one in kept], dtype=np.int64),
    )
    return log, int((sound & ~good).sum())


def _gaps(record: Record, count: int) -> list[Floats] | None:
    """Times between the messages of each request [s]."""
    gaps = record.data.get("itls")
    if gaps is None:
        return None
    if not isinstance(gaps, list) or len(gaps) != count:
        raise DataError(f"{record.where}: itls is not a list of {count} lists")
    found = []
    for index in range(count):
        one = Record({"itls": gaps[index]}, f"{record.where} request {index}", record.source)
        array = one.array("itls")
        if array is None:
            raise one.fail("itls", "expected a list of numbers")
        found.append(array)
    return found


def completed_figures(
    printed: Mapping[str, float | None], requests: RequestLog | None, silent: int
) -> dict[str, float | None]:
    """What the client printed, completed from the per-request arrays.

    TTFT and E2EL are recomputed where requests without a token of text are in the printed ones.
    """
    stated: dict[str, float | None] = {k: v for k, v in printed.items() if v is not None}
    if requests is None:
        return stated
    if silent:
        stated = {k: v for k, v in stated.items() if not k.startswith(("ttft", "e2el"))}
    return {**log_figures(requests), **stated}


def silent_note(silent: int) -> str | None:
    """The note about requests that got no token of text."""
    if not silent:
        return None
    return (
        f"{silent} requests ended without a token of text; the client's mean TTFT counts them as"
        " 0, TTFT here is over the others"
    )


def spread(requests: RequestLog | None) -> dict[str, float]:
    """Standard deviations of the realised lengths, as `TidyRow` keywords."""
    found = {} if requests is None else log_lengths(requests)
    return {name: value for name, value in found.items() if name.endswith("_std")}


def mean_of(total: float | None, count: int | None) -> float | None:
    """`total` per item; None where either is unknown or nothing."""
    return total / count if total and count else None
