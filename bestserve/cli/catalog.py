"""`bestserve catalog`."""

from __future__ import annotations

from typing import Literal

from bestserve.cli.flags import Format
from bestserve.cli.output import emit_records
from bestserve.errors import InputError

Kind = Literal["hardware", "models", "engines"]

SHOWN = {
    "memory_bytes": ("memory [GB]", 1e9),
    "memory_bandwidth": ("memory bandwidth [TB/s]", 1e12),
    "flops_bf16": ("bf16 [TFLOP/s]", 1e12),
    "flops_fp8": ("fp8 [TFLOP/s]", 1e12),
    "flops_fp4": ("fp4 [TFLOP/s]", 1e12),
    "link_bandwidth": ("link [GB/s]", 1e9),
    "parameters": ("parameters [B]", 1e9),
    "active_parameters": ("active [B]", 1e9),
    "a_step": ("a step [µs]", 1e-6),
    "a_seq": ("a seq [µs]", 1e-6),
    "max_position_embeddings": ("longest context [tokens]", 1),
}
"""Heading and unit of a figure where people read it; data keep names and SI units."""


def catalog(name: str | None = None, item: str | None = None, *, format: Format = "table") -> int:
    """List GPUs, models and engines, or show one with the source of every figure.

    Parameters
    ----------
    name
        hardware, models, engines or prices to list them; the name or path of one to show it
    item
        after hardware, models or engines: the one to show
    """
    from bestserve.catalog import catalog_rows, describe

    kinds: tuple[Kind, ...] = ("hardware", "models", "engines")
    if name == "prices":
        from bestserve.catalog.prices import prices

        emit_records([dict(p) for p in prices()], format, "USD per GPU and hour")
        return 0
    if item is not None:
        if name not in kinds:
            raise InputError(f"two names: {str(name)[:40]!r} is not one of {', '.join(kinds)}")
        name = item
    if name is None and format == "json":
        import json

        from bestserve.results.document import SCHEMA_VERSION

        listing = {kind: catalog_rows(kind) for kind in kinds}
        print(json.dumps({"schema_version": SCHEMA_VERSION, **listing}, indent=2))
    elif name is None and format == "csv":
        raise InputError("three tables are no csv file; name hardware, models or engines")
    elif item is None and (name is None or name in kinds):
        for kind in kinds:
            if name in (None, kind):
                rows = catalog_rows(kind)
                emit_records(rows if format in ("json", "csv") else shown(rows), format, kind)
    else:
        assert name is not None
        figures = [
            dict(zip(("figure", "value", "unit", "kind", "source"), row, strict=True))
            for row in describe(name)
        ]
        emit_records(figures, format, name)
    return 0


def shown(rows: list[dict[str, str | int | float]]) -> list[dict[str, str | int | float]]:
    """Return the rows with units in their headings, and values in those units."""
    found = []
    for row in rows:
        own: dict[str, str | int | float] = {}
        for name, value in row.items():
            heading, unit = SHOWN.get(name, (name, 1))
            scaled = unit != 1 and not isinstance(value, str)
            own[heading] = float(f"{float(value) / unit:.4g}") if scaled else value
        found.append(own)
    return found
