"""What a server says of its memory when it starts: vLLM's lines, of any version."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from bestserve.errors import DataError
from bestserve.readers.bounded import read_text
from bestserve.readers.paths import shown, user_path

WHAT = "start-up log"
LARGEST = 50_000_000
GIB = float(2**30)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupLog:
    """Figures of one GPU as printed [B], capacities in tokens; None: not in the log.

    total : memory as CUDA shows it; utilization : the share that the engine takes [1]
    weights, kv_cache, activations, outside, graphs : as the engine measured them
    tokens : size of the cache [tokens]
    concurrency : requests of `length` tokens at once
    """

    total: float | None = None
    utilization: float | None = None
    weights: float | None = None
    activations: float | None = None
    outside: float | None = None
    graphs: float | None = None
    kv_cache: float | None = None
    tokens: float | None = None
    length: float | None = None
    concurrency: float | None = None


_N = r"([\d,]+(?:\.\d+)?)"
_LINES: tuple[tuple[str, tuple[str, ...], float], ...] = (
    (rf"Model loading took\s+{_N} ?GiB", ("weights",), GIB),
    (rf"model weights take\s+{_N} ?GiB", ("weights",), GIB),
    (rf"{_N} GiB for weights?\b", ("weights",), GIB),
    (rf"activation peak memory takes\s+{_N} ?GiB", ("activations",), GIB),
    (rf"{_N} GiB for peak activation", ("activations",), GIB),
    (rf"non_torch_memory takes\s+{_N} ?GiB", ("outside",), GIB),
    (rf"{_N} GiB for non-torch memory", ("outside",), GIB),
    (rf"Estimated CUDA graph memory: {_N} GiB", ("graphs",), GIB),
    (rf"Available KV cache memory: {_N} ?GiB", ("kv_cache",), GIB),
    (rf"reserved for KV Cache is {_N} ?GiB", ("kv_cache",), GIB),
    (rf"total_gpu_memory \({_N} ?GiB\)", ("total",), GIB),
    (rf"Free memory on device \([\d.]+/{_N} GiB\)", ("total",), GIB),
    (rf"gpu_memory_utilization \({_N}\)", ("utilization",), 1.0),
    (rf"Desired GPU memory utilization is \({_N}", ("utilization",), 1.0),
    (rf"GPU KV cache size: {_N} tokens", ("tokens",), 1.0),
    (rf"Maximum concurrency for {_N} tokens per request: {_N}x", ("length", "concurrency"), 1.0),
)


def read_startup_log(path: str | Path) -> StartupLog:
    """Read the lines in which a server states its memory. Raises DataError if there are none."""
    file = user_path(path)
    text = read_text(file, WHAT, LARGEST)
    found: dict[str, float] = {}
    for pattern, names, unit in _LINES:
        match = re.search(pattern, text)
        if match:
            for name, value in zip(names, match.groups(), strict=True):
                number = float(value.replace(",", ""))
                if number > 1e9:
                    raise DataError(f"{WHAT} {shown(file)}: {name} is {number:g}; is it damaged?")
                found.setdefault(name, number * unit)
    if not found:
        raise DataError(
            f"{WHAT} {shown(file)}: no line in which vLLM states its memory, such as "
            '"Available KV cache memory: 56.2 GiB" or "GPU KV cache size: 476,032 tokens"'
        )
    assert set(found) <= {field.name for field in fields(StartupLog)}
    return StartupLog(**found)
