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
from typing import Any, ClassVar

LONGEST_MESSAGE = 500
"""Characters of an error message."""


class BestserveError(Exception):
    """Base of all expected failures; `exit_code` is what the command line returns.

    Messages quote files and names of strangers: whatever these hold, a message is one printable
    line of at most `LONGEST_MESSAGE` characters.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(str(message)))


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the way back from a worker process: the message is made, the names are known."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(
    kind: type[BestserveError], args: tuple[Any, ...], state: dict[str, Any]
) -> BestserveError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InfeasibleError(BestserveError):
    """No strategy or plan satisfies the requirements; the message names the nearest miss."""

    exit_code = 3


class ToleranceError(BestserveError):
    """Predictions differ from measurements by more than the stated tolerance."""

    exit_code = 4


class DataError(BestserveError, ValueError):
    """A file that cannot be read as what it claims to be; the message names file and record."""

    exit_code = 5


def one_line(text: str, width: int = LONGEST_MESSAGE) -> str:
    """Return text as one printable line; where it is too long, its middle gives way.

    >>> one_line("a\\x1b[31m b\\n c")
    'a [31m b c'
    >>> one_line("0123456789" * 3, width=20)
    '012345678 ... 456789'
    """
    if len(text) > 4 * width:
        text = text[: 2 * width] + text[-2 * width :]
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(clean) <= width:
        return clean
    tail = width // 3
    return f"{clean[: width - tail - 5]} ... {clean[-tail:]}"


def shown(value: object, width: int = 60) -> str:
    """Return `value` as one short printable piece of an error message, whatever it is."""
    try:
        text = ascii(value) if not isinstance(value, int) or abs(value) < 10**40 else "a huge int"
    except (ValueError, RecursionError):
        text = f"an unprintable {type(value).__name__}"
    return text if len(text) <= width else text[: width - 3] + "..."


_LONGEST = 120
"""Characters of a name that are compared; the comparison's time grows with their square."""


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return up to `count` known names closest to `name`, ignoring case."""
    by_lower = {k.lower(): k for k in known}
    wanted = name[:_LONGEST].lower()
    tail = wanted.rsplit("/", 1)[-1]
    inside = [k for k in by_lower if tail and tail in k]
    close = difflib.get_close_matches(wanted, by_lower, n=count, cutoff=0.5)
    ordered = dict.fromkeys([*close, *inside])
    return tuple(by_lower[k] for k in list(ordered)[:count])
