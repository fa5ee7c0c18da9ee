"""`bestserve curves`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from bestserve.cli.flags import FORMS, Count, Format, Many, Wholes
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.plots import Plots, check_plots, save_plots
from bestserve.cli.question import Question
from bestserve.cli.talk import progress

COLUMNS = (
    "strategy",
    "request_rate",
    "utilisation",
    "ttft_mean_ms",
    "ttft_p90_ms",
    "ttft_p99_ms",
    "tpot_mean_ms",
    "tpot_p90_ms",
    "tpot_p99_ms",
    "e2el_p90_ms",
    "output_per_gpu",
    "output_per_user",
    "attainment",
    "method",
    "trust",
)


def curves(
    *strategies: str,
    options: ProblemOptions | None = None,
    request_rate: Annotated[list[float] | None, Many] = None,
    concurrency: Annotated[list[int] | None, Wholes] = None,
    points: Annotated[int, Count] = 12,
    plot: Plots = None,
    format: Annotated[
        Format, Parameter(help=f"{FORMS}; csv and json have mean, P50, P90 and P99 of everything")
    ] = "table",
) -> int:
    """Show TTFT, TPOT, E2EL and attainment of strategies over the load.

    Parameters
    ----------
    strategies
        one or several: 2m-tp4 3p-tp2+2d-tp4; default: the best of the ranking
    request_rate
        rates to look at [req/s]; default: from little load to 97 % of saturation
    concurrency
        numbers of clients of a closed loop; default: powers of two up to --max-concurrency
    points
        of each curve, where no rates are given
    """
    from bestserve import api
    from bestserve.reporting.curves import curves as ask

    check_plots(plot)
    problem = (options or ProblemOptions()).build()
    with progress("curves") as say:
        named = list(strategies) or [api.rank(problem, progress=say).best.strategy]
        found = ask(
            problem,
            named,
            rates=request_rate,
            concurrencies=concurrency,
            points=points,
            progress=say,
        )
    asked = {
        "strategies": named,
        "request_rate": request_rate,
        "concurrency": concurrency,
        "points": points,
    }
    columns: tuple[str, ...] = COLUMNS if format in ("table", "md") else ()
    if columns and problem.workload.closed:
        columns = (columns[0], "max_concurrency", *columns[1:])
    if columns and any(row["status"] != "ok" for row in found.records()):
        columns = (*columns, "status")
    emit_explained(found, format, "Over the load", columns, Question("curves", problem, asked))
    save_plots([found], plot)
    return 0
