"""Column names and records of a trace's table: CSV, JSON, JSONL or parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bestserve.errors import DataError
from bestserve.host.extras import require
from bestserve.readers.trace_schemas import SCHEMAS, Schema
from bestserve.readers.untrusted import MAX_RECORDS, Source, keys_of, listed, printable

Records = Iterator[tuple[int, Mapping[str, Any]]]


def table_records(source: Source) -> tuple[frozenset[str], Records]:
    """Column names, and (line, record) pairs."""
    if source.kind == "csv":
        header = [cell.strip() for cell in source.table[0]]
        return frozenset(header), _csv_records(source, header)
    if source.kind in ("json", "jsonl"):
        rows = listed(source.value)
        return keys_of(rows[0]) if rows else frozenset(), _json_records(source)
    raise DataError(f"{source.name}: a trace is CSV, JSON, JSONL or parquet")


def _csv_records(source: Source, header: Sequence[str]) -> Records:
    for line, cells in enumerate(source.table[1:], start=2):
        if not any(cells):
            continue
        if len(cells) != len(header):
            where = f"{source.name} line {line}"
            raise DataError(f"{where}: {len(cells)} cells, the header has {len(header)}")
        yield line, dict(zip(header, cells, strict=True))


def _json_records(source: Source) -> Records:
    for line, value in source.records():
        for index, record in enumerate(listed(value)):
            place = index if source.kind == "json" else line
            if not isinstance(record, Mapping):
                raise DataError(f"{source.name} record {place}: expected an object")
            yield place, record


def parquet_records(file: Path, schema: Schema | None) -> tuple[frozenset[str], Records]:
    """Column names and records of a parquet file, reading only the columns that matter."""
    require("a parquet trace", "pyarrow")
    import pyarrow.parquet as parquet

    name = printable(file.name, 120)
    try:
        opened = parquet.ParquetFile(file)
        if opened.metadata.num_rows > MAX_RECORDS:
            raise DataError(f"{name}: more than {MAX_RECORDS} rows")
        names = frozenset(opened.schema_arrow.names)
        known = (schema,) if schema else SCHEMAS
        fit = next((s for s in known if s.columns() <= names), None)
        wanted = sorted((fit.columns() | {fit.hashes or "", fit.session}) & names) if fit else []
        _bounded(opened.metadata, wanted, name)
        rows = opened.read(columns=wanted).to_pylist()
    except DataError:
        raise
    except (OSError, ValueError, MemoryError) as error:  # Arrow's errors derive from these
        raise DataError(f"{name}: not readable parquet ({printable(str(error), 80)})") from None
    return names, iter(enumerate(rows))


def _bounded(metadata: Any, wanted: Sequence[str], name: str) -> None:
    """Refuse columns that unpack to more than they should: a row can hold millions of hashes."""
    values: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            top = column.path_in_schema.partition(".")[0]
            values[top] = values.get(top, 0) + column.num_values
    for column_name in wanted:
        if values.get(column_name, 0) > MAX_RECORDS:
            raise DataError(f"{name}: more than {MAX_RECORDS} values of {column_name}")
