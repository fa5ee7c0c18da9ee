"""`bestserve calibrate`."""

from __future__ import annotations

from typing import Annotated

from bestserve.cli.flags import Count, Format, Many
from bestserve.cli.output import emit
from bestserve.cli.stated import StatedOptions
from bestserve.cli.talk import progress, talk
from bestserve.host.writing import check_target


def calibrate(
    *logs: str,
    options: StatedOptions | None = None,
    output: str | None = None,
    only: Annotated[list[str] | None, Many] = None,
    jobs: Annotated[int | None, Count] = None,
    format: Format = "table",
) -> int:
    """Fit the few engine and deployment constants to measured runs of one deployment.

    Parameters
    ----------
    logs
        files, folders or patterns; three runs at different loads already help
    options
        what the logs do not say
    output
        record to write (TOML); every command takes it with --calibration
    only
        factors to fit: a_step a_seq t_req compute memory gamma experts phi; default: all that can
        matter
    jobs
        worker processes for the held-out check; default: one a core
    """
    from bestserve.validation.calibrate import calibrate as fit

    if output is not None:
        check_target(output, "output")
    with progress("fitting") as tell:
        answer = fit(
            *logs,
            output=output,
            only=tuple(only or ()),
            jobs=jobs,
            progress=tell,
            **(options or StatedOptions()).stated(),
        )
    emit(answer, format)
    talk(answer.explain())
    return 0
