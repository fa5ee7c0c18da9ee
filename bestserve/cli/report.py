"""`bestserve report`."""

from __future__ import annotations

from typing import Annotated

from bestserve.cli.flags import Count, Repeated
from bestserve.cli.options import ProblemOptions
from bestserve.cli.talk import progress, talk
from bestserve.host.extras import require
from bestserve.host.writing import check_folder, check_target


def report(
    options: ProblemOptions | None = None,
    *,
    output: str = "report.html",
    figures: str | None = None,
    sweep: Annotated[list[str] | None, Repeated] = None,
    quick: bool = False,
    verify: bool = True,
    jobs: Annotated[int | None, Count] = None,
) -> int:
    """Write one offline HTML page with ranking, trade-offs, reasons, sensitivity and sources.

    Parameters
    ----------
    output
        file to write
    figures
        folder for the same figures as PNG and SVG, with their data as CSV
    sweep
        axes of the winner's map: --sweep workload.input_len=500,1000,2000; two at most
    quick
        leave out winner's map and uncertainty, which take most of the time
    verify
        simulate leading strategies whose analytic goodput carries low trust
    jobs
        worker processes
    """
    from bestserve.cli.whatif import axis
    from bestserve.reporting.page import report as write

    require("the report", "jinja2", "plotly", *(["matplotlib"] if figures else []))
    check_target(output, "output")
    if figures:
        check_folder(figures, "figures")
    problem = (options or ProblemOptions()).build()
    axes = dict(axis(text) for text in sweep) if sweep else None
    with progress("report") as say:
        found = write(problem, axes=axes, quick=quick, verify=verify, jobs=jobs, progress=say)
        page = found.save(output)
        drawn = found.figures(figures) if figures else []
    print(page)
    if drawn:
        talk(f"{len(drawn)} files in {figures}")
    return 0
