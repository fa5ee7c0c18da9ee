"""`speculative_config`: vLLM's words, what stands beside them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import bestserve as bs
from bestserve.analysis.parameters import changed
from bestserve.catalog.acceptance import acceptance_of, default_acceptance
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.acceptance import tokens_per_step
from bestserve.specs.speculation import METHODS, SpeculativeConfig, with_acceptance
from bestserve.specs.strategy import Strategy

EAGLE3 = {"method": "eagle3", "num_speculative_tokens": 3}


def problem(**changes: Any) -> bs.Problem:
    values: dict[str, Any] = {
        "model": "meta-llama/Llama-3.1-8B",
        "hardware": "h100-sxm",
        "gpus": 2,
        "workload": bs.Workload(input_len=1000, output_len=200),
        "slo": "ttft:1000 tpot:20",
        "speculative_config": EAGLE3,
    }
    return bs.Problem(**(values | changes))


def test_it_is_read_from_text_mapping_and_nothing() -> None:
    one = problem(speculative_config='{"method": "eagle3", "num_speculative_tokens": 3}')
    assert one.speculative_config == problem().speculative_config
    assert problem(speculative_config=None).speculative_config is None
    again = bs.Problem(**one.model_dump())
    assert again.speculative_config == one.speculative_config
    assert SpeculativeConfig.parse({"model": "meta-llama/Llama-3.2-1B"}).method == "draft_model"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"method": "eagel"}, "'eagel' is not known; eagle"),
        ({"method": "draft_model"}, "needs a model"),
        ({"method": "ngram", "num_spec_tokens": 3}, "no field"),
        ({"method": "ngram", "num_speculative_tokens": 0}, "must be at least 1"),
        (
            {"method": "ngram", "num_speculative_tokens_per_batch_size": [[2, 9, 3]]},
            "ascending from 1",
        ),
        ({"method": "ngram", "acceptance": 1.5}, "must be at most 1"),
        ("[", "JSON object"),
    ],
)
def test_what_makes_no_sense_is_refused(config: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        problem(speculative_config=config)


def test_acceptance_is_stated_measured_or_assumed() -> None:
    assert with_acceptance(EAGLE3, ["0.7,0.6"]).acceptance == (0.7, 0.6)
    assert with_acceptance(EAGLE3, ["mt-bench"]).acceptance == "mt-bench"
    measured = acceptance_of(with_acceptance(EAGLE3, ["mt-bench"]))
    assert measured.kind == "measured"
    assert (
        pytest.approx(float(tokens_per_step(measured.positions(3))), abs=2e-3)
        == 1 + 0.730 + 0.521 + 0.355
    )
    with pytest.raises(InputError, match="known: mt-bench"):
        acceptance_of(with_acceptance(EAGLE3, ["sharegpt"]))
    with pytest.raises(InputError, match="give speculative_config"):
        with_acceptance(None, ["0.7"])
    for method in METHODS:
        known = default_acceptance(method)
        assert known.kind == "assumed"
        assert known.low < known.chances[0] < known.high


def test_strategies_say_how_many_drafts() -> None:
    for text in ("2m-tp1-spec3", "1p-tp1+1d-tp1-spectable", "1m-tp1-seqs64-tokens512-spec0"):
        assert str(Strategy.parse(text)) == text
    assert Strategy.parse("1m-tp1-spectable").pools[0].drafts == "table"
    assert Strategy.parse("1m-tp1").pools[0].drafts is None
    with pytest.raises(InputError, match="twice"):
        Strategy.parse("1m-tp1-spec3-spectable")
    with pytest.raises(InputError, match="is none of"):
        Strategy.parse("1m-tp1-tptable")


def test_a_lane_drafts_what_the_strategy_or_the_problem_says() -> None:
    lowered = lower(problem())

    def drafting(text: str, pool: int = 0) -> Any:
        return lowered.pool_lane(Strategy.parse(text).pools[pool])[0].speculation

    assert drafting("1m-tp1").schedule == ((1, 3),)
    assert drafting("1m-tp1-spec5").schedule == ((1, 5),)
    assert drafting("1m-tp1-spec0").most == 0
    assert len(drafting("1m-tp1-spectable").schedule) > 1
    assert drafting("1p1d-tp1", 0).most == 0
    assert drafting("1p1d-tp1", 0).draft_token > 0
    assert drafting("1p1d-tp1", 1).most == 3
    table = {"num_speculative_tokens_per_batch_size": [[1, 16, 5], [17, 64, 2], [65, 512, 0]]}
    lowered = lower(problem(speculative_config=EAGLE3 | table))
    assert drafting("1m-tp1").schedule == ((1, 5), (17, 2), (65, 0))


def test_the_drafter_takes_memory_and_time() -> None:
    drafts, plain = lower(problem()), lower(problem(speculative_config=None))
    pool = Strategy.parse("1m-tp1").pools[0]
    one, two = drafts.pool_result(pool), plain.pool_result(pool)
    assert one.plan.weights > two.plan.weights + 0.3e9
    assert one.lane.kv_capacity_tokens < two.lane.kv_capacity_tokens
    assert one.plan.kv_bytes_per_token == pytest.approx(two.plan.kv_bytes_per_token * 33 / 32)
    assert one.lane.speculation.draft_pass > 0.2e-3
    ngram = lower(problem(speculative_config={"method": "ngram"})).pool_result(pool)
    assert ngram.lane.kv_capacity_tokens == two.lane.kv_capacity_tokens
    assert ngram.lane.speculation.draft_pass == 0


def test_experts_are_shared_by_the_tokens_of_a_sequence() -> None:
    asked = problem(
        model="openai/gpt-oss-120b", hardware="h200-sxm", speculative_config=EAGLE3, gpus=1
    )
    lane = lower(asked).pool_lane(Strategy.parse("1m-tp1").pools[0])[0]
    saved = lane.speculation.saved([1, 8, 64], lane.step)
    assert saved[0] > 0.02 * lane.step.token_time(4)
    assert (saved >= 0).all()


def test_multi_token_prediction_needs_layers() -> None:
    with pytest.raises(InputError, match="no layers for multi-token prediction"):
        lower(problem(speculative_config={"method": "mtp"})).pool_lane(
            Strategy.parse("1m-tp1").pools[0]
        )


def test_acceptance_can_be_changed_like_any_figure() -> None:
    less = changed(problem(), {"speculation.acceptance": "x0.5"})
    assert acceptance_of(less.speculative_config).chances == pytest.approx((0.35,))
    assert bs.predict(less, "1m-tp1", 2.0, method="analytic").tpot.mean > (
        1.2 * bs.predict(problem(), "1m-tp1", 2.0, method="analytic").tpot.mean
    )
    with pytest.raises(InputError, match="speculates nothing"):
        changed(problem(speculative_config=None), {"speculation.acceptance": 0.5})


def test_the_waterfall_adds_up_and_names_what_drafts_do() -> None:
    found = bs.explain(problem(gpus=1), "1m-tp1-spec3").waterfall("tpot")
    parts = {part.name: part.seconds for part in found.parts}
    assert sum(parts.values()) == pytest.approx(found.value)
    assert parts["verifying drafts"] > 0 < parts["drafting"]
    saved = next(seconds for name, seconds in parts.items() if name.endswith("tokens a step"))
    assert saved < 0


def test_rankings_choose_the_drafts() -> None:
    asked = problem(
        tensor_parallel_sizes=(1,), layouts=("collocated",), pipeline_parallel_sizes=(1,)
    )
    table = bs.rank(asked, verify=False).table
    assert all("-spec" in row.strategy for row in table)
    hopeless = problem(
        tensor_parallel_sizes=(1,), layouts=("collocated",), pipeline_parallel_sizes=(1,),
        speculative_config=EAGLE3 | {"acceptance": 0.02},
    )  # fmt: skip
    assert "-spec0" in bs.rank(hopeless, verify=False).best.strategy


@pytest.mark.parametrize("strategy", ["2m-tp1-spec3", "1p1d-tp1-spec3", "2m-tp1-spectable"])
def test_drafts_that_nothing_drafts_are_refused(strategy: str) -> None:
    with pytest.raises(InputError, match="speculative_config"):
        lower(problem(speculative_config=None)).system(strategy)
    lower(problem(speculative_config=None)).system("2m-tp1-spec0")
