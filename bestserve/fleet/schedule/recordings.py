"""Loads that were recorded: traces cut into windows, and ServeGen's clients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InputError
from bestserve.fleet.schedule.load import MOST_WINDOWS, Arrived, Load, Window
from bestserve.models.system import Lengths
from bestserve.readers.servegen import Client, Histogram, read_clients
from bestserve.readers.traces import Trace

MOST_ATOMS = 512
"""Requests of a trace that stand for the lengths of a window, and pairs of lengths of clients."""

ALIKE = 0.05
"""Windows whose mean lengths differ by less than this share have lengths in common [1]."""


def windows_of(trace: Trace, width: float) -> Load:
    """Cut a trace into windows of `width` [s]; the last, incomplete one is left out.

    Windows whose mean lengths are within 5 % of an earlier one's share its lengths, drawn evenly
    from all their requests.
    """
    if trace.arrivals is None:
        raise InputError(f"{trace.source}: a trace without arrival times has no windows")
    count = _count(trace.source, float(trace.arrivals[-1]), width)
    edges = np.searchsorted(trace.arrivals, np.arange(count + 1) * width)
    means: list[tuple[float, float]] = []
    members: list[list[int]] = []
    windows: list[Window] = []
    for i in range(count):
        rows = np.arange(edges[i], edges[i + 1])
        if rows.size == 0:
            windows.append(Window(i * width, width, 0.0, windows[-1].kind if windows else 0))
            continue
        mean = float(trace.input_len[rows].mean()), float(trace.output_len[rows].mean())
        kind = _like(mean, means)
        if kind == len(means):
            means.append(mean)
            members.append([])
        members[kind].extend(rows.tolist())
        windows.append(Window(i * width, width, rows.size / width, kind))
    kept = int(edges[-1])
    recorded = Arrived(
        times=trace.arrivals[:kept],
        window=np.minimum((trace.arrivals[:kept] // width).astype(np.int64), count - 1),
        input_len=trace.input_len[:kept],
        output_len=trace.output_len[:kept],
        cached=np.zeros(kept, dtype=np.int64),
    )
    return Load(tuple(windows), tuple(_atoms(trace, rows) for rows in members), recorded)


def _count(source: str, span: float, width: float) -> int:
    if not (math.isfinite(width) and width > 0):
        raise InputError(f"window = {width} s must be positive")
    count = int(span // width)
    if not 2 <= count <= MOST_WINDOWS:
        raise InputError(
            f"{source}: {span:,.0f} s make {count} windows of {width:,.0f} s; "
            f"between 2 and {MOST_WINDOWS:,} are planned"
        )
    return count


def _like(mean: tuple[float, float], means: Sequence[tuple[float, float]]) -> int:
    for kind, known in enumerate(means):
        if all(abs(a / b - 1) < ALIKE for a, b in zip(mean, known, strict=True)):
            return kind
    return len(means)


def _atoms(trace: Trace, rows: Sequence[int]) -> Lengths:
    chosen = np.asarray(rows)[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ATOMS)).astype(int)]
    weights = np.full(chosen.size, 1.0 / chosen.size)
    return _joint(trace.input_len[chosen], trace.output_len[chosen], weights)


def _joint(inputs: Ints | Floats, outputs: Ints | Floats, weights: Floats) -> Lengths:
    return Lengths(
        inputs=inputs.astype(np.float64),
        input_weights=weights,
        outputs=outputs.astype(np.float64),
        output_weights=weights,
        joint=True,
    )


def windows_of_clients(folder: Path, width: float) -> Load:
    """Return the load of the ServeGen clients of a folder, from their rates and histograms.

    Windows of `width` [s] from the start of the recording to its end. Inside a window arrivals are
    taken as Poisson, whatever the clients' gaps. Windows whose mean lengths are within 5 % of an
    earlier one's share its lengths. Raises DataError where there is no client.
    """
    clients = read_clients(folder)
    end = max(_end(client) for client in clients)
    count = _count(folder.name, end, width)
    edges = np.arange(count + 1, dtype=np.float64) * width
    rates = np.array([_mean_rates(client, edges) for client in clients])  # [client, window]
    means: list[tuple[float, float]] = []
    lengths: list[Lengths] = []
    windows: list[Window] = []
    for w in range(count):
        total = float(rates[:, w].sum())
        if total == 0:
            windows.append(Window(w * width, width, 0.0, windows[-1].kind if windows else 0))
            continue
        shares = rates[:, w] / total
        laws = [
            (share, _in_force(c.inputs, edges[w]), _in_force(c.outputs, edges[w]))
            for c, share in zip(clients, shares, strict=True)
            if share > 0
        ]
        mean = (
            sum(share * _mean(inputs) for share, inputs, _ in laws),
            sum(share * _mean(outputs) for share, _, outputs in laws),
        )
        kind = _like(mean, means)
        if kind == len(means):
            means.append(mean)
            lengths.append(_mixed(laws))
        windows.append(Window(w * width, width, total, kind))
    if not lengths:
        raise InputError(f"{folder.name}: no client sends anything")
    return Load(tuple(windows), tuple(lengths))


def _end(client: Client) -> float:
    """Return where a recording ends: its last window is as long as the one before [s]."""
    starts = [w.start for w in client.windows]
    return 2 * starts[-1] - starts[-2] if len(starts) > 1 else 0.0


def _mean_rates(client: Client, edges: Floats) -> Floats:
    """Return a client's mean rates between edges [len(edges) − 1; req/s]."""
    starts = np.array([w.start for w in client.windows])
    rates = np.array([w.rate for w in client.windows])
    done = np.concatenate([[0.0], np.cumsum(rates[:-1] * np.diff(starts))])
    ends = np.concatenate([starts, [_end(client)]])
    sent = np.interp(
        edges, ends, np.concatenate([done, [done[-1] + rates[-1] * (ends[-1] - ends[-2])]])
    )
    return np.diff(sent) / np.diff(edges)


