"""Schedules: exact on small instances, honest about load, held to the simulator."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import bestserve as bs
from bestserve.cli import main
from bestserve.errors import DataError, InfeasibleError, InputError
from bestserve.fleet.schedule.load import read_load, windows_of
from bestserve.fleet.schedule.planning import (
    Terms,
    best_split,
    cheapest,
    cost,
    gpu_hours,
    served,
    splits,
    static,
    static_split,
    switching,
)
from bestserve.fleet.schedule.policies import compared, following, seasonal
from bestserve.readers.traces import Trace

FLAGS = [
    "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "8",
    "--input-len", "lognormal:1000,1", "--output-len", "lognormal:250,1",
    "--goodput", "ttft:1000", "tpot:50",
]  # fmt: skip


def terms(seed: int, windows: int = 4, **changes: object) -> Terms:
    rng = np.random.default_rng(seed)
    given = {
        "capacity": rng.uniform(1, 3, (2, windows)),
        "rates": rng.uniform(1, 6, windows),
        "durations": rng.choice([300.0, 600.0, 900.0], windows),
        "gpus": np.array([2, 4]),
        "start_time": 300.0,
    }
    return Terms(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "prices", [{}, {"price": 4.0}, {"price": 4.0, "reserved_price": 2.5}], ids=str
)
def test_cheapest_schedule_is_that_of_brute_force(seed, prices):
    asked = terms(seed, **prices)
    found = cheapest(asked)
    needed = asked.needed
    ways = itertools.product(
        *(range(needed[k, w], needed[k].max() + 1) for k in range(2) for w in range(4))
    )
    best = min(cost(asked, np.array(way).reshape(2, 4)) for way in ways)
    assert found.objective == pytest.approx(best, rel=1.1e-3)
    assert found.bound <= found.objective * (1 + 1e-9)
    assert found.gap <= 1.1e-3
    assert np.all(found.counts >= needed)


def test_constant_load_needs_no_changes():
    asked = terms(1, capacity=np.full((2, 4), 2.0), rates=np.full(4, 5.0))
    assert np.array_equal(cheapest(asked).counts, static(asked))


def test_free_starts_leave_what_each_window_needs():
    asked = terms(2, windows=12, start_time=0.0)
    assert cheapest(asked).objective == pytest.approx(gpu_hours(asked, asked.needed))


def test_more_expensive_starts_never_cost_less_and_start_less():
    free, dear = terms(3, windows=12, start_time=0.0), terms(3, windows=12, start_time=3600.0)
    few, many = cheapest(dear), cheapest(free)
    starts = [np.maximum(p.counts - np.roll(p.counts, 1, axis=1), 0).sum() for p in (few, many)]
    assert few.objective >= many.objective
    assert starts[0] <= starts[1]


def test_too_few_gpus_name_the_window():
    asked = terms(1, most_gpus=7)
    with pytest.raises(InfeasibleError, match=r"window \d of 4 needs \d+ GPUs"):
        cheapest(asked)


@pytest.mark.parametrize("seed", range(6))
def test_best_split_is_that_of_brute_force(seed):
    asked = terms(seed, switch_time=200.0)
    ways = splits(asked, 16)
    gain, loss = served(asked, ways), switching(asked, ways)
    best = max(
        sum(gain[way, w] - (loss[w, path[w - 1], way] if w else 0.0) for w, way in enumerate(path))
        for path in itertools.product(range(ways.shape[1]), repeat=4)
    )
    total = float(asked.rates @ asked.durations)
    found = best_split(asked, 16)
    assert found.carried == pytest.approx(best / total)
    assert found.carried >= static_split(asked, 16).carried


def test_reactive_is_late_when_load_rises_and_a_forecast_is_not():
    day = np.concatenate([np.full(10, 2.0), np.full(10, 20.0), np.full(4, 2.0)])
    history = np.concatenate([day, day, day])
    asked = terms(
        0,
        windows=24,
        capacity=np.full((2, 24), 2.0),
        rates=day,
        durations=np.full(24, 3600.0),
        start_time=1800.0,
    )
    policies = {p.name.partition(":")[0]: p for p in compared(asked, history, 24)}
    assert policies["reactive"].worst < 0.2
    assert policies["static"].worst == 1.0
    assert policies["forecast"].worst > policies["reactive"].worst
    assert policies["static"].gpu_hours > policies["forecast"].gpu_hours


def test_forecast_of_a_day_that_repeats_itself_is_right():
    day = 5 + 4 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    found = seasonal(np.concatenate([day, day, 1.3 * day]), 24, 23)
    assert found == pytest.approx(1.3 * day[1:])
    assert seasonal(day, 24, 24) is None


def test_known_rates_are_followed_without_a_miss_when_starts_are_instant():
    asked = terms(4, windows=8, start_time=0.0)
    assert following(asked, asked.rates, "x").worst == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("start,rate\n0,1\n", "lacks request_rate"),
        ("start,request_rate,color\n0,1,red\n", "unknown 'color'"),
        ("start,request_rate\n0,1\n", "at least two windows"),
        ("start,request_rate\n0,1\n60,-1\n", "line 3: request_rate = '-1'"),
        ("start,request_rate\n60,1\n0,1\n", "in order"),
        ("start,request_rate\nnoon,1\n0,1\n", "'noon' is no time"),
        ("start,request_rate,input_len,output_len\n0,1,5,\n60,1,5,5\n", "both input_len"),
        ("start,request_rate,input_len,output_len\n0,1,-5,5\n60,1,5,5\n", "lengths"),
    ],
)
def test_a_load_that_cannot_be_read_says_where(tmp_path, text, says):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        read_load(tmp_path / "x.csv", bs.Workload(input_len=10, output_len=10))


def test_windows_share_lengths_where_they_are_alike(tmp_path):
    (tmp_path / "x.csv").write_text(
        "start,request_rate,input_len,output_len\n00:00,1,,\n01:00,2,100,10\n02:00,3,,\n"
    )
    load = read_load(tmp_path / "x.csv", bs.Workload(input_len=10, output_len=10))
    assert load.kinds == [0, 1, 0]
    assert list(load.durations) == [3600.0] * 3
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
    with pytest.raises(InputError, match="between 2 and"):
        windows_of(trace, 1000.0)


def test_a_schedule_holds_in_simulation_where_it_has_room(tmp_path):
    (tmp_path / "x.csv").write_text("start,request_rate\n0,4\n300,22\n600,30\n900,8\n")
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=8,
        workload=bs.Workload(input_len="lognormal:1000,1", output_len="lognormal:250,1"),
        slo="ttft:1000 tpot:50",
    )
    for strategy in ("1m-tp1", "1p1d-tp1"):
        found = bs.schedule(
            problem,
            tmp_path / "x.csv",
            strategy=strategy,
            options=bs.ScheduleOptions(headroom=0.1, start_time=60.0),
        )
        assert all(w.holds for w in found.windows), found.explain()
        assert found.bound <= found.objective_value
        assert found.gpu_hours <= found.policies[0].gpu_hours
        if strategy == "1m-tp1":
            assert found.windows[2].gpus > found.windows[0].gpus
            assert found.gpu_hours < found.policies[0].gpu_hours


def test_a_window_beyond_capacity_does_not_hold_in_simulation(tmp_path):
    (tmp_path / "x.csv").write_text("start,request_rate\n0,4\n300,150\n600,4\n")
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=4,
        workload=bs.Workload(input_len="lognormal:1000,1", output_len="lognormal:250,1"),
        slo="ttft:1000 tpot:50",
    )
    with pytest.raises(InfeasibleError, match="window 2 of 3"):
        bs.schedule(problem, tmp_path / "x.csv", strategy="1m-tp1")
    found = bs.schedule(
        problem,
        tmp_path / "x.csv",
        strategy="1p1d-tp1",
        options=bs.ScheduleOptions(objective="load"),
    )
    assert found.carried < 0.9
    assert found.windows[1].holds is False


def test_command_prints_a_table_and_json(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("start,request_rate\n0,4\n300,22\n")
    words = ["schedule", *FLAGS, "--load", str(tmp_path / "x.csv"), "--strategy", "1m-tp1"]
    for form in ("table", "json"):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--format", form])
        assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "of the least possible" in out
    answer = json.loads(out[out.index("{\n") :])
    assert answer["kind"] == "schedule"
    assert [w["gpus"] for w in answer["windows"]] == sorted(w["gpus"] for w in answer["windows"])
    with pytest.raises(SystemExit) as ended:
        main(["schedule", *FLAGS])
    assert ended.value.code == 2
    assert "--load" in capsys.readouterr().err
