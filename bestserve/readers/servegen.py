"""Bursty request traces from ServeGen client data.

ServeGen (Xiang et al., "ServeGen: workload characterization and generation of large language model
serving in production", arXiv:2505.09999) describes each client of a service by two files: every
ten minutes its rate and the law of its gaps (gamma or Weibull), and every six hours the histogram
of its input and output lengths. A client's requests are a renewal process with those gaps; the
service is the superposition of its clients.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import DataError, InputError, shown
from bestserve.readers.traces import Trace
from bestserve.readers.untrusted import open_source, printable

HOUR = 3600.0
LONGEST_WINDOW = 24 * HOUR
LATEST = 1e9
"""Thirty years [s]: no recording is longer."""

MAX_CLIENTS = 10_000
"""Most clients read from one folder."""

MAX_REQUESTS = 10**7
"""Most requests generated for one client."""
_PAIR = re.compile(r"(\d{1,9}): (\d+(?:\.\d*)?(?:[eE]-?\d{1,3})?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Window:
    """A client's arrivals from `start` [s] on: rate [req/s], law and shape of the gaps."""

    start: float
    rate: float
    law: str
    shape: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Lengths [tokens] and their weights (sum 1)."""

    lengths: Ints
    weights: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One ServeGen client: arrival windows, and input and output histograms by start time [s]."""

    name: str
    windows: tuple[Window, ...]
    inputs: tuple[tuple[float, Histogram], ...]
    outputs: tuple[tuple[float, Histogram], ...]


def read_client(trace: str | Path, dataset: str | Path) -> Client:
    """Read a client from its `…-trace.csv` and `…-dataset.json`.

    Raises `DataError` naming the line where a rate, a law, a shape or a histogram cannot be one.
    """
    source = open_source(Path(trace))
    if source.kind != "csv":
        raise DataError(f"{source.name}: expected the CSV of a ServeGen client")
    windows = tuple(
        _window(cells, f"{source.name} line {line}")
        for line, cells in enumerate(source.table, start=1)
        if any(cells)
    )
    data = open_source(Path(dataset))
    if data.kind != "json" or not isinstance(data.value, dict):
        raise DataError(f"{data.name}: expected the JSON of a ServeGen client")
    found: dict[str, list[tuple[float, Histogram]]] = {"input_tokens": [], "output_tokens": []}
    for key, entry in data.value.items():
        where = f"{data.name} {printable(str(key), 20)}"
        if not re.fullmatch(r"\d{1,9}", key) or not isinstance(entry, dict):
            raise DataError(f"{where}: expected start times with histograms")
        for side, laws in found.items():
            law = _histogram(entry.get(side), f"{where} {side}")
            if law is not None:
                laws.append((float(key), law))
    if not found["input_tokens"] or not found["output_tokens"]:
        raise DataError(f"{data.name}: no histogram of lengths")
    inputs, outputs = (tuple(sorted(laws, key=lambda part: part[0])) for laws in found.values())
    return Client(name=source.name, windows=windows, inputs=inputs, outputs=outputs)


def _window(cells: list[str], where: str) -> Window:
    if len(cells) != 6:
        raise DataError(f"{where}: {len(cells)} cells, expected 6")
    try:
        start, rate, shape = (float(cells[i]) for i in (0, 1, 4))
    except ValueError:
        raise DataError(f"{where}: {shown(cells)}: expected numbers") from None
    law = cells[3].strip()
    if not all(math.isfinite(x) and x >= 0 for x in (start, rate, shape)) or start > LATEST:
        raise DataError(f"{where}: negative or infinite figure, or a start after {LATEST:g} s")
    if rate > 0 and (law not in ("Gamma", "Weibull") or shape <= 0):
        raise DataError(f"{where}: gaps {shown(law)} of shape {shape:g} are not known")
    return Window(start, rate, law, shape)


def _histogram(text: object, where: str) -> Histogram | None:
    """A histogram printed as `{length: weight, …}`; None if empty. It is parsed, not evaluated."""
    if text is None:
        return None
    if not isinstance(text, str) or not re.fullmatch(r"\{[0-9:., eE-]*\}", text.strip()):
        raise DataError(f"{where}: {shown(text)}: expected a histogram")
    pairs = [(int(k), float(v)) for k, v in _PAIR.findall(text) if int(k) > 0]
    if not pairs:
        return None
    lengths, weights = (np.array(column) for column in zip(*pairs, strict=True))
    total = weights.sum()
    if not (math.isfinite(total) and total > 0):
        raise DataError(f"{where}: weights add up to {total:g}")
    return Histogram(lengths.astype(np.int64), weights / total)


