"""`bestserve goodput`."""

from __future__ import annotations

from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import Format, emit, talk


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

    found = api.goodput((options or ProblemOptions()).build(), strategy)
    emit(found, format)
    if not found.trust.high:
        talk(f"trust {found.trust}")
    return 0
