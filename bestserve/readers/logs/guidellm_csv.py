"""guidellm CSV: one header line (0.3) or three (0.8), one line a benchmark.

Cells hold lists of percentiles and JSON objects of settings. As in the JSON, the inter-token
latency is our TPOT, its mean weighted by output tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bestserve.errors import DataError
from bestserve.readers.logs._build import arrivals_of, built
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, parse_json

NAME = "guidellm-csv"
_OLD = ("0.1", "1", "5", "10", "25", "75", "90", "95", "99")
_NEW = ("0.1", "1", "5", "10", "25", "50", "75", "90", "95", "99", "99.9")
_OLD_METRICS = {"ttft": "Time to first token ms", "tpot": "Inter token latency ms",
                "e2el": "Request latency"}  # fmt: skip
_NEW_METRICS = {"ttft": "Time to First Token|Successful ms", "tpot": "Inter Token Latency|"
                "Successful ms", "e2el": "Request Latency|Successful Sec"}  # fmt: skip
_STRATEGY = re.compile(r"^(\w+)(?:@(\d+(?:\.\d+)?))?$")
_OPEN = ("poisson", "constant")


def sniff(source: Source) -> bool:
    """Whether the header is one of the two."""
    if source.kind != "csv" or not source.table:
        return False
    head = source.table[0]
    return "Successful Time to first token ms mean" in head or (
        head[:1] == ["Run Info"] and "Inter Token Latency" in head and len(source.table) > 2
    )


def read(source: Source) -> list[TidyRow]:
    """One row a benchmark."""
    old = source.table[0][:1] != ["Run Info"]
    depth = 1 if old else 3
    heads = source.table[:depth]
    if len({len(head) for head in heads}) != 1:
        raise DataError(f"{source.name}: header lines of different length")
    titles = [
        "|".join(part.strip() for part in parts if part.strip())
        for parts in zip(*heads, strict=True)
    ]
    rows: list[TidyRow] = []
    for number, cells in enumerate(source.table[depth:], start=depth + 1):
        if not any(cells):
            continue
        where = f"{source.name} line {number}"
        if len(cells) != len(titles):
            raise DataError(f"{where}: {len(cells)} cells, the header has {len(titles)}")
        named = {title: cell for title, cell in zip(titles, cells, strict=True) if cell.strip()}
        record = Record({k: _number(v) for k, v in named.items()}, where, source)
        rows.append(_old_row(record, named) if old else _new_row(record, named))
    return rows


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _object(named: Mapping[str, str], title: str, record: Record) -> Record:
    """The JSON object in a cell; empty if the cell is."""
    if title not in named:
        return Record({}, record.where, record.source)
    where = f"{record.where} {title}"
    value, _ = parse_json(named[title], where)
    return Record.of(value, where, record.source)


def _shares(
    named: Mapping[str, str], title: str, names: tuple[str, ...], record: Record
) -> dict[str, float | None]:
    """Percentiles by share from a list-valued cell."""
    if title not in named:
        return {}
    where = f"{record.where} {title}"
    value, _ = parse_json(named[title], where)
    values = Record({"percentiles": value}, where, record.source).array("percentiles")
    if values is None or len(values) != len(names):
        raise DataError(f"{where}: expected a list of {len(names)} percentiles")
    return dict(zip(names, values.tolist(), strict=True))


def _figures(
    record: Record, metric: str, columns: Mapping[str, str], shares: Mapping[str, float | None]
) -> dict[str, float | None]:
    scale = MS if metric == "e2el" else 1.0
    out = {f"{metric}_{stat}_ms": record.number(column, scale) for stat, column in columns.items()}
    for share, value in shares.items():
        if share not in ("min", "max", "50"):
            out[f"{metric}_p{share}_ms"] = None if value is None else value * scale
    return out


def _load(kind: str | None, rate: float | None, streams: int | None) -> dict[str, Any]:
    if kind == "synchronous":
        streams = 1
    if kind == "throughput":
        rate = float("inf")
    return {
        "request_rate": rate,
        "concurrency": streams,
        "arrivals": arrivals_of(rate, streams, kind if kind in _OPEN else None),
    }


def _old_row(record: Record, named: Mapping[str, str]) -> TidyRow:
    figures: dict[str, float | None] = {}
    names = ("min", *_OLD, "max")
    for metric, theirs in _OLD_METRICS.items():
        title = f"Successful {theirs}"
        columns = {"mean": f"{title} mean", "p50": f"{title} median", "std": f"{title} std dev"}
        listed = f"{title} [min, 0.1, 1, 5, 10, 25, 75, 90, 95, 99, max]"
        figures |= _figures(record, metric, columns, _shares(named, listed, names, record))
    strategy = _object(named, "Args", record).child("strategy")
    completed = record.count("Successful Requests")
    duration = record.positive("Duration")
    return built(
        record.where,
        NAME,
        figures,
        fields={
            "source": "guidellm",
            "model": _object(named, "Worker", record).text("backend_model"),
            **_load(strategy.text("type_"), strategy.positive("rate"), strategy.size("streams")),
            "completed": completed,
            "failed": record.count("Errored Requests"),
            "duration": duration,
            "req_throughput": completed / duration if completed and duration else None,
            "out_tok_throughput": record.number("Successful Output tokens per second mean"),
            "input_len_mean": record.positive("Successful Prompt token count mean"),
            "output_len_mean": record.positive("Successful Output token count mean"),
            "input_len_std": record.number("Successful Prompt token count std dev"),
            "output_len_std": record.number("Successful Output token count std dev"),
            "mean_concurrency": record.number("Successful Request concurrency mean"),
        },
        notes=("mean TPOT weighted by output tokens",),
    )


def _new_row(record: Record, named: Mapping[str, str]) -> TidyRow:
    figures: dict[str, float | None] = {}
    for metric, title in _NEW_METRICS.items():
        columns = {"mean": f"{title}|Mean", "p50": f"{title}|Median", "std": f"{title}|Std Dev"}
        shares = _shares(named, f"{title}|Percentiles", _NEW, record)
        figures |= _figures(record, metric, columns, shares)
    match = _STRATEGY.match(named.get("Benchmark|Strategy", "").strip())
    kind, value = match.groups() if match else (None, None)
    rate = float(value) if value and kind in _OPEN else None
    streams = int(float(value)) if value and kind == "concurrent" else None
    completed = record.count("Request Counts|Successful")
    duration = record.positive("Timings|Duration|Sec")
    tokens = "Token Metrics|Successful"
    return built(
        record.where,
        NAME,
        figures,
        fields={
            "source": "guidellm",
            "model": _object(named, "Run Info|Backend", record).text("model"),
            **_load(kind, rate or None, streams or None),
            "num_prompts": record.count("Request Counts|Total"),
            "completed": completed,
            "failed": record.count("Request Counts|Errored"),
            "duration": duration,
            "req_throughput": completed / duration if completed and duration else None,
            "out_tok_throughput": record.number(
                "Token Throughput|Successful Output Tokens/Sec|Mean"
            ),
            "input_len_mean": record.positive(f"{tokens} Input Tokens|Mean"),
            "output_len_mean": record.positive(f"{tokens} Output Tokens|Mean"),
            "input_len_std": record.number(f"{tokens} Input Tokens|Std Dev"),
            "output_len_std": record.number(f"{tokens} Output Tokens|Std Dev"),
            "mean_concurrency": record.number("Server Throughput|Successful Concurrency|Mean"),
        },
        notes=("mean TPOT weighted by output tokens",),
    )
