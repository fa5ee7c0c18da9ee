"""MLPerf LoadGen `mlperf_log_summary.txt`: times in nanoseconds, one run.

LoadGen's time to output token is (latency − first token)/(tokens − 1), ours. Server is a Poisson
stream at `target_qps`, Offline a burst. The mean output length is the ratio of the completed
tokens to the completed samples.
"""

from __future__ import annotations

import re

from bestserve.readers.logs._build import built
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source

NAME = "mlperf-loadgen"
_LINE = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9_. ]*?(?: \(\w+\))?)\s*:\s*(\S.*?)\s*$")
_NANO = 1e-9
_STREAMS = {"Server": "poisson", "Interactive": "poisson"}
_LATENCIES = {"ttft": "first token latency", "tpot": "time to output token", "e2el": "latency"}
_SHARES = ("50.00", "90.00", "95.00", "97.00", "99.00", "99.90")


def sniff(source: Source) -> bool:
    """Whether the text is LoadGen's results summary."""
    head = source.text[:400]
    return source.kind == "text" and "MLPerf Results Summary" in head and "Scenario" in head


def read(source: Source) -> list[TidyRow]:
    """The one run of the file."""
    found: dict[str, object] = {}
    for line in source.text.splitlines():
        match = _LINE.match(line[:400])
        if match:
            found[" ".join(match[1].lower().split())] = _value(match[2])
    record = Record(found, source.name, source)
    figures: dict[str, float | None] = {}
    for metric, theirs in _LATENCIES.items():
        scale = _NANO * MS
        figures[f"{metric}_mean_ms"] = record.number(f"mean {theirs} (ns)", scale)
        for share in _SHARES:
            name = share.rstrip("0").rstrip(".")
            figures[f"{metric}_p{name}_ms"] = record.number(
                f"{share} percentile {theirs} (ns)", scale
            )
    scenario = record.text("scenario")
    rate = record.positive("target_qps") if scenario in _STREAMS else None
    samples = record.number("completed samples per second")
    if samples is None:
        samples = record.number("samples per second")
    tokens = record.number("completed tokens per second")
    if tokens is None:
        tokens = record.number("tokens per second")
    verdict = record.text("result is")
    return [
        built(
            source.name,
            NAME,
            figures,
            fields={
                "source": f"MLPerf LoadGen {scenario}",
                "request_rate": float("inf") if scenario == "Offline" else rate,
                "achieved_rate": record.number("scheduled samples per second"),
                "arrivals": "burst" if scenario == "Offline" else _STREAMS.get(scenario or ""),
                "req_throughput": samples,
                "out_tok_throughput": tokens,
                "output_len_mean": tokens / samples if tokens and samples else None,
            },
            notes=(
                f"LoadGen {verdict}" if verdict else None,
                f"system under test {record.text('sut name')}" if "sut name" in record else None,
                "output_len_mean is completed tokens over completed samples",
            ),
        )
    ]


def _value(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text
