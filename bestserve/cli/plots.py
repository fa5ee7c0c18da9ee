"""`--plot`: pictures of an answer beside what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bestserve.cli.talk import talk
from bestserve.results.document import Document

ENDINGS = "file to draw into, .html, .png, .svg, .pdf or .csv; may be given several times"
Plots = Annotated[list[Path] | None, Parameter(negative="", help=ENDINGS)]


def check_plots(paths: Plots) -> None:
    """Refuse endings, places and missing packages before the work."""
    if paths:
        from bestserve.reporting.drawing import checked_plot

        for path in paths:
            checked_plot(path)


def save_plots(answers: Sequence[Document], paths: Plots) -> None:
    """Draw the answers into each file and say so."""
    if paths:
        from bestserve.reporting.drawing import save

        for path in paths:
            talk(f"wrote {save(answers, path)}")
