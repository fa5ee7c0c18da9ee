"""What share of the prompt tokens a prefix cache gave, as a server or client wrote it down.

Clients that know say so in their own logs. Of others the server's log or a dump of its `/metrics`
may lie beside the result:

* vLLM prints a hit rate of the last thousand requests every few seconds;
* SGLang prints new and cached tokens of every prefill batch;
* `/metrics` of either counts both since the server's start, or since the first of two dumps.
"""

from __future__ import annotations

import re
from dataclasses import replace

from bestserve.errors import BestserveError
from bestserve.readers.bounded import read_text
from bestserve.readers.logs._record import Record
from bestserve.readers.metrics.live import live_metrics
from bestserve.readers.metrics.scrape import Scrape, read_file
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source

LOGS = ("server.log", "vllm.log", "sglang.log")
DUMPS = (("metrics_before.txt", "metrics_after.txt"), ("metrics.txt",), ("metrics.prom",))
"""Names of files beside a result that are looked at; `<result's stem>.log` comes first."""

BESIDE = frozenset((*LOGS, *(name for names in DUMPS for name in names)))
"""Names of files that are no results of their own."""

LARGEST = 50_000_000
"""Largest server log that is read [bytes]."""

_VLLM = re.compile(
    r"Avg prompt throughput: ([\d.]{1,20}) tokens/s.{0,300}?"
    r"[, ]Prefix cache hit rate: ([\d.]{1,9})%"
)
_SGLANG = re.compile(r"Prefill batch.{0,200}?#new-token: (\d{1,12}), #cached-token: (\d{1,12})")
_PORTIONS = {"percent": 0.01, "fraction": 1.0}


def percent(record: Record, *path: str) -> float | None:
    """Return a figure in per cent as a share [1]; None if it is missing or is none."""
    *parents, key = path
    return portion(record.child(*parents).number(key), 0.01)


def portion(value: float | None, scale: float = 1.0) -> float | None:
    """Return a figure as a share [1]; None if it is none (1 % of rounding is forgiven)."""
    if value is None or not 0 <= value * scale <= 1.01:
        return None
    return min(value * scale, 1.0)


def in_units(stats: Record) -> float | None:
    """Return the mean of statistics that state their units, per cent or fraction [1]."""
    scale = _PORTIONS.get(stats.text("units") or "")
    return None if scale is None else portion(stats.number("mean"), scale)


def share_in_log(text: str) -> float | None:
    """Return the hit share that a server's log states [1]; None if it has no such line.

    vLLM's rates are weighted with the prompt tokens of their interval, SGLang's tokens added up.

    >>> share_in_log("Prefill batch. #new-seq: 1, #new-token: 300, #cached-token: 900, ...")
    0.75
    """
    new = cached = weight = rate = 0.0
    for found in _SGLANG.finditer(text):
        new, cached = new + float(found[1]), cached + float(found[2])
    if new + cached > 0:
        return cached / (new + cached)
    try:
        for found in _VLLM.finditer(text):
            tokens, percentage = float(found[1]), float(found[2])
            weight, rate = weight + tokens, rate + tokens * percentage
    except ValueError:  # digits and points that are no number
        return None
    return portion(rate / weight, 0.01) if weight > 0 else None


def attached(rows: list[TidyRow], source: Source) -> list[TidyRow]:
    """Return the one row of a result with the hit share that files beside it state.

    Of several runs in one file nobody can tell which a server's counts are of.
    """
    if len(rows) != 1 or (found := _beside(source)) is None:
        return rows
    share, name = found
    note = f"prefix-cache hits of {name} beside it: {share:.1%}"
    return [replace(rows[0], prefix_hit=share, notes=(*rows[0].notes, note))]


def _beside(source: Source) -> tuple[float, str] | None:
    """Return a share [1] and the file that states it; what cannot be read leaves a warning.

    Links are not followed.
    """
    try:
        for name in dict.fromkeys((f"{source.path.stem}.log", *LOGS)):
            path = source.path.with_name(name)
            if path != source.path and path.is_file() and not path.is_symlink():
                share = share_in_log(read_text(path, "server log", LARGEST))
                if share is not None:
                    return share, name
        for names in DUMPS:
            paths = [source.path.with_name(name) for name in names]
            if all(path.is_file() and not path.is_symlink() for path in paths):
                scrapes: list[Scrape] = []
                for path in paths:
                    found = read_file(path)
                    scrapes += [found] if isinstance(found, Scrape) else found
                share = live_metrics(scrapes).prefix_cache_hit
                if share is not None:
                    return share, names[-1]
    except BestserveError as error:
        source.warnings.append(str(error))
    return None
