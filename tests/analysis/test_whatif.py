"""What-if tables and winner's maps."""

from __future__ import annotations

import pytest

import bestserve as bs
from bestserve.analysis import sweep as sweeps
from bestserve.analysis.parameters import changed
from bestserve.analysis.sweep import TIE, Axis, families, variants
from bestserve.cli import run
from bestserve.cli.whatif import axis, scenario
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.goodput import goodput


def test_scenarios_stand_beside_the_problem_as_stated(own):
    found = bs.what_if(
        own, [{"step_time.c": "x0.5"}, {"gpus": 2, "slo.tpot": 0.05}], strategy="2m-tp1"
    )
    base, faster, other = found.records()
    assert base["scenario"] == "as stated"
    assert base["gain"] == 0.0
    assert faster["gain"] > 0.2
    assert other["scenario"] == "gpus=2, slo.tpot=0.05"
    exact = bs.goodput(own.replaced(slo=bs.SLO("ttft:1000 tpot:50")), "2m-tp1", method="analytic")
    assert other["goodput"] == pytest.approx(exact.goodput)
    assert "step_time.c=x0.5: 2m-tp1 carries" in found.explain()


def test_a_new_winner_is_named_with_what_the_former_would_carry(own):
    found = bs.what_if(own.replaced(max_num_batched_tokens=4096), {"gpus": 2})
    assert found.scenarios[1].kept is None
    assert "best before, cannot" in found.explain()


def test_what_is_infeasible_says_why(own):
    found = bs.what_if(own, {"slo.tpot": 0.001}, strategy="4m-tp1")
    assert found.scenarios[1].answer is None
    assert "nothing feasible" in found.explain()
    assert found.records()[1]["goodput"] == 0.0


def test_a_gpu_that_extends_another_is_a_scenario(real, tmp_path):
    record = tmp_path / "future.toml"
    record.write_text('extends = "h100-sxm"\n[changes]\nmemory_bandwidth = "x2"\n')
    found = bs.what_if(real, {"hardware": str(record)}, strategy="2m-tp4")
    same = bs.what_if(real, {"hardware.memory_bandwidth": "x2"}, strategy="2m-tp4")
    assert found.records()[1]["goodput"] == pytest.approx(same.records()[1]["goodput"], rel=1e-3)


@pytest.fixture(scope="module")
def swept(own):
    return bs.sweep(
        own,
        {"workload.input_len": ["x0.5", "x1.5"], "workload.output_len": [100, 400]},
        strategies=["4m-tp1", "2p2d-tp1", "1p3d-tp1"],
    )


def test_winners_of_the_map_are_those_of_full_searches(own, swept):
    from bestserve.analysis.parameters import changed

    target = own.slo.target()
    for point, winner, best, row in zip(
        swept.points(), swept.winners(), swept.best(), swept.goodput, strict=True
    ):
        problem = changed(
            own, dict(zip(("workload.input_len", "workload.output_len"), point, strict=True))
        )
        exact = {s: goodput(lower(problem).system(s), target).rate for s in swept.strategies}
        assert best == pytest.approx(max(exact.values()), rel=0.008)
        assert exact[winner] >= max(exact.values()) * 0.99
        for name, found in zip(swept.strategies, row, strict=True):
            if found is None:
                assert exact[name] <= best * (1 - TIE) * 1.005


def test_long_axes_have_the_winners_of_looking_at_all_candidates_everywhere(own, monkeypatch):
    asked = {"workload.input_len": [300, 400, 530, 700, 930, 1240, 1650, 2200, 2900, 3900, 5200]}
    names = ["4m-tp1", "2p2d-tp1", "1p3d-tp1", "3p1d-tp1"]
    looked_at, point = [], sweeps._point

    def counted(problem, order, *rest):
        looked_at.append(len(order))
        return point(problem, order, *rest)

    monkeypatch.setattr(sweeps, "_point", counted)
    some = bs.sweep(own, asked, strategies=names)
    assert len(looked_at) == 11
    assert sum(looked_at) < 11 * len(names)
    monkeypatch.setattr(sweeps, "FEW", 100)
    every = bs.sweep(own, asked, strategies=names)
    assert some.winners() == every.winners()
    assert some.tied() == every.tied()
    assert some.best() == pytest.approx(every.best(), rel=5e-3)


