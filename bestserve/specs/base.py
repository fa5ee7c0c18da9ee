"""The base of all inputs: frozen, strict about names, with one-line errors."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from bestserve.errors import InputError, nearest_names, shown

MOST_ITEMS = 50
"""Complaints that are looked at; a hostile list has a hundred thousand."""


class Spec(BaseModel):
    """Frozen input. Unknown fields are refused with the nearest known ones."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(describe(error, type(self))) from None


def describe(error: ValidationError, spec: type[BaseModel]) -> str:
    """Put pydantic's first complaints into one line, with the nearest names for typos."""
    items = error.errors()[:MOST_ITEMS]
    typos = {
        near
        for item in items
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1
        for near in nearest_names(str(item["loc"][0]), spec.model_fields)[:1]
    }
    # Typos first: they explain most of the rest.
    items.sort(key=lambda item: item["type"] != "extra_forbidden")
    parts = []
    for item in items:
        where = ".".join(str(p)[:60] for p in item["loc"])
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
        message = _NESTED.sub("", item["msg"].removeprefix("Value error, "))
        if kind in ("tuple_type", "list_type"):
            message = "must be a list" + (f" ([[{where}]] in TOML)" if "." not in where else "")
        elif kind == "literal_error" and isinstance(given, str):
            known = re.findall("'([^']*)'", item["msg"])
            near = nearest_names(given, known)
            message += f"; nearest: {', '.join(near)}" if near else ""
        if kind != "missing" and not isinstance(given, dict | list | tuple | BaseModel):
            message += f" (given: {shown(given)})"
        parts.append(f"{where}: {message}" if where else message)
    return f"{spec.__name__}: " + "; ".join(parts[:3])


def _below(name: str, spec: type[BaseModel]) -> str:
    """Return where a field belongs that stands one level too high, or nothing."""
    for field, info in spec.model_fields.items():
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, Spec) and name in kind.model_fields:
                return f"; it belongs under {field}"
    return ""


_NESTED = re.compile(r"^[A-Z][A-Za-z]+: ")
"""The name of the spec inside the field that the message is about: the field says enough."""
