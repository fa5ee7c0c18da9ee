"""Curves over the request rate: the data, the plots, and what they agree with."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json

import pytest

import bestserve as bs
from bestserve.cli import run
from bestserve.errors import InputError
from bestserve.reporting.curves import METRICS, STATISTICS

SMALL = [
    "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "2",
    "--input-len", "lognormal:1000,0.8", "--output-len", "lognormal:200,1",
    "--goodput", "ttft:500", "tpot:30",
]  # fmt: skip


@pytest.fixture(scope="module")
def problem():
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=2,
        workload=bs.Workload(input_len="lognormal:1000,0.8", output_len="lognormal:200,1"),
        slo="ttft:500 tpot:30",
    )


@pytest.fixture(scope="module")
def found(problem):
    return bs.curves(problem, "2m-tp1", points=6)


def test_points_are_predictions(problem, found):
    middle = found.points[2]
    alone = bs.predict(problem, "2m-tp1", middle.request_rate)
    assert middle == dataclasses.replace(alone, intervals={})  # a curve leaves them out


def test_points_of_a_split_service_say_what_predictions_say(problem):
    (point,) = bs.curves(problem, "1p1d-tp1", rates=[1.0]).points
    alone = bs.predict(problem, "1p1d-tp1", 1.0)
    assert point == dataclasses.replace(alone, intervals={})
    assert point.trust.reasons


def test_rows_have_every_statistic_and_rise_with_the_rate(found):
    rows = found.records()
    assert [r["request_rate"] for r in rows] == sorted(r["request_rate"] for r in rows)
    for metric in METRICS:
        for statistic in STATISTICS:
            values = [r[f"{metric}_{statistic}_ms"] for r in rows if r["status"] == "ok"]
            assert all(b > 0.98 * a for a, b in itertools.pairwise(values)), metric
    for r in rows:
        if r["status"] == "ok":
            assert r["attainment"] <= min(r["attainment_ttft"], r["attainment_tpot"]) + 1e-9


def test_attainment_crosses_the_percentile_at_the_goodput(problem):
    best = bs.goodput(problem, "2m-tp1").goodput
    at = bs.curves(problem, "2m-tp1", rates=[0.9 * best, 1.1 * best]).records()
    shares = [min(r["attainment_ttft"], r["attainment_tpot"]) for r in at]
    assert shares[0] > 0.9 > shares[1]


def test_beyond_saturation_there_is_a_status_and_no_figure(problem):
    (row,) = bs.curves(problem, "2m-tp1", rates=[1e4]).records()
    assert row["status"] == "unstable"
    assert row["ttft_mean_ms"] is None


def test_every_format_is_drawn(found, tmp_path):
    for suffix in ("html", "png", "svg", "csv"):
        file = found.save(tmp_path / f"curves.{suffix}")
        assert file.stat().st_size > 500
    with (tmp_path / "curves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found.points)
    assert {c.key for c in found.charts()} == {
        "ttft-curve", "tpot-curve", "e2el-curve", "speed-curve", "attainment-curve",
    }  # fmt: skip
    assert len(found.plot("tpot").data) == len(STATISTICS)
    with pytest.raises(InputError, match=r"end it in \.html"):
        found.save(tmp_path / "curves.docx")
    with pytest.raises(InputError, match="take one of ttft, tpot"):
        found.plot("itl")


def test_several_strategies_share_a_chart(problem):
    pair = bs.curves(problem, ["2m-tp1", "1p1d-tp1"], points=3)
    assert [s.name for s in pair.charts()[0].series] == ["2m-tp1", "1p1d-tp1"]
    assert "1p1d-tp1: saturates" in pair.explain()


@pytest.mark.parametrize(("changes", "word"), [
    ({"points": 1}, "between 2 and 1000"),
    ({"rates": [0.0]}, "positive"),
    ({"strategies": []}, "no strategy"),
])  # fmt: skip
def test_questions_without_an_answer_are_refused(problem, changes, word):
    asked = {"strategies": "2m-tp1", **changes}
    with pytest.raises(InputError, match=word):
        bs.curves(problem, **asked)


@pytest.fixture(scope="module")
def closed(problem):
    workload = bs.Workload(input_len=1000, output_len=100, max_concurrency=6)
    return problem.replaced(workload=workload, slo=None)


def test_closed_loops_are_looked_at_over_their_clients(closed):
    found = bs.curves(closed, "2m-tp1")
    rows = found.records()
    assert [r["max_concurrency"] for r in rows] == [1, 2, 4, 6]
    yields = [r["output_per_gpu"] for r in rows]
    assert yields == sorted(yields)
    first = bs.predict(
        closed.replaced(workload=closed.workload.scaled(max_concurrency=1)), "2m-tp1"
    )
    assert yields[0] == pytest.approx(first.request_rate * 100 / 2)
    assert rows[0]["output_per_user"] == pytest.approx(1 / first.tpot.mean)
    assert {c.key for c in found.charts()} == {
        "ttft-curve", "tpot-curve", "e2el-curve", "speed-curve",
    }  # fmt: skip
    assert "carries up to" in found.explain()


def test_rates_and_clients_are_not_mixed_up(problem, closed):
    with pytest.raises(InputError, match="concurrencies, not rates"):
        bs.curves(closed, "2m-tp1", rates=[1.0])
    with pytest.raises(InputError, match="set max_concurrency"):
        bs.curves(problem, "2m-tp1", concurrencies=[4])


def test_command_prints_draws_and_reruns(capsys, tmp_path):
    asked = ["curves", "2m-tp1", "--points", "3", *SMALL]
    plot = tmp_path / "curves.svg"
    assert run([*asked, "--plot", str(plot)]) == 0
    out = capsys.readouterr()
    assert "2m-tp1: saturates at" in out.out
    assert plot.exists()
    assert run([*asked, "--format", "json"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "answer.json").write_text(first)
    assert run(["rerun", str(tmp_path / "answer.json")]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(first)


def test_a_strategys_saturation_is_found_once_for_all_rates(problem, monkeypatch):
    from bestserve.answers import saturation

    asked = []
    found = saturation.sustained

    def counted(system, given):
        asked.append(system)
        return found(system, given)

    monkeypatch.setattr(saturation, "sustained", counted)
    drawn = bs.curves(problem, ["2m-tp1", "1m-tp1"], rates=[0.5, 1.0, 2.0], method="simulated")
    assert [p.method for p in drawn.points] == ["simulated"] * 6
    assert len(asked) == 2
    limits = [p.stability_limit for p in drawn.points]
    assert limits == [limits[0]] * 3 + [limits[3]] * 3
