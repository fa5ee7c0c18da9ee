"""Questions as data: what a JSON answer carries, so that `bestserve rerun` can ask again."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bestserve.cli.options import warn_of_foreign_calibration
from bestserve.errors import DataError
from bestserve.specs.problem import Problem

COMMANDS = (
    "rank",
    "goodput",
    "predict",
    "simulate",
    "curves",
    "sensitivity",
    "whatif",
    "uncertainty",
    "explain",
)
"""Commands that answer a question about one problem."""

_OF_ANSWER: dict[str, tuple[str, tuple[str, ...]]] = {
    "ranking": ("rank", ()),
    "prediction": ("predict", ("strategy", "request_rate")),
    "sensitivityreport": ("sensitivity", ("strategy", "request_rate")),
    "explanation": ("explain", ("strategy",)),
    "uncertainty": ("uncertainty", ("samples",)),
}
"""Kind of answer → command and arguments, for what Python's `to_json` wrote."""


@dataclass(frozen=True)
class Question:
    """A command with its problem and the arguments that shape the answer."""

    command: str
    problem: Problem
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stated:
    """Stands where commands take the flags of a problem: the problem itself."""

    problem: Problem

    def build(self, strategy: str | None = None) -> Problem:
        """Return the problem; says what its calibration record was not fitted to."""
        warn_of_foreign_calibration(self.problem, strategy)
        return self.problem


def question_of(answer: Mapping[str, Any]) -> Question:
    """Return what a JSON answer answers. Raises DataError if it does not say."""
    asked = answer.get("question")
    if isinstance(asked, Mapping):
        command, arguments = asked.get("command"), asked.get("arguments") or {}
        problem = asked.get("problem")
    elif answer.get("kind") in _OF_ANSWER:
        command, names = _OF_ANSWER[answer["kind"]]
        arguments = {name: answer.get(name) for name in names}
        problem = answer.get("problem")
    else:
        raise DataError(f"answers of kind {answer.get('kind')!r} do not carry their question")
    if command not in COMMANDS or not (
        isinstance(problem, Mapping) and isinstance(arguments, Mapping)
    ):
        raise DataError(f"no question to be repeated: command {str(command)[:40]!r}")
    stated = Problem(**problem)
    if stated.workload.closed:
        arguments = {name: v for name, v in arguments.items() if name != "request_rate"}
    return Question(command, stated, arguments)


def ask(question: Question, form: str) -> int:
    """Run a question's command, print the answer in a form, and return its exit code."""
    module = importlib.import_module(f"bestserve.cli.{question.command}")
    command = getattr(module, question.command)
    parameters = inspect.signature(command).parameters
    unknown = set(question.arguments) - set(parameters)
    if unknown or "save_detailed" in question.arguments:
        raise DataError(f"{question.command} takes no {', '.join(sorted(unknown)) or 'files'}")
    arguments = dict(question.arguments)
    listed = [n for n, p in parameters.items() if p.kind is p.VAR_POSITIONAL]
    several = [value for name in listed for value in arguments.pop(name, None) or ()]
    code: int = command(*several, **arguments, options=Stated(question.problem), format=form)
    return code
