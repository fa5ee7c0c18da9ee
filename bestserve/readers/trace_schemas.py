"""Which columns of a trace hold what: the formats that are known, and a mapping for any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bestserve.errors import InputError
from bestserve.readers.untrusted import printable

MOONCAKE_BLOCK = 512
"""Prompt tokens per hash in Mooncake's traces, and in those of clients that write its form."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Columns of a trace format; `unit` is seconds per unit of `arrival`, 0 for dates.

    `also` are further columns that tell the format from others with the same names.
    """

    name: str
    arrival: str | None
    input_len: str
    output_len: str
    unit: float = 1.0
    hashes: str | None = None
    also: tuple[str, ...] = ()
    hash_block: int = MOONCAKE_BLOCK
    session: str = "session_id"

    def columns(self) -> frozenset[str]:
        """Columns that must be there."""
        needed = {self.input_len, self.output_len, *self.also}
        return frozenset(needed | ({self.arrival} if self.arrival else set()))


SCHEMAS: tuple[Schema, ...] = (
    Schema("bestserve", "arrival", "input_len", "output_len"),
    Schema("azure-llm", "TIMESTAMP", "ContextTokens", "GeneratedTokens", 0.0),
    Schema("burstgpt", "Timestamp", "Request tokens", "Response tokens"),
    Schema(
        "qwen-bailian",
        "timestamp",
        "input_length",
        "output_length",
        hashes="hash_ids",
        also=("chat_id", "turn"),
        hash_block=16,
        session="",
    ),
    Schema("mooncake", "timestamp", "input_length", "output_length", 1e-3, "hash_ids"),
    Schema("vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens"),
    Schema("vidur-lengths", None, "num_prefill_tokens", "num_decode_tokens"),
    Schema("llmservingsim", "arrival_time_ns", "input_toks", "output_toks", 1e-9),
    Schema("lengths", None, "input_length", "output_length"),
    Schema("bestserve-lengths", None, "input_len", "output_len"),
)
"""Known traces, the more particular first."""

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "date": 0.0}


_MEANINGS = {
    "arrival": ("timestamp", "time", "arriv", "start", "created"),
    "input_len": ("prompt", "input", "context", "isl", "prefill"),
    "output_len": ("completion", "output", "generated", "response", "osl", "decode"),
}
"""How columns are called that hold what a trace needs."""


def likely_columns(names: frozenset[str]) -> str:
    """Return the mapping as flags, each with the column whose name suggests it."""
    found = []
    for field, words in _MEANINGS.items():
        fits = sorted(n for n in names if any(w in n.lower() for w in words))
        # a count of tokens rather than the text itself
        fits.sort(key=lambda n: "token" not in n.lower() and "len" not in n.lower())
        found.append(f"{field}={printable(fits[0], 40) if fits else 'COLUMN'}")
    return " ".join(found)


def mapped_schema(columns: Mapping[str, str], unit: str) -> Schema:
    """Return the schema of a table whose columns its reader names. Raises InputError."""
    extra = set(columns) - {"arrival", "input_len", "output_len", "hash_ids"}
    if extra or not {"input_len", "output_len"} <= set(columns) or unit not in UNITS:
        raise InputError(
            "columns maps arrival, input_len, output_len and hash_ids to column names (arrival and"
            f" hash_ids may be left out), arrival_unit is one of {', '.join(UNITS)}"
        )
    return Schema(
        "mapped columns",
        columns.get("arrival"),
        columns["input_len"],
        columns["output_len"],
        UNITS[unit],
        columns.get("hash_ids"),
    )
