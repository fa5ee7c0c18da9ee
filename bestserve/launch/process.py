"""A process to start, before any format quotes it: words, environment, files.

Names of models and hosts come from strangers. A process holds them as they are; each format
quotes them its own way, and only references made here (`variable`, `file_path`) are ever expanded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from bestserve.errors import InputError, shown

_VARIABLE = ("\ue000", "\ue001")
_FILE = ("\ue002", "\ue003")
_REFERENCE = re.compile("\ue000([A-Z0-9_]+)\ue001|\ue002([a-z0-9.-]+)\ue003")

_PUBLISHED = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its command, environment, and the files that the command names.

    words : the command, unquoted; may hold references made by `variable` and `file_path`
    env : names and values, in order; values may hold references
    files : name → content, written beside the process
    """

    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def variable(name: str) -> str:
    """Return the text that stands for an environment variable's value."""
    return f"{_VARIABLE[0]}{name}{_VARIABLE[1]}"


def file_path(name: str) -> str:
    """Return the text that stands for the place of one of the process's files."""
    return f"{_FILE[0]}{name}{_FILE[1]}"


def rendered(
    text: str,
    literal: Callable[[str], str],
    variables: Callable[[str], str],
    folder: str,
) -> str:
    """Return a word or value as a format writes it.

    literal : escapes what is no reference; variables : writes a variable's value; folder : where
    the format puts files
    """
    parts, at = [], 0
    for match in _REFERENCE.finditer(text):
        parts.append(literal(text[at : match.start()]) if match.start() > at else "")
        name, file = match.groups()
        parts.append(variables(name) if name else literal(f"{folder}/{file}"))
        at = match.end()
    if at < len(text) or not text:
        parts.append(literal(text[at:]))
    return "".join(parts)


def shell_word(text: str, folder: str = ".") -> str:
    """Return a word quoted for a POSIX shell.

    >>> shell_word("a; rm -rf /")
    "'a; rm -rf /'"
    >>> shell_word(variable("POD_IP") + ":8000")
    '"$POD_IP":8000'
    """
    return rendered(text, shlex.quote, lambda name: f'"${name}"', folder)


def shell_command(process: Process, folder: str = ".") -> str:
    """Return a process as one line of a POSIX shell, its environment before it."""
    env = [f"{name}={shell_word(value, folder)}" for name, value in process.env.items()]
    return " ".join((*env, *(shell_word(word, folder) for word in process.words)))


def model_argument(name: str) -> str:
    """Return a model's name as an argument. Raises InputError for one that is not taken as such.

    A name that begins with a dash would be read as an option, one with unprintable characters
    would leave its line.
    """
    if not name or name.startswith("-") or not name.isprintable() or _REFERENCE.search(name):
        raise InputError(
            f"model name {shown(name)} cannot stand in a command: it begins with a dash or holds "
            "characters that do not print; rename the model or its folder"
        )
    return name


def published_name(name: str) -> str:
    """Return a model's name as hubs write it. Raises InputError for any other.

    For launchers that put it into templates of their own, which quote nothing.
    """
    if not _PUBLISHED.fullmatch(model_argument(name)):
        raise InputError(
            f"model name {shown(name)} is not as hubs write it (org/name of letters, digits, ._-); "
            "this launcher puts it into templates unquoted; take --format kubernetes or commands"
        )
    return name


def host_argument(name: str) -> str:
    """Return a host's name or IPv4 address. Raises InputError for anything else."""
    if len(name) > 253 or not _HOST.fullmatch(name):
        raise InputError(
            f"{shown(name)} is no host name or IPv4 address; write --hosts node0,10.0.0.2"
        )
    return name