def test_all_candidates_are_looked_at_on_short_axes_and_at_the_ends_of_long_ones():
    assert Axis("gpus", (1, 2, 4, 8)).ends() == [0, 1, 2, 3]
    assert Axis("gpus", tuple(range(1, 21))).ends() == [0, 5, 10, 14, 19]
    unsorted = Axis("gpus", (3, 1, 2, 4, 8, 5, 9, 7, 6, 10))
    assert unsorted.ends() == list(range(10))


def test_map_has_rows_and_says_where_the_winner_changes(swept):
    rows = swept.records()
    assert len(rows) == 4
    assert list(rows[0]) == [
        "workload.input_len",
        "workload.output_len",
        "winner",
        "layout",
        "goodput",
        "ties",
    ]
    assert "wins at" in swept.explain()
    assert all(w in t for w, t in zip(swept.winners(), swept.tied(), strict=True))


def test_joblib_workers_find_the_same(own, swept):
    again = bs.sweep(
        own, {a.name: a.values for a in swept.axes}, strategies=swept.strategies, jobs=2
    )
    assert again.winners() == swept.winners()
    assert again.best() == pytest.approx(swept.best(), rel=1e-4)


def test_candidates_come_from_the_middle_and_the_ends(own):
    pair = own.replaced(gpus=2, max_num_batched_tokens=4096)
    found = bs.sweep(pair, {"slo.tpot": [0.015, 0.05]})
    tight = bs.rank(pair.replaced(slo=bs.SLO("ttft:1000 tpot:15")), verify=False).best
    assert tight.strategy in found.strategies


def test_families_and_variants_of_a_ranking(own):
    table = bs.rank(own.replaced(layouts=("collocated",)), verify=False).table
    leading = families(table, 3)
    assert leading[0] == table[0].strategy
    assert len(leading) == len(set(leading)) <= 3
    more = variants(table, 3, 8)
    assert more[: len(leading)] == leading
    assert len(more) <= 8


@pytest.mark.parametrize(
    "axes", [{}, {"a": [1], "b": [1], "c": [1]}, {"slo.tpot": []}, {"gpus": list(range(1, 10_002))}]
)
def test_sweeps_have_one_or_two_axes_and_a_bound(own, axes):
    with pytest.raises(InputError, match="one or two figures"):
        bs.sweep(own, axes)


def test_what_the_command_line_writes_is_read():
    assert scenario("hardware.sms=x2, gpus=16") == {"hardware.sms": "x2", "gpus": "16"}
    assert scenario("hardware=a,b.toml,gpus=2") == {"hardware": "a,b.toml", "gpus": "2"}
    assert axis("gpus=4,8") == ("gpus", ["4", "8"])
    for wrong in ("gpus", "=4", "gpus="):
        with pytest.raises(InputError, match="write figure=value"):
            scenario(wrong)


def test_command_prints_both_tables(capsys):
    problem = ["--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "2"]
    code = run(
        ["whatif", "2m-tp1", *problem, "--set", "hardware.memory_bandwidth=x1.5",
         "--set", "slo.tpot=20ms,slo.ttft=2s", "--sweep", "workload.input_len=500,1000"]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert code == 0
    assert "hardware.memory_bandwidth=x1.5" in out
    assert "slo.tpot=20ms, slo.ttft=2s" in out
    assert "2m-tp1 wins at 2 of 2 points" in out
    assert run(["whatif", *problem]) == 2
    assert "--set figure=value" in capsys.readouterr().err


def test_factors_of_counts_are_rounded_counts(own):
    assert changed(own, {"gpus": "x1.5"}).gpus == round(1.5 * own.gpus)
    with pytest.raises(InputError, match="needs a number"):
        changed(own, {"routing": "x2"})


def test_objectives_written_as_text_name_their_unit(own):
    assert changed(own, {"slo.tpot": "20ms"}).slo.tpot == pytest.approx(0.02)
    assert changed(own, {"slo.tpot": 0.02}).slo.tpot == 0.02
    with pytest.raises(InputError, match=r"write slo.tpot=20ms"):
        changed(own, {"slo.tpot": "20"})


def test_lengths_below_one_token_are_refused(own):
    with pytest.raises(InputError, match="the least is 1"):
        changed(own, {"workload.input_len": "0"})
