"""Instances that are shared: hybrids of both kinds, and pools of classes with objectives apart."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bestserve as bs
from bestserve.cli import main
from bestserve.cli.allocate import read_fleet
from bestserve.errors import InputError
from bestserve.fleet.schedule.answer import case_of
from bestserve.fleet.schedule.playing import Manner, by_window, draw, play
from bestserve.models.goodput import goodput

HYBRID = "1p-tp1-tokens2048+2d-tp1-tokens256-prefill50"

FLEET = """
[[gpus]]
hardware = "h100-sxm"
count = 32

[[models]]
model = "meta-llama/Llama-3.1-8B"
tensor_parallel_sizes = [1]
layouts = ["LAYOUT"]

[[models.classes]]
name = "chat"
input_len = "lognormal:800,1"
output_len = "lognormal:200,1"
slo = "ttft:500 tpot:30"
rate = 5

[[models.classes]]
name = "batch"
input_len = "lognormal:6000,0.5"
output_len = "lognormal:400,1"
slo = "ttft:10000 tpot:100"
rate = 2
"""

ROWS = [
    {"start": "0", "chat": "8", "batch": "4"},
    {"start": "300", "chat": "25", "batch": "10"},
    {"start": "600", "chat": "12", "batch": "0"},
]


def problem(**changes):
    given = {
        "model": "meta-llama/Llama-3.1-8B",
        "hardware": "h100-sxm",
        "gpus": 24,
        "workload": bs.Workload(input_len="lognormal:1000,1", output_len="lognormal:250,1"),
        "slo": "ttft:1000 tpot:50",
    }
    return bs.Problem(**(given | changes))


def fleet(folder, layout="collocated"):
    (folder / "fleet.toml").write_text(FLEET.replace("LAYOUT", layout))
    return folder / "fleet.toml"


def test_hybrids_come_and_go_as_units_and_hold():
    rows = [{"start": str(s), "request_rate": r} for s, r in ((0, "20"), (300, "90"), (600, "40"))]
    options = bs.ScheduleOptions(headroom=0.05, start_time=60)
    found = bs.schedule(problem(), rows, strategy=HYBRID, options=options)
    (pool,) = found.pools
    assert (pool.role, pool.name, pool.gpus, pool.strategy) == ("h", "hybrid", 3, HYBRID)
    alone = goodput(case_of(problem(), rows, HYBRID, options).offers[0].deployment.pools[0].unit,
                    problem().slo.target())  # fmt: skip
    assert pool.rate_per_instance == pytest.approx(alone.rate)
    needed = [int(np.ceil(1.05 * r / alone.rate)) for r in (20, 90, 40)]
    assert [w.instances["hybrid"] for w in found.windows] == needed
    assert found.windows[1].gpus == 3 * needed[1] > found.windows[0].gpus
    assert all(w.holds for w in found.windows), found.explain()


def test_a_hybrid_of_no_local_prompts_is_the_split_it_is_made_of():
    rows = [{"start": str(s), "request_rate": "30"} for s in (0, 600)]
    options = bs.ScheduleOptions(start_time=0)
    shares = []
    for strategy, count in (("1p-tp1+2d-tp1-prefill0", [[3, 3]]), ("1p2d-tp1", [[3, 3], [6, 6]])):
        case = case_of(problem(), rows, strategy, options)
        load, one = case.streams[0].load, case.offers[0].deployment
        arrived = draw(load, 1)
        found = play(one, load, np.array(count), arrived, Manner())
        played = by_window(arrived, 2, found, one.target)
        shares.append([played.met[name].mean() for name in ("ttft", "tpot")])
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_what_hybrids_cannot_do_in_a_schedule_is_said():
    rows = [{"start": "0", "request_rate": "20"}, {"start": "300", "request_rate": "90"}]
    with pytest.raises(InputError, match="-queue and -flow"):
        bs.schedule(problem(), rows, strategy="1p-tp1+2d-tp1-prefill50-flow80")
    moving = bs.ScheduleOptions(kv="moves")
    with pytest.raises(InputError, match="leave kv at stays"):
        bs.schedule(problem(), rows, strategy=HYBRID, options=moving)


@pytest.mark.parametrize("layout", ["collocated", "disaggregated"])
def test_classes_of_different_objectives_share_a_pool(tmp_path, layout):
    asked = read_fleet(fleet(tmp_path, layout))
    told = {}
    for pools in ("apart", "shared"):
        options = bs.ScheduleOptions(pools=pools, headroom=0.05, start_time=60)
        told[pools] = bs.schedule(asked, ROWS, options=options)
    apart, shared = told["apart"], told["shared"]
    assert {s.name for s in apart.windows[0].streams} == {"chat", "batch"}
    (stream,) = shared.windows[0].streams
    assert stream.name == "chat+batch"
    assert set(stream.met) == {"chat.ttft", "chat.tpot", "batch.ttft", "batch.tpot"}
    assert shared.target["batch.tpot"] == 0.9
    assert all(w.holds for w in shared.windows), shared.explain()
    assert shared.windows[2].streams[0].met["batch.ttft"] == 1.0  # nobody asks


def test_a_shared_instance_carries_what_goodput_says_of_its_mix(tmp_path):
    case = case_of(read_fleet(fleet(tmp_path)), ROWS, None, bs.ScheduleOptions(pools="shared"))
    shares = {"chat": 0.7, "batch": 0.3}  # of the second window, to a twentieth
    classes = case.streams[0].classes
    mix = [
        bs.RequestClass(
            name=c.name, share=shares[c.name], input_len=c.input_len, output_len=c.output_len
        )
        for c in classes
    ]
    alone = problem(
        gpus=1,
        workload=bs.Workload(classes=mix),
        slo=bs.SLO(tiers={c.name: c.slo for c in classes}),
    )
    carried = bs.goodput(alone, case.offers[0].deployment.label).goodput
    assert case.terms.capacity[0, 1] == pytest.approx(carried, rel=0.04)
    common = case_of(read_fleet(fleet(tmp_path)), ROWS, None, bs.ScheduleOptions()).streams
    assert [s.slo for s in common] == [c.slo for c in classes]
    assert case.streams[0].strictest == classes[0].slo


def test_pools_may_be_shared_from_the_command_line(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("start,chat,batch\n0,8,4\n300,25,10\n")
    words = ["--fleet", str(fleet(tmp_path)), "--load", str(tmp_path / "x.csv")]
    with pytest.raises(SystemExit) as ended:
        main(["schedule", *words, "--pools", "shared", "--no-simulate", "--format", "json"])
    answer = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert [p["stream"] for p in answer["pools"]] == ["chat+batch"]
    assert answer["asked"]["pools"] == "shared"


def test_a_problems_classes_may_have_objectives_of_their_own():
    classes = [
        bs.RequestClass(name=name, share=0.5, input_len=length, output_len=length // 4)
        for name, length in (("chat", 600), ("batch", 2000))
    ]
    asked = problem(workload=bs.Workload(classes=classes), slo="chat.ttft:300 batch.ttft:5000")
    rows = [
        {"start": "0", "chat": "10", "batch": "10"},
        {"start": "300", "chat": "30", "batch": "0"},
    ]
    options = bs.ScheduleOptions(headroom=0.05)
    found = bs.schedule(asked, rows, strategy="1m-tp1", options=options)
    assert set(found.met) == {"chat.ttft", "batch.ttft"}
    assert all(w.holds for w in found.windows), found.explain()
