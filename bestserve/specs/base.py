"""The base of all inputs: frozen, strict about names, with one-line errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bestserve.errors import InputError
from bestserve.specs.complaints import describe


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
