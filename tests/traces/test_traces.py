"""Traces: known columns, mapped columns, time, moments, and files that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bestserve.errors import DataError, InputError
from bestserve.readers.traces import Trace, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:04.5000000,100,10
2023-11-16 18:17:03.2500000,200,20
2023-11-16 18:17:05.0000000,300,0
2023-11-16 18:17:06.2500000,400,40
"""
MOONCAKE = """{"timestamp": 1000, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}
{"timestamp": 0, "input_length": 500, "output_length": 4, "hash_ids": [1]}
"""


def write(tmp_path, text, name="trace"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_azure_dates_are_sorted_and_start_at_zero(tmp_path):
    trace = read_trace(write(tmp_path, AZURE))
    np.testing.assert_allclose(trace.arrivals, [0.0, 1.25, 3.0])
    assert trace.input_len.tolist() == [200, 100, 400]
    assert trace.output_len.tolist() == [20, 10, 40]
    assert (trace.dropped, len(trace), trace.source) == (1, 3, "trace (azure-llm)")


def test_mooncake_hashes_follow_their_requests(tmp_path):
    trace = read_trace(write(tmp_path, MOONCAKE))
    np.testing.assert_allclose(trace.arrivals, [0.0, 1.0])
    assert trace.hash_ids == ((1,), (1, 2))
    assert trace.head(1).hash_ids == ((1,),)


KNOWN = {
    "burstgpt": (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,x,10,20,30,c\n7.5,x,1,2,3,c\n"
    ),
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,10,20\n2.5,1,2\n",
    "vidur-lengths": "num_prefill_tokens,num_decode_tokens,pd_ratio\n10,20,.5\n1,2,.5\n",
    "lengths": "input_length,output_length\n10,20\n1,2\n",
    "bestserve": "arrival,input_len,output_len\n1,10,20\n3.5,1,2\n",
    "bestserve-lengths": '[{"input_len": 10, "output_len": 20}, {"input_len": 1, "output_len": 2}]',
    "llmservingsim": (
        '{"arrival_time_ns": 1000000000, "input_toks": 10, "output_toks": 20}\n'
        '{"arrival_time_ns": 3500000000, "input_toks": 1, "output_toks": 2}\n'
    ),
    "qwen-bailian": (
        '{"chat_id": 1, "turn": 1, "timestamp": 0, "input_length": 10, "output_length": 20}\n'
        '{"chat_id": 1, "turn": 2, "timestamp": 2.5, "input_length": 1, "output_length": 2}\n'
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_columns(tmp_path, name):
    trace = read_trace(write(tmp_path, KNOWN[name]))
    assert trace.source == f"trace ({name})"
    assert trace.input_len.tolist() == [10, 1]
    assert trace.output_len.tolist() == [20, 2]
    if "lengths" in name:
        assert trace.arrivals is None
        assert np.isnan(trace.summary().rate)
    else:
        np.testing.assert_allclose(trace.arrivals, [0, 2.5])


def test_mapped_columns(tmp_path):
    path = write(tmp_path, "when,prompt,answer\n2000,5,6\n1000,3,4\n")
    mapping = {"arrival": "when", "input_len": "prompt", "output_len": "answer"}
    trace = read_trace(path, columns=mapping, arrival_unit="ms")
    np.testing.assert_allclose(trace.arrivals, [0, 1])
    assert trace.input_len.tolist() == [3, 5]
    assert (
        read_trace(path, columns={"input_len": "prompt", "output_len": "answer"}).arrivals is None
    )
    with pytest.raises(InputError, match="no column 'reply'"):
        read_trace(path, columns={**mapping, "output_len": "reply"})
    with pytest.raises(InputError, match="columns maps"):
        read_trace(path, columns={"inputs": "prompt"})
    with pytest.raises(InputError, match="columns maps"):
        read_trace(path, columns=mapping, arrival_unit="fortnights")


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    path = tmp_path / "t.parquet"
    parquet.write_table(
        pa.table({"arrival": [0.0, 2.0], "input_len": [3, 4], "output_len": [5, 6], "x": [0, 0]}),
        path,
    )
    trace = read_trace(path)
    np.testing.assert_allclose(trace.arrivals, [0, 2])
    assert trace.output_len.tolist() == [5, 6]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t\.parquet: not readable parquet"):
        read_trace(path)


def test_summary_against_numpy():
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.gamma(0.5, 4.0, size=20_000))
    inputs = rng.integers(1, 1000, size=20_000)
    trace = Trace(arrivals=arrivals - arrivals[0], input_len=inputs, output_len=2 * inputs)
    found = trace.summary()
    assert found.rate == pytest.approx(0.5, rel=0.05)  # mean gap 2 s
    assert found.burstiness == pytest.approx(0.5, rel=0.05)  # the gamma shape
    assert found.correlation == pytest.approx(1.0)
    assert found.input_cv == pytest.approx(inputs.std() / inputs.mean())
    assert found.output_mean == pytest.approx(2 * inputs.mean())


def test_scaling_keeps_the_burstiness():
    arrivals = np.array([0.0, 1.0, 1.5, 6.0])
    ones = np.ones(4, dtype=np.int64)
    trace = Trace(arrivals=arrivals, input_len=ones, output_len=ones)
    faster = trace.scaled(5.0)
    assert faster.summary().rate == pytest.approx(5.0)
    assert faster.summary().burstiness == pytest.approx(trace.summary().burstiness)
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="positive number"):
            trace.scaled(rate)
    with pytest.raises(InputError, match="no arrival times"):
        Trace(arrivals=None, input_len=ones, output_len=ones).scaled(1.0)
    with pytest.raises(InputError, match="at least 1"):
        trace.head(0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no known trace"),
        ("arrival,input_len,output_len\n", "no request with tokens"),
        ("arrival,input_len,output_len\n0,0,0\n", "no request with tokens"),
        ("arrival,input_len,output_len\n0,1.5,2\n", "record 2: input_len is '1.5'"),
        ("arrival,input_len,output_len\n0,-1,2\n", "record 2: input_len is '-1'"),
        ("arrival,input_len,output_len\n0,1,1e300\n", "record 2: output_len"),
        ("arrival,input_len,output_len\nnan,1,2\n", "record 2: arrival is 'nan'"),
        ("arrival,input_len,output_len\n-4,1,2\n", "negative arrival time -4 s"),
        ("arrival,input_len,output_len\n0,1\n", "line 2: 2 cells"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "expected a date"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nNaT,1,2\n", "expected a date"),
        (MOONCAKE.replace("[1]", '["a"]'), "hash_ids is ['a']"),
        (MOONCAKE.replace(', "hash_ids": [1]', ""), "hash_ids is missing"),
        (MOONCAKE + "5\n", "record 3: expected an object"),
        (MOONCAKE + '{"timest', "line 3: not valid JSON"),
        ("input_length: 4\n", "a trace is CSV"),
    ],
)
def test_refusals_are_one_line(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        read_trace(write(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_traces_are_read_or_refused(tmp_path, data):
    raw = bytearray(data.draw(st.sampled_from([AZURE, MOONCAKE])).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 9))] = data.draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"NaN", b"1e99", b"-", b"[", b","]))
        )
    path = tmp_path / "trace"
    path.write_bytes(bytes(raw))
    message, trace = "", None
    try:
        trace = read_trace(path)
    except DataError as error:
        message = str(error)
    assert "\n" not in message
    if trace is not None:
        assert len(trace) == len(trace.output_len) >= 1
        assert trace.input_len.min() >= 1
        assert trace.arrivals is None or (np.diff(trace.arrivals) >= 0).all()


