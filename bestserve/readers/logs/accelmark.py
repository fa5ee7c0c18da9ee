"""AccelMark `result.json`: chip, software and model named; one row a rate, and the serial one.

Only medians and percentiles are stated, over three runs. Offline, sustained and burst scenarios
state no TTFT and TPOT pair and are left out.
"""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import built, engine_name
from bestserve.readers.logs._record import Record
from bestserve.readers.tidy import Regime, TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "accelmark"
_KEYS = frozenset({"suite_id", "chip", "software", "task", "metrics"})
_ONLINE = 300  # online_request_count of the suite definitions
_SHARES = ("50", "90", "99")


def sniff(source: Source) -> bool:
    """Whether the document has the suite's sections."""
    return source.kind == "json" and keys_of(source.value) >= _KEYS


def read(source: Source) -> list[TidyRow]:
    """One row for each rate of the online scenario, and one for the interactive one."""
    record = Record.of(source.value, source.name, source)
    shared = _shared(record)
    notes = (f"suite {record.text('suite_id')}", "median of the runs")
    rows: list[TidyRow] = []
    for run in record.child("metrics", "online").children("results_by_qps"):
        rows.append(
            built(
                run.where,
                NAME,
                _figures(run),
                fields={
                    **shared,
                    "request_rate": run.positive("target_qps"),
                    "achieved_rate": run.number("achieved_qps"),  # of sending
                    "arrivals": "poisson",
                    "regime": Regime.OPEN_POISSON_300,
                    "num_prompts": _ONLINE,
                    "duration": run.number("elapsed_seconds_median"),
                },
                notes=(*notes, f"{_ONLINE} requests a rate, by the suite's definition"),
            )
        )
    serial = record.child("metrics", "interactive")
    if "ttft_ms_p50" in serial:
        rows.append(
            built(
                serial.where,
                NAME,
                _figures(serial),
                fields={
                    **shared,
                    "request_rate": float("inf"),
                    "concurrency": 1,
                    "arrivals": "closed",
                    "duration": serial.number("elapsed_seconds_median"),
                },
                notes=(*notes, "interactive: one request at a time"),
            )
        )
    return rows


def _figures(run: Record) -> dict[str, float | None]:
    return {
        f"{metric}_p{share}_ms": run.number(f"{metric}_ms_p{share}")
        for metric in ("ttft", "tpot")
        for share in _SHARES
    }


def _shared(record: Record) -> dict[str, Any]:
    chip, software, model = record.child("chip"), record.child("software"), record.child("model")
    parallel = record.child("task", "parallelism")
    return {
        "source": "AccelMark",
        "date": record.child("environment").text("collected_at"),
        "gpu": chip.text("name"),
        "num_gpus": chip.size("count"),
        "engine": engine_name(software.text("framework")),
        "engine_version": software.text("framework_version"),
        "model": model.text("model_id"),
        "precision": model.text("precision"),
        "tp": parallel.size("tensor_parallel_size"),
        "pp": parallel.size("pipeline_parallel_size"),
        "ep": parallel.size("expert_parallel_size"),
        "replicas": parallel.size("data_parallel_size"),
    }
