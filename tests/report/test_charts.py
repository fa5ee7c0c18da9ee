"""The data of every figure, and that both renderers draw all of it."""

from __future__ import annotations

import csv
import json
import math

import pytest

import bestserve as bs
from bestserve.analysis.sweep import Axis, Sweep
from bestserve.reporting.chart import PALETTE, Chart, Series, ink
from bestserve.reporting.data import crossing, map_chart
from bestserve.reporting.matplotlib_charts import save_figures
from bestserve.reporting.plotly_charts import figure, log_ticks, script_json

KEYS = {
    "pareto-ttft", "pareto-tpot", "ttft-curve", "tpot-curve", "ttft-waterfall", "tpot-waterfall",
    "tornado", "winner-map", "sobol", "speed",
}  # fmt: skip


def chart(report, key) -> Chart:
    return report.content.chart(key)


def test_every_figure_is_there_with_words_and_data(report):
    assert {c.key for c in report.content.charts} == KEYS
    for each in report.content.charts:
        assert each.summary.endswith(".")
        assert each.title
        assert each.records
        json.dumps(figure(each), allow_nan=False)


def test_pareto_front_is_the_ranking_s(report):
    for metric in ("ttft", "tpot"):
        found = chart(report, f"pareto-{metric}")
        front = {s.strategy for s in report.content.ranking.pareto(metric)}
        assert {r["strategy"] for r in found.records if r["on_front"]} == front
        (line,) = [s for s in found.series if s.joined]
        assert list(line.x) == sorted(line.x)
        assert list(line.y) == sorted(line.y)


def test_curves_cross_the_objective_at_the_goodput(report, problem):
    best = report.content.ranking.best
    rates = []
    for metric, limit in (("ttft", 1000.0), ("tpot", 30.0)):
        (line,) = [s for s in chart(report, f"{metric}-curve").series if s.name == best.strategy]
        rates.append(crossing(list(zip(line.x, line.y, strict=True)), limit))
        assert chart(report, f"{metric}-curve").limits[0].value == pytest.approx(limit)
    assert min(rates) == pytest.approx(best.goodput, rel=0.05)


def test_crossing_interpolates_and_knows_the_ends():
    points = [(1.0, 10.0), (2.0, 20.0), (3.0, 40.0)]
    assert crossing(points, 30.0) == 2.5
    assert crossing(points, 5.0) == 0.0
    assert crossing(points, 50.0) == 3.0
    assert crossing([], 5.0) == 0.0


def test_logarithmic_ticks_are_round_and_enclose_the_data():
    assert log_ticks([30.0, 400.0]) == [20.0, 50.0, 100.0, 200.0, 500.0]
    assert log_ticks([0.15]) == [0.1, 0.2]
    assert log_ticks([]) == []


def test_waterfalls_sum_to_the_latency_of_the_best(report):
    best = report.content.ranking.best
    for metric in ("ttft", "tpot"):
        (bars,) = chart(report, f"{metric}-waterfall").series
        # The ranking found the goodput within its tolerance, the explanation searched again.
        assert sum(bars.x) == pytest.approx(getattr(best, metric) * 1e3, rel=0.02)


def test_tornado_is_ordered_and_matches_the_sensitivity(report):
    (bars,) = chart(report, "tornado").series
    sizes = [abs(x) for x in bars.x]
    assert sizes == sorted(sizes, reverse=True)
    assert bars.x[0] == report.content.sensitivity.of(bars.y[0]).goodput


def test_map_has_one_cell_a_point_and_a_legend_of_winners(report):
    found = chart(report, "winner-map")
    drawn = figure(found)
    cells = [z for trace in drawn["data"] for line in trace["z"] for z in line if z is not None]
    assert len(cells) == len(found.records) == 4
    assert len(drawn["layout"]["annotations"]) == 4
    assert set(found.categories) == {r["winner"] for r in found.records}


def test_a_sweep_of_one_figure_is_drawn_as_lines(problem):
    swept = Sweep(
        problem, (Axis("slo.tpot", (0.02, 0.03)),), ("1m-tp1", "2m-tp1"), ((5.0, None), (6.0, 5.95))
    )
    found = map_chart(swept)
    assert found.kind == "lines"
    assert [len(s.x) for s in found.series] == [2, 1]


def test_what_nothing_can_serve_is_a_category_of_its_own(problem):
    axes = (Axis("slo.tpot", (0.02, 0.03)), Axis("gpus", (1, 2)))
    swept = Sweep(problem, axes, ("1m-tp1",), ((0.0,), (1.0,), (0.0,), (2.0,)))
    found = map_chart(swept)
    assert found.categories == ("none feasible", "1m-tp1")
    assert len(figure(found)["data"]) == 2


def test_text_on_every_colour_is_readable():
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        lin = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * lin[0] + 0.7152 * lin[1] + 0.0722 * lin[2]

    for colour in PALETTE:
        pair = sorted((luminance(colour) + 0.05, luminance(ink(colour)) + 0.05))
        assert pair[1] / pair[0] >= 4.5, colour  # WCAG 2.2 AA


def test_json_in_the_page_cannot_end_its_script():
    text = script_json({"name": "</script><script>alert(1)</script>&<!--"})
    assert "<" not in text
    assert json.loads(text)["name"].startswith("</script>")
    with pytest.raises(ValueError, match="JSON"):
        script_json(math.nan)


def test_names_with_markup_stay_text_in_figures():
    evil = Chart(
        key="k", title="t", summary="s.", kind="lines", x_label="<b>x</b>", y_label="",
        series=(Series("<img src=x onerror=alert(1)>", x=(1.0,), y=(1.0,)),), records=(),
    )  # fmt: skip
    drawn = json.dumps(figure(evil))
    assert "<img" not in drawn
    assert "<b>" not in drawn


def test_figures_for_papers_come_with_their_data(report, tmp_path):
    written = report.figures(tmp_path)
    assert {p.name for p in written} == {f"{k}.{s}" for k in KEYS for s in ("png", "svg", "csv")}
    for path in written:
        assert path.stat().st_size > 100
    for key in KEYS:
        assert (tmp_path / f"{key}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        with (tmp_path / f"{key}.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(chart(report, key).records)


def test_the_same_report_gives_the_same_files(report, tmp_path):
    some = tuple(c for c in report.content.charts if c.key in ("tornado", "winner-map"))
    first, second = save_figures(some, tmp_path / "a"), save_figures(some, tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        if one.suffix != ".svg":  # clip paths in SVG are numbered anew
            assert one.read_bytes() == other.read_bytes()


def test_own_coefficients_leave_out_what_cannot_be_said():
    own = bs.Problem(
        step_time=bs.StepTime(w=6e-3, c=26e-6, e=0, a=0.35e-9, k=49e-9),
        kv_capacity_tokens=200_000,
        gpus=1,
        max_num_batched_tokens=4096,
        workload=bs.Workload(input_len=500, output_len=bs.Geometric(100)),
        slo=bs.SLO("ttft:1000 tpot:25"),
    )
    found = bs.report(own, axes={"slo.tpot": [0.02, 0.03]}, verify=False)
    assert found.content.uncertainty is None
    assert "standard errors" in found.content.left_out[0]
    page = found.html()
    assert "standard errors" in page
    assert "StepTime(w=0.006" in page
    assert 'id="plot-sobol"' not in page
