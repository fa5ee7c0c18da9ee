"""llmperf individual responses: a list of requests with TTFT and latency [s], no time stamps.

TPOT is recovered per request as (e2el − ttft)/(n_out − 1). The file has no settings.
"""

from __future__ import annotations

import numpy as np

from bestserve.readers.logs._build import built, log_figures, log_lengths
from bestserve.readers.logs._record import Record, per_token
from bestserve.readers.tidy import RequestLog, TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "llmperf-requests"
BARE_CONSTANTS = True

_KEYS = frozenset({"ttft_s", "end_to_end_latency_s", "number_output_tokens"})


def sniff(source: Source) -> bool:
    """Whether the list's first entry is a request."""
    value = source.value
    return (
        source.kind == "json"
        and isinstance(value, list)
        and bool(value)
        and keys_of(value[0]) >= _KEYS
    )


def read(source: Source) -> list[TidyRow]:
    """One row for the file."""
    rows: list[tuple[float, ...]] = []
    failed = 0
    for index, value in enumerate(source.value):
        record = Record.of(value, f"{source.name} [{index}]", source)
        found = (
            record.count("number_input_tokens"),
            record.count("number_output_tokens"),
            record.number("ttft_s"),
            record.number("end_to_end_latency_s"),
        )
        if record.data.get("error_code") is not None or any(part is None for part in found):
            failed += 1
        else:
            rows.append(tuple(float(part) for part in found if part is not None))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    outputs = table[:, 1].astype(np.int64)
    log = RequestLog(
        input_len=table[:, 0].astype(np.int64),
        output_len=outputs,
        ttft=table[:, 2],
        e2el=table[:, 3],
        tpot=per_token(table[:, 3], table[:, 2], outputs),
    )
    return [
        built(
            source.name,
            NAME,
            log_figures(log),
            fields={
                "source": "llmperf",
                "num_prompts": len(rows) + failed,
                "completed": len(rows),
                "failed": failed,
                "requests": log if rows else None,
                **log_lengths(log),
            },
            notes=("TPOT recovered per request: (E2EL − TTFT)/(output tokens − 1)",),
        )
    ]
