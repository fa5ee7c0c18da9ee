"""`bestserve size`."""

from __future__ import annotations

from bestserve.cli.flags import Format
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.question import Question
from bestserve.cli.talk import progress


def size(
    options: ProblemOptions | None = None,
    *,
    request_rate: float | None = None,
    headroom: float = 0.0,
    format: Format = "table",
) -> int:
    """Find the fewest GPUs that carry a request rate within the objectives.

    Parameters
    ----------
    options
        the problem; --gpus is not looked at
    request_rate
        to be carried [req/s]; default: a trace's own
    headroom
        to spare, as a share of the rate: 0.2 for 20 %
    """
    from bestserve.answers.capacity import size_of

    problem = (options or ProblemOptions()).build()
    with progress("sizing") as say:
        found = size_of(problem, request_rate, headroom, say)
    asked = {"request_rate": request_rate, "headroom": headroom}
    emit_explained(found, format, question=Question("size", problem, asked))
    return 0
