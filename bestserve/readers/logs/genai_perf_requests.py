"""GenAI-Perf per-request export (`profile_export.json`): time stamps [ns] of every response.

Chunks are not tokens, so the file gives TTFT and E2EL but no TPOT and no lengths.
"""

from __future__ import annotations

import numpy as np

from bestserve.readers.logs._build import arrivals_of, built, log_figures
from bestserve.readers.logs._record import Record
from bestserve.readers.tidy import RequestLog, TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "genai-perf-requests"
_NANO = 1e-9


def sniff(source: Source) -> bool:
    """Whether the document is a list of experiments of requests."""
    if source.kind != "json" or "experiments" not in keys_of(source.value):
        return False
    runs = source.value["experiments"]
    return isinstance(runs, list) and bool(runs) and keys_of(runs[0]) >= {"experiment", "requests"}


def read(source: Source) -> list[TidyRow]:
    """One row an experiment."""
    document = Record.of(source.value, source.name, source)
    return [_row(run) for run in document.children("experiments")]


def _row(run: Record) -> TidyRow:
    sent: list[float] = []
    stamps: list[tuple[float, float]] = []
    failed = 0
    for request in run.children("requests"):
        start, answers = request.number("timestamp"), request.array("response_timestamps")
        if start is None or answers is None or not len(answers):
            failed += 1
            continue
        if answers.min() < start:
            raise request.fail("response_timestamps", "earlier than the request")
        sent.append(start)
        stamps.append((float(answers[0]), float(answers.max())))
    begin, ends = np.array(sent), np.array(stamps).reshape(-1, 2)
    log = RequestLog(
        ttft=(ends[:, 0] - begin) * _NANO,
        e2el=(ends[:, 1] - begin) * _NANO,
        start=(begin - begin.min()) * _NANO if sent else None,
    )
    mode = run.child("experiment")
    concurrency = mode.size("value") if mode.text("mode") == "concurrency" else None
    rate = mode.positive("value") if mode.text("mode") == "request_rate" else None
    duration = float(ends[:, 1].max() - begin.min()) * _NANO if sent else None
    return built(
        run.where,
        NAME,
        log_figures(log),
        fields={
            "source": "GenAI-Perf",
            "concurrency": concurrency,
            "request_rate": float("inf") if rate is None and concurrency else rate,
            "arrivals": arrivals_of(rate, concurrency, None),
            "completed": len(sent),
            "failed": failed,
            "num_prompts": len(sent) + failed,
            "duration": duration,
            "req_throughput": len(sent) / duration if duration else None,
            "requests": log if sent else None,
        },
        notes=("chunks are not tokens: the file states neither TPOT nor lengths",),
    )
