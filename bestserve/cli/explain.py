"""`bestserve explain`."""

from __future__ import annotations

from bestserve.cli.flags import Format, StrategyName
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.question import Question


def explain(
    strategy: StrategyName,
    versus: str | None = None,
    options: ProblemOptions | None = None,
    *,
    format: Format = "table",
) -> int:
    """Tell the way from request to goodput of one strategy, or why one beats another.

    Parameters
    ----------
    versus
        a second strategy to compare with
    """
    from bestserve import api

    problem = (options or ProblemOptions()).build()
    found = api.explain(problem, strategy, versus)
    asked = {"strategy": strategy, "versus": versus}
    emit_explained(found, format, question=Question("explain", problem, asked))
    return 0
