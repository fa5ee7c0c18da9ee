"""What every reader owes, checked for each one by its existence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bestserve.readers import logs as formats
from bestserve.readers.tidy import RequestLog, TidyRow
from bestserve.readers.untrusted import open_source

GROUP = "bestserve.log_formats"
FIXTURES = Path(__file__).parent / "fixtures"
FILES = sorted(FIXTURES.glob("*/*"))
NAMES = sorted(formats.readers())


def test_readers_are_found_by_their_existence():
    modules = {p.stem for p in Path(formats.__file__).parent.glob("[a-z]*.py")}
    assert len(NAMES) >= len(modules) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_every_reader_has_a_fixture_and_a_docstring(name):
    reader = formats.readers()[name]
    assert list((FIXTURES / name).iterdir())
    assert reader.__doc__
    assert reader.sniff.__doc__
    assert reader.read.__doc__


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_exactly_one_reader_claims_a_log(path):
    source = open_source(path)
    assert [r.NAME for r in formats.readers().values() if r.sniff(source)] == [path.parent.name]


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_rows_say_where_they_come_from_and_have_distinct_ids(path):
    read = formats.read_log(path)
    assert read.format == path.parent.name
    assert read.rows
    assert all(isinstance(row, TidyRow) and row.format == read.format for row in read.rows)
    assert all(row.origin.startswith(path.name) for row in read.rows)
    assert len({row.id for row in read.rows}) == len(read.rows)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_format_is_told_by_its_keys_not_by_its_name(path, tmp_path):
    renamed = tmp_path / "log"
    renamed.write_bytes(path.read_bytes())
    assert formats.read_log(renamed).format == path.parent.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_latencies_are_milliseconds_of_a_plausible_server(path):
    for row in formats.read_log(path).rows:
        if row.tpot_mean_ms is not None and row.tpot_mean_ms > 0:
            assert 0.5 < row.tpot_mean_ms < 1000
        if row.ttft_mean_ms is not None and row.e2el_mean_ms is not None:
            assert row.ttft_mean_ms <= row.e2el_mean_ms
        if row.ttft_p50_ms is not None and row.ttft_p99_ms is not None:
            assert row.ttft_p50_ms <= row.ttft_p99_ms


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_request_arrays_are_aligned_and_seconds(path):
    for row in formats.read_log(path).rows:
        if row.requests is not None:
            log = row.requests
            assert isinstance(log, RequestLog)
            names = [name for name in RequestLog.__slots__ if getattr(log, name) is not None]
            aligned = {len(getattr(log, name)) for name in names if name != "gaps"}
            assert aligned == {len(log)}
            if log.gaps is not None:
                assert log.messages is not None
                assert len(log.gaps) == np.maximum(log.messages - 1, 0).sum()
            assert row.completed is None or len(log) <= row.completed
            if log.start is not None:
                assert log.start.min() == 0


@pytest.mark.parametrize("name", NAMES)
def test_what_the_log_does_not_state_can_be_given(name):
    path = sorted((FIXTURES / name).iterdir())[0]
    given = formats.read_log(path, gpu="my-gpu", model="my/model", engine="vLLM", tp=3)
    for row in given.rows:
        assert (row.gpu, row.model, row.engine, row.tp) == ("my-gpu", "my/model", "vLLM", 3)
        assert not {"gpu", "model", "engine"} & set(row.missing)
    plain = formats.read_log(path).rows
    for before, after in zip(plain, given.rows, strict=True):
        if before.gpu is not None:
            assert any(note.startswith("gpu my-gpu given by the user") for note in after.notes)


def test_other_packages_add_readers(monkeypatch, tmp_path):
    class Mine:
        NAME = "mine"

        @staticmethod
        def sniff(source):
            return source.kind == "json" and source.value == {"mine": 1}

        @staticmethod
        def read(source):
            return [TidyRow(id="m", origin=source.name, format="mine", ttft_mean_ms=1.0)]

    class Entry:
        @staticmethod
        def load():
            return Mine

    monkeypatch.setattr(formats, "entry_points", lambda group: [Entry] * (group == GROUP))
    formats.readers.cache_clear()
    try:
        path = tmp_path / "x.json"
        path.write_text('{"mine": 1}')
        assert formats.read_log(path).format == "mine"
        assert set(NAMES) < set(formats.readers())
    finally:
        formats.readers.cache_clear()


def test_reading_loads_no_heavy_package():
    code = (
        "import sys; from bestserve.readers.logs import readers; readers();"
        "print([m for m in ('pandas', 'scipy', 'yaml', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
