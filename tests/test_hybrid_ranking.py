"""`rank` with hybrids: who wins where under load-aware routing, and what it says of it."""

from __future__ import annotations

import pytest

import bestserve as bs
from bestserve.lowering import lower
from bestserve.models.step.device import Parallelism
from bestserve.models.step.step_time import StepTime
from bestserve.solvers.hybrids import Hybrids
from bestserve.specs.strategy import Strategy

ALL = ("collocated", "disaggregated", "hybrid")

# coefficients of Llama-3.1-70B on four H100
STEP = StepTime(w=12.3e-3, c=37.3e-6, e=27e-6, a=0.75e-9, k=28.7e-9, a_step=4.36e-3, a_seq=13e-6)


def problem(slo: str, routing: str = "least_ttft", layouts: tuple[str, ...] = ALL) -> bs.Problem:
    return bs.Problem(
        step_time=STEP,
        kv_capacity_tokens=450_000,
        gpus=4,
        workload=bs.Workload(
            input_len="lognormal(2000, cv=0.8)", output_len="lognormal(300, cv=1)"
        ),
        routing=routing,  # type: ignore[arg-type]
        slo=bs.SLO(slo, joint=True),
        layouts=layouts,  # type: ignore[arg-type]
    )


def best_of(ranking: bs.Ranking, *layouts: str) -> float:
    rows = [r for r in ranking.table if Strategy.parse(r.strategy).layout in layouts]
    return max((r.goodput for r in rows), default=0.0)


def test_a_hybrid_wins_between_the_extremes() -> None:
    ranking = bs.rank(problem("ttft:1080 tpot:33.5"))
    winner = Strategy.parse(ranking.best.strategy)
    assert winner.layout == "hybrid"
    assert best_of(ranking, "hybrid") > 1.08 * best_of(ranking, "collocated", "disaggregated")
    # the largest budget whose full step meets the objective
    assert winner.pools[1].max_num_batched_tokens == 256
    shares = ranking.best.shares
    assert 0.1 < shares["local_prefill_share"] < 0.6
    assert shares["full_step"] < 33.5e-3
    assert "Decode instances process" in ranking.explain()
    assert "2508.01989" in ranking.cite()


@pytest.mark.parametrize(
    ("slo", "layout"),
    [("ttft:540 tpot:100", "collocated"), ("ttft:3360 tpot:22.6", "disaggregated")],
)
def test_pure_layouts_win_at_the_extremes(slo: str, layout: str) -> None:
    ranking = bs.rank(problem(slo))
    assert best_of(ranking, layout) >= 0.98 * ranking.best.goodput
    assert best_of(ranking, "hybrid") > 0.8 * ranking.best.goodput


def test_hybrids_are_tried_when_asked_for_and_named_when_not() -> None:
    plain = problem("ttft:1080 tpot:33.5", "random", ALL[:2])
    without = bs.rank(plain, verify=False)
    assert any("hybrid instances" in what for what in without.not_tried)
    with_them = bs.rank(plain.replaced(layouts=ALL), verify=False)
    assert not any("hybrid" in what for what in with_them.not_tried)
    kept = {r.strategy: r.goodput for r in with_them.table}
    assert all(kept[r.strategy] == r.goodput for r in without.table)
    # a drawn share is part of the strategy
    row = next(r for r in with_them.table if Strategy.parse(r.strategy).hybrid)
    assert Strategy.parse(row.strategy).pools[1].local_percent is not None
    alone = bs.goodput(plain, row.strategy, method="analytic")
    assert row.goodput == pytest.approx(alone.goodput, rel=5e-3)


def test_no_budget_meets_a_very_tight_tpot_and_the_search_says_so() -> None:
    asked = problem("ttft:5000 tpot:18", "random")
    search = Hybrids(lower(asked), asked.slo.target(), [], lambda _: None)  # type: ignore[union-attr]
    assert search.narrow_budgets(Parallelism()) == [64, 128]
    assert "a full step of 64 tokens takes" in search.rejected[0].reason
    easy = problem("ttft:5000 tpot:33.5", "random")
    search = Hybrids(lower(easy), easy.slo.target(), [], lambda _: None)  # type: ignore[union-attr]
    assert search.narrow_budgets(Parallelism()) == [128, 256, 512]
    assert not search.rejected


def test_a_workload_that_shares_prefixes_has_no_hybrids() -> None:
    shared = problem("ttft:1080 tpot:33.5").replaced(
        workload=bs.Workload(
            input_len=500, output_len=100, prefixes=bs.PrefixGroups(groups=20, prefix_len=1000)
        )
    )
    search = Hybrids(lower(shared), shared.slo.target(), [], lambda _: None)  # type: ignore[union-attr]
    assert search.run(0.0) == []
    assert "prefix caches" in search.rejected[0].reason


def test_many_instances_do_not_make_many_ratios() -> None:
    large = problem("ttft:1080 tpot:33.5", "random").replaced(gpus=400)
    shapes = [(Parallelism(), Parallelism())]
    search = Hybrids(lower(large), large.slo.target(), shapes, lambda _: None)  # type: ignore[union-attr]
    pools = {tuple(p.replicas for p in (s.front, s.back)) for s in search.splits()}
    assert 4 <= len(pools) <= 8
    assert all(sum(counts) == 400 for counts in pools)


def test_a_map_says_which_layout_wins() -> None:
    strategies = ["4m-tokens2048", "2p2d", "2p-tokens2048+2d-tokens256-prefill30"]
    found = bs.sweep(
        problem("ttft:3300 tpot:33.5", "random"),
        {"slo.tpot": ["22.6ms", "33.5ms", "100ms"]},
        strategies=strategies,
    )
    layouts = [row["layout"] for row in found.records()]
    assert layouts == ["disaggregated", "hybrid", "collocated"]
    assert "by layout: disaggregated at 1, hybrid at 1, collocated at 1 of 3" in found.explain()
