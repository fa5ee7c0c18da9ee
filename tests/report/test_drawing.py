"""Pictures of answers: what each shows, where it goes, and what is said before the work."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import bestserve as bs
from bestserve.errors import InputError
from bestserve.reporting.drawing import charts_of, save


@pytest.fixture(scope="module")
def ranking(problem: bs.Problem) -> bs.Ranking:
    return bs.rank(problem, verify=False)


def test_the_front_of_speeds_is_what_no_strategy_beats(ranking: bs.Ranking) -> None:
    front = ranking.front()
    speeds = [(s.economics.output_per_gpu, s.economics.output_per_user) for s in front]
    assert speeds == sorted(speeds, key=lambda s: (-s[0], s[1]))
    for s in ranking.table:
        own = s.economics
        assert any(g >= own.output_per_gpu and u >= own.output_per_user for g, u in speeds)
    assert ("tokens/s per user:" in ranking.explain()) is (len(front) > 1)
    (chart, *_) = charts_of(ranking)
    assert chart.key == "speed"
    assert [row["strategy"] for row in chart.records if row["on_front"]] == [
        s.strategy for s in ranking.table if s in front
    ]


@pytest.mark.parametrize("suffix", ["html", "png", "svg", "pdf", "csv"])
def test_a_ranking_is_saved(ranking: bs.Ranking, tmp_path: Path, suffix: str) -> None:
    path = ranking.save(tmp_path / f"ranking.{suffix}")
    assert path.stat().st_size > 500
    if suffix == "csv":
        with path.open() as file:
            assert len(list(csv.DictReader(file))) == len(ranking.table)


def test_each_answer_has_its_picture(problem: bs.Problem, ranking: bs.Ranking) -> None:
    assert len(ranking.plot("pareto-ttft").data) >= 2
    changed = bs.what_if(problem, {"hardware.memory_bandwidth": "x2"}, strategy="2m-tp1")
    (bars,) = changed.plot().data
    assert list(bars.y) == ["as stated", "hardware.memory_bandwidth=x2"]
    assert list(bars.x) == [row["goodput"] for row in changed.records()]
    swept = bs.sweep(problem, {"workload.input_len": ["x0.5", "x1"]}, strategies=["2m-tp1"])
    (line,) = swept.plot().data
    assert list(line.y) == pytest.approx(swept.best())
    told = bs.sensitivity(problem, "2m-tp1")
    assert told.plot().data


def test_what_cannot_be_drawn_is_said_before_the_work(ranking: bs.Ranking, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"end it in \.html, \.png"):
        ranking.save(tmp_path / "ranking.docx")
    with pytest.raises(InputError, match="take one of speed, pareto-ttft, pareto-tpot"):
        ranking.plot("itl")
    with pytest.raises(InputError, match="2 answers are no single table"):
        save([ranking, ranking], tmp_path / "both.csv")
    with pytest.raises(InputError, match="no picture of a RankedStrategy"):
        charts_of(ranking.best)
    assert not list(tmp_path.iterdir())


def test_the_page_states_money(report) -> None:
    html = report.html()
    assert "$ per million tokens" in html
    assert "figure-speed" in html
    assert "tokens/s" in html


def test_flags_draw(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from bestserve.cli import run

    asked = ["--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "1"]
    asked += ["--input-len", "1000", "--output-len", "100", "--goodput", "ttft:1000", "tpot:50"]
    files = [tmp_path / "r.svg", tmp_path / "r.csv"]
    flags = [word for file in files for word in ("--plot", str(file))]
    assert run(["rank", *asked, "--no-verify", *flags]) == 0
    assert all(file.stat().st_size for file in files)
    assert "wrote" in capsys.readouterr().err
    drawn = tmp_path / "w.png"
    change = ["--set", "slo.tpot=100ms", "--plot", str(drawn)]
    assert run(["whatif", "1m-tp1", *asked, *change]) == 0
    assert drawn.stat().st_size
    assert run(["rank", *asked, "--plot", str(tmp_path / "r.gif")]) == 2
    assert "end it in" in capsys.readouterr().err


def test_a_page_of_pictures_runs_nothing_and_fits_phones(
    ranking: bs.Ranking, tmp_path: Path
) -> None:
    page = ranking.save(tmp_path / "ranking.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count('class="narrow"') == len(charts_of(ranking))
    assert page.count("<table") == len(charts_of(ranking))
