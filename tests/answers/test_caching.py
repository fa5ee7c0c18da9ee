"""Prefix caches in answers: working sets, hits a rate needs, what routers and tiers bring."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import bestserve as bs
from bestserve.answers.caching import found_share
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.prefix_hits import hits
from bestserve.results.caching import HitNeeded

GROUPS = bs.Workload(
    input_len=500, output_len=100, prefixes=bs.PrefixGroups(groups=40, prefix_len=6000)
)


def problem(workload: bs.Workload = GROUPS, **changes: object) -> bs.Problem:
    given: dict[str, object] = {
        "step_time": bs.StepTime(w=6e-3, c=26e-6, e=0, a=1e-10, k=2e-8, a_step=5e-4),
        "kv_capacity_tokens": 120_000,
        "gpus": 4,
        "workload": workload,
        "slo": bs.SLO("ttft:1000 tpot:50", percentile=90),
        **changes,
    }
    return bs.Problem(**given)  # type: ignore[arg-type]


def real(workload: bs.Workload = GROUPS, **changes: object) -> bs.Problem:
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B", hardware="h100-sxm", gpus=4, workload=workload, **changes
    )  # type: ignore[arg-type]


def test_the_working_set_is_all_prefixes_wherever_they_are_wanted() -> None:
    found = bs.memory(real(), "4m-tp1").working_set
    assert found is not None
    assert found.tokens == pytest.approx(40 * 6000)
    assert found.at_each == pytest.approx(40 * 6000)  # at random each instance is asked for all
    assert found.share == 1.0
    many = GROUPS.scaled(prefixes=bs.PrefixGroups(groups=400, prefix_len=6000))
    crowded = bs.memory(real(many), "4m-tp1").working_set
    assert crowded is not None
    assert 0.1 < crowded.share < 0.3
    assert crowded.share_by_prefix == pytest.approx(4 * crowded.share)
    assert "if a router sent each prefix to one instance" in crowded.explain()
    routed = bs.memory(real(many, routing="prefix_aware"), "4m-tp1").working_set
    assert routed is not None
    assert routed.at_each == pytest.approx(100 * 6000)


def test_a_tier_holds_what_the_cache_does_not() -> None:
    many = GROUPS.scaled(prefixes=bs.PrefixGroups(groups=400, prefix_len=6000))
    tier = bs.KvTier(gigabytes=400, bandwidth=25e9)
    found = bs.memory(real(many, kv_tiers=(tier,)), "4m-tp1").working_set
    assert found is not None
    assert found.room + found.tiers > found.at_each
    assert "100% with its offloading tiers" in found.explain()


def test_conversations_have_a_working_set_at_a_rate() -> None:
    talk = bs.Workload(
        input_len=200, output_len=200, conversation=bs.Conversation(turns=5, think_time=30)
    )
    assert bs.memory(real(talk), "4m-tp1").working_set is None
    slow, fast = (bs.memory(real(talk), "4m-tp1", request_rate=r).working_set for r in (2, 4))
    assert slow is not None
    assert fast is not None
    assert fast.tokens == pytest.approx(2 * slow.tokens, rel=0.1)
    with pytest.raises(InputError, match="request_rate"):
        bs.memory(real(talk), "4m-tp1", request_rate=-1.0)


def test_the_hits_that_a_rate_needs_are_just_enough() -> None:
    plain = problem(bs.Workload(input_len=6500, output_len=100))
    alone = bs.goodput(plain, "4m-tp1").goodput
    found = bs.hit_needed(plain, "4m-tp1", 2.0 * alone)
    assert found.share is not None
    assert 0.3 < found.share < 0.8
    assert found.found is None
    assert found.goodput == pytest.approx(2.0 * alone, rel=0.1)
    less = plain.replaced(workload=plain.workload.scaled(prefix_cache_hit=found.share - 0.05))
    assert bs.goodput(less, "4m-tp1", method="analytic").goodput < 2.0 * alone
    assert bs.hit_needed(plain, "4m-tp1", 0.5 * alone).share == 0.0
    assert bs.hit_needed(plain, "4m-tp1", 1e4).share is None


def test_caches_are_held_against_what_is_needed() -> None:
    found = bs.hit_needed(problem(routing="prefix_aware"), "4m-tp1", 30.0)
    assert found.found is not None
    assert found.found > 0.8
    assert "enough" in found.explain()


def test_the_sentences_say_which_case_it_is() -> None:
    asked = {"problem": problem(), "strategy": "4m-tp1", "wanted_rate": 9.0, "plain_goodput": 5.0}
    asked["found_rate"] = 5.0
    never = HitNeeded(**asked, share=None, found=None, goodput=None)
    assert never.explain().startswith("no share")
    free = HitNeeded(**asked, share=0.0, found=None, goodput=12.0)
    assert "without a prefix cache" in free.explain()
    few = HitNeeded(**asked, share=0.6, found=0.2, goodput=9.0)
    assert "too few" in few.explain()


def test_a_router_brings_what_it_finds() -> None:
    small = problem(gpus=2, layouts=("collocated",), max_num_batched_tokens=2048, max_num_seqs=128)
    plans = bs.cache_plans(small, ("random", "session_affine"))
    random, affine = plans.plans
    assert affine.hit_share > random.hit_share + 0.1
    assert affine.best.goodput > 1.1 * random.best.goodput
    assert "session_affine routing carries" in plans.explain()
    assert json.loads(plans.to_json())["plans"][0]["routing"] == "random"


def test_what_is_compared_must_matter() -> None:
    with pytest.raises(InputError, match="prompts that share something"):
        bs.cache_plans(problem(bs.Workload(input_len=500, output_len=100)))
    with pytest.raises(InputError, match="prefix_aware"):
        bs.cache_plans(problem(), ("prefix_awre",))
    with pytest.raises(InputError, match="bandwidth"):
        bs.cache_plans(problem(), ("random",), (0, 100))


def test_reuse_and_tiers_are_figures_that_can_be_changed() -> None:
    from bestserve.analysis.parameters import changed, parameter
    from bestserve.lowering import lower

    tier = bs.KvTier(gigabytes=100, bandwidth=25e9)
    asked = real(kv_tiers=(tier,))
    moved = changed(
        asked,
        {"workload.prefix_len": "x2", "workload.prefix_groups": 80, "kv_tiers.gigabytes": "x1.5"},
    )
    assert moved.workload.prefixes is not None
    assert moved.workload.prefixes.groups == 80
    assert moved.workload.prefixes.prefix_len.mean_tokens == 12_000
    assert moved.kv_tiers[0].gigabytes == pytest.approx(150)
    assert parameter(lower(asked), "kv_tiers.bandwidth").value == 25e9
    talk = bs.Workload(
        input_len=200, output_len=200, conversation=bs.Conversation(turns=5, think_time=30)
    )
    longer = changed(real(talk), {"workload.think_time": 60, "workload.turns": "x2"})
    assert longer.workload.conversation is not None
    assert longer.workload.conversation.think_time == 60
    assert longer.workload.conversation.turns.mean_tokens == 10


def test_goodput_falls_with_the_number_of_prefixes() -> None:
    report = bs.sensitivity(
        problem(), "4m-tp1", figures=["workload.prefix_groups"], method="analytic"
    )
    assert report.rows[0].goodput < -0.05


def test_what_a_router_that_bounds_load_finds_is_simulated() -> None:
    """The formula takes it for affine; passing on what comes to a busy lane costs hits."""
    groups = bs.Workload(
        input_len=500, output_len=200, prefixes=bs.PrefixGroups(groups=150, prefix_len=6000)
    )
    system = lower(problem(groups, routing="prefix_hash", kv_capacity_tokens=200_000)).system("4m")
    affine = replace(system, routing="session_affine")
    formula = hits(system, 8.0).share
    assert formula == pytest.approx(hits(affine, 8.0).share)
    assert found_share(system, 8.0) < formula - 0.1
    assert found_share(affine, 8.0) == pytest.approx(formula, abs=0.03)
    spread = replace(system, routing="reported_kv")
    assert found_share(spread, 8.0) == hits(spread, 8.0).share


def test_pipelines_that_cache_are_doubted() -> None:
    apart = "a pipeline is taken as lanes"
    trusted = bs.predict(real(), "4m-tp1", request_rate=1.0, method="analytic").trust
    assert not any(apart in reason for reason in trusted.reasons)
    doubted = bs.predict(real(), "2m-tp1-pp2", request_rate=1.0, method="analytic").trust
    assert not doubted.high
    assert any(apart in reason for reason in doubted.reasons)
    forgetful = real(enable_prefix_caching=False)
    plain = bs.predict(forgetful, "2m-tp1-pp2", request_rate=1.0, method="analytic").trust
    assert not any(apart in reason for reason in plain.reasons)
