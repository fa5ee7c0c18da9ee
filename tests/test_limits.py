"""Limits and layouts as decisions: what is chosen, what it brings, what is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bestserve as bs
from bestserve.answers.hearing import Hearing, claimed
from bestserve.lowering import lower
from bestserve.models.trust import Trust
from bestserve.solvers.enumerate import shapes, tensor_parallel_sizes
from bestserve.solvers.limits import BUDGETS, SEQS, beside, next_rung
from bestserve.solvers.ranking import rank_strategies

CHAT = bs.Workload(input_len="lognormal:1000,0.8", output_len="lognormal:200,1")


def problem(**changes) -> bs.Problem:
    values = {
        "model": "meta-llama/Llama-3.1-8B",
        "hardware": "h100-sxm",
        "gpus": 4,
        "workload": CHAT,
        "slo": "ttft:300 tpot:15",
    }
    return bs.Problem(**(values | changes))


@given(st.sampled_from([BUDGETS, SEQS]), st.integers(1, 20_000), st.sampled_from([1, -1]))
def test_the_next_rung_is_the_nearest_one_on_its_side(rungs, at, step):
    beyond = [r for r in rungs if (r > at if step > 0 else r < at)]
    nearest = (min if step > 0 else max)(beyond, default=None)
    assert next_rung(rungs, at, step) == nearest


def test_limits_are_at_least_as_good_as_those_beside_them():
    """No rung beside the chosen one, nor the engine's own, carries more by the formulas."""
    stated = problem()
    best = next(
        row
        for row in bs.rank(stated, verify=False).table
        if not bs.Strategy.parse(row.strategy).disaggregated
    )
    pool = bs.Strategy.parse(best.strategy).pools[0]
    assert pool.max_num_batched_tokens is not None
    for step in (1, -1):
        rung = next_rung(BUDGETS, pool.max_num_batched_tokens, step)
        beside = bs.Strategy(pools=(pool.model_copy(update={"max_num_batched_tokens": rung}),))
        assert bs.goodput(stated, beside, method="analytic").goodput <= best.goodput * 1.005
    own = bs.Strategy(pools=(pool.model_copy(update={"max_num_batched_tokens": None}),))
    assert bs.goodput(stated, own, method="analytic").goodput < 0.95 * best.goodput


def test_limits_that_are_given_stay():
    found = bs.rank(problem(max_num_batched_tokens=1024, max_num_seqs=200), verify=False)
    assert not any("tokens" in row.strategy or "seqs" in row.strategy for row in found.table)


def test_a_full_decode_cache_gets_a_limit_that_hardly_evicts():
    stated = problem(
        model="meta-llama/Llama-3.1-70B",
        gpus=16,
        workload=bs.Workload(input_len=2000, output_len=300),
        slo="ttft:1000 tpot:50",
    )
    best = bs.rank(stated).best
    run = bs.simulate(stated, best.strategy, 0.97 * best.goodput, requests=40_000, seed=5)
    met = run.meeting(stated.slo.target())
    assert min(met["ttft"], met["tpot"]) >= 0.89
    assert best.goodput > 17.3


def test_pipelines_are_tried_where_tensor_parallelism_stops_at_the_node():
    stated = problem(model="deepseek-ai/DeepSeek-V3", gpus=16, slo="ttft:2000 tpot:80")
    found = bs.rank(stated, verify=False)
    flat = bs.rank(stated.replaced(pipeline_parallel_sizes=(1,)), verify=False)
    assert bs.Strategy.parse(found.best.strategy).pools[0].pp > 1
    assert found.best.goodput > 1.1 * flat.best.goodput


@pytest.mark.parametrize(
    ("model", "gpus", "wanted"),
    [("Qwen/Qwen2.5-14B", 5, 5), ("meta-llama/Llama-3.2-3B", 6, 6), ("Qwen/Qwen3-32B", 8, 8)],
)
def test_counts_that_are_no_powers_of_two(model, gpus, wanted):
    lowered = lower(problem(model=model, gpus=gpus))
    sizes = tensor_parallel_sizes(lowered)
    assert wanted in sizes
    assert {p.tp for p in shapes(lowered)} == set(sizes)


def test_what_is_not_tried_is_named():
    found = bs.rank(problem(gpus=16, layouts=("collocated",)), verify=False)
    said = found.explain().splitlines()[-1]
    assert said.startswith("Not tried: disaggregated instances (layouts); ")
    assert "tensor parallelism over nodes" in said
    assert found.to_dict()["not_tried"] == list(found.not_tried)


def test_what_tuning_brings_is_said():
    found = bs.rank(problem(layouts=("collocated",)))
    assert found.defaults is not None
    own = bs.Strategy.parse(found.defaults.strategy)
    assert all(p.max_num_seqs is None and p.max_num_batched_tokens is None for p in own.pools)
    assert found.best.goodput > found.defaults.goodput
    assert f"over the engine's own: {found.defaults.strategy} carries" in found.explain()
    fixed = bs.rank(problem(max_num_batched_tokens=1024, max_num_seqs=200))
    assert fixed.defaults is None


def test_limits_beside_are_a_rung_away_or_the_engines_own():
    stated = lower(problem())
    found = {str(s) for s in beside(stated, bs.Strategy.parse("1m-tp1-tokens1024-seqs64"))}
    assert found == {
        "1m-tp1-seqs64",
        "1m-tp1-seqs64-tokens1536",
        "1m-tp1-seqs64-tokens768",
        "1m-tp1-tokens1024",
        "1m-tp1-seqs96-tokens1024",
        "1m-tp1-seqs48-tokens1024",
    }
    given = lower(stated.problem.replaced(max_num_batched_tokens=2048))
    assert {str(s) for s in beside(given, bs.Strategy.parse("1m-tp1-seqs8"))} == {
        "1m-tp1",
        "1m-tp1-seqs12",
    }


def test_a_doubted_leader_is_polished_by_runs():
    """With 8 sequences prompts wait for slots; 12 carry a fifth more."""
    stated = lower(
        bs.Problem(
            model="google/gemma-3-27b-it",
            hardware="a100-80gb-sxm",
            engine="tensorrt-llm",
            gpus=1,
            workload=bs.Workload(input_len="lognormal:3493,1", output_len=162),
            slo="ttft:4469 tpot:106",
        )
    )
    poor = claimed(stated, bs.Strategy.parse("1m-tp1-seqs8-tokens1024"))
    found = replace(rank_strategies(stated), table=(replace(poor, trust=Trust.of("a doubt")),))
    better = Hearing(stated, found, lambda _: None).witnessed()
    assert better.best.strategy != poor.strategy
    assert better.best.goodput > 1.1 * better.table[-1].goodput
    trusted = replace(found, table=(replace(poor, trust=Trust(True)),))
    kept = Hearing(stated, trusted, lambda _: None)
    kept.doubted.clear()
    kept.settled.add(poor.strategy)
    assert not kept.polish()


def test_a_row_that_misses_where_the_leader_holds_keeps_its_claim():
    stated = lower(problem())
    found = rank_strategies(stated)
    row = claimed(stated, bs.Strategy.parse("2m-tp2"))
    hearing = Hearing(stated, found, lambda _: None)
    assert hearing.roughly(row, floor=1.5 * row.goodput) is row
    heard = hearing.roughly(row, floor=0.9 * row.goodput)
    assert heard.simulated_goodput == pytest.approx(row.goodput, rel=0.05)
