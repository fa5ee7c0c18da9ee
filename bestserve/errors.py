"""Errors a user can act on, and nothing else.

The tree::

    BestserveError                 anything bestserve refuses on purpose
    ├── InputError                 what the user wrote cannot be used      (exit 2)
    │   └── UnknownNameError       a name that is in no catalogue          (exit 2)
    ├── InfeasibleError            nothing satisfies the requirements      (exit 3)
    ├── ToleranceError             a prediction is outside its tolerance   (exit 4)
    └── DataError                  a file or a record cannot be read       (exit 5)

Every message is one line: what is wrong, where, why, and what to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class BestserveError(Exception):
    """Base of all expected failures; `exit_code` is what the command line returns."""

    exit_code: ClassVar[int] = 1


class InputError(BestserveError, ValueError):
    """An argument, flag or problem file that cannot be used as written."""

    exit_code = 2


class UnknownNameError(InputError, LookupError):
    """A name that no catalogue entry carries; the message lists the nearest known names."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        self.nearest = nearest_names(name, known)
        near = f"; nearest: {', '.join(self.nearest)}" if self.nearest else ""
        super().__init__(f"unknown {kind} {name[:120]!r}{near}{'; ' + hint if hint else ''}")


class InfeasibleError(BestserveError):
    """No strategy or plan satisfies the requirements; the message names the nearest miss."""

    exit_code = 3


class ToleranceError(BestserveError):
    """Predictions differ from measurements by more than the stated tolerance."""

    exit_code = 4


class DataError(BestserveError, ValueError):
    """A file that cannot be read as what it claims to be; the message names file and record."""

    exit_code = 5


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return up to `count` known names closest to `name`, ignoring case."""
    by_lower = {k.lower(): k for k in known}
    wanted = name.lower()
    tail = wanted.rsplit("/", 1)[-1]
    inside = [k for k in by_lower if tail and tail in k]
    close = difflib.get_close_matches(wanted, by_lower, n=count, cutoff=0.5)
    ordered = dict.fromkeys([*close, *inside])
    return tuple(by_lower[k] for k in list(ordered)[:count])
