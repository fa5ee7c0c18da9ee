"""What commands say besides their answer, on standard error: notes, warnings, progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bestserve.specs.problem import Problem


def talk(message: str) -> None:
    """Say something that is not the answer, on standard error."""
    print(message, file=sys.stderr)


def announce_compilation(package: Path | None = None) -> None:
    """Tell a terminal that the first run takes longer: no compiled loop lies beside its source.

    package : folder of bestserve; a cache kept elsewhere (NUMBA_CACHE_DIR, or because the folder
        cannot be written) is not looked for
    """
    if not sys.stderr.isatty():
        return
    if package is None:
        package = Path(__file__).parent.parent
    elsewhere = "NUMBA_CACHE_DIR" in os.environ or not os.access(package, os.W_OK)
    if not elsewhere and not any(package.glob("simulator/__pycache__/*.nbi")):
        talk("first run: compiling the inner loops, some 20 s once")


@contextmanager
def progress(message: str) -> Iterator[Any]:
    """Show a spinner with changing text on a terminal's stderr; silent elsewhere.

    Yields a function that takes the current text.
    """
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(message) as status:
        yield lambda text: status.update(f"{message}: {text}")


def warn_of_foreign_calibration(problem: Problem, strategy: str | None) -> None:
    """Say what a problem's calibration record was not fitted to, a line each on stderr."""
    if problem.calibration is None:
        return
    from bestserve.answers.doubts import calibration_doubts
    from bestserve.specs.strategy import Strategy

    pools = Strategy.parse(strategy).pools if strategy is not None else ()
    for doubt in calibration_doubts(problem, {pool.tp for pool in pools}):
        talk(f"warning: {problem.calibration}: {doubt}; trust is low")
