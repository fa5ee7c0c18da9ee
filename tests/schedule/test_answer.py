"""Answers as users get them: Python, the command, JSON and again, pictures."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest

import bestserve as bs
from bestserve.cli import main
from bestserve.errors import InfeasibleError, InputError
from bestserve.reporting.schedule import schedule_charts, schedule_strips
from bestserve.reporting.svg import svg
from bestserve.reporting.terminal import Strip, strips

FLEET = """
[[gpus]]
hardware = "h100-sxm"
count = 8
price_per_hour = 4.0
reserved_price = 2.0

[[gpus]]
hardware = "l40s"
count = 16
price_per_hour = 1.0

[[models]]
model = "meta-llama/Llama-3.1-8B"
tensor_parallel_sizes = [1]
layouts = ["collocated"]

[[models.classes]]
name = "chat"
input_len = "lognormal:800,1"
output_len = "lognormal:200,1"
slo = "ttft:1000 tpot:60"
rate = 5

[[models.classes]]
name = "code"
input_len = "lognormal:2000,1"
output_len = "lognormal:60,1"
slo = "ttft:2000 tpot:60"
rate = 2
"""


def problem(**changes):
    given = {
        "model": "meta-llama/Llama-3.1-8B",
        "hardware": "h100-sxm",
        "gpus": 8,
        "workload": bs.Workload(input_len="lognormal:1000,1", output_len="lognormal:250,1"),
        "slo": "ttft:1000 tpot:50",
    }
    return bs.Problem(**(given | changes))


def short(folder, text="start,request_rate\n0,4\n300,22\n600,30\n900,8\n"):
    (folder / "x.csv").write_text(text)
    return folder / "x.csv"


def run(capsys, *words, code=0):
    with pytest.raises(SystemExit) as ended:
        main(["schedule", *words])
    out = capsys.readouterr()
    assert ended.value.code == code, out.err
    return out


@pytest.mark.parametrize("strategy", ["1m-tp1", "1p1d-tp1"])
def test_a_schedule_holds_in_simulation_where_it_has_room(tmp_path, strategy):
    found = bs.schedule(
        problem(),
        short(tmp_path),
        strategy=strategy,
        options=bs.ScheduleOptions(headroom=0.1, start_time=60.0),
    )
    assert all(w.holds for w in found.windows), found.explain()
    assert found.bound <= found.objective_value
    assert min(found.met.values()) >= found.worst.worst.least
    static = found.policies[0]
    assert found.gpu_hours <= static.gpu_hours
    names = [p.name for p in found.policies]
    assert ("DOPD's ratio, rate known" in names) == (strategy == "1p1d-tp1")
    if strategy == "1m-tp1":
        assert found.windows[2].gpus > found.windows[0].gpus
        assert found.gpu_hours < static.gpu_hours


def test_a_window_beyond_capacity_does_not_hold_in_simulation(tmp_path):
    load = short(tmp_path, "start,request_rate\n0,4\n300,150\n600,4\n")
    with pytest.raises(InfeasibleError, match="window 2 of 3"):
        bs.schedule(problem(gpus=4), load, strategy="1m-tp1")
    options = bs.ScheduleOptions(objective="load")
    found = bs.schedule(problem(gpus=4), load, strategy="1p1d-tp1", options=options)
    assert found.carried < 0.9
    assert found.windows[1].holds is False
    with pytest.raises(InfeasibleError, match="split strategy"):
        bs.schedule(problem(gpus=4), load, strategy="1m-tp1", options=options)


def test_spares_are_counted_and_said(tmp_path):
    options = bs.ScheduleOptions(
        gpu_hours_between_failures=50, repair_time=1800, availability=0.999, simulated=False
    )
    found = bs.schedule(problem(), short(tmp_path), strategy="1m-tp1", options=options)
    assert found.spare_gpu_hours > 0
    assert found.availability >= 0.999
    assert all(w.spares >= 1 for w in found.windows)
    assert "spares take" in found.explain()


def test_a_fleet_mixes_types_and_streams(tmp_path, capsys):
    (tmp_path / "fleet.toml").write_text(FLEET)
    load = short(tmp_path, "start,chat,code\n0,3,1\n300,30,3\n600,10,6\n")
    words = ["--fleet", str(tmp_path / "fleet.toml"), "--load", str(load), "--objective", "money"]
    answer = json.loads(run(capsys, *words, "--headroom", "0.1", "--format", "json").out)
    assert {p["gpu"] for p in answer["pools"]} == {"h100-sxm", "l40s"}
    assert {p["stream"] for p in answer["pools"]} == {"chat", "code"}
    for w in answer["windows"]:
        for s in w["streams"]:
            assert s["capacity"] >= 1.1 * s["request_rate"] * (1 - 1e-6)
            assert s["holds"], w
    assert sum(w["cost"] for w in answer["windows"]) == pytest.approx(answer["cost"])
    assert answer["bound"] <= answer["objective_value"] == pytest.approx(answer["cost"])
    run(capsys, *words, "--strategy", "1m-tp1", code=2)
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    with pytest.raises(SystemExit) as ended:
        main(["rerun", str(tmp_path / "answer.json")])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["windows"] == answer["windows"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("spares = 1", "fleet's spares: leave it out; for spares state --gpu-hours"),
        ("start_price = 2.0", "fleet's start_price"),
        ('routing = "round_robin"', "fleet's routing"),
    ],
)
def test_what_a_fleet_asks_for_and_is_not_planned_is_refused(tmp_path, capsys, line, says):
    (tmp_path / "fleet.toml").write_text(f"{line}\n{FLEET}")
    load = short(tmp_path, "start,chat,code\n0,3,1\n300,30,3\n")
    words = ["--fleet", str(tmp_path / "fleet.toml"), "--load", str(load)]
    assert says in run(capsys, *words, code=2).err


def test_a_fleets_budgets_and_least_instances_hold_at_every_hour(tmp_path, capsys):
    load = short(tmp_path, "start,chat,code\n0,3,1\n300,30,3\n600,10,6\n")
    words = ["--load", str(load), "--objective", "money", "--no-simulate", "--format", "json"]

    def answer(line, instances="layouts"):
        text = f"{line}\n{FLEET}".replace("layouts", instances)
        (tmp_path / "fleet.toml").write_text(text)
        return json.loads(run(capsys, "--fleet", str(tmp_path / "fleet.toml"), *words).out)

    prices = {"h100-sxm": 4.0, "l40s": 1.0}

    def rates(found):
        gpus = {p["name"]: (p["gpus"], p["gpu"]) for p in found["pools"]}
        return [
            sum(n * gpus[p][0] * prices[gpus[p][1]] for p, n in w["instances"].items())
            for w in found["windows"]
        ]

    free = answer("")
    capped = answer(f"max_cost = {max(rates(free))}")
    assert max(rates(capped)) <= max(rates(free))
    assert capped["cost"] >= free["cost"] * (1 - 1e-3)
    few = answer("max_configurations = 2")
    assert len(few["pools"]) == 2 < len(free["pools"])
    assert few["cost"] >= free["cost"]
    many = answer("", "min_replicas = 2\nlayouts")
    assert all(n != 1 for w in many["windows"] for n in w["instances"].values())
    (tmp_path / "fleet.toml").write_text(f"max_cost = 2.0\n{FLEET}")
    told = run(capsys, "--fleet", str(tmp_path / "fleet.toml"), *words, code=3).err
    assert "a larger max_cost" in told


def test_command_prints_a_table_and_json_and_repeats_it(tmp_path, cases, capsys):
    words = [*cases.FLAGS, "--load", str(short(tmp_path)), "--strategy", "1m-tp1"]
    words += ["--min-stay", "10min", "--kv", "moves"]
    out = run(capsys, *words).out
    assert "of the least possible" in out
    assert "█" in out
    text = run(capsys, *words, "--format", "json").out
    answer = json.loads(text)
    assert answer["kind"] == "schedule"
    (tmp_path / "answer.json").write_text(text)
    (tmp_path / "x.csv").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["rerun", str(tmp_path / "answer.json")])
    assert ended.value.code == 0
    again = json.loads(capsys.readouterr().out)
    assert again["windows"] == answer["windows"]
    assert again["asked"] == answer["asked"]
    python = bs.schedule(problem(), answer["load"], strategy="1m-tp1")
    (tmp_path / "python.json").write_text(python.to_json())
    with pytest.raises(SystemExit) as ended:
        main(["rerun", str(tmp_path / "python.json")])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["gpu_hours"] == python.gpu_hours
    answer["question"]["arguments"]["load"] = "/etc/hostname"
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    with pytest.raises(SystemExit) as ended:
        main(["rerun", str(tmp_path / "answer.json")])
    assert ended.value.code == 5


def test_mistakes_are_one_line(tmp_path, cases, capsys):
    load = ["--load", str(short(tmp_path))]
    assert "--load" in run(capsys, *cases.FLAGS, code=2).err
    assert "no such file" in run(capsys, *cases.FLAGS, "--load", "absent.csv", code=5).err
    wrong = run(capsys, *cases.FLAGS, *load, "--availability", "99.9", code=2).err
    assert "between 0 and 1" in wrong
    zone = ["--controller", "keda", "--time-zone", "Europe/Pariss"]
    assert "Europe/Paris" in run(capsys, *cases.FLAGS, *load, *zone, code=2).err
    with pytest.raises(InputError, match="objective"):
        bs.ScheduleOptions(objective="cheap")


def test_a_controller_is_told_instead_of_a_reader(tmp_path, cases, capsys):
    load = ["--load", str(short(tmp_path, "start,request_rate\n00:00,4\n12:00,30\n"))]
    words = [*cases.FLAGS, *load, "--strategy", "1m-tp1", "--no-simulate", "--controller"]
    assert run(capsys, *words, "keda").out.startswith("apiVersion: keda.sh/v1alpha1\n")
    told = run(capsys, *words, "dynamo")
    assert told.out.startswith("mode: agg\n")
    assert "no schedule" in told.err


def test_csv_has_the_replicas_of_each_window(tmp_path, cases, capsys):
    words = [*cases.FLAGS, "--load", str(short(tmp_path)), "--strategy", "1p1d-tp1"]
    rows = list(csv.DictReader(io.StringIO(run(capsys, *words, "--format", "csv").out)))
    assert [r["start"] for r in rows] == ["00:00", "00:05", "00:10", "00:15"]
    assert all(int(r["prefill_instances"]) >= 1 for r in rows)


def test_pictures_show_the_schedule(tmp_path):
    found = bs.schedule(problem(price_per_hour=2.0), short(tmp_path), strategy="1p1d-tp1")
    charts = {c.key: c for c in schedule_charts(found)}
    assert list(charts) == ["load", "instances", "cost", "attainment"]
    load, capacity = charts["load"].series
    assert load.y[:4] == (4.0, 22.0, 30.0, 8.0)
    assert load.x == pytest.approx((0.0, 1 / 12, 1 / 6, 0.25, 1 / 3))
    assert all(c >= r for c, r in zip(capacity.y, load.y, strict=True))
    assert [s.name for s in charts["instances"].series] == ["prefill", "decode"]
    spent, static = charts["cost"].series
    assert spent.y[-1] == pytest.approx(found.cost)
    assert static.y[-1] == pytest.approx(found.policies[0].cost)
    assert charts["attainment"].limits[0].value == 0.9
    text = schedule_strips(found, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].startswith("load [req/s]")
    first = text.splitlines()[0].split()[2]
    assert list(dict.fromkeys(first)) == ["▂", "▆", "█", "▃"]
    assert {abs(4 * first.count(block) - len(first)) <= 4 for block in first} == {True}
    saved = found.save(tmp_path / "day.svg").read_text()
    assert saved.count("prefill") >= 1
    assert found.plot("attainment").data[0].line.shape == "hv"
    assert (tmp_path / "day.svg").stat().st_size > 1000
    drawn = svg(charts["instances"])
    path = re.search(r'<path d="M([^"]*)" stroke="currentColor" fill="none"', drawn)[1]
    corners = [[float(v) for v in p.split()] for p in path.split("L")]
    assert len(corners) == 8  # two a window: level until the next begins
    assert all(a[1] == b[1] for a, b in zip(corners[::2], corners[1::2], strict=True))


def test_blocks_are_as_long_as_their_windows_and_hide_no_dip():
    rows = [Strip("load", (4.0, 0.0), 0.0, 4.0), Strip("met", (100.0,) * 60, 90.0, 100.0)]
    load = strips(rows[:1], (3.0, 1.0), ("", ""), 40).splitlines()[0]
    assert load.count("█") == pytest.approx(3 * load.count("▁"), abs=2)
    dip = Strip("met", (*(100.0,) * 149, 90.0, *(100.0,) * 150), 90.0, 100.0)
    assert strips([dip], (600.0,) * 300, ("", ""), 80).count("▁") == 1
    peak = Strip("load", (*(0.0,) * 149, 9.0, *(0.0,) * 150), 0.0, 9.0)
    assert strips([peak], (600.0,) * 300, ("", ""), 80).count("█") == 1


def test_many_windows_are_told_by_their_changes(tmp_path):
    rates = 10 + 9 * np.sin(np.arange(48) / 48 * 2 * np.pi)
    rows = "".join(f"{1800 * i},{r:.3f}\n" for i, r in enumerate(rates))
    load = short(tmp_path, f"start,request_rate\n{rows}")
    options = bs.ScheduleOptions(simulated=False)
    found = bs.schedule(problem(), load, strategy="1m-tp1", options=options)
    told = found.stretches()
    assert len(told) < len(found.records()) == 48
    changes = sum(w.starts + w.stops > 0 for w in found.windows[1:])
    assert len(told) == changes + 1
