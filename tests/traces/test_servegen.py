"""ServeGen clients: what their files say, and that generated requests follow it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bestserve as bs
from bestserve.errors import DataError, InputError
from bestserve.lowering import lower_lengths
from bestserve.readers.recorded import read_recorded
from bestserve.readers.servegen import generate, read_client, superposed
from bestserve.readers.traces import Trace

WINDOWS = "0,20.0,2.0,Gamma,0.25,0.2\n600,0,0,,0,0\n1200,10.0,1.6,Weibull,0.7,0.08\n"
DATA = {
    "0": {"input_tokens": "{100: 0.25, 300: 0.75}", "output_tokens": "{10: 1.0}"},
    "600": {"input_tokens": "{}", "output_tokens": "{}"},
    "1200": {"input_tokens": "{700: 1e-2, 900: 0.99}", "output_tokens": "{20: 0.5, 40: 0.5}"},
}


def client(tmp_path, windows=WINDOWS, data=DATA):
    (tmp_path / "c-trace.csv").write_text(windows)
    (tmp_path / "c-dataset.json").write_text(json.dumps(data))
    return read_client(tmp_path / "c-trace.csv", tmp_path / "c-dataset.json")


def test_rates_gaps_and_lengths_follow_the_files(tmp_path):
    trace = generate(client(tmp_path), 0, 1800, seed=1)
    first, second = trace.arrivals < 600, trace.arrivals >= 1200
    assert first.sum() + second.sum() == len(trace)  # nothing in the silent window
    # Poisson-like error of a renewal count: sqrt(N · scv)
    assert first.sum() == pytest.approx(12_000, abs=4 * np.sqrt(12_000 * 4))
    assert second.sum() == pytest.approx(6_000, abs=4 * np.sqrt(6_000 * 2.2))
    gaps = np.diff(trace.arrivals[first])
    assert gaps.std() / gaps.mean() == pytest.approx(2.0, rel=0.06)  # 1/sqrt(0.25)
    gaps = np.diff(trace.arrivals[second])
    assert gaps.std() / gaps.mean() == pytest.approx(1.462, rel=0.06)  # Weibull of shape 0.7
    assert trace.input_len[first].mean() == pytest.approx(250, rel=0.02)
    assert set(trace.input_len[second]) == {700, 900}
    assert trace.output_len[second].mean() == pytest.approx(30, rel=0.03)


def test_same_seed_same_trace_and_spans_start_at_zero(tmp_path):
    one = client(tmp_path)
    left, right = generate(one, 1300, 100, seed=4), generate(one, 1300, 100, seed=4)
    assert (left.arrivals == right.arrivals).all()
    assert 0 <= left.arrivals[0] < left.arrivals[-1] < 100
    assert len(generate(one, 1300, 100, seed=5)) != 0
    with pytest.raises(InputError, match="no requests in this span"):
        generate(one, 700, 100)
    with pytest.raises(InputError, match="is none"):
        generate(one, 0, -1)


def test_a_folder_of_clients_is_a_trace_of_a_problem(tmp_path):
    """Its busiest hour: here the second, in which the other client sends; one request in 0.1 s."""
    service = tmp_path / "service"
    service.mkdir()
    client(service)
    late = "0,0,0,,0,0\n3600,10.0,1.0,Gamma,1.0,0.1\n7200,0,0,,0,0\n"
    (service / "d-trace.csv").write_text(late)
    (service / "d-dataset.json").write_text(json.dumps(DATA))
    windows = WINDOWS.replace("20.0", "2.0").replace("1200,10.0", "1200,1.0") + "3000,0,0,,0,0\n"
    (service / "c-trace.csv").write_text(windows)
    trace = read_recorded(service)
    assert len(trace) == pytest.approx(36_000, abs=4 * np.sqrt(36_000))
    assert "service (servegen, 1 clients)" in trace.source
    assert (read_recorded(service).arrivals == trace.arrivals).all()
    workload = bs.Workload(trace=str(service))
    assert lower_lengths(workload).inputs.size == len(trace)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty: 0 files"):
        read_recorded(empty)
    (empty / "e-trace.csv").write_text("0,0,0,,0,0\n")
    (empty / "e-dataset.json").write_text(json.dumps(DATA))
    with pytest.raises(DataError, match="no client sends anything"):
        read_recorded(empty)


def test_superposition_is_sorted_and_keeps_pairs(tmp_path):
    one = client(tmp_path)
    parts = [generate(one, 0, 60, seed=s) for s in (1, 2)]
    both = superposed(parts)
    assert len(both) == sum(len(p) for p in parts)
    assert (np.diff(both.arrivals) >= 0).all()
    pairs = {(t, i) for p in parts for t, i in zip(p.arrivals, p.input_len, strict=True)}
    assert set(zip(both.arrivals, both.input_len, strict=True)) == pairs
    ones = np.ones(2, dtype=np.int64)
    with pytest.raises(InputError, match="arrival times"):
        superposed([Trace(arrivals=None, input_len=ones, output_len=ones)])


@pytest.mark.parametrize(
    ("windows", "data", "words"),
    [
        ("0,1,1,Pareto,2,1\n", DATA, "line 1: gaps 'Pareto'"),
        ("0,1,1,Gamma\n", DATA, "line 1: 4 cells"),
        ("0,fast,1,Gamma,1,1\n", DATA, "expected numbers"),
        ("0,-1,1,Gamma,1,1\n", DATA, "negative or infinite"),
        ("0,nan,1,Gamma,1,1\n", DATA, "negative or infinite"),
        (WINDOWS, {"0": {"input_tokens": "__import__('os')"}}, "expected a histogram"),
        (WINDOWS, {"x": {}}, "expected start times"),
        (WINDOWS, {"0": {"input_tokens": "{}", "output_tokens": "{}"}}, "no histogram"),
        (WINDOWS, {"0": {"input_tokens": "{1: 0.0}", "output_tokens": "{1: 1}"}}, "add up to 0"),
        (WINDOWS, [1], "expected the JSON"),
    ],
)  # fmt: skip
def test_refusals(tmp_path, windows, data, words):
    with pytest.raises(DataError, match=words):
        client(tmp_path, windows, data)


def test_real_client_keeps_its_rate(shared):
    folder = shared / "traces/servegen"
    busy = read_client(
        folder / "language_m-small_chunk-2-trace.csv",
        folder / "language_m-small_chunk-2-dataset.json",
    )
    expected = sum(600 * w.rate for w in busy.windows if w.start < 86_400)
    trace = generate(busy, 0, 86_400, seed=2)
    assert len(trace) == pytest.approx(expected, rel=0.1)
