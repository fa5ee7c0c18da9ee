"""`bestserve sensitivity`."""

from __future__ import annotations

from typing import Literal

from bestserve.cli.flags import Format
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.question import Question
from bestserve.cli.talk import progress

COLUMNS = (
    "parameter",
    "value",
    "unit",
    "goodput",
    "ttft_mean",
    "ttft_p90",
    "tpot_mean",
    "tpot_p90",
)


def sensitivity(
    strategy: str | None = None,
    options: ProblemOptions | None = None,
    *,
    request_rate: float | None = None,
    method: Literal["auto", "analytic", "simulated"] = "auto",
    format: Format = "table",
) -> int:
    """Say by how many per cent goodput, TTFT and TPOT move when a figure grows by one per cent.

    Parameters
    ----------
    strategy
        2m-tp4, 3p2d-tp4, 3p-tp2+2d-tp4; default: the best of the ranking
    request_rate
        where TTFT and TPOT are looked at [req/s]; default: 80 % of the goodput
    method
        auto simulates where the analytic answer has low trust
    """
    from bestserve import api

    problem = (options or ProblemOptions()).build()
    with progress("sensitivity") as say:
        found = api.sensitivity(
            problem, strategy, request_rate=request_rate, method=method, progress=say
        )
    title = f"{found.strategy}: % per %, TTFT and TPOT at {found.request_rate:.3g} req/s"
    asked = {"strategy": found.strategy, "request_rate": found.request_rate, "method": method}
    emit_explained(found, format, title, COLUMNS, Question("sensitivity", problem, asked))
    return 0
