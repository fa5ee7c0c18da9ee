"""`bestserve whatif`."""

from __future__ import annotations

import re
from typing import Annotated

from bestserve.cli.flags import Count, Format, Repeated
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.plots import Plots, check_plots, save_plots
from bestserve.cli.question import Question
from bestserve.cli.talk import progress
from bestserve.errors import InputError

_BETWEEN = re.compile(r",(?=\s*[A-Za-z_.0-9]+\s*=)")
"""A comma before the next figure; one inside a value, such as a path, stays."""


def whatif(
    strategy: str | None = None,
    options: ProblemOptions | None = None,
    *,
    set: Annotated[list[str] | None, Repeated] = None,
    sweep: Annotated[list[str] | None, Repeated] = None,
    verify: bool = False,
    jobs: Annotated[int | None, Count] = None,
    plot: Plots = None,
    format: Format = "table",
) -> int:
    """Change figures and compare, or sweep one or two of them and map which strategy wins.

    Parameters
    ----------
    strategy
        look at this one only; default: the best under each change
    set
        one scenario a flag, its changes joined by commas:
        --set hardware.memory_bandwidth=x1.5 --set hardware=h200,gpus=16 --set slo.tpot=30ms;
        SI units where none is written
    sweep
        one figure a flag (two at most) with its values: --sweep workload.input_len=500,1000,2000
    verify
        simulate what carries low trust
    jobs
        worker processes of a sweep
    """
    from bestserve import api
    from bestserve.results.document import Document

    if not set and not sweep:
        raise InputError("give --set figure=value or --sweep figure=value,value,…")
    if set and sweep and format in ("json", "csv"):
        raise InputError(f"--set and --sweep have two answers; as {format}, ask for one at a time")
    check_plots(plot)
    problem = (options or ProblemOptions()).build()
    answers: list[Document] = []
    with progress("what if") as say:
        if set:
            scenarios = [scenario(text) for text in set]
            answers.append(
                api.what_if(problem, scenarios, strategy=strategy, verify=verify, progress=say)
            )
        if sweep:
            axes = dict(axis(text) for text in sweep)
            names = None if strategy is None else [strategy]
            answers.append(api.sweep(problem, axes, strategies=names, jobs=jobs, progress=say))
    asked = {"strategy": strategy, "set": set, "sweep": sweep, "verify": verify}
    for answer in answers:
        emit_explained(answer, format, question=Question("whatif", problem, asked))
    save_plots(answers, plot)
    return 0


def scenario(text: str) -> dict[str, float | str]:
    """Read "hardware.sms=144,gpus=16"."""
    return dict(_pair(part) for part in _BETWEEN.split(text))


def axis(text: str) -> tuple[str, list[float | str]]:
    """Read "workload.input_len=500,1000"."""
    name, values = _pair(text)
    return name, list(values.split(","))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.strip() and value.strip()):
        raise InputError(f"{text[:60]!r} is no change; write figure=value or figure=x1.5")
    return name.strip(), value.strip()
