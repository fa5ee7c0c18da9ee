"""Measured runs behind prefix caches against their replay: latencies, throughput, policies.

    python validation/prefix_rows.py [EVERY] [MEASURED.csv ...]   # writes validation/prefix_rows.md

EVERY n takes each n-th rate of a ladder; all policies at it. The constants are those that bestserve
ships: nothing is fitted to these runs, but for the bandwidth of fetches (`FETCHING`), of five rows.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bestserve.readers.logs import read_log
from bestserve.readers.tidy import TidyRow
from bestserve.validation.compare import compare_row
from bestserve.validation.comparison import RowComparison
from bestserve.validation.outcome import Outcome

HERE = Path(__file__).resolve().parent
MEASURED = HERE.parent.parent / "shared" / "measured"
APART = 1.1
"""Ratio of two policies' mean TTFT from which their order is one."""

LINES = 2
"""Lines of a streamed message, the second of which is empty. inference-perf up to 0.2 notes the
time of each (`process_response` of its apis/completion.py), so that every other gap between its
"tokens" is 0, and their mean, "ITL", is TPOT over this."""

GAPS = re.compile(r"ITL mean ([0-9.]+) s")

Pair = tuple[TidyRow, RowComparison]


def behind_cache(row: TidyRow) -> bool:
    """Return whether prompts shared parts and caches were on, or were fetched."""
    repeats = row.prefix_groups or "multi-turn" in (row.dataset_or_lengths or "")
    return bool(row.prefix_fetched or (row.prefix_caching and repeats))


def chosen(rows: Iterable[TidyRow], every: int) -> list[TidyRow]:
    """Return the rows of each n-th rate of each ladder."""
    ladders: dict[tuple[str, str], list[TidyRow]] = defaultdict(list)
    for row in rows:
        if behind_cache(row):
            ladders[row.source or "", row.model or ""].append(row)
    out = []
    for ladder in ladders.values():
        rates = sorted({(row.request_rate or 0.0, row.concurrency or 0) for row in ladder})
        kept = set(rates[:: every if len(rates) > every else 1])
        out += [r for r in ladder if (r.request_rate or 0.0, r.concurrency or 0) in kept]
    return out


def unstable(found: RowComparison) -> bool:
    """Return whether the replayed run's queue grows."""
    return any(note.startswith("unstable") for note in found.notes)


def median(errors: Sequence[float]) -> str:
    """Return a median absolute error, and the median signed one, in per cent."""
    if not errors:
        return "–"
    return f"{100 * np.median(np.abs(errors)):.0f} % ({100 * np.median(errors):+.0f} %)"


def tpot_errors(pairs: Iterable[Pair]) -> list[float]:
    """Return the relative errors of mean TPOT, as rows state it or as their gaps tell it [1]."""
    errors = []
    for row, found in pairs:
        gaps = GAPS.search("; ".join(row.notes))
        measured = LINES * 1e3 * float(gaps[1]) if gaps else row.tpot_mean_ms
        predicted = found.predicted.get("tpot_mean_ms")
        if measured and predicted:
            errors.append(predicted / measured - 1.0)
    return errors


def errors_of(pairs: Iterable[Pair], figure: str) -> list[float]:
    """Return the relative errors of a figure where both sides have it [1]."""
    return [found.errors[figure] for _, found in pairs if figure in found.errors]


def order(pairs: Iterable[Pair]) -> tuple[int, int]:
    """Return how many pairs of policies at one load are in the measured order, and of how many."""
    loads: dict[tuple[str, str, float], list[tuple[float, float]]] = defaultdict(list)
    for row, found in pairs:
        head = found.headline("ttft")
        if head is not None and row.routing:
            loads[row.source or "", row.model or "", row.request_rate or 0.0].append(head)
    right = total = 0
    for heads in loads.values():
        for (p, m), (q, n) in itertools.combinations(heads, 2):
            if max(m, n) / min(m, n) >= APART:
                total += 1
                right += (p > q) == (m > n)
    return right, total


def page(pairs: Sequence[Pair], every: int = 1) -> str:
    """Return the tables: sources, then rows; every : as in `chosen`."""
    lines = [
        "# Measured runs behind prefix caches",
        "",
        f"Made by `python validation/prefix_rows.py {every}`: each n-th rate, n = {every}. Errors",
        "of mean TTFT, or P50, of TPOT (where rows state gaps between lines of a stream, from",
        f"those: {LINES} lines are a token) and of output",
        "tokens a second: median of sizes, and signed. Stable or not is what the replay says:",
        "where its queue grows, TTFT depends on how long a run is, and throughput is what can be",
        "compared. Engine constants come from other sources.",
        "",
        "| source | model | rows | not compared | TTFT, stable | TTFT, unstable | TPOT, stable "
        "| TPOT, unstable | throughput, unstable | order of policies |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair[0].source or "", pair[0].model or ""].append(pair)
    for (source, model), own in [*groups.items(), (("all", ""), list(pairs))]:
        done = [p for p in own if p[1].status is Outcome.PREDICTED]
        calm = [p for p in done if not unstable(p[1])]
        wild = [p for p in done if unstable(p[1])]
        right, total = order(done)
        lines.append(
            f"| {source} | {model} | {len(own)} | {len(own) - len(done)} "
            f"| {median(errors_of(calm, 'ttft_mean_ms') or errors_of(calm, 'ttft_p50_ms'))} "
            f"| {median(errors_of(wild, 'ttft_mean_ms'))} "
            f"| {median(tpot_errors(calm))} | {median(tpot_errors(wild))} "
            f"| {median(errors_of(wild, 'out_tok_throughput'))} | {right} of {total} |"
        )
    lines += [
        "",
        "| row | policy | rate | TTFT, predicted | measured | output tokens/s, predicted "
        "| measured | said |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row, found in pairs:
        head = found.headline("ttft") or (float("nan"), float("nan"))
        speed = (found.predicted.get("out_tok_throughput"), row.out_tok_throughput)
        told = [f"{v:,.0f}" if v else "–" for v in speed]
        said = [n for n in found.notes if "found in the caches" in n or n.startswith("unstable")]
        if found.status is not Outcome.PREDICTED:
            said = [found.reason[:60]]
        short = "; ".join(s.split(":")[0].split(" of the prompt")[0] for s in said)
        lines.append(
            f"| {row.id} | {row.routing or ''} | {row.request_rate or 0:g} | {head[0]:,.0f} "
            f"| {head[1]:,.0f} | {told[0]} | {told[1]} | {short} |"
        )
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> None:
    """Write the page."""
    numbers = [int(a) for a in arguments if a.isdigit()]
    files = [Path(a) for a in arguments if not a.isdigit()]
    files = files or [MEASURED / "measured_dev.csv", MEASURED / "measured_dev2.csv"]
    every = numbers[0] if numbers else 1
    rows = chosen([r for f in files for r in read_log(f).rows], every)
    pairs = [(row, compare_row(row, with_intervals=False)) for row in rows]
    text = page(pairs, every)
    (HERE / "prefix_rows.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
