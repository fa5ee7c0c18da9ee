"""What a problem is elsewhere: flags of a URL, a shell command, a Python call, a problem file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from bestserve.specs.problem import Problem
from bestserve.specs.slo import HELPERS, OBJECTIVES, TWO_PARTS
from bestserve.web.fields import form_fields
from bestserve.web.query import Asked

FILE = "problem.toml"
"""What the command calls the file with what no flag states."""

LISTS = {
    "tensor_parallel_sizes": "tensor-parallel-size",
    "pipeline_parallel_sizes": "pipeline-parallel-size",
    "layouts": "layout",
}
PREFIXES = {
    "groups": "prefix-groups",
    "prefix_len": "prefix-len",
    "questions": "prefix-questions",
    "skew": "prefix-skew",
}
CONVERSATION = {
    "turns": "turns",
    "think_time": "think-time",
    "first_input_len": "first-input-len",
}
LAWS = {
    "fixed": ("tokens",),
    "uniform": ("low", "high"),
    "lognormal": ("mean", "cv"),
    "geometric": ("mean",),
}


def stated(problem: Problem) -> dict[str, Any]:
    """Return what a problem states beyond defaults, as a problem file has it."""
    found: dict[str, Any] = problem.model_dump(
        mode="json", exclude_none=True, exclude_defaults=True
    )
    kept = problem.model_dump(mode="json", exclude_none=True)
    for law in _laws(kept):  # a law without its kind is none
        _restore(found, kept, law)
    return found


def _laws(values: Mapping[str, Any], place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = []
    items = enumerate(values) if isinstance(values, list) else values.items()
    for key, value in items:
        if isinstance(value, Mapping) and value.get("kind") in (*LAWS, "empirical"):
            found.append((*place, key))
        elif isinstance(value, Mapping | list):
            found += _laws(value, (*place, key))  # type: ignore[arg-type]
    return found


def _restore(found: Any, kept: Any, place: tuple[Any, ...]) -> None:
    """Put a law back whole, as short text where it has one."""
    for key in place[:-1]:
        found, kept = found[key], kept[key]
    found[place[-1]] = law_text(kept[place[-1]])


def law_text(law: Mapping[str, Any]) -> Any:
    """Return a law of lengths as flags have it.

    >>> law_text({"kind": "lognormal", "mean": 2000.0, "cv": 0.8})
    'lognormal:2000,0.8'
    """
    names = LAWS.get(str(law["kind"]))
    if names is None:
        return dict(law)
    figures = [_number(law[name]) for name in names]
    return law["tokens"] if law["kind"] == "fixed" else f"{law['kind']}:{','.join(figures)}"


def to_flags(problem: Problem) -> tuple[dict[str, str], dict[str, Any]]:
    """Return a problem as flags, and what no flag states."""
    values = stated(problem)
    given: dict[str, str] = {}
    _slo(values, given)
    workload = values.pop("workload", {})
    for part, names in (("prefixes", PREFIXES), ("conversation", CONVERSATION)):
        table = workload.get(part, {})
        _move(table, names, given)
        if part in workload and not table:
            del workload[part]
    if isinstance(workload.get("trace_columns"), dict):
        columns = workload.pop("trace_columns")
        given["trace-columns"] = " ".join(f"{name}={column}" for name, column in columns.items())
    flags = {f.attribute: flag for flag, f in form_fields().items()}
    _move(workload, flags, given)
    _move(values, {**flags, **LISTS}, given)
    if workload:
        values["workload"] = workload
    return given, values


def _move(values: dict[str, Any], names: Mapping[str, str], given: dict[str, str]) -> None:
    """Move what flags can state from a table to the flags."""
    for name, flag in names.items():
        value = values.get(name)
        if value is None or isinstance(value, dict):
            continue
        if isinstance(value, list):
            given[flag] = " ".join(map(str, value))
        else:
            given[flag] = _number(value)
        del values[name]


def _slo(values: dict[str, Any], given: dict[str, str]) -> None:
    """Move objectives to `--goodput`, in milliseconds, and to the flags of their shares."""
    slo = values.pop("slo", {})
    parts = []
    for metric in (*OBJECTIVES, *HELPERS):
        terms = [slo[name] for name in TWO_PARTS.get(metric, (metric,)) if name in slo]
        if terms:
            scale = 1 if metric == "fluidity" else 1e3
            own = slo.get(f"{metric}_percentile")
            at = "" if own is None else f"@p{_number(own)}"
            parts.append(f"{metric}:{'+'.join(_number(scale * t) for t in terms)}{at}")
    if parts:
        given["goodput"] = " ".join(parts)
    for name in ("percentile", "joint", "attainment"):
        if name in slo and not (name == "attainment" and not slo.get("joint")):
            given[name] = _number(slo[name])


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def shell_command(asked: Asked, command: str = "rank", *arguments: str) -> str:
    """Return the command that answers the same, ready for a POSIX shell."""
    known = form_fields()
    words = ["bestserve", command, *arguments]
    if asked.rest:
        words += ["--problem", FILE]
    for flag, text in asked.given.items():
        field = known[flag]
        if field.kind == "yes or no":
            words.append(f"--{flag}" if field.read(text) else f"--no-{flag}")
        else:
            words += [f"--{flag}", *(text.split() if field.several else [text])]
    return shlex.join(words)


def python_call(problem: Problem, call: str = "bs.rank(problem)") -> str:
    """Return the Python that answers the same."""
    values = stated(problem)
    parts = []
    for name, value in values.items():
        if name == "workload":
            inner = ", ".join(f"{k}={v!r}" for k, v in value.items())
            parts.append(f"workload=bs.Workload({inner})")
        elif name == "slo":
            inner = ", ".join(f"{k}={v!r}" for k, v in value.items())
            parts.append(f"slo=bs.SLO({inner})")
        else:
            parts.append(f"{name}={value!r}")
    lines = "".join(f"    {part},\n" for part in parts)
    return f"import bestserve as bs\n\nproblem = bs.Problem(\n{lines})\n{call}"


def problem_file(problem: Problem) -> str:
    """Return the problem as a TOML file that `--problem` reads."""
    import tomli_w

    return tomli_w.dumps(stated(problem))
