"""`bestserve catalog`."""

from __future__ import annotations

from typing import Literal

from bestserve.cli.flags import Format
from bestserve.cli.output import emit_records
from bestserve.errors import InputError

Kind = Literal["hardware", "models", "engines"]


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
                emit_records(catalog_rows(kind), format, kind)
    else:
        assert name is not None
        rows = [
            dict(zip(("figure", "value", "unit", "kind", "source"), row, strict=True))
            for row in describe(name)
        ]
        emit_records(rows, format, name)
    return 0
