"""Rankings: what a user may rely on whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bestserve as bs
from bestserve.errors import InfeasibleError, InputError
from bestserve.models.binding import Binding
from bestserve.models.goodput import Goodput
from bestserve.models.latencies import unstable
from bestserve.models.status import LatencyStatus
from bestserve.models.trust import TRUSTED
from bestserve.results.document import AnswerStatus
from bestserve.results.ranking import best_of_layouts, layout_of, pareto_front
from bestserve.solvers.enumerate import maximal_pairs
from bestserve.solvers.ranking import contained

CHAT = bs.Workload(input_len="lognormal:1000,0.8", output_len="lognormal:200,1")


FOUND = Goodput(
    rate=1.0,
    low=1.0,
    high=1.0,
    binding=Binding.TTFT,
    at=unstable(1.0, 1.0, LatencyStatus.OK),
    trust=TRUSTED,
    status=LatencyStatus.OK,
)


def problem(**changes) -> bs.Problem:
    values = {
        "model": "meta-llama/Llama-3.1-8B",
        "hardware": "h100-sxm",
        "gpus": 4,
        "workload": CHAT,
        "slo": "ttft:1000 tpot:50",
    }
    return bs.Problem(**(values | changes))


@pytest.fixture(scope="module")
def ranking():
    return bs.rank(problem())


def test_best_first_and_within_the_budget(ranking):
    goodputs = [s.goodput for s in ranking.table]
    assert goodputs == sorted(goodputs, reverse=True)
    assert ranking.best is ranking.table[0]
    assert all(s.gpus <= 4 for s in ranking.table)
    assert all(bs.Strategy.parse(s.strategy).gpus == s.gpus for s in ranking.table)


def test_both_layouts_are_ranked(ranking):
    layouts = {bs.Strategy.parse(s.strategy).disaggregated for s in ranking.table}
    assert layouts == {True, False}


def test_objectives_hold_at_the_goodput(ranking):
    for row in ranking.table:
        assert row.ttft <= 1.0 * 1.01
        assert row.tpot <= 0.050 * 1.01
        assert row.low <= row.goodput <= row.high
        assert 0 < row.utilisation <= 1


def test_nobody_is_ranked_twice(ranking):
    names = [s.strategy for s in ranking.table]
    assert len(names) == len(set(names))


def test_the_composed_goodput_is_the_one_of_the_whole_system(ranking):
    for row in ranking.table[:6]:
        whole = bs.goodput(problem(), row.strategy, method="analytic")
        # rows whose trust is low have been simulated
        assert row.goodput == pytest.approx(whole.goodput, rel=0.03)


def test_explanation_names_the_winner_and_its_rival(ranking):
    text = ranking.explain()
    assert text.startswith(f"{ranking.best.strategy} wins with")
    assert "Best disaggregated" in text or "Best collocated" in text


def test_pareto_front_is_part_of_the_table(ranking):
    for metric in ("ttft", "tpot"):
        front = ranking.pareto(metric)
        assert ranking.best in front
        latencies = [getattr(s, metric) for s in front]
        assert latencies == sorted(latencies, reverse=True)


def test_frames_and_html_have_one_row_a_strategy(ranking):
    frame = ranking.to_frame()
    assert len(frame) == len(ranking.table)
    assert frame["goodput"].is_monotonic_decreasing
    assert ranking._repr_html_().count("<tr>") == len(ranking.table) + 1


def test_citations_are_those_of_the_methods_used(ranking):
    assert "2506.05871" in ranking.cite()


def test_the_answer_is_the_same_twice(ranking):
    assert bs.rank(problem()).table == ranking.table


def test_a_model_too_large_leaves_the_arithmetic():
    found = bs.rank(problem(model="meta-llama/Llama-3.1-405B", gpus=1))
    assert not found.table
    assert {r.status for r in found.rejected} == {AnswerStatus.INFEASIBLE_MEMORY}
    assert "GB" in found.why_nothing()
    with pytest.raises(InfeasibleError, match="on 1 GPU:"):
        _ = found.best


def test_an_objective_below_a_bare_prefill_leaves_the_arithmetic():
    found = bs.rank(problem(slo="ttft:1 tpot:50"))
    assert not found.table
    assert any("ms, above the" in r.reason for r in found.rejected)


def test_a_large_model_gets_pipeline_stages_by_itself():
    found = bs.rank(problem(model="meta-llama/Llama-3.1-405B", gpus=16), verify=False)
    assert found.table
    assert all("-pp" in s.strategy for s in found.table)


def test_joint_objectives_are_harder():
    marginal = bs.goodput(problem(), "2m-tp1", method="analytic")
    joint = bs.goodput(
        problem(slo=bs.SLO("ttft:1000 tpot:50", joint=True, attainment=0.9)),
        "2m-tp1",
        method="analytic",
    )
    assert joint.goodput <= marginal.goodput * 1.001


def test_questions_without_an_answer_are_refused():
    with pytest.raises(InputError, match="objectives"):
        bs.rank(problem(slo=None))
    closed = CHAT.scaled(max_concurrency=8)
    with pytest.raises(InputError, match="closed loop"):
        bs.rank(problem(workload=closed))
    with pytest.raises(InputError, match="not both"):
        problem(step_time=bs.StepTime(w=1e-3, c=1e-5, e=0, a=0, k=0))


def test_a_closed_loop_is_predicted_with_its_own_rate():
    found = bs.predict(problem(workload=CHAT.scaled(max_concurrency=8)), "1m-tp1")
    assert found.method == "simulated"
    assert found.request_rate > 0
    with pytest.raises(InputError, match="closed loop"):
        bs.predict(problem(workload=CHAT.scaled(max_concurrency=8)), "1m-tp1", request_rate=3)


@settings(max_examples=8, deadline=None)
@given(tighter=st.floats(0.5, 0.95), percentile=st.sampled_from([50, 90, 99]))
def test_a_tighter_objective_never_raises_the_goodput(tighter, percentile):
    def goodput(ttft_ms: float) -> float:
        slo = bs.SLO(f"ttft:{ttft_ms} tpot:40", percentile=percentile)
        return bs.goodput(problem(slo=slo), "2m-tp1", method="analytic").goodput

    assert goodput(800 * tighter) <= goodput(800) * 1.002


@settings(max_examples=5, deadline=None)
@given(gpus=st.integers(1, 6))
def test_more_gpus_never_hurt(gpus):
    few = bs.rank(problem(gpus=gpus), verify=False).best.goodput
    more = bs.rank(problem(gpus=gpus + 1), verify=False).best.goodput
    assert more >= few * 0.999


@given(st.integers(1, 64), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]))
def test_maximal_pairs_leave_no_room_and_miss_nothing(gpus, prefill, decode):
    x, y = maximal_pairs(gpus, prefill, decode)
    found = set(zip(x.tolist(), y.tolist(), strict=True))
    everything = {
        (a, b)
        for a in range(1, gpus + 1)
        for b in range(1, gpus + 1)
        if a * prefill + b * decode <= gpus
    }
    maximal = {
        (a, b)
        for a, b in everything
        if (a + 1, b) not in everything and (a, b + 1) not in everything
    }
    assert found == maximal


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_pareto_front_is_what_nobody_beats(points):
    front = {points[i] for i in pareto_front(points)}
    best = {p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)}
    assert front == best


def test_a_ranking_says_what_is_not_known_of_splitting(ranking):
    for row in ranking.table:
        split = bs.Strategy.parse(row.strategy).disaggregated
        said = any("splitting prefill from decode" in reason for reason in row.trust.reasons)
        assert said == split, row.strategy


def test_what_splitting_costs_an_engine_reaches_the_ranking():
    def best(**figures):
        changed = bs.what_if(problem(engine="sglang", layouts=("disaggregated",)), figures)
        return changed.scenarios[-1].answer.goodput

    assert best(**{"engine.prefill_host": 0}) > 1.02 * best(**{"engine.prefill_host": "x2"})


def test_a_numerical_failure_is_a_row_and_ends_no_ranking():
    def fails(kind):
        raise kind("index 385 is out of bounds")

    for kind in (IndexError, ValueError, FloatingPointError, ZeroDivisionError):
        found = contained("2m-tp4", fails, kind)
        assert found.status is AnswerStatus.FAILED
        assert found.reason == f"{kind.__name__}: index 385 is out of bounds"
    not_a_number = contained("2m-tp4", lambda: replace(FOUND, rate=float("nan")))
    assert not_a_number.status is AnswerStatus.FAILED
    assert contained("2m-tp4", lambda: FOUND) is FOUND
    for kind in (InputError, InfeasibleError, KeyError):
        with pytest.raises(kind):
            contained("2m-tp4", fails, kind)


def test_the_best_row_of_each_layout_once_with_its_place():
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B", hardware="h100-sxm", gpus=2, slo="ttft:1000 tpot:50",
        workload=bs.Workload(input_len=1000, output_len=100),
    )  # fmt: skip
    ranking = bs.rank(problem, verify=False)
    best = best_of_layouts(ranking.table)
    layouts = [layout_of(s) for _, s in best]
    assert len(set(layouts)) == len(layouts) < len(ranking.table)
    assert set(layouts) == {layout_of(s) for s in ranking.table}
    for place, s in best:
        assert ranking.table[place] is s
        assert layout_of(s) not in {layout_of(other) for other in ranking.table[:place]}
    assert best_of_layouts(ranking.table, [ranking.best])[0][1] is best[1][1]
