"""Loads: what users state and what was recorded, in windows."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bestserve as bs
from bestserve.errors import DataError, InputError
from bestserve.fleet.schedule.demand import streams_of
from bestserve.fleet.schedule.reading import load_of, read_table
from bestserve.fleet.schedule.recordings import windows_of, windows_of_clients
from bestserve.readers.traces import Trace

PLAIN = bs.Workload(input_len=10, output_len=10)
MIXED = bs.Workload(
    classes=(
        bs.RequestClass(name="chat", share=0.5, input_len=100, output_len=200),
        bs.RequestClass(name="code", share=0.5, input_len=1000, output_len=20),
    )
)


def read(folder, text, workload=PLAIN):
    (folder / "x.csv").write_text(text)
    return load_of(read_table(folder / "x.csv"), workload)


def mean(lengths):
    return float(lengths.inputs @ lengths.input_weights)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("start,rate\n0,1\n60,1\n", "x.csv: lacks request_rate, and has unknown 'rate'"),
        ("start,request_rate,color\n0,1,red\n60,1,red\n", "unknown 'color'"),
        ("start,request_rat\n0,1\n60,1\n", "nearest: request_rate"),
        ("begin,request_rate\n0,1\n60,1\n", "lacks start"),
        ("start,request_rate\n0,1\n", "at least two windows"),
        ("start,request_rate\n0,1\n60,-1\n", "line 3: request_rate = '-1'"),
        ("start,request_rate\n0,1\n60\n", "line 3: request_rate = ''"),
        ("start,request_rate\n60,1\n0,1\n", "in order"),
        ("start,request_rate\n0,1,7\n60,1\n", "line 2: more cells than the header"),
        ("start,request_rate\nnoon,1\n0,1\n", "'noon' is no time"),
        ("start,request_rate,input_len,output_len\n0,1,5,\n60,1,5,5\n", "both input_len"),
        ("start,request_rate,input_len,output_len\n0,1,-5,5\n60,1,5,5\n", "lengths"),
        ("", "lacks start"),
        ("start;request_rate\n0;1\n60;1\n", "separate columns by commas"),
        ("start,request_rate,request_rate\n0,1,2\n60,1,2\n", "'request_rate' appears twice"),
        ("start,request_rate\n22:00,1\n23:00,2\n00:00,1\n", "go on counting .24:00."),
        ("start,request_rate\n10:75,1\n12:00,2\n", "'10:75' is no time"),
        ("start,request_rate\n2026-02-30,1\n2026-03-01,2\n", "'2026-02-30' is no time"),
        ("start,request_rat,input_len\n0,1,1\n60,1,1\n", "columns are 'start', 'request_rate'"),
    ],
)
def test_a_load_that_cannot_be_read_says_where(tmp_path, text, says):
    with pytest.raises(DataError, match=says):
        read(tmp_path, text)


def test_dates_are_times_and_clock_changes_take_the_hour_that_they_take(tmp_path):
    plain = "start,request_rate\r\n2026-03-29 08:00,1\r\n2026-03-29T09:30,2\r\n"
    load = read(tmp_path, plain)
    assert list(load.starts) == [8 * 3600.0, 9.5 * 3600.0]
    spring = "start,request_rate\n2026-03-29T01:00+01:00,1\n2026-03-29T03:00+02:00,2\n"
    load = read(tmp_path, spring)
    assert list(load.starts) == [3600.0, 7200.0]
    assert list(load.durations) == [3600.0, 3600.0]
    autumn = "start,request_rate\n2026-10-25T02:00+02:00,1\n2026-10-25T02:00+01:00,2\n"
    assert list(read(tmp_path, autumn).durations) == [3600.0, 3600.0]
    with pytest.raises(DataError, match="offset where clocks change"):
        read(tmp_path, autumn.replace("+02:00", "").replace("+01:00", ""))


def test_windows_have_lengths_of_their_own_or_the_problems(tmp_path):
    load = read(
        tmp_path,
        "start,request_rate,input_len,output_len\n06:00,1,,\n07:00,2,100,10\n08:00,3,,\n",
    )
    assert load.kinds == [0, 1, 0]
    assert list(load.durations) == [3600.0] * 3
    assert list(load.starts) == [6 * 3600.0, 7 * 3600.0, 8 * 3600.0]
    assert mean(load.lengths[1]) == pytest.approx(100)


def test_rows_read_as_their_file_does(tmp_path):
    (tmp_path / "x.csv").write_text("start,request_rate\n0,1\n60,2\n")
    table = read_table(tmp_path / "x.csv")
    again = read_table(json.loads(json.dumps(table.rows)))
    assert np.array_equal(again.rates("request_rate"), table.rates("request_rate"))


def test_a_rate_of_each_class_makes_the_mix_of_each_window(tmp_path):
    load = read(tmp_path, "start,chat,code\n0,1,3\n60,2,2\n120,1.01,3\n180,0,0\n", MIXED)
    assert load.rates == pytest.approx([4, 4, 4.01, 0])
    assert load.kinds[0] == load.kinds[2] != load.kinds[1]
    assert mean(load.lengths[load.kinds[0]]) == pytest.approx(0.25 * 100 + 0.75 * 1000)
    alone = read(tmp_path, "start,chat\n0,1\n60,2\n", MIXED)
    assert mean(alone.lengths[0]) == pytest.approx(100)
    whole = read(tmp_path, "start,request_rate\n0,1\n60,2\n", MIXED)
    assert mean(whole.lengths[0]) == pytest.approx(550)


def test_a_peak_rate_scales_and_the_last_part_is_planned(tmp_path):
    (tmp_path / "x.csv").write_text("start,request_rate\n0,1\n3600,2\n7200,4\n")
    problem = bs.Problem(model="llama-3.1-8b", hardware="h100-sxm", workload=PLAIN)
    options = bs.ScheduleOptions(peak_rate=40, last=7200)
    (stream,) = streams_of(problem, tmp_path / "x.csv", options)
    assert list(stream.load.rates) == [20, 40]
    assert list(stream.history.rates) == [10, 20, 40]
    assert stream.load.windows[0].start == 3600


def test_a_trace_is_cut_and_replayed():
    rng = np.random.default_rng(0)
    trace = Trace(
        arrivals=np.sort(rng.uniform(0, 610, 6000)),
        input_len=np.where(np.arange(6000) < 3000, 100, 300),
        output_len=np.full(6000, 20),
        source="x",
    )
    cut = windows_of(trace, 60.0)
    assert len(cut.windows) == 10
    assert cut.rates == pytest.approx(np.full(10, 10.0), rel=0.3)
    assert cut.kinds[0] != cut.kinds[-1]
    assert cut.recorded.times.size == sum(round(w.rate * w.duration) for w in cut.windows)
    last = cut.last(2)
    assert set(last.recorded.window) == {0, 1}
    assert last.recorded.times.min() >= last.windows[0].start
    assert cut.scaled(2.0).recorded is None
    with pytest.raises(InputError, match="between 2 and"):
        windows_of(trace, 1000.0)


def test_clients_of_servegen_give_their_rates_and_lengths(tmp_path):
    for name, rates in (("a", (2.0, 4.0)), ("b", (6.0, 0.0))):
        rows = [f"{600 * i},{r},1.0,Gamma,1.0,1.0" for i, r in enumerate(rates)]
        (tmp_path / f"{name}-trace.csv").write_text("\n".join(rows) + "\n")
        length = 100 if name == "a" else 1000
        law = {"input_tokens": f"{{{length}: 1.0}}", "output_tokens": "{10: 0.5, 30: 0.5}"}
        (tmp_path / f"{name}-dataset.json").write_text(json.dumps({"0": law}))
    load = windows_of_clients(tmp_path, 300.0)
    assert load.rates == pytest.approx([8, 8, 4, 4])
    assert load.kinds == [0, 0, 1, 1]
    assert mean(load.lengths[0]) == pytest.approx((2 * 100 + 6 * 1000) / 8)
    assert mean(load.lengths[1]) == pytest.approx(100)
    outputs = load.lengths[1]
    assert float(outputs.outputs @ outputs.output_weights) == pytest.approx(20)


def test_a_fleet_takes_a_rate_for_each_class(tmp_path):
    chat = {"name": "chat", "input_len": 100, "output_len": 10, "slo": "ttft:1000 tpot:50"}
    code = {**chat, "name": "code", "input_len": 500, "rate": 2.0}
    fast = {**chat, "name": "fast", "slo": "ttft:100 tpot:20", "rate": 1.0}
    fleet = bs.Fleet(
        gpus=({"hardware": "h100-sxm", "count": 8},),
        models=(
            {"model": "meta-llama/Llama-3.1-8B", "classes": ({**chat, "rate": 1.0}, code, fast)},
            {"model": "Qwen/Qwen3-8B", "classes": ({**chat, "rate": 1.0},)},
        ),
    )
    head = "start,meta-llama/Llama-3.1-8B/chat,Qwen/Qwen3-8B/chat\n"
    (tmp_path / "x.csv").write_text(f"{head}0,2,5\n60,6,5\n")
    first, second, third = streams_of(fleet, tmp_path / "x.csv", bs.ScheduleOptions())
    assert first.name == "meta-llama/Llama-3.1-8B/chat+code"
    assert list(first.load.rates) == [4, 8]
    assert mean(first.load.lengths[first.load.kinds[1]]) == pytest.approx(200)
    assert (second.name, list(second.load.rates)) == ("fast", [1, 1])
    assert list(third.load.rates) == [5, 5]
    (tmp_path / "x.csv").write_text("start,cod\n0,2\n60,6\n")
    with pytest.raises(DataError, match=r"unknown 'cod'; nearest: code"):
        streams_of(fleet, tmp_path / "x.csv", bs.ScheduleOptions())
    with pytest.raises(InputError, match="a load is missing"):
        streams_of(fleet, None, bs.ScheduleOptions())
