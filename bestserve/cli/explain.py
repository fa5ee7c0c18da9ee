"""`bestserve explain`."""

from __future__ import annotations

from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import Format, emit
from bestserve.cli.question import Question


def explain(
    strategy: str,
    versus: str | None = None,
    options: ProblemOptions | None = None,
    *,
    format: Format = "table",
) -> int:
    """Tell the way from request to goodput of one strategy, or why one beats another.

    Parameters
    ----------
    strategy
        2m-tp4, 3p2d-tp4, 3p-tp2+2d-tp4
    versus
        a second strategy to compare with
    options
        the problem
    format
        table, json, csv, md or html
    """
    from bestserve import api

    problem = (options or ProblemOptions()).build()
    found = api.explain(problem, strategy, versus)
    asked = {"strategy": strategy, "versus": versus}
    emit(found, format, question=Question("explain", problem, asked))
    if format in ("table", "md"):
        print()
        print(found.explain())
    return 0