def test_azure_2023_and_its_vidur_copy_are_the_same(shared):
    folder = shared / "traces"
    for name in ("code", "conv"):
        azure = read_trace(folder / f"azure_llm_2023/AzureLLMInferenceTrace_{name}.csv")
        vidur = read_trace(folder / f"vidur_processed_traces/splitwise_{name}.csv")
        np.testing.assert_allclose(azure.arrivals, vidur.arrivals, atol=1e-6)
        assert (azure.input_len == vidur.input_len).all()
        assert (azure.output_len == vidur.output_len).all()


def test_mooncake_trace_reuses_prefixes(shared):
    trace = read_trace(shared / "traces/mooncake/conversation_trace.jsonl")
    assert len(trace) == 12_031
    blocks = [block for hashes in trace.hash_ids for block in hashes]
    assert len(set(blocks)) < 0.7 * len(blocks)
    # 512-token blocks
    assert all(len(h) == -(-n // 512) for h, n in zip(trace.hash_ids, trace.input_len, strict=True))


def test_mlperf_lengths_match_the_logs(shared):
    folder = shared / "traces/length_distributions"
    assert read_trace(
        folder / "mlperf-data_summaries_llama2-70b-99.csv"
    ).summary().input_mean == pytest.approx(222.3, abs=0.1)
    assert len(read_trace(folder / "mlperf-data_summaries_mixtral-8x7b.csv")) == 15_000


def test_json_written_by_hand_round_trips(tmp_path):
    records = [{"arrival": t, "input_len": i, "output_len": 2} for t, i in ((0.5, 3), (0.75, 4))]
    trace = read_trace(write(tmp_path, json.dumps(records)), max_requests=1)
    assert (len(trace), trace.input_len[0], trace.arrivals[0]) == (1, 3, 0.0)
