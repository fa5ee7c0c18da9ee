"""Logs from strangers: one line that says what is wrong, whatever is in the file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bestserve.errors import DataError
from bestserve.readers import untrusted
from bestserve.readers.logs import read_log

FIXTURES = Path(__file__).parent / "fixtures"
VLLM = json.loads((FIXTURES / "vllm-bench-serve/summary.json").read_text())
DETAILED = json.loads((FIXTURES / "vllm-bench-serve/detailed.json").read_text())


def refusal(tmp_path, content, **kwargs):
    path = tmp_path / "log.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_log(path, **kwargs)
    message = str(caught.value)
    assert message.startswith("log.json")
    assert "\n" not in message
    assert len(message) < 600
    return message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"  \n ", "empty file"),
        (b"hello", "neither JSON"),
        (b'{"a": 1', "cut short"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b"\x1f\x8b\x08\x00rest", "gzip archive; unpack it first"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\xff\xfe{\x00}\x00", "UTF-16"),
        (b"{}\x00", "binary"),
        (b"a" * 5000 + b"\x00", "binary"),
        (b'{"a": "\xc3\x28"}', "not UTF-8"),
        (b"a: &x [1]\nb: *x\n", "aliases are not accepted"),
        (b"a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        (b"a: " + b"{b: " * 5000, "YAML"),
        (b"a: 2026-13-45\n", "not valid YAML"),
        (b"a: {[1]: 2}\n", "YAML"),
        (b"a: [1\n", "not valid YAML"),
        (b'id,model\n"' + b"x" * 200_000 + b'",1\n', "not valid CSV"),
        (b"id,model\n1,2\n", "none of the known formats"),
        (b"null", "neither JSON"),
        (b"[]", "none of the known formats"),
        (b"[null]", "none of the known formats"),
        (b"{}", "none of the known formats"),
        (b'{"benchmarks": 3, "metadata": 1, "experiments": [4]}', "none of the known"),
    ],
)  # fmt: skip
def test_what_is_no_log(tmp_path, content, words):
    assert words in refusal(tmp_path, content)


def changed(base, **changes):
    return json.dumps({**base, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean_ttft_ms": -1.0}, ("mean_ttft_ms is -1.0", "negative")),
        ({"mean_ttft_ms": "fast"}, ("mean_ttft_ms is 'fast'", "expected a number")),
        ({"mean_ttft_ms": True}, ("mean_ttft_ms is True", "expected a number")),
        ({"mean_ttft_ms": [1]}, ("mean_ttft_ms is [1]", "expected a number")),
        ({"mean_ttft_ms": 10**400}, ("mean_ttft_ms is a huge int", "too large")),
        ({"completed": 1.5}, ("completed is 1.5", "whole number")),
        ({"completed": 1e300}, ("completed is 1e+300", "whole number")),
        ({"duration": -5}, ("duration is -5", "negative")),
        ({"request_rate": -2}, ("request_rate is -2", "negative")),
        ({"request_rate": "soon"}, ("request_rate is 'soon'", "expected a number")),
        ({"model_id": {"a": 1}}, ("model_id", "expected text")),
        ({"burstiness": -1}, ("burstiness is -1", "negative")),
    ],
)
def test_wrong_values_name_the_key(tmp_path, changes, words):
    message = refusal(tmp_path, changed(VLLM, **changes))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ttfts": [0.1]}, "ttfts has 1 entries, output_lens 5"),
        ({"ttfts": [0.1, 0.2, -0.3, 0.4, 0.5]}, "ttfts[2] is -0.3"),
        ({"ttfts": [0.1, 0.2, "x", 0.4, 0.5]}, "ttfts[2] is 'x'"),
        ({"ttfts": 7}, "ttfts is 7: expected a list"),
        ({"output_lens": [1.5, 1, 1, 1, 1]}, "output_lens[0] is 1.5: expected a whole number"),
        ({"itls": [[1], [2]]}, "itls is not a list of 5 lists"),
        ({"itls": [[1], None, [1], [], []]}, "request 1: itls is None"),
        ({"itls": [[1e308, 1e308], [], [], [], []]}, "add up to infinity"),
        ({"input_lens": [10**400, 1, 1, 1, 1]}, "too large"),
    ],
)
def test_wrong_details_name_the_request(tmp_path, changes, words):
    assert words in refusal(tmp_path, changed(DETAILED, **changes))


def test_sweep_names_the_run(tmp_path):
    message = refusal(tmp_path, json.dumps([VLLM, {**VLLM, "p99_ttft_ms": -1}]))
    assert message.startswith("log.json run 1: p99_ttft_ms is -1")
    assert "expected an object" in refusal(tmp_path, json.dumps([VLLM, 5]))


def test_jsonl_names_the_line(tmp_path):
    lines = (FIXTURES / "sglang-bench-serving/two_runs.jsonl").read_text().splitlines()
    bad = lines[0] + "\n" + lines[1].replace('"duration": 21.0', '"duration": -21.0') + "\n"
    assert refusal(tmp_path, bad).startswith("log.json line 2: duration is -21.0")
    cut = lines[0] + "\n" + lines[1][:300] + "\n"
    assert refusal(tmp_path, cut).startswith("log.json line 2: not valid JSON")


def test_bare_constants_only_where_the_client_writes_them(tmp_path):
    text = (FIXTURES / "inference-perf/stage_0.json").read_text()
    bad = text.replace('"mean": -0.0001', '"mean": NaN')
    assert "bare NaN or Infinity" in refusal(tmp_path, bad)
    assert "must be finite" in refusal(tmp_path, changed(VLLM).replace("80.0", "1e999"))
    path = tmp_path / "nan.json"
    path.write_text(changed(VLLM).replace("80.0", "NaN").replace("12.0", "-Infinity"))
    read = read_log(path)
    assert read.rows[0].ttft_mean_ms is None
    assert read.rows[0].ttft_p50_ms == 70.0
    assert "nan.json: mean_ttft_ms is nan, taken as not stated" in read.warnings


def test_unprintable_names_do_not_reach_the_terminal(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(changed(VLLM, model_id="evil\x1b[2J\n" + "x" * 5000, label="\u202e\x07"))
    (row,) = read_log(path).rows
    assert row.model.isprintable()
    assert len(row.model) <= 400
    assert all(note.isprintable() for note in row.notes)


def test_sizes_are_limited(tmp_path, monkeypatch):
    assert "more than the limit of 100" in refusal(tmp_path, changed(VLLM), max_bytes=100)
    monkeypatch.setattr(untrusted, "MAX_CONTAINERS", 10)
    assert "more than 10 lists and objects" in refusal(tmp_path, "[" + "{}," * 20 + "{}]")
    monkeypatch.setattr(untrusted, "MAX_CELLS", 10)
    assert "more than 10 cells" in refusal(tmp_path, "a,b\n" * 20)
    monkeypatch.setattr(untrusted, "MAX_YAML", 10)
    assert "YAML of more than" in refusal(tmp_path, "a: bbbbbbbbbbbbbbbbbbbb\n")
    monkeypatch.setattr(untrusted, "MAX_LINE", 2**20)
    big = '{"a": 1}\n{"b": "' + "x" * 2**20 + '"}\n'
    assert "none of the known" in refusal(tmp_path, big)
    good = (FIXTURES / "sglang-bench-serving/two_runs.jsonl").read_text()
    assert "line 3: longer than 1 MiB" in refusal(tmp_path, good + " " * 2**21)
    monkeypatch.setattr(untrusted, "MAX_RECORDS", 1)
    assert "more than 1 lines" in refusal(tmp_path, good)


def test_only_regular_files_are_opened(tmp_path):
    with pytest.raises(DataError, match="not a regular file"):
        read_log(tmp_path)
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with pytest.raises(DataError, match="not a regular file"):
        read_log(fifo)
    with pytest.raises(DataError, match="no such file; check the path"):
        read_log(tmp_path / "absent.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_log(tmp_path / "nul\0.json")
