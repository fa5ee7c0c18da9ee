"""What is wrong with an input, in plain words: a validator's complaints as one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from bestserve.errors import nearest_names, shown

MOST_ITEMS = 50
"""Complaints that are looked at; a hostile list has a hundred thousand."""

WORDS = {
    "missing": "is needed",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "finite_number": "must be finite",
    "too_short": "must have {min_length} or more entries, has {actual_length}",
    "literal_error": "must be {expected}",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have at most {max_length} characters",
}
"""By the validator's kind of complaint; its context fills in the figures."""

KINDS = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table of fields",
    "model": "a table of fields",
}
"""What a value should have been, by how the names of complaints begin."""

MISTAKEN = re.compile(r"^(float|int|bool|string|tuple|list|dict|model)_(?:type|parsing|from_float)")

TAG = re.compile(r"[\[(]|^(?:constrained-)?(?:str|int|float|bool|dict|list|tuple)$")
"""A step of a place that names one of several kinds that a field may be, and no field."""

_NESTED = re.compile(r"^[A-Z][A-Za-z]+: ")
"""The name of the spec inside the field that the message is about: the field says enough."""


def describe(error: ValidationError, spec: type[BaseModel]) -> str:
    """Put a validator's first complaints into one line, with the nearest names for typos."""
    items: list[Mapping[str, Any]] = [*error.errors()[:MOST_ITEMS]]
    typos = {
        near
        for item in items
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1
        for near in nearest_names(str(item["loc"][0]), spec.model_fields)[:1]
    }
    # Typos first: they explain most of the rest.
    items.sort(key=lambda item: item["type"] != "extra_forbidden")
    parts = []
    for item in _as_meant(items):
        where = _place(item)
        kind, given = item["type"], item["input"]
        if kind == "missing" and where in typos:
            continue  # the typo says it
        if kind == "too_short" and any(
            len(other["loc"]) > len(item["loc"]) and other["loc"][: len(item["loc"])] == item["loc"]
            for other in items
        ):
            continue  # what was refused is not counted
        if kind == "extra_forbidden":
            near = nearest_names(where, spec.model_fields)
            hint = f"; nearest: {', '.join(near)}" if near else _below(where, spec)
            parts.append(f"{where!r} is no field of {spec.__name__}{hint}")
            continue
        message = _NESTED.sub("", in_plain_words(item)).removeprefix(f"{where} ")
        if kind in ("tuple_type", "list_type") and "." not in where:
            message += f" ([[{where}]] in TOML)"
        elif kind == "literal_error" and isinstance(given, str):
            near = nearest_names(given, re.findall("'([^']*)'", message))
            message += f"; nearest: {', '.join(near)}" if near else ""
        if kind != "missing" and not isinstance(given, dict | list | tuple | BaseModel):
            message += f" (given: {shown(given)})"
        parts.append(f"{where}: {message}" if where else message)
    return f"{spec.__name__}: " + "; ".join(parts[:3])


def in_plain_words(item: Mapping[str, Any]) -> str:
    """Return one complaint as a sentence about the value: "must be at most 1"."""
    kind = item["type"]
    if "kinds" in item:
        return f"must be {_either(item['kinds'])}"
    if mistaken := MISTAKEN.match(kind):
        return f"must be {KINDS[mistaken[1]]}"
    if kind in WORDS:
        return WORDS[kind].format(**item.get("ctx", {}))
    said: str = item["msg"].removeprefix("Value error, ")
    return said.replace("Input should be", "must be", 1)


def _as_meant(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Keep of a field that may be of several kinds what is said of the kind that was given."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for number, item in enumerate(items):
        tag = next((i for i, step in enumerate(item["loc"]) if _is_tag(step, i, item)), None)
        groups.setdefault((number,) if tag is None else item["loc"][:tag], []).append(item)
    return [_branch(group, len(place) + 1) for place, group in groups.items()]


def _branch(items: Sequence[Mapping[str, Any]], depth: int) -> Mapping[str, Any]:
    """Return the complaint about the kind that was given, or one that names them all.

    depth : of a place that says of what kind its value should have been
    """
    for item in items:
        if len(items) == 1 or len(item["loc"]) > depth or not MISTAKEN.match(item["type"]):
            return item
    mistaken = [MISTAKEN.match(item["type"]) for item in items]
    kinds = dict.fromkeys(KINDS[found[1]] for found in mistaken if found)
    return {**items[0], "type": "none of its kinds", "kinds": tuple(kinds)}


def _either(kinds: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


def _is_tag(step: Any, index: int, item: Mapping[str, Any]) -> bool:
    """Whether a step names a kind: the first is a field, an unknown field is a user's own name."""
    own = item["type"] == "extra_forbidden" and index == len(item["loc"]) - 1
    return isinstance(step, str) and index > 0 and not own and TAG.search(step) is not None


def _place(item: Mapping[str, Any]) -> str:
    steps = [s for i, s in enumerate(item["loc"]) if not _is_tag(s, i, item)]
    return ".".join(str(step)[:60] for step in steps)


def _below(name: str, spec: type[BaseModel]) -> str:
    """Return where a field belongs that stands one level too high, or nothing."""
    for field, info in spec.model_fields.items():
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and hasattr(kind, "model_fields"):
                fields: Mapping[str, Any] = kind.model_fields
                if name in fields:
                    return f"; it belongs under {field}"
    return ""
