"""`bestserve uncertainty`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from bestserve.cli.flags import Count, Format, Whole
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.question import Question
from bestserve.cli.talk import progress

COLUMNS = ("factor", "sd", "first", "first_low", "first_high", "total", "worth")


def uncertainty(
    *strategies: str,
    options: Annotated[ProblemOptions | None, Parameter(name="*")] = None,
    samples: Annotated[int, Count] = 48,
    seed: Annotated[int, Whole] = 0,
    jobs: Annotated[int | None, Count] = None,
    format: Format = "table",
) -> int:
    """Say how sure the winner is under uncertain calibration, and what to measure first.

    Parameters
    ----------
    strategies
        candidates; default: the best of the ranking's first three families
    samples
        of the uncertain constants, at least 16
    seed
        of the samples
    jobs
        worker processes
    """
    from bestserve import api

    problem = (options or ProblemOptions()).build()
    with progress("uncertainty") as say:
        found = api.uncertainty(
            problem,
            strategies=strategies or None,
            samples=samples,
            seed=seed,
            jobs=jobs,
            progress=say,
        )
    asked = {"strategies": strategies, "samples": samples, "seed": seed}
    title = "Share of the variance of goodput, with 95 % intervals"
    emit_explained(found, format, title, COLUMNS, Question("uncertainty", problem, asked))
    return 0
