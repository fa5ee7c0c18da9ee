"""Types of compiled loops, and their names in C."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Scalar(Enum):
    """Numbers; a wider one takes a narrower one."""

    BOOL = "bool"
    INT = "int64_t"
    FLOAT = "double"

    @property
    def c(self) -> str:
        """Its name in C."""
        return self.value


ITEMS = {"f8": Scalar.FLOAT, "i8": Scalar.INT, "i4": Scalar.INT, "b1": Scalar.BOOL}
"""Elements of arrays, and the numbers that they are in an expression."""

ANNOTATIONS = {
    "Floats": "f8",
    "Ints": "i8",
    "Ints32": "i4",
    "Bools": "b1",
    "NDArray[np.float64]": "f8",
    "NDArray[np.int64]": "i8",
}
"""Annotations of arrays, and their elements."""


@dataclass(frozen=True)
class Array:
    """An array whose last axis is contiguous."""

    item: str
    ndim: int

    @property
    def c(self) -> str:
        """Its name in C."""
        return f"{self.item}_{self.ndim}"


@dataclass(frozen=True)
class Record:
    """A NamedTuple."""

    name: str

    @property
    def c(self) -> str:
        """Its name in C."""
        return f"rec_{self.name}"


@dataclass(frozen=True)
class Tuple:
    """What a function with several results returns; `c`: its name in C."""

    parts: tuple[Scalar | Array, ...]
    c: str = ""


Type = Scalar | Array | Record | Tuple


def joined(one: Type, other: Type) -> Type:
    """Return the type that holds both; TypeError if there is none."""
    if one == other:
        return one
    if isinstance(one, Scalar) and isinstance(other, Scalar):
        order = list(Scalar)
        return max(one, other, key=order.index)
    raise TypeError(f"is both {one} and {other}")
