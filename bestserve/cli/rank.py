"""`bestserve rank`."""

from __future__ import annotations

from typing import Annotated

from bestserve.cli.flags import Count
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import Format, emit
from bestserve.cli.question import Question
from bestserve.cli.talk import progress, talk

COLUMNS = (
    "rank",
    "strategy",
    "gpus",
    "goodput",
    "goodput_per_gpu",
    "goodput_per_dollar",
    "ttft_ms",
    "tpot_ms",
    "utilisation",
    "binding",
    "trust",
    "method",
    "confirmed",
)


def rank(
    options: ProblemOptions | None = None,
    *,
    format: Format = "table",
    top: Annotated[int, Count] = 12,
    verify: bool = True,
) -> int:
    """Rank all strategies that fit the GPUs by goodput, best first.

    Parameters
    ----------
    options
        the problem
    format
        table, json, csv, md or html
    top
        rows shown in the table (json, csv and html have all)
    verify
        simulate the strategies that decide at their goodput
    """
    from bestserve import api

    problem = (options or ProblemOptions()).build()
    with progress("ranking") as say:
        ranking = api.rank(problem, verify=verify, progress=say)
    if not ranking.table and format != "json":
        talk(ranking.explain())
        return 3
    if format in ("table", "md"):
        from bestserve.cli.output import emit_records

        shown = ranking.records()[:top]
        priced = any(row["goodput_per_dollar"] is not None for row in shown)
        columns = [c for c in COLUMNS if priced or c != "goodput_per_dollar"]
        title = f"{len(ranking.table)} strategies ranked, {min(top, len(shown))} shown"
        emit_records(shown, format, title, columns)
        print()
        print(ranking.explain())
    else:
        emit(ranking, format, question=Question("rank", problem, {"verify": verify}))
    talk(f"{ranking.considered:,} strategies considered in {ranking.seconds:.2f} s")
    return 0 if ranking.table else 3