def generate(client: Client, start: float, duration: float, seed: int = 0) -> Trace:
    """Requests of one client between `start` and `start + duration` [s of its recording].

    Gaps have the recorded law and shape at the recorded rate of each window; lengths are drawn
    independently from the histograms in force. Deterministic by `seed`. Arrivals count from
    `start`. Raises `InputError` for a span without requests.
    """
    if not (math.isfinite(start) and start >= 0 and math.isfinite(duration) and duration > 0):
        raise InputError(f"a span of {shown(duration)} s from {shown(start)} s is none")
    rng = np.random.default_rng(seed)
    times = [np.zeros(0)]
    ends = [*(w.start for w in client.windows[1:]), math.inf]
    for window, end in zip(client.windows, ends, strict=True):
        low, high = max(window.start, start), min(end, start + duration)
        if window.rate > 0 and high > low:
            times.append(low + _renewal(window, high - low, rng))
    arrivals = np.concatenate(times)
    if not len(arrivals):
        raise InputError(f"{client.name}: no requests in this span")
    return Trace(
        arrivals=arrivals - start,
        input_len=_lengths(client.inputs, arrivals, rng),
        output_len=_lengths(client.outputs, arrivals, rng),
        source=f"{client.name} (servegen)",
    )


def _renewal(window: Window, span: float, rng: np.random.Generator) -> Floats:
    """Arrivals of a renewal process at the window's rate over `span` [s]."""
    expected = span * window.rate
    if expected > MAX_REQUESTS:
        raise InputError(f"{expected:.3g} requests in one window, more than {MAX_REQUESTS}")
    gamma = window.law == "Gamma"
    mean = window.shape if gamma else math.gamma(1 + 1 / window.shape)
    parts: list[Floats] = []
    now = 0.0
    while now < span:
        count = int(1.2 * expected) + 16
        gaps = rng.gamma(window.shape, size=count) if gamma else rng.weibull(window.shape, count)
        arrivals = now + np.cumsum(gaps / (mean * window.rate))
        parts.append(arrivals)
        now = float(arrivals[-1])
    joined = np.concatenate(parts)
    return joined[joined < span]


def _lengths(
    laws: tuple[tuple[float, Histogram], ...],
    arrivals: Floats,
    rng: np.random.Generator,
) -> Ints:
    """One length an arrival, from the last histogram that starts before it (or the first)."""
    begins = np.array([begin for begin, _ in laws])
    which = np.maximum(np.searchsorted(begins, arrivals, side="right") - 1, 0)
    out = np.zeros(len(arrivals), dtype=np.int64)
    for index in np.unique(which):
        law = laws[index][1]
        here = which == index
        out[here] = rng.choice(law.lengths, size=int(here.sum()), p=law.weights)
    return out


def read_clients(folder: Path) -> list[Client]:
    """Read all ServeGen clients of a folder: files `…-trace.csv` with their `…-dataset.json`.

    Raises `DataError` where there is none.
    """
    found = sorted(folder.glob("*-trace.csv"))
    if not found or len(found) > MAX_CLIENTS:
        name = printable(folder.name, 120)
        raise DataError(
            f"{name}: {len(found)} files …-trace.csv with …-dataset.json of ServeGen clients; "
            f"expected 1 to {MAX_CLIENTS:,}"
        )
    return [
        read_client(path, path.with_name(path.name.removesuffix("-trace.csv") + "-dataset.json"))
        for path in found
    ]


def busiest_hour(folder: Path) -> Trace:
    """Return the hour in which the ServeGen clients of a folder send most, as one trace.

    Hours count from the start of the recording. The same folder gives the same requests. Raises
    `DataError` where there is no client or none sends anything.
    """
    clients = read_clients(folder)
    sent: dict[float, float] = defaultdict(float)
    for client in clients:
        for begin, requests in hourly(client):
            sent[begin] += requests
    busiest = max(sent, key=lambda begin: sent[begin], default=0.0)
    sending = [c for c in clients if any(begin == busiest for begin, _ in hourly(c))]
    parts = []
    for seed, client in enumerate(sending):
        try:
            parts.append(generate(client, busiest, HOUR, seed))
        except InputError:  # a client that sends less than one request an hour may send none
            continue
    if not parts:
        raise DataError(f"{printable(folder.name, 120)}: no client sends anything")
    name = f"{printable(folder.name, 120)} (servegen, {len(parts)} clients)"
    return replace(superposed(parts), source=name)


def hourly(client: Client) -> Iterator[tuple[float, float]]:
    """Yield starts of hours [s] and the mean number of requests that a window sends in each.

    Of windows beyond `LONGEST_WINDOW`, the first hours stand for the rest.
    """
    ends = [*(w.start for w in client.windows[1:]), math.inf]
    for window, end in zip(client.windows, ends, strict=True):
        begin = HOUR * (window.start // HOUR)
        while window.rate > 0 and begin < min(end, window.start + LONGEST_WINDOW):
            yield begin, window.rate * (min(end, begin + HOUR) - max(window.start, begin))
            begin += HOUR


def superposed(traces: Iterable[Trace]) -> Trace:
    """All requests of several traces on one clock. Raises `InputError` without arrival times."""
    parts = list(traces)
    if not parts or any(part.arrivals is None for part in parts):
        raise InputError("only traces with arrival times can be superposed")
    arrivals = np.concatenate([part.arrivals for part in parts if part.arrivals is not None])
    order = np.argsort(arrivals, kind="stable")
    return Trace(
        arrivals=arrivals[order],
        input_len=np.concatenate([part.input_len for part in parts])[order],
        output_len=np.concatenate([part.output_len for part in parts])[order],
        source=printable(" + ".join(part.source for part in parts)),
    )
