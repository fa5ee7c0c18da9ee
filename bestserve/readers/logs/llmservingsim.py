"""LLMServingSim request log (JSONL): arrival on the wall clock, other stamps on a monotonic one.

The engine ran in the client's process. TTFT counts from `queued_ts`; the file has no settings.
"""

from __future__ import annotations

import numpy as np

from bestserve.readers.logs._build import built, log_figures, log_lengths
from bestserve.readers.logs._record import Record, per_token
from bestserve.readers.tidy import Regime, RequestLog, TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "llmservingsim"
_STAMPS = ("queued_ts", "first_token_ts", "last_token_ts")
_KEYS = frozenset({"input_toks", "output_toks", "arrival_time", *_STAMPS})


def sniff(source: Source) -> bool:
    """Whether the first record has the lengths and the four stamps."""
    return source.kind in ("json", "jsonl") and keys_of(source.value) >= _KEYS


def read(source: Source) -> list[TidyRow]:
    """One row for the file."""
    rows: list[tuple[float, ...]] = []
    failed = 0
    for line, value in source.records():
        record = Record.of(value, f"{source.name} line {line}", source)
        found = (
            record.count("input_toks"),
            record.count("output_toks"),
            record.number("arrival_time"),
            *(record.number(stamp) for stamp in _STAMPS),
        )
        if any(part is None for part in found):
            failed += 1
            continue
        one = tuple(float(part) for part in found if part is not None)
        if not one[3] <= one[4] <= one[5]:
            raise record.fail("first_token_ts", "stamps out of order")
        rows.append(one)
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    outputs = table[:, 1].astype(np.int64)
    arrivals = np.sort(table[:, 2])
    e2el, ttft = table[:, 5] - table[:, 3], table[:, 4] - table[:, 3]
    log = RequestLog(
        input_len=table[:, 0].astype(np.int64),
        output_len=outputs,
        ttft=ttft,
        e2el=e2el,
        tpot=per_token(e2el, ttft, outputs),
        start=table[:, 2] - arrivals[0] if rows else None,
    )
    span = float(arrivals[-1] - arrivals[0]) if rows else 0.0
    duration = float(table[:, 5].max() - table[:, 3].min()) if rows else None
    rate = (len(rows) - 1) / span if span > 0 else None
    return [
        built(
            source.name,
            NAME,
            log_figures(log),
            fields={
                "source": "LLMServingSim",
                "request_rate": rate,
                "achieved_rate": rate,
                "arrivals": "trace",
                "regime": Regime.OPEN_FINITE,
                "num_prompts": len(rows) + failed,
                "completed": len(rows),
                "failed": failed,
                "duration": duration,
                "send_duration": span,
                "req_throughput": len(rows) / duration if duration else None,
                "out_tok_throughput": float(outputs.sum()) / duration if duration else None,
                "in_process": True,
                "requests": log if rows else None,
                **log_lengths(log),
            },
            notes=("request_rate is the realised mean over the trace",),
        )
    ]
