"""EvalScope's `evalscope perf`: `benchmark_summary.json`, versions of 2025 and 2026.

Keys are titles with their unit, and were reworded in 2026 ("Average time to first token (s)" became
"Avg TTFT (ms)"). Percentiles and settings stand beside it, in `benchmark_percentile.json` and
`benchmark_args.json`; a rate of -1 is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bestserve.errors import DataError
from bestserve.readers.logs._beside import beside, settings_beside
from bestserve.readers.logs._build import arrivals_of, built
from bestserve.readers.logs._record import Record
from bestserve.readers.logs._triton import UNITS
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of, listed

NAME = "evalscope"
PERCENTILES = "benchmark_percentile.json"

_TITLE = re.compile(r"^(?P<title>[^()]+?)\s*(?:\((?P<unit>[^()]*)\))?$")
_NAMES: Mapping[str, str] = {
    "time taken for tests": "duration",
    "test duration": "duration",
    "number of concurrency": "concurrency",
    "concurrency": "concurrency",
    "request rate": "rate",
    "total requests": "requests",
    "succeed requests": "completed",
    "success requests": "completed",
    "failed requests": "failed",
    "request throughput": "req_throughput",
    "req throughput": "req_throughput",
    "average qps": "req_throughput",
    "output token throughput": "out_tok_throughput",
    "output throughput": "out_tok_throughput",
    "average latency": "e2el",
    "avg latency": "e2el",
    "latency": "e2el",
    "average time to first token": "ttft",
    "avg ttft": "ttft",
    "ttft": "ttft",
    "average time per output token": "tpot",
    "avg tpot": "tpot",
    "tpot": "tpot",
    "average inter-token latency": "itl",
    "avg itl": "itl",
    "itl": "itl",
    "average input tokens per request": "inputs",
    "avg input tokens": "inputs",
    "average output tokens per request": "outputs",
    "avg output tokens": "outputs",
    "average decoded tokens per iter": "decoded",
    "avg decoded tok/iter": "decoded",
}
"""Titles of either wording → what they mean."""
_METRICS = ("ttft", "tpot", "itl", "e2el")
_NEEDED = {"requests", "completed", "concurrency"}

SPECULATIVE = 1.05
"""Tokens of a message beyond which several came from one step."""


def sniff(source: Source) -> bool:
    """Whether the titles of requests and concurrency are there, in either wording."""
    if source.kind != "json" or not isinstance(source.value, dict):
        return False
    return {_NAMES.get(_split(k)[0]) for k in keys_of(source.value)} >= _NEEDED


def lacking(source: Source) -> str:
    """Return what to name instead of the percentiles alone."""
    rows = listed(source.value) if source.kind == "json" else []
    keys = keys_of(rows[0]) if rows else frozenset()
    if "Percentiles" in keys and any(k.startswith("TTFT") for k in keys):
        return "percentiles of an EvalScope run without its load: name benchmark_summary.json"
    return ""


def read(source: Source) -> list[TidyRow]:
    """The one run of the file."""
    record = Record.of(source.value, source.name, source)
    titles = {_NAMES[t]: (key, unit) for key in record.data if (t := _split(key)[0]) in _NAMES
              for unit in [_split(key)[1]]}  # fmt: skip

    def figure(name: str) -> float | None:
        key, unit = titles.get(name, ("", ""))
        return record.positive(key, _milliseconds(unit, record.where) if name in _METRICS else 1.0)

    figures: dict[str, float | None] = {f"{m}_mean_ms": figure(m) for m in _METRICS}
    figures |= _percentiles(source)
    key = titles.get("rate", ("", ""))[0]
    stated = record.data.get(key)
    paced = isinstance(stated, int | float) and stated > 0
    concurrency = record.size(titles["concurrency"][0]) if _above_zero(record, titles) else None
    rate = record.positive(key) if paced else float("inf")
    args = settings_beside(source, "benchmark_args.json")
    decoded = figure("decoded")
    total = record.count(titles["requests"][0])
    return [
        built(
            record.where,
            NAME,
            figures,
            fields={
                "source": "evalscope perf",
                "model": args.text("model"),
                "dataset_or_lengths": args.text("dataset"),
                "request_rate": rate,
                "concurrency": None if paced else concurrency,
                "arrivals": arrivals_of(rate, None if paced else concurrency, "poisson"),
                "num_prompts": total,
                "completed": record.count(titles["completed"][0]),
                "failed": record.count(titles["failed"][0]) if "failed" in titles else None,
                "duration": figure("duration"),
                "req_throughput": figure("req_throughput"),
                "out_tok_throughput": figure("out_tok_throughput"),
                "input_len_mean": figure("inputs"),
                "output_len_mean": figure("outputs"),
                "input_len_range": _range(args),
                "speculative_decoding": True if decoded and decoded > SPECULATIVE else None,
            },
        )
    ]


UNLIMITED = 100_000.0
"""From which on EvalScope's longest prompt is its default, which limits nothing [tokens]."""


def _range(args: Record) -> tuple[float, float] | None:
    """Return between which lengths the random data set draws its prompts, if stated [tokens].

    Of other data sets the two limits leave prompts out.
    """
    if not (args.text("dataset") or "").startswith("random"):
        return None
    low, high = args.number("min_prompt_length"), args.number("max_prompt_length")
    return (low, high) if low and high and low < high < UNLIMITED else None


def _split(key: str) -> tuple[str, str]:
    """Return a title's words and its unit, in lower case."""
    match = _TITLE.match(key.strip())
    return (key.lower(), "") if match is None else (match["title"].lower(), match["unit"] or "")


def _milliseconds(unit: str, where: str) -> float:
    if unit not in UNITS:
        raise DataError(f"{where}: EvalScope title with unit {unit[:20]!r}: expected a time unit")
    return UNITS[unit] * 1e3


def _above_zero(record: Record, titles: Mapping[str, tuple[str, str]]) -> bool:
    value = record.data.get(titles["concurrency"][0])
    return isinstance(value, int | float) and value > 0


def _percentiles(source: Source) -> dict[str, float | None]:
    """Return percentiles of the file beside the summary, by tidy name [ms]."""
    found = beside(source, PERCENTILES)
    out: dict[str, float | None] = {}
    if found is None:
        return out
    for index, row in enumerate(listed(found.value)):
        record = Record.of(row, f"{found.name} [{index}]", found)
        share = str(record.data.get("Percentiles", "")).removesuffix("%")
        if not share.isdecimal() or not 0 < int(share) < 100:
            continue
        for key in record.data:
            title, unit = _split(key)
            metric: Any = _NAMES.get(title)
            if metric in _METRICS:
                scale = _milliseconds(unit, record.where)
                out[f"{metric}_p{int(share)}_ms"] = record.number(key, scale)
    return out
