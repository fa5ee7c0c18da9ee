"""What commands say besides their answer, on standard error: notes, warnings, progress."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bestserve.specs.problem import Problem


def talk(message: str) -> None:
    """Say something that is not the answer, on standard error."""
    print(message, file=sys.stderr)


QUIET = 10.0
"""Seconds after which a log hears of the work for the first time; then after twice as many, …"""

_DONE = re.compile(r"(\d+)(?: of |/)(\d+)")


@contextmanager
def progress(message: str) -> Iterator[Callable[[str], None]]:
    """Show how the work goes on stderr: a spinner on a terminal, a line now and then in a log.

    Yields a function that takes the current text; of "3 of 12 …" it says the share done and how
    long the rest takes, if it goes on as before.
    """
    started = time.monotonic()
    if not sys.stderr.isatty():
        heard = QUIET

        def note(text: str) -> None:
            nonlocal heard
            passed = time.monotonic() - started
            if passed >= heard:
                heard = 2 * passed
                talk(f"{message}: {text}{remaining(text, passed)}, {passed:.0f} s so far")

        yield note
        return
    from rich.console import Console

    with Console(stderr=True).status(message) as status:

        def show(text: str) -> None:
            passed = time.monotonic() - started
            status.update(f"{message}: {text}{remaining(text, passed)}")

        yield show


def remaining(text: str, passed: float) -> str:
    """Return the share done and the time left, where the text says how much of what is done.

    >>> remaining("30 of 120 rows", 10.0)
    ' (25 %, about 30 s left)'
    """
    found = _DONE.search(text)
    done, total = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < done <= total:
        return ""
    left = passed * (total - done) / done
    words = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
    return f" ({done / total:.0%}, about {words} left)".replace("%", " %")


def warn_of_foreign_calibration(problem: Problem, strategy: str | None) -> None:
    """Say what a problem's calibration record was not fitted to, a line each on stderr."""
    if problem.calibration is None:
        return
    from bestserve.answers.doubts import calibration_doubts
    from bestserve.specs.strategy import Strategy

    pools = Strategy.parse(strategy).pools if strategy is not None else ()
    for doubt in calibration_doubts(problem, {pool.tp for pool in pools}):
        talk(f"warning: {problem.calibration}: {doubt}; trust is low")
