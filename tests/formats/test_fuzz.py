"""Mutated logs end in rows or in a `DataError` of one line, never in another exception."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bestserve.errors import DataError
from bestserve.readers.logs import LogRead, read_log
from bestserve.readers.tidy import TidyRow

FILES = sorted((Path(__file__).parent / "fixtures").glob("*/*"))
IDS = [f"{p.parent.name}/{p.name}" for p in FILES]
QUICK = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

NASTY = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.sampled_from([0, -1, 1, 10**400, 5e-324, 1e-320, 1e308, -1e308, math.nan, math.inf]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["inf", "nan", "true", "\x1b[2J", "1e5", "-3"]),
    st.lists(st.one_of(st.integers(-5, 5), st.floats(), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(-5, 5), max_size=3),
)


def outcome(path: Path) -> None:
    """Read the file; anything but rows or a one-line refusal fails the test."""
    try:
        read = read_log(path)
    except DataError as error:
        message = str(error)
        assert "\n" not in message
        assert message.isprintable()
        assert path.name in message
    else:
        assert isinstance(read, LogRead)
        assert all(isinstance(row, TidyRow) for row in read.rows)
        assert all("\n" not in warning for warning in read.warnings)


@pytest.mark.parametrize("source", FILES, ids=IDS)
@QUICK
@given(data=st.data())
def test_damaged_bytes(source, tmp_path, data):
    raw = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        kind = data.draw(st.sampled_from(["cut", "drop", "insert", "repeat"]))
        if kind == "cut":
            del raw[at:]
        elif kind == "drop":
            del raw[at : at + data.draw(st.integers(1, 40))]
        elif kind == "insert":
            raw[at:at] = data.draw(
                st.one_of(
                    st.binary(max_size=6),
                    st.sampled_from([b"NaN", b"-", b"1e999", b"[[", b"null,", b'"', b",,", b"\n"]),
                )
            )
        else:
            raw[at:at] = raw[max(0, at - 30) : at]
    path = tmp_path / "log"
    path.write_bytes(bytes(raw))
    outcome(path)


def places(value, path=()):
    """Paths of all values inside a document."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 4)):
            yield from places(value[index], (*path, index))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


JSON_FILES = [p for p in FILES if p.suffix in (".json", ".jsonl")]


@pytest.mark.parametrize(
    "source", JSON_FILES, ids=[f"{p.parent.name}/{p.name}" for p in JSON_FILES]
)
@QUICK
@given(data=st.data())
def test_wrong_values_anywhere(source, tmp_path, data):
    lines = source.suffix == ".jsonl"
    text = source.read_text()
    document = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from([p for p in places(document) if p]))
        document = replaced(document, where, data.draw(NASTY))
    path = tmp_path / "log"
    path.write_text(
        "\n".join(json.dumps(one) for one in document) if lines else json.dumps(document)
    )
    outcome(path)


@pytest.mark.parametrize("name", ["tidy-csv/rows.csv", "guidellm-csv/v0_8.csv"])
@QUICK
@given(data=st.data())
def test_wrong_cells(name, tmp_path, data):
    source = next(p for p in FILES if p.match(name))
    lines = source.read_text().splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    cells = lines[at].split(",")
    cells[data.draw(st.integers(0, len(cells) - 1))] = data.draw(
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(["nan", "-1", "inf", "1e400", "P9/D0", "y 0P0D", "attention_dp=x"]),
        )
    )
    lines[at] = ",".join(cells)
    path = tmp_path / "log"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    outcome(path)
