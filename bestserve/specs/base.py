"""The base of all inputs: frozen, strict about names, with one-line errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bestserve.errors import InputError, nearest_names


class Spec(BaseModel):
    """Frozen input. Unknown fields are refused with the nearest known ones."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(describe(error, type(self))) from None


def describe(error: ValidationError, spec: type[BaseModel]) -> str:
    """Put pydantic's first complaints into one line, with the nearest field names for typos."""
    parts = []
    for item in error.errors()[:3]:
        where = ".".join(str(p) for p in item["loc"])
        if item["type"] == "extra_forbidden":
            near = nearest_names(where, spec.model_fields)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            parts.append(f"{where!r} is no field of {spec.__name__}{hint}")
        else:
            given = "" if item["type"] == "missing" else f" (given: {item['input']!r:.60})"
            message = item["msg"].removeprefix("Value error, ")
            parts.append(f"{where}: {message}{given}" if where else message)
    return f"{spec.__name__}: " + "; ".join(parts)
