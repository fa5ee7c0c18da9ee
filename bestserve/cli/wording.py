"""Errors in the words of a command line: flags where Python and files have fields."""

from __future__ import annotations

import re
from collections.abc import Sequence

GROUP = re.compile(r"^(?:Problem|Workload|SLO|SpeculativeConfig): (?=\w)")
"""Whose field it is, which a reader of flags need not know."""

FIELD = re.compile(r"(?<![\w.'\"/-])[a-z]+(?:_[a-z0-9]+)+(?![\w.'\"/(])")
LEADING = re.compile(r"^([a-z]+)(?=: | = )")
RAISE = re.compile(r"(?<=raise )([a-z]+)")
NEEDED = re.compile(r"^([a-z_]+) (is needed|missing(?=;))")


def in_flags(message: str, arguments: Sequence[str]) -> str:
    """Return a message with the fields that these arguments set as flags: `--max-num-seqs`.

    What a file sets keeps the name that it has there.
    """
    if not arguments:
        return message
    given = {a.partition("=")[0] for a in arguments if a.startswith("--")}

    def flag(found: re.Match[str]) -> str:
        name = f"--{found[0].replace('_', '-')}"
        return name if name in given else found[0]

    bare = GROUP.sub("", message)
    short = bare
    for pattern in (LEADING, RAISE, FIELD):
        short = pattern.sub(flag, short)
    short = NEEDED.sub(lambda m: f"{m[1]} {m[2]} (--{m[1].replace('_', '-')})", short)
    return message if short == bare else short
