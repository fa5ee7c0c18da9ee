"""The command, and the data behind the figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bestserve.cli import run
from bestserve.cli.allocate import allocate as command
from bestserve.errors import DataError, InfeasibleError, InputError
from bestserve.fleet.allocate import allocate, demand_curve
from bestserve.fleet.result import Allocation
from bestserve.reporting.fleet import (
    comparison_chart,
    curve_chart,
    fleet_diagram,
    plotly_diagram,
)
from bestserve.specs.fleet import Fleet

FILE = """
objective = "min_cost"

[[gpus]]
hardware = "h100-sxm"
count = 4
price_per_hour = 2.5

[[gpus]]
hardware = "l40s"
count = 4
price_per_hour = 0.9

[[models]]
model = "meta-llama/Llama-3.1-8B"
name = "llama"
tensor_parallel_sizes = [1]
max_num_batched_tokens = [2048]

[[models.classes]]
name = "chat"
input_len = "lognormal(800, cv=1)"
output_len = "geometric(200)"
slo = "ttft:500 tpot:40"
rate = 8
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def answer() -> Allocation:
    import tomllib

    return allocate(Fleet(**tomllib.loads(FILE)), gap=0.0)


def test_the_command_prints_a_plan(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(str(file), certify=False) == 0
    out = capsys.readouterr().out
    assert "$/h" in out
    assert "no plan beats" in out
    assert "m-tp1-tokens2048" in out


def test_the_command_writes_json_that_holds_the_question(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(str(file), certify=False, verify=False, format="json", objective="max_headroom")
    data = json.loads(capsys.readouterr().out)
    assert data["fleet"]["objective"] == "max_headroom"
    assert data["objective"] > 1
    assert data["pools"]


def timeless(answer: str) -> dict[str, object]:
    """An answer without how long it took."""
    return {k: v for k, v in json.loads(answer).items() if not k.endswith("seconds")}


def test_an_allocation_can_be_asked_for_again(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--objective", "max_headroom", "--gap", "0.02", "--no-certify", "--no-verify"]
    assert run(["allocate", str(file), *asked, "--budgets", "2", "6", "--format", "json"]) == 0
    first = capsys.readouterr().out
    assert [point["budget"] for point in json.loads(first)["budgets"]] == [2.0, 6.0]
    path = tmp_path / "answer.json"
    path.write_text(first)
    assert run(["rerun", str(path)]) == 0
    assert timeless(capsys.readouterr().out) == timeless(first)


def test_an_allocation_written_by_python_can_be_asked_for_again(
    tmp_path: Path, answer: Allocation, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answer.json"
    path.write_text(answer.to_json())
    assert run(["rerun", str(path)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert Fleet(**again["fleet"]) == answer.fleet
    assert again["objective"] == pytest.approx(answer.objective, rel=0.02)


def test_the_answer_of_a_stranger_writes_no_page(
    tmp_path: Path, answer: Allocation, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"command": "allocate", "problem": answer.to_dict()["fleet"]}
    path = tmp_path / "answer.json"
    for arguments, word in (
        ({"page": str(tmp_path / "page.html")}, "files"),
        ({"gap": "wide"}, "gap"),
        ({"fleet": {}}, "fleet"),
    ):
        question = {"schema_version": 1, "question": {**asked, "arguments": arguments}}
        path.write_text(json.dumps(question))
        assert run(["rerun", str(path)]) == 5
        assert word in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_bad_files_are_one_line(tmp_path: Path, file: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        command(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match="objective"):
        command(str(file), objective="fastest")
    file.write_text(FILE.replace("count = 4", "count = 0"))
    with pytest.raises(InfeasibleError, match=r"no plan carries.*there are no GPUs"):
        command(str(file), certify=False)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"gap": -0.1}, "gap"),
        ({"gap": float("nan")}, "gap"),
        ({"seconds": 0.0}, "seconds"),
        ({"budgets": [1.0]}, "price_per_hour"),
        ({"demands": [1.0]}, "price_per_hour"),
        ({"page": Path("no/such/page.html")}, "no folder no/such"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work(
    file: Path, arguments: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the tables were made first")

    monkeypatch.setattr("bestserve.fleet.tabulate.buildable", work)
    file.write_text(FILE.replace("price_per_hour = 0.9", ""))
    with pytest.raises(InputError, match=word):
        command(str(file), **arguments)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("rate = 8", "rte = 8", "classes.0: 'rte' is no field of FleetClass; nearest: rate"),
        ("count = 4", "cout = 4", "gpus.0: 'cout' is no field of GpuGroup; nearest: count"),
        ('slo = "ttft:500 tpot:40"', "", "models.0: classes.0: slo: is needed"),
        ("min_cost", "min_costs", "nearest: min_cost"),
        ('[[gpus]]\nhardware = "l40s"', '[[gpu]]\nhardware = "l40s"', "nearest: gpus"),
        ("[[models.classes]]", "[[classes]]", "'classes' is no field of Fleet"),
        ("count = 4", "count = -1", r"gpus.0: count: .* \(given: -1\)"),
        ('"l40s"', '"l40ss"', "nearest: l40s"),
        ("ttft:500", "ttfb:500", "objective 'ttfb:500'"),
        ('"ttft:500 tpot:40"', "{ ttft = 500 }", 'write ttft = "500ms"'),
    ],
)
def test_slips_in_a_fleet_file_are_named_in_one_line(
    file: Path, before: str, after: str, words: str
) -> None:
    assert before in FILE
    file.write_text(FILE.replace(before, after))
    with pytest.raises(InputError, match=words) as caught:
        command(str(file))
    assert "\n" not in str(caught.value)
    assert "{" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_one_table_where_a_list_is_due_says_how_to_write_it(file: Path) -> None:
    file.write_text('[gpus]\nhardware = "l40s"\ncount = 2\n')
    with pytest.raises(InputError, match=r"gpus: must be a list \(\[\[gpus\]\] in TOML\)"):
        command(str(file))


def test_the_diagram_carries_every_class_through_every_stage(answer: Allocation) -> None:
    diagram = fleet_diagram(answer)
    for served in answer.served:
        first = [s for s in diagram.streams if diagram.nodes[s.source].column == 0]
        carried = sum(s.rate for s in first if s.request_class == served.request_class)
        assert carried == pytest.approx(served.rate, rel=1e-6)
    for i, node in enumerate(diagram.nodes):
        incoming = sum(s.rate for s in diagram.streams if s.target == i)
        outgoing = sum(s.rate for s in diagram.streams if s.source == i)
        if node.column == 2:
            assert incoming > 0
        if node.column == 1 and outgoing > 0:
            assert outgoing == pytest.approx(incoming, rel=1e-6)


def test_flows_between_pools_keep_their_totals(answer: Allocation) -> None:
    """Two prefill pools and two decode pools on one pair of GPU types."""
    from bestserve.fleet.result import PlannedFlow, PlannedPool

    def pool(role: str, gpu: str, rate: float, n: int) -> PlannedPool:
        letter = {"prefill": "p", "decode": "d"}[role]
        return PlannedPool(
            gpu, "llama", role, f"{n}{letter}-tp1", n, n, rate, rate, 1.0, {"chat": rate}, False
        )

    pools = (
        pool("prefill", "h100-sxm", 6.0, 1),
        pool("prefill", "h100-sxm", 2.0, 2),
        pool("decode", "l40s", 5.0, 3),
        pool("decode", "l40s", 3.0, 4),
    )
    flows = (PlannedFlow("h100-sxm", "l40s", "chat", 8.0, 4e9),)
    diagram = fleet_diagram(replace(answer, pools=pools, flows=flows))
    moved = [s for s in diagram.streams if s.bandwidth > 0]
    assert sum(s.rate for s in moved) == pytest.approx(8.0)
    assert sum(s.bandwidth for s in moved) == pytest.approx(4e9)
    assert sorted(s.rate for s in moved) == pytest.approx([0.75, 1.25, 2.25, 3.75])
    figure = plotly_diagram(diagram)
    assert figure["data"][0]["type"] == "sankey"
    assert len(figure["data"][0]["link"]["value"]) == len(diagram.streams)


def test_plotly_takes_the_diagram(answer: Allocation) -> None:
    objects = pytest.importorskip("plotly.graph_objects", reason="needs bestserve[report]")
    figure = objects.Figure(plotly_diagram(fleet_diagram(answer)))
    assert figure.data[0].type == "sankey"


def test_charts_say_what_they_show(answer: Allocation) -> None:
    points = [
        {"budget": 2.0, "objective": float("nan"), "bound": 0.0, "gap": 1.0, "gpus": 0.0},
        {"budget": 5.0, "objective": 1.5, "bound": 1.6, "gap": 0.06, "gpus": 4.0},
        {"budget": 9.0, "objective": 2.5, "bound": 2.5, "gap": 0.0, "gpus": 6.0},
    ]
    chart = curve_chart(points, "times the rates")
    assert chart.series[0].y == (1.5, 2.5)
    assert chart.series[1].y == (1.6, 2.5)
    assert len(chart.records) == 3
    comparison = comparison_chart(answer)
    assert comparison.series[0].y[0] == "this plan"
    assert comparison.series[0].x[0] == answer.objective
    assert len(comparison.records) == 1 + sum(u.objective is not None for u in answer.uniform)


def test_the_page_needs_no_network_and_shows_everything(answer: Allocation) -> None:
    pytest.importorskip("plotly", reason="needs bestserve[report]")
    points = [
        {"budget": 2.0, "objective": float("nan"), "bound": 0.0, "gap": 1.0, "gpus": 0.0},
        {"budget": 5.0, "objective": 1.5, "bound": 1.6, "gap": 0.06, "gpus": 4.0},
    ]
    from bestserve.reporting.fleet_page import fleet_page

    page = fleet_page(answer, budgets=points)
    assert page.startswith("<!doctype html>")
    body = page[page.rindex("</script></head>") :]
    assert "src=" not in body
    assert "sankey" in body
    for words in ("Against uniform strategies", "What a budget buys", "Simulated", "no plan beats"):
        assert words in body
    for pool in answer.pools:
        assert pool.strategy in body
    assert "NaN" not in body


def test_the_command_writes_page_and_curves(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("plotly", reason="needs bestserve[report]")
    page = tmp_path / "plan.html"
    command(
        str(file), certify=False, verify=False, budgets=[5.0, 10.0], demands=[0.5, 1.0], page=page
    )
    out = capsys.readouterr().out
    assert "budget" in out
    assert "factor" in out
    assert "What demand costs" in page.read_text(encoding="utf-8")


def test_curves_over_cost_need_prices_and_rates(file: Path) -> None:
    text = FILE.replace("price_per_hour = 0.9\n", "").replace('"min_cost"', '"max_headroom"')
    file.write_text(text)
    with pytest.raises(InputError, match="'l40s' needs price_per_hour"):
        command(str(file), certify=False, verify=False, budgets=[5.0])
    import tomllib

    shares = FILE.replace("rate = 8", "share = 1.0").replace('"min_cost"', '"max_goodput"')
    with pytest.raises(InputError, match="needs rates"):
        demand_curve(Fleet(**tomllib.loads(shares)), [1.0])


def test_costs_are_not_told_where_a_price_is_missing(file: Path) -> None:
    import tomllib

    text = FILE.replace("price_per_hour = 2.5\n", "").replace('"min_cost"', '"max_headroom"')
    answer = allocate(Fleet(**tomllib.loads(text)), verify=False, certify=False)
    assert answer.gpus_used["h100-sxm"] > 0
    assert answer.cost is None


def test_spares_may_fail_while_every_pool_carries_its_load() -> None:
    import tomllib

    text = FILE.replace('"min_cost"', '"min_cost"\nspares = 1')
    plain = allocate(Fleet(**tomllib.loads(FILE)), gap=0.0, certify=False, verify=False)
    spared = allocate(Fleet(**tomllib.loads(text)), gap=0.0, certify=False)
    assert all(pool.instances >= 2 for pool in spared.pools)
    assert spared.cost is not None
    assert plain.cost is not None
    assert spared.cost > plain.cost
    assert spared.verified  # with one instance of each pool down
    assert "with an instance down" in spared.explain()
    # One instance fewer of a pool without spares would carry no more than is planned.
    served = {c.request_class: c.rate for c in spared.served}
    assert served == pytest.approx({c.request_class: c.rate for c in plain.served})


def test_a_plan_says_tokens_and_what_a_million_cost(answer: Allocation) -> None:
    money = answer.economics
    assert money is not None
    classes = {c.name: c for model in answer.fleet.models for c in model.classes}
    tokens = sum(
        served.rate * (c.input_len.mean_tokens + c.output_len.mean_tokens)
        for served in answer.served
        for c in [classes[served.request_class]]
    )
    assert money.tokens_per_second == pytest.approx(tokens)
    assert money.usd_per_hour == pytest.approx(answer.cost)
    assert money.usd_per_million_tokens == pytest.approx(answer.cost / 3600 / tokens * 1e6)
    assert "$ per million tokens" in answer.explain()
    assert answer.to_dict()["economics"]["tokens_per_second"] == pytest.approx(tokens)
