"""Why a strategy drafts as many tokens as it does, held to what its neighbours carry themselves."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import bestserve as bs
from bestserve.analysis.waterfall import explanation
from bestserve.answers.draft_choice import draft_choice
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.latency import latency, stability_rate

SPEC = {"method": "eagle3", "num_speculative_tokens": 5, "acceptance": 0.7}


def problem(**changes: object) -> bs.Problem:
    values: dict[str, object] = {
        "model": "meta-llama/Llama-3.1-8B", "hardware": "h100-sxm", "gpus": 1,
        "workload": {"input_len": 1000, "output_len": 250}, "slo": "ttft:1000 tpot:15",
        "speculative_config": SPEC,
    }  # fmt: skip
    return bs.Problem(**(values | changes))


def chosen(strategy: str, **changes: object):
    asked = problem(**changes)
    found = draft_choice(lower(asked), bs.Strategy.parse(strategy))
    assert found is not None
    return found, lower(asked)


def test_others_carry_what_they_carry_alone():
    found, _ = chosen("1m-tp1-spec3")
    assert set(found.carried) == {0, 2, 5}
    own = bs.goodput(problem(), "1m-tp1-spec3", method="analytic").goodput
    for drafts, share in found.carried.items():
        alone = bs.goodput(problem(), f"1m-tp1-spec{drafts}", method="analytic").goodput
        assert share == pytest.approx(alone / own, rel=0.01)
    assert "none: " in found.explain()
    assert "times as fast" in found.explain()


def test_the_rate_from_which_drafts_cost_is_where_requests_take_as_long_without():
    found, lowered = chosen("1m-tp1-spec5", speculative_config={**SPEC, "acceptance": 0.45})
    with_drafts, without = (lowered.system(f"1m-tp1-spec{n}") for n in (5, 0))
    assert found.limits == (stability_rate(with_drafts), stability_rate(without))
    assert 0 < found.costs_from < min(found.limits)

    def longer(rate: float) -> bool:
        return latency(with_drafts, rate).e2el.mean > latency(without, rate).e2el.mean

    assert not longer(0.97 * found.costs_from)
    assert longer(1.02 * found.costs_from)
    assert f"up to {found.costs_from:.3g} req/s" in found.explain()


def test_drafts_that_are_never_or_always_worth_it_are_called_so():
    never, _ = chosen("1m-tp1-spec5", speculative_config={**SPEC, "acceptance": 0.02})
    assert never.costs_from == 0
    assert "cost time at any load" in never.explain()
    always, _ = chosen("1m-tp1-spec3", speculative_config={**SPEC, "acceptance": 0.9})
    assert always.costs_from == math.inf
    assert "save time at any load" in always.explain()


def test_none_drafted_is_explained_by_what_drafts_would_do():
    found, _ = chosen("1p1d-tp1-spec0", gpus=2)
    assert found.drafts == 0
    assert found.explain().startswith("It drafts nothing; the same carries, with ")
    assert 0 not in found.carried


def test_a_table_is_told_with_its_rows():
    found, _ = chosen("1m-tp1-spectable")
    assert found.drafts == "table"
    assert "as many as suit the decodes in the step (" in found.explain()
    assert set(found.carried) == {0, 5}


def test_rank_and_explain_give_the_reason_and_nothing_where_none_is_asked_for():
    ranking = bs.rank(problem(), verify=False)
    assert ranking.drafting is not None
    said = ranking.drafting.explain()
    assert said in ranking.explain()
    assert '"costs_from"' in ranking.to_json()
    told = explanation(problem(), ranking.best.strategy)
    assert any(line.startswith("It drafts") for line in told.sentences())
    plain = bs.rank(problem(speculative_config=None), verify=False)
    assert plain.drafting is None
    assert "draft" not in plain.explain()
    assert "drafting" not in plain.content()


def test_one_draft_and_losses_read_well():
    found, _ = chosen("1m-tp1-spec3")
    slow = replace(found.told, drafts=1, token_time=2 * found.told.plain_token_time)
    said = replace(found, told=slow).explain()
    assert "1 token per decode" in said
    assert "0.50 times the speed" in said


def test_drafts_and_conversations_go_together():
    """Prefixes found in the cache shorten prompts, drafts answers: formulas and a run agree."""
    talks = bs.Workload(input_len=300, output_len=200, turns=5, think_time=10)
    law, run = (
        bs.predict(problem(workload=talks), "1m-tp1-spec3", 8.0, method=method)
        for method in ("analytic", "simulated")
    )
    assert law.tpot.mean == pytest.approx(run.tpot.mean, rel=0.02)
    assert law.tpot.p90 == pytest.approx(run.tpot.p90, rel=0.03)
    assert law.ttft.p90 == pytest.approx(run.ttft.p90, rel=0.05)
    assert law.speculation.tokens_per_step == pytest.approx(2.53, rel=0.02)


@pytest.mark.parametrize("objectives", ["ttft:1000 itl:50", "ttft:1000 deadline:5"])
def test_objectives_on_single_tokens_of_drafts_are_refused(objectives):
    with pytest.raises(InputError, match="single tokens of answers that are speculated"):
        bs.goodput(problem(slo=objectives), "1m-tp1-spec3")
