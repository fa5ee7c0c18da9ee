"""Objectives of single classes of a workload, in one pool."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import bestserve as bs
from bestserve.cli import run as command
from bestserve.errors import InfeasibleError, InputError
from bestserve.lowering import Lowered
from bestserve.simulator import simulate

STEP = bs.StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=35e-6)
CLASSES = (
    {"name": "chat", "share": 0.7, "input_len": 400, "output_len": "lognormal:150,0.6"},
    {"name": "batch", "share": 0.3, "input_len": 2000, "output_len": 60},
)


def problem(objectives: str, **slo: object) -> bs.Problem:
    return bs.Problem(
        step_time=STEP, gpus=1, kv_capacity_tokens=400_000, max_num_batched_tokens=1024,
        workload=bs.Workload(classes=CLASSES), slo=bs.SLO(objectives, **slo),
    )  # fmt: skip


def test_each_class_is_held_to_its_own():
    asked = problem("chat.tpot:14 chat.deadline:150+14 batch.e2el:1200ms@p80 ttft:1000")
    target = asked.slo.target()
    run = simulate(Lowered(asked).system("1m"), 12.0, requests=4000, reader=target.reader)
    met = run.meeting(target)
    chat = run.kept & (run.kinds == 0)
    batch = run.kept & (run.kinds == 1)
    assert chat.sum() / run.kept.sum() == pytest.approx(0.7, abs=0.02)
    assert met["chat.tpot"] == pytest.approx(np.nanmean(run.tpot[chat] <= 0.014))
    late = run.readings.lateness(0.15)[chat]
    assert met["chat.deadline"] == pytest.approx(np.mean(late <= 0))
    assert met["batch.e2el"] == pytest.approx(np.mean(run.e2el[batch] <= 1.2))
    assert met["ttft"] == pytest.approx(np.mean(run.ttft[run.kept] <= 1.0))
    assert met["joint"] < min(met["ttft"], 0.7 * met["chat.deadline"] + 0.3)
    margins = run.margins(target)
    assert set(margins) == {"ttft", "chat.tpot", "chat.deadline", "batch.e2el"}
    assert margins["batch.e2el"] == pytest.approx(met["batch.e2el"] - 0.8)


def test_goodput_holds_them_all():
    both = bs.goodput(problem("chat.tpot:20 batch.e2el:1500ms"), "1m")
    chat = bs.goodput(problem("chat.tpot:20"), "1m")
    batch = bs.goodput(problem("batch.e2el:1500ms"), "1m")
    assert both.method == "simulated"
    assert both.goodput == pytest.approx(min(chat.goodput, batch.goodput), rel=0.05)
    with pytest.raises(InfeasibleError):  # long answers of the other class cannot
        bs.goodput(problem("tpot:20 e2el:1500ms"), "1m")


def test_joint_tiers_count_requests_that_meet_all_of_their_own():
    asked = problem("chat.ttft:300 chat.tpot:20", joint=True, attainment=0.8)
    found = bs.predict(asked, "1m", request_rate=8)
    assert found.method == "simulated"
    assert set(found.attainment_by) == {"chat.joint"}
    with pytest.raises(InputError, match="objectives of chat"):
        bs.predict(asked, "1m", request_rate=8, method="analytic")


def test_classes_that_the_workload_lacks_are_named():
    with pytest.raises(InputError, match="'cat' of the workload; its classes are chat, batch"):
        problem("cat.ttft:300")
    with pytest.raises(InputError, match="it has no classes"):
        bs.Problem(step_time=STEP, workload=bs.Workload(input_len=5, output_len=5), slo="a.ttft:9")


def test_a_file_may_state_them(tmp_path, capsys):
    path = tmp_path / "two.toml"
    path.write_text(
        'gpus = 1\nmodel = "meta-llama/Llama-3.1-8B"\nhardware = "h100-sxm"\n'
        '[slo]\nttft = "1s"\n[slo.tiers.chat]\ntpot = "15ms"\n'
        '[[workload.classes]]\nname = "chat"\nshare = 0.7\ninput_len = 400\noutput_len = 100\n'
        '[[workload.classes]]\nname = "batch"\nshare = 0.3\ninput_len = 2000\noutput_len = 20\n'
    )
    code = command(["predict", "1m-tp1", "--problem", str(path), "--request-rate", "8",
                    "--format", "json"])  # fmt: skip
    answer = json.loads(capsys.readouterr().out)
    assert code == 0
    assert set(answer["attainment_by"]) == {"ttft", "chat.tpot"}
    assert command(["predict", "1m-tp1", "--problem", str(path), "--request-rate", "8",
                    "--goodput", "chat.tpot:15", "ttft:1000", "--format", "json"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["attainment_by"] == answer["attainment_by"]


def test_rank_tells_classes_apart():
    asked = bs.Problem(
        step_time=STEP, gpus=2, kv_capacity_tokens=400_000, layouts=("collocated",),
        max_num_batched_tokens=1024, workload=bs.Workload(classes=CLASSES),
        slo="chat.tpot:20 batch.e2el:1500ms",
    )  # fmt: skip
    best = bs.rank(asked).best
    assert best.method == "simulated"
    assert best.goodput == pytest.approx(bs.goodput(asked, best.strategy).goodput, rel=0.05)


def prioritised(batch: int) -> bs.Problem:
    chat, long = CLASSES
    return problem("chat.ttft:150 batch.e2el:8s").replaced(
        workload=bs.Workload(classes=(chat, long | {"priority": batch})), kv_capacity_tokens=60_000
    )


def test_whom_a_priority_passes_waits_longer():
    def ttft(batch: int) -> list[float]:
        run = simulate(Lowered(prioritised(batch)).system("1m"), 18.0, requests=4000)
        return [float(np.quantile(run.ttft[run.kept & (run.kinds == k)], 0.9)) for k in (0, 1)]

    (alike, behind), (first, last), (passed, ahead) = ttft(0), ttft(1), ttft(-1)
    assert first < 0.8 * alike < 0.65 * passed
    assert ahead < behind < last


def test_priorities_are_worth_goodput_and_simulated():
    alike, first = (bs.goodput(prioritised(p), "1m") for p in (0, 1))
    assert first.goodput > 1.1 * alike.goodput
    assert first.method == "simulated"
    without = prioritised(1).replaced(slo="ttft:1000")
    with pytest.raises(InputError, match="no formula knows priorities"):
        bs.goodput(without, "1m", method="analytic")
    assert bs.goodput(prioritised(0).replaced(slo="ttft:1000"), "1m", method="analytic").goodput > 1


def test_priorities_need_steps_that_know_who_waits():
    system = Lowered(prioritised(1)).system("1m")
    ahead = dataclasses.replace(
        system, lane=dataclasses.replace(system.lane, async_scheduling=True)
    )
    with pytest.raises(InputError, match="asynchronous scheduling"):
        simulate(ahead, 1.0, requests=10)