def _in_force(laws: tuple[tuple[float, Histogram], ...], time: float) -> Histogram:
    earlier = [law for begin, law in laws if begin <= time]
    return earlier[-1] if earlier else laws[0][1]


def _mean(law: Histogram) -> float:
    return float(law.lengths @ law.weights)


def _mixed(laws: Sequence[tuple[float, Histogram, Histogram]]) -> Lengths:
    """Return the lengths of a mix; each client's inputs and outputs are independent."""
    if len(laws) == 1:
        (_, inputs, outputs), most = laws[0], MOST_ATOMS // 2
        ins, outs = _binned(inputs, most), _binned(outputs, most)
        return Lengths(
            inputs=ins, input_weights=np.full(ins.size, 1 / ins.size),
            outputs=outs, output_weights=np.full(outs.size, 1 / outs.size),
        )  # fmt: skip
    side = max(int(math.sqrt(MOST_ATOMS / len(laws))), 4)
    parts = []
    for share, inputs, outputs in laws:
        ins, outs = _binned(inputs, side), _binned(outputs, side)
        pairs = ins.size * outs.size
        parts.append(
            (np.repeat(ins, outs.size), np.tile(outs, ins.size), np.full(pairs, share / pairs))
        )
    ins, outs, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _joint(ins, outs, weights)


def _binned(law: Histogram, count: int) -> Floats:
    """Return the means of `count` equally likely parts of a histogram [tokens]."""
    order = np.argsort(law.lengths)
    lengths, weights = law.lengths[order].astype(float), law.weights[order]
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    sums = np.concatenate([[0.0], np.cumsum(lengths * weights)])
    cuts = np.linspace(0.0, edges[-1], count + 1)
    means: Floats = np.diff(np.interp(cuts, edges, sums)) / np.diff(cuts)
    return np.maximum(means, 1.0)
