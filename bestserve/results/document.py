"""What all answers share: status, summaries, and how they become JSON, frames, HTML."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from bestserve._version import __version__
from bestserve.host.extras import require
from bestserve.models.trust import Trust
from bestserve.results.rows import html_table, text_table
from bestserve.units import milliseconds

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
"""Of every JSON document bestserve writes; raised when a field changes its meaning."""


class AnswerStatus(StrEnum):
    """What became of a question; the value is the sentence the user reads."""

    OK = "predicted"
    UNSTABLE = "the queue grows without bound at this rate: lower the rate or add replicas"
    INFEASIBLE_SLO = "a lone request already misses the objective: no rate can meet it"
    INFEASIBLE_MEMORY = "the model does not fit: raise tp or pp, quantise, or take larger GPUs"
    INFEASIBLE_SHAPE = "this parallelism cannot be built"
    NO_LAW = "the formulas have no answer at this rate, only a simulation has (method auto)"
    NO_CAPACITY = "the KV cache holds no single request of this workload"
    SOME_REFUSED = "requests longer than the KV cache are refused: raise tp or pp, quantise it"
    FAILED = "the models failed numerically on this strategy: please report it"


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and percentiles of one latency [s]."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float

    def ms(self) -> dict[str, float]:
        """Return the same figures in milliseconds, keyed mean, p50, …"""
        return {f.name: milliseconds(getattr(self, f.name)) for f in fields(self)}


class Document:
    """Serialisation shared by all answers: JSON with its input, frames, HTML."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain data, with `schema_version` and the package version."""
        return {
            "schema_version": SCHEMA_VERSION,
            "bestserve_version": __version__,
            "kind": type(self).__name__.lower(),
            **self.content(),
        }

    def content(self) -> dict[str, Any]:
        """Return the fields of the answer as plain data, seconds and requests/s throughout."""
        fields_of_answer: dict[str, Any] = plain(self)
        return fields_of_answer

    def to_json(self, indent: int | None = 2) -> str:
        """Return the answer as a JSON document that `bestserve rerun` reproduces."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def records(self) -> list[dict[str, Any]]:
        """Return the answer as flat rows, milliseconds in fields that end in `_ms`."""
        raise NotImplementedError

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame (needs `pip install bestserve[frame]`)."""
        require("to_frame", "pandas")
        import pandas

        return pandas.DataFrame(self.records())

    def explain(self) -> str:
        """Return what explains the answer; nothing where a table says it all."""
        return ""

    def _repr_html_(self) -> str:
        return html_table(self.records())

    def __str__(self) -> str:
        """Return the table, and what there is to explain, as the command line prints them."""
        table, explained = text_table(self.records()), self.explain()
        return f"{table}\n\n{explained}" if explained else table


def plain(value: Any) -> Any:
    """Reduce dataclasses, specs, enums and arrays to JSON types; what is not finite is null."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Trust):
        return {"level": value.level, "reasons": list(value.reasons)}
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value
