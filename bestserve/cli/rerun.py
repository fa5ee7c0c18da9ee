"""`bestserve rerun`."""

from __future__ import annotations

from bestserve.cli.output import Format, emit, progress, talk
from bestserve.results import SCHEMA_VERSION, Document


def rerun(path: str, *, format: Format = "json") -> int:
    """Repeat the question of an earlier JSON answer and print the new answer.

    Parameters
    ----------
    path
        JSON written by rank or predict with --format json
    format
        table, json, csv, md or html
    """
    from bestserve import api
    from bestserve._version import __version__
    from bestserve.cli.files import read_mapping
    from bestserve.errors import DataError
    from bestserve.specs.problem import Problem

    earlier = read_mapping(path)
    if earlier.get("schema_version") != SCHEMA_VERSION or "problem" not in earlier:
        raise DataError(
            f"{path}: no answer of bestserve with schema_version {SCHEMA_VERSION}; "
            "write one with --format json"
        )
    if earlier.get("bestserve_version") != __version__:
        talk(f"{path} was written by {earlier.get('bestserve_version')}, this is {__version__}")
    problem = Problem(**earlier["problem"])
    answer: Document
    if earlier["kind"] == "ranking":
        with progress("ranking") as say:
            answer = api.rank(problem, progress=say)
    elif earlier["kind"] == "prediction":
        rate = None if problem.workload.closed else earlier["request_rate"]
        answer = api.predict(problem, earlier["strategy"], rate)
    elif earlier["kind"] == "sensitivityreport":
        with progress("sensitivity") as say:
            rate, figures = earlier["request_rate"], [r["parameter"] for r in earlier["rows"]]
            answer = api.sensitivity(
                problem, earlier["strategy"], figures=figures, request_rate=rate, progress=say
            )
    elif earlier["kind"] == "explanation":
        answer = api.explain(problem, earlier["strategy"])
    elif earlier["kind"] == "uncertainty":
        names = [c["strategy"] for c in earlier["candidates"]]
        with progress("uncertainty") as say:
            answer = api.uncertainty(
                problem, strategies=names, samples=earlier["samples"], progress=say
            )
    else:
        raise DataError(f"{path}: answers of kind {earlier['kind']!r} cannot be rerun yet")
    emit(answer, format)
    return 0
