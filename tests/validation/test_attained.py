"""Shares within objectives: of a log, equal to the run it was written of, and of its replay."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bestserve as bs
from bestserve.cli import run as command
from bestserve.lowering import Lowered
from bestserve.models.met import shares
from bestserve.readers.tidy import RequestLog
from bestserve.simulator import simulate as simulated
from bestserve.simulator import to_vllm_detailed
from bestserve.specs.strategy import Strategy
from bestserve.validation.attained import Told, measured_shares, token_numbers

OBJECTIVES = (
    "ttft:200 tpot:12 e2el:1000+12 deadline:200+12 slack:20 stall:60 fluidity:0.95 itl:25@p95"
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run of 400 requests as vLLM's client would have saved it, and the run itself."""
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B", hardware="h100-sxm", gpus=1,
        workload=bs.Workload(input_len="lognormal:800,0.8", output_len="lognormal:150,0.8"),
        slo=bs.SLO(OBJECTIVES),
    )  # fmt: skip
    system = Lowered(problem).system(Strategy.parse("1m-tp1"))
    target = problem.slo.target()
    result = simulated(
        system, 12.0, requests=400, warmup=0.0, cooldown=0.0, record_steps=True,
        reader=target.reader,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("logs") / "run.json"
    path.write_text(json.dumps(to_vllm_detailed(result, model_id="meta-llama/Llama-3.1-8B")))
    return path, result, target


STATED = {"gpu": "h100-sxm", "engine": "vllm", "num_gpus": 1}


def test_a_log_tells_what_its_run_did(measured):
    path, result, target = measured
    found = bs.validate(path, slo=OBJECTIVES, with_intervals=False, **STATED).rows[0].attained
    want = result.meeting(target)
    assert set(want) == {"ttft", "tpot", "e2el", "deadline", "stall", "fluidity", "itl", "joint"}
    assert found.told is Told.ALL
    for name, share in want.items():
        assert found.measured[name] == pytest.approx(share, abs=3e-3), name
        assert found.predicted[name] == pytest.approx(share, abs=0.08), name
    assert 0.05 < want["joint"] < 0.95, "a share of all or none shows nothing"


def test_the_command_prints_both_shares(measured, capsys):
    path, _, _ = measured
    code = command([
        "validate", str(path), "--hardware", "h100-sxm", "--engine", "vllm", "--gpus", "1",
        "--no-intervals", "--goodput", "ttft:200", "deadline:12", "--joint", "--format", "csv",
    ])  # fmt: skip
    assert code == 0
    header, row = capsys.readouterr().out.splitlines()[:2]
    cells = dict(zip(header.split(","), row.split(","), strict=False))
    assert float(cells["all_met_predicted_percent"]) == pytest.approx(
        float(cells["all_met_measured_percent"]), abs=10
    )


def test_what_a_log_does_not_tell_is_named():
    target = bs.SLO("ttft:200 deadline:12").target()
    log = RequestLog(output_len=np.array([5, 6]), ttft=np.array([0.1, 0.3]))
    assert measured_shares(None, 0, target) == (None, Told.NO_REQUESTS)
    assert measured_shares(log, 0, target) == (None, Told.NO_MESSAGES)
    assert measured_shares(log, 0, bs.SLO("tpot:12").target()) == (None, Told.NO_END)
    found, told = measured_shares(log, 2, bs.SLO("ttft:200").target())
    assert told is Told.ALL
    assert found == {"ttft": 0.25, "joint": 0.25}, "requests without an answer meet nothing"


def test_messages_of_several_tokens_share_them_evenly():
    assert token_numbers(5, 5).tolist() == [0, 1, 2, 3, 4]
    assert token_numbers(3, 9).tolist() == [0, 4, 8]
    assert token_numbers(1, 4).tolist() == [3]
    log = RequestLog(
        output_len=np.array([9]), ttft=np.array([0.1]), e2el=np.array([0.3]),
        messages=np.array([3]), gaps=np.array([0.125, 0.125]),
    )  # fmt: skip
    found, told = measured_shares(log, 0, bs.SLO("deadline:100+31.25").target())
    assert told is Told.SEVERAL
    assert found == {"deadline": 1.0, "joint": 1.0}
    assert shares({"x": np.array([True, False])}) == {"x": 0.5}
