"""`bestserve rerun`."""

from __future__ import annotations

from bestserve.cli.flags import Format
from bestserve.cli.talk import talk
from bestserve.results.document import SCHEMA_VERSION


def rerun(path: str, *, format: Format = "json") -> int:
    """Repeat the question of an earlier JSON answer and print the new answer.

    Parameters
    ----------
    path
        JSON that a command wrote with --format json
    """
    from bestserve._version import __version__
    from bestserve.cli.question import ask, question_of
    from bestserve.errors import DataError, shown
    from bestserve.readers.mappings import read_mapping

    earlier = read_mapping(path)
    if earlier.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path}: no answer of bestserve with schema_version {SCHEMA_VERSION}; "
            "write one with --format json"
        )
    if earlier.get("bestserve_version") != __version__:
        other = shown(earlier.get("bestserve_version"), 40)
        talk(f"{path} was written by {other}, this is {__version__}")
    try:
        question = question_of(earlier)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return ask(question, format)
