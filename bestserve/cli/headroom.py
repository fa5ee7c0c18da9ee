"""`bestserve headroom`."""

from __future__ import annotations

from bestserve.cli.flags import Format
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.question import Question
from bestserve.cli.talk import progress


def headroom(
    strategy: str,
    options: ProblemOptions | None = None,
    *,
    request_rate: float | None = None,
    format: Format = "table",
) -> int:
    """Say how much more load a deployment takes before it misses its objectives.

    Parameters
    ----------
    strategy
        what runs today: 2m-tp4, 3p2d-tp4, 3p-tp2+2d-tp4
    request_rate
        today's rate [req/s]; default: a trace's own
    """
    from bestserve.answers.capacity import headroom_of

    problem = (options or ProblemOptions()).build(strategy)
    with progress("headroom"):
        found = headroom_of(problem, strategy, request_rate)
    asked = {"strategy": strategy, "request_rate": request_rate}
    emit_explained(found, format, question=Question("headroom", problem, asked))
    return 0 if found.headroom >= 0 else 3
