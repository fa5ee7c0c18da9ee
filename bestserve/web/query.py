"""The URL is the problem: its parameters are the flags, read and written back.

What flags cannot state (several request classes, step times of one's own) stands in one parameter
more, `rest`, as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from bestserve.answers.doubts import calibration_doubts
from bestserve.cli.options import ProblemOptions
from bestserve.cli.wording import in_flags
from bestserve.errors import BestserveError, DataError, InputError, UnknownNameError
from bestserve.lowering import lower
from bestserve.readers.mappings import parse_mapping
from bestserve.solvers.ranking import checked_problem
from bestserve.specs.problem import Problem
from bestserve.web.fields import form_fields

REST = "rest"
LONGEST = 32_000
"""Characters of a query; a URL longer than that no browser keeps."""

PATHS = ("trace", "calibration")
"""Flags that name files of the machine on which the page runs."""


@dataclass(frozen=True)
class Asked:
    """What a query asks.

    given : flag → text as it was written, blank ones left out; rest : fields that no flag states
    problem : None if something is wrong; errors : flag ("" for the whole) → sentence
    notes : defaults that were taken, and doubts about the calibration record
    """

    given: dict[str, str]
    rest: dict[str, Any]
    problem: Problem | None = None
    errors: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def query(self) -> str:
        """The query that asks the same, without what is blank."""
        return query_of(self.given, self.rest)


def query_of(given: Mapping[str, str], rest: Mapping[str, Any]) -> str:
    """Return flags and what they cannot state as a query."""
    pairs = [(flag, text) for flag, text in given.items() if text]
    if rest:
        pairs.append((REST, json.dumps(rest, separators=(",", ":"))))
    return urlencode(pairs, safe=":,/")


def read_query(pairs: Iterable[tuple[str, str]], files: bool = True) -> Asked:
    """Return what the parameters of a URL ask; what is wrong becomes a sentence beside its field.

    files : whether it may name files of this machine; others do not answer to strangers
    """
    known = form_fields()
    given: dict[str, str] = {}
    errors: dict[str, str] = {}
    rest: dict[str, Any] = {}
    for name, text in pairs:
        flag, words = name.replace("_", "-"), text.strip()
        if name == REST and words:
            rest = _rest(words, errors)
        elif flag in known and words:
            given[flag] = f"{given[flag]} {words}" if flag in given else words
    values: dict[str, Any] = {}
    for flag, words in given.items():
        try:
            if not files and names_a_file(flag, words):
                raise InputError("files of this machine are read only for those who sit at it")
            values[known[flag].attribute] = known[flag].read(words)
        except BestserveError as error:
            errors[flag] = str(error)
    if errors:
        return Asked(given, rest, errors=errors)
    if not given and not rest:
        return Asked(given, rest)
    try:
        problem, notes = ProblemOptions(**values).on(rest)
        look_up(problem)
    except BestserveError as error:
        return Asked(given, rest, errors={_place(error, given): _sentence(error, given)})
    return Asked(given, rest, problem, notes=(*notes, *_doubts(problem)))


def names_a_file(flag: str, text: str) -> bool:
    """Whether a field's text is a path, not a name of the catalogue."""
    if flag in PATHS:
        return True
    return flag in ("model", "hardware", "engine") and (
        text.startswith((".", "/", "~", "\\")) or text.endswith((".json", ".toml"))
    )


def look_up(problem: Problem) -> None:
    """Look up what a problem names, and refuse what has no goodput. Raises BestserveError."""
    checked_problem(problem)
    if problem.step_time is None:
        found = lower(problem)
        for part in ("hardware", "model", "engine"):
            getattr(found, part)


def _rest(text: str, errors: dict[str, str]) -> dict[str, Any]:
    try:
        value = parse_mapping(text, "json", REST)
        if not isinstance(value, dict):
            raise DataError(f"{REST}: holds a {type(value).__name__}, not a table of fields")
    except DataError as error:
        errors[""] = str(error)
        return {}
    return value


def _doubts(problem: Problem) -> tuple[str, ...]:
    return () if problem.calibration is None else calibration_doubts(problem, set())


def _sentence(error: BestserveError, given: Mapping[str, str]) -> str:
    return in_flags(str(error), [f"--{flag}" for flag in given])


def _place(error: BestserveError, given: Mapping[str, str]) -> str:
    """Return the flag that an error is about; "" where it is about several or none."""
    known = form_fields()
    if isinstance(error, UnknownNameError) and error.kind in known:
        return error.kind
    if "is no field of" in str(error):
        return ""
    words = re.findall(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*", str(error))
    named = [flag for word in words if (flag := word.replace("_", "-")) in known]
    if not named and re.search(r"\bobjectives?\b", str(error)):
        named = ["goodput"]
    # what was written is more likely wrong than what was left out; "goodput" is also just a word
    named.sort(key=lambda flag: (flag not in given, "-" not in flag))
    return named[0] if named else ""
