"""The scripts that hold winners to runs: their questions, their rungs, their tables."""

from __future__ import annotations

from types import ModuleType

import pytest

import bestserve as bs
from bestserve.errors import InfeasibleError
from bestserve.lowering import lower
from bestserve.solvers.limits import BUDGETS, SEQS


@pytest.fixture(scope="module")
def kept(script) -> ModuleType:
    return script("validation/kept.py")


@pytest.fixture(scope="module")
def tuning(script, kept) -> ModuleType:
    script("validation/ordinary.py")
    return script("validation/tuning.py")


@pytest.fixture(scope="module")
def winners(script, kept) -> ModuleType:
    script("validation/questions.py")
    return script("validation/winners.py")


def test_ordinary_questions_are_valid_and_the_same_twice(script):
    ordinary = script("validation/ordinary.py")
    for number in range(40):
        asked = ordinary.ordinary(3, number)
        assert asked == ordinary.ordinary(3, number)
        assert str(asked.model) in ordinary.MODELS
        assert asked.slo is not None


def test_every_rung_of_every_limit_is_tried(tuning):
    strategy = bs.Strategy.parse("1p-tp2-tokens2048+2d-tp1-seqs64")
    asked = tuning.limits(strategy)
    assert asked == [(0, "max_num_batched_tokens"), (1, "max_num_seqs")]
    budgets = [s.pools[0].max_num_batched_tokens for s in tuning.rungs(strategy, *asked[0])]
    assert budgets == [None, *(b for b in BUDGETS if b != 2048)]
    seqs = [s.pools[1].max_num_seqs for s in tuning.rungs(strategy, *asked[1])]
    assert seqs == [None, *(n for n in SEQS if n != 64)]


def test_the_tables_count_what_is_off(tuning, winners):
    row = {
        "number": 1,
        "asked": "2026-12-01",
        "model": "m",
        "hardware": "h",
        "gpus": 2,
        "engine": "vllm",
        "seconds": 1.0,
        "winner": "1m",
        "goodput": 2.0,
        "found": "1m",
        "layouts": 1,
        "looks": 10,
        "failures": [],
        "regimes": ["dense"],
        "trust": "high",
        "better": "1m",
    }
    losses = [{**row, "loss": loss} for loss in (0.0, 0.01, 0.04)]
    text = tuning.table([*losses, {"number": 2, "winner": None}])
    assert "asked 2026-12-01)" in text
    assert "3 ordinary questions" in text
    assert "median 1 %" in text
    assert "more than 0.5 % in 2, more than 3 % in 1" in text
    rows = [
        {**row, "confirmed": sure, "off": off, "regret": 0.0}
        for sure, off in ((True, 0.01), (False, 0.2))
    ]
    told = winners.table(rows).splitlines()
    assert "2 with a winner, 1 of them confirmed" in told[2]
    assert next(x for x in told if x.startswith("| goodput off, confirmed")).endswith("| 1 |")
    assert next(x for x in told if x.startswith("| goodput off [%]")).endswith("| 20 |")


def test_a_study_asks_each_question_once_and_goes_on(kept, tmp_path):
    rows, asked = tmp_path / "rows.jsonl", []

    def answer(number: int) -> dict[str, object]:
        asked.append(number)
        if number == 1:
            raise InfeasibleError("does not fit")
        return {"winner": "1m"}

    assert len(kept.more(rows, answer, 2, minutes=1)) == 2
    found = kept.more(rows, answer, 4, minutes=1)
    assert asked == [0, 1, 2, 3]
    assert [row["number"] for row in found] == asked
    assert found[1]["refused"] == "does not fit"
    assert kept.more(rows, answer, 9, minutes=0) == found
    assert kept.days(found) == found[0]["asked"]


def test_rivals_that_miss_at_the_best_goodput_are_not_searched(winners):
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=2,
        workload=bs.Workload(input_len=500, output_len=20),
        slo="ttft:400 tpot:20",
    )
    near = bs.goodput(problem, "2m-tp1", method="analytic").goodput
    truth = winners.Truth(lower(problem), near)
    searched = []
    goodput = truth.goodput
    truth.goodput = lambda strategy, *rest: (
        searched.append(str(strategy)) or goodput(strategy, *rest)
    )
    two, one = (bs.Strategy.parse(name) for name in ("2m-tp1", "1m-tp1"))
    own, most, who = truth.best(two, [one])
    assert (own, who, searched) == (most, "2m-tp1", ["2m-tp1"])
    own, most, who = truth.best(one, [two])
    assert who == "2m-tp1"
    assert most > 1.5 * own
