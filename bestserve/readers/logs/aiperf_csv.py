"""AIPerf and GenAI-Perf CSV: a table of statistics, a blank line, a table of single values.

The file has no settings: neither model nor load.
"""

from __future__ import annotations

import re

from bestserve.readers.logs._build import built
from bestserve.readers.logs._record import Record
from bestserve.readers.logs._triton import latency_figures, run_fields
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source

NAME = "aiperf-csv"
_METRIC = re.compile(r"^(?P<name>.+?) \((?P<unit>[\w/ %]+)\)$")
_NAMES = {
    "time to first token": "time_to_first_token",
    "inter token latency": "inter_token_latency",
    "request latency": "request_latency",
    "output sequence length": "output_sequence_length",
    "input sequence length": "input_sequence_length",
    # GenAI-Perf before 2025
    "num output token": "output_sequence_length",
    "num output tokens": "output_sequence_length",
    "num input token": "input_sequence_length",
    "num input tokens": "input_sequence_length",
    "request throughput": "request_throughput",
    "output token throughput": "output_token_throughput",
    "request count": "request_count",
    "error request count": "error_request_count",
    "benchmark duration": "benchmark_duration",
    "effective concurrency": "effective_concurrency",
}


def sniff(source: Source) -> bool:
    """Whether the first line is the header of metric statistics."""
    if source.kind != "csv" or not source.table:
        return False
    header = [cell.strip() for cell in source.table[0]]
    return header[:2] == ["Metric", "avg"] and "p99" in header


def read(source: Source) -> list[TidyRow]:
    """The one run of the file."""
    metrics: dict[str, dict[str, object]] = {}
    header: list[str] = []
    for line in source.table:
        cells = [cell.strip() for cell in line]
        if cells[:1] == ["Metric"]:
            header = cells
            continue
        if not any(cells):
            header = []
            continue
        match = _METRIC.match(cells[0])
        title = (match["name"] if match else cells[0]).lower()
        if not header or title not in _NAMES:
            continue
        stats = {"avg" if k == "Value" else k: _number(v)
                 for k, v in zip(header[1:], cells[1:], strict=False)}  # fmt: skip
        metrics[_NAMES[title]] = {**stats, "unit": match["unit"] if match else None}
    record = Record(metrics, source.name, source)
    return [
        built(
            source.name,
            NAME,
            latency_figures(record),
            fields={**run_fields(record), "source": "AIPerf or GenAI-Perf"},
        )
    ]


def _number(text: str) -> object:
    try:
        return float(text.replace(",", "")) if text else None
    except ValueError:
        return text
