"""`bestserve goodput`."""

from __future__ import annotations

from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import Format, emit
from bestserve.cli.question import Question
from bestserve.cli.talk import talk


def goodput(
    strategy: str, options: ProblemOptions | None = None, *, format: Format = "table"
) -> int:
    """Find the highest rate at which one strategy meets the objectives.

    Parameters
    ----------
    strategy
        2m-tp4, 3p2d-tp4, 3p-tp2+2d-tp4
    options
        the problem
    format
        table, json, csv, md or html
    """
    from bestserve import api

    problem = (options or ProblemOptions()).build(strategy)
    found = api.goodput(problem, strategy)
    emit(found, format, question=Question("goodput", problem, {"strategy": strategy}))
    if not found.trust.high:
        talk(f"trust {found.trust}")
    return 0
