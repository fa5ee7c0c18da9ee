"""Questions as data: what a JSON answer carries, so that `bestserve rerun` can ask again."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_type_hints

from bestserve.cli.flags import Count, Requests
from bestserve.cli.talk import warn_of_foreign_calibration
from bestserve.errors import DataError, shown
from bestserve.specs.problem import Problem

if TYPE_CHECKING:
    from bestserve.specs.fleet import Fleet

COMMANDS = (
    "rank",
    "goodput",
    "headroom",
    "size",
    "predict",
    "simulate",
    "curves",
    "sensitivity",
    "whatif",
    "uncertainty",
    "explain",
    "allocate",
    "memory",
    "schedule",
)
"""Commands that answer a question about one problem, or one fleet."""

FILES = ("save_detailed", "plot", "page", "startup_log")
"""Arguments that name files, which the answers of strangers shall not touch."""

_OF_ANSWER: dict[str, tuple[str, tuple[str, ...]]] = {
    "ranking": ("rank", ()),
    "prediction": ("predict", ("strategy", "request_rate")),
    "sensitivityreport": ("sensitivity", ("strategy", "request_rate")),
    "explanation": ("explain", ("strategy",)),
    "uncertainty": ("uncertainty", ("samples",)),
    "allocation": ("allocate", ()),
    "memory": ("memory", ("strategy", "max_model_len")),
    "schedule": ("schedule", ("strategy", "load", "asked")),
}
"""Kind of answer → command and arguments, for what Python's `to_json` wrote."""


@dataclass(frozen=True)
class Question:
    """A command with its problem (or fleet) and the arguments that shape the answer."""

    command: str
    problem: Problem | Fleet
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
    elif isinstance(answer.get("kind"), str) and answer["kind"] in _OF_ANSWER:
        command, names = _OF_ANSWER[answer["kind"]]
        arguments = {name: answer.get(name) for name in names}
        problem = answer.get("fleet", answer.get("problem"))
    else:
        raise DataError(f"answers of kind {shown(answer.get('kind'))} do not carry their question")
    if command not in COMMANDS or not (
        isinstance(problem, Mapping) and isinstance(arguments, Mapping)
    ):
        raise DataError(f"no question to be repeated: command {shown(command, 40)}")
    if "models" in problem:
        from bestserve.specs.fleet import Fleet

        return Question(command, Fleet(**problem), arguments)
    stated = Problem(**problem)
    if stated.workload.closed:
        arguments = {name: v for name, v in arguments.items() if name != "request_rate"}
    return Question(command, stated, arguments)


def ask(question: Question, form: str) -> int:
    """Run a question's command, print the answer in a form, and return its exit code.

    Raises DataError for arguments that the command does not take from an answer.
    """
    module = importlib.import_module(f"bestserve.cli.{question.command}")
    given: dict[str, Any] = {"format": form}
    if not isinstance(question.problem, Problem):
        if not hasattr(module, "plan"):
            raise DataError(f"{question.command} is not asked about a fleet")
        command = module.plan
        given["fleet"] = question.problem
    elif question.command == "allocate":
        raise DataError("allocate is asked about a fleet")
    else:
        command = getattr(module, "plan", None) or getattr(module, question.command)
        given["options"] = Stated(question.problem)
    parameters = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    several: list[Any] = []
    for name, value in question.arguments.items():
        if name == "jobs":
            continue  # how many processes run here is not for a file to say
        if name not in parameters or name in given:
            raise DataError(f"{question.command} takes no {name[:40]}")
        if name in FILES and value is not None:
            raise DataError(f"{question.command} writes no files when it is repeated: {name}")
        if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            several = [checked(name, hints[name], one) for one in value or ()]
        else:
            given[name] = checked(name, hints[name], value)
    code: int = command(*several, **given)
    return code


def checked(name: str, hint: Any, value: Any) -> Any:
    """Return an argument as its command's flag would read it. Raises DataError."""
    from pydantic import TypeAdapter, ValidationError

    from bestserve.specs.complaints import in_plain_words

    try:
        read = TypeAdapter(hint).validate_python(value)
        for note in getattr(hint, "__metadata__", ()):
            for holds in note.validator if note in (Count, Requests) and read is not None else ():
                holds(int, read)
    except ValidationError as error:
        said = in_plain_words(error.errors()[0])
        raise DataError(f"{name} = {shown(value, 40)}: {said}") from None
    except ValueError as error:
        raise DataError(f"{name} = {shown(value, 40)}: {error}") from None
    return read
