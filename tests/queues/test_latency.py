"""`latency` and `goodput`: limits, statuses, closed loops, what each answer says of itself."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from bestserve.errors import InputError
from bestserve.models.attainment import attainment, marginal_attainment
from bestserve.models.binding import Binding
from bestserve.models.goodput import decode_goodput, goodput, prefill_goodput
from bestserve.models.lane_arrivals import known_part
from bestserve.models.latency import latency, latency_curve, stability_rate
from bestserve.models.policies import policies
from bestserve.models.queues.tpot.compound_poisson import Atoms, Sums, compound_poisson_mixture
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Arrivals, Lengths, Target, Transfer

POLICIES = tuple(policies())


@pytest.mark.parametrize("policy", POLICIES)
def test_light_load_is_a_lone_request(cases: ModuleType, policy: str) -> None:
    law = cases.lengths(1000, 101)
    found = latency(cases.collocated(policy, law), 1e-3)
    step = cases.SMALL
    first = step(1000, 1000**2 / 2, 0, 1)
    token = np.mean([step(1, 0, 1000 + j, 1, prefill=False) for j in range(1, 101)])
    assert found.ttft.mean == pytest.approx(first, rel=3e-3)
    assert found.tpot.mean == pytest.approx(token, rel=3e-3)
    assert found.e2el.mean == pytest.approx(first + 100 * token, rel=3e-3)


@pytest.mark.parametrize("policy", POLICIES)
def test_saturation_is_unstable(cases: ModuleType, policy: str) -> None:
    system = cases.collocated(policy)
    limit = stability_rate(system)
    found = latency(system, 1.01 * limit)
    assert found.status is LatencyStatus.UNSTABLE
    assert found.ttft.mean == math.inf
    assert attainment(found, Target(ttft=100.0)) == 0.0
    assert latency(system, 0.8 * limit).status is LatencyStatus.OK


def test_rates_must_be_positive(cases: ModuleType) -> None:
    with pytest.raises(ValueError, match="rate = 0"):
        latency(cases.collocated(), 0.0)


def test_latency_grows_along_a_curve(cases: ModuleType) -> None:
    system = cases.collocated()
    rates = stability_rate(system) * np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    curve = latency_curve(system, rates)
    for name in ("ttft", "tpot", "e2el"):
        for p in (0.5, 0.9, 0.99):
            values = [getattr(at, name).quantile(p) for at in curve]
            assert values == sorted(values)


def test_kv_cache_too_small_for_one_request(cases: ModuleType) -> None:
    system = cases.collocated(kv_capacity_tokens=500.0)
    assert latency(system, 1.0).status is LatencyStatus.NO_SLOT
    assert goodput(system, Target(ttft=1.0)).status is LatencyStatus.NO_SLOT


def test_threshold_below_a_lone_request_is_infeasible_with_its_arithmetic(
    cases: ModuleType,
) -> None:
    found = goodput(cases.collocated(), Target(ttft=0.01, tpot=1.0))
    assert found.status is LatencyStatus.INFEASIBLE
    assert found.binding is Binding.INFEASIBLE
    assert found.rate == 0.0
    assert "ttft" in found.detail
    assert "10 ms" in found.detail


def test_loose_thresholds_leave_stability_binding(cases: ModuleType) -> None:
    system = cases.collocated()
    found = goodput(system, Target(ttft=1e5, tpot=1e3))
    assert found.binding is Binding.STABILITY
    assert found.rate == pytest.approx(stability_rate(system), rel=0.02)


@pytest.mark.parametrize("policy", POLICIES)
def test_goodput_meets_its_target_and_no_more(cases: ModuleType, policy: str) -> None:
    target = Target(ttft=0.15, tpot=0.015)
    system = cases.collocated(policy)
    found = goodput(system, target)
    at = latency(system, found.rate)
    assert at.ttft.quantile(0.9) <= 0.15 * 1.001
    assert at.tpot.quantile(0.9) <= 0.015 * 1.001
    over = latency(system, 1.004 * found.rate)
    assert over.ttft.quantile(0.9) > 0.15 or over.tpot.quantile(0.9) > 0.015
    assert found.low <= found.rate <= found.high


def test_joint_target_is_harder_than_marginals(cases: ModuleType) -> None:
    system = cases.collocated()
    marginal = goodput(system, Target(ttft=0.15, tpot=0.015))
    joint = goodput(system, Target(ttft=0.15, tpot=0.015, joint=True))
    assert 0 < joint.rate < marginal.rate
    share = attainment(joint.at, Target(ttft=0.15, tpot=0.015))
    assert share == pytest.approx(0.9, abs=2e-3)
    each = marginal_attainment(joint.at, Target(ttft=0.15, tpot=0.015))
    assert share <= min(each.values())


def test_end_to_end_objective_enters_joint_attainment(cases: ModuleType) -> None:
    at = latency(cases.collocated(), 4.0)
    without = attainment(at, Target(ttft=0.3, tpot=0.03))
    loose = attainment(at, Target(ttft=0.3, tpot=0.03, e2el=1e3))
    tight = attainment(at, Target(ttft=0.3, tpot=0.03, e2el=at.e2el.quantile(0.5)))
    assert loose == pytest.approx(without, abs=5e-3)
    assert tight < 0.6


def test_pools_of_a_tandem_bound_it(cases: ModuleType) -> None:
    system = cases.disaggregated(2, 1)
    target = Target(ttft=0.1, tpot=0.012)
    whole = goodput(system, target).rate
    first = 2 * prefill_goodput(system.prefill, system.lengths, target).rate
    rest = decode_goodput(system.decode, system.lengths, target).rate
    assert whole == pytest.approx(min(first, rest), rel=3e-3)


def test_transfer_counts_in_tpot_not_in_ttft(cases: ModuleType) -> None:
    plain = latency(cases.disaggregated(), 5.0)
    slow = latency(cases.disaggregated(transfer=Transfer(latency=0.1)), 5.0)
    assert slow.ttft.mean == plain.ttft.mean
    law = cases.lengths(1000, 200, 0.5, 0.8)
    steps = law.outputs - 1
    some = steps > 0
    expected = 0.1 * float(np.mean(1 / steps[some]))
    assert slow.tpot.mean - plain.tpot.mean == pytest.approx(expected, rel=0.02)


def test_shared_link_saturates(cases: ModuleType) -> None:
    link = Transfer(seconds_per_token=1e-4, shared=True)
    system = cases.disaggregated(2, 4, transfer=link)
    assert stability_rate(system) == pytest.approx(2 / (1e-4 * 1000), rel=0.02)


def test_stream_interval_moves_time_from_tpot_to_ttft(cases: ModuleType) -> None:
    law = cases.lengths(1000, 201)
    one = latency(cases.collocated(law=law), 4.0)
    ten = latency(cases.collocated(law=law, stream_interval=10), 4.0)
    assert ten.ttft.mean - one.ttft.mean == pytest.approx(9 * one.tpot.mean, rel=1e-6)
    assert ten.e2el.mean == pytest.approx(one.e2el.mean, rel=1e-6)


def test_answers_of_one_message_have_no_gaps(cases: ModuleType) -> None:
    outputs, share = np.array([10.0, 41.0]), np.array([0.3, 0.7])
    law = replace(cases.lengths(1000, 30, 0.5), outputs=outputs, output_weights=share)
    plain = latency(cases.collocated(law=law), 4.0)
    found = latency(cases.collocated(law=law, stream_interval=20), 4.0)
    assert found.tpot.cdf(1e-3) == pytest.approx(0.3, abs=1e-3)
    assert found.e2el.mean == pytest.approx(plain.e2el.mean, rel=1e-6)


def test_front_end_time_shifts_ttft(cases: ModuleType) -> None:
    plain = latency(cases.collocated(), 4.0)
    slow = latency(cases.collocated(t_req=0.03, t_req_token=1e-5), 4.0)
    law = cases.lengths(1000, 200, 0.5, 0.8)
    expected = 0.03 + 1e-5 * float(law.input_weights @ law.inputs)
    assert slow.ttft.mean - plain.ttft.mean == pytest.approx(expected)


def test_cached_prompt_tokens_shorten_prefill_only(cases: ModuleType) -> None:
    law = cases.lengths(1000, 101)
    cached = replace(law, cached=np.array([600.0]))
    found = latency(cases.collocated(law=cached), 1e-3)
    step = cases.SMALL
    assert found.ttft.mean == pytest.approx(step(400, 400 * 600 + 400**2 / 2, 0, 1), rel=3e-3)
    plain = latency(cases.collocated(law=law), 1e-3)
    assert found.tpot.mean == pytest.approx(plain.tpot.mean, rel=1e-3)


PHASES = Arrivals(kind="mmpp", rates=np.array([2.0, 0.5]), stays=np.array([5.0, 10.0]))
CLOSED = Arrivals(kind="closed", concurrency=32, num_prompts=320)
UNCOVERED = {
    "routing 'round_robin'": {"routing": "round_robin"},
    "routing 'least_outstanding'": {"routing": "least_outstanding"},
    "gaps of burstiness 0.25": {"arrivals": Arrivals(burstiness=0.25)},
    "phases": {"arrivals": PHASES},
    "recorded": {"arrivals": Arrivals(kind="trace", times=np.arange(9.0))},
    "cap": {"arrivals": Arrivals(cap=64)},
    "closed loop": {"arrivals": CLOSED},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("named", UNCOVERED)
def test_no_formula_answers_for_arrivals_that_are_not_poisson(
    cases: ModuleType, policy: str, named: str
) -> None:
    split = replace(cases.disaggregated(2, 2), **UNCOVERED[named])
    for system in (cases.collocated(policy, replicas=4, system=UNCOVERED[named]), split):
        for ask in (
            lambda s: latency(s, 20.0),
            lambda s: latency_curve(s, [20.0]),
            lambda s: goodput(s, Target(ttft=1.0)),
        ):
            with pytest.raises(InputError, match=named):
                ask(system)
        # the saturated rate is one of waiting requests, however they came
        assert stability_rate(system) == stability_rate(known_part(system))
        assert latency(known_part(system), 1.0).status is LatencyStatus.OK


@pytest.mark.parametrize("routing", ["round_robin", "least_outstanding", "least_kv"])
def test_one_lane_takes_every_request_however_it_is_routed(cases: ModuleType, routing: str) -> None:
    alone = latency(cases.collocated(system={"routing": routing}), 4.0)
    assert alone.ttft.mean == latency(cases.collocated(), 4.0).ttft.mean


def test_few_slots_carry_low_trust(cases: ModuleType) -> None:
    system = cases.collocated(max_num_seqs=8)
    found = latency(system, 0.9 * stability_rate(system))
    assert any("slot" in reason for reason in found.trust.reasons)


def test_outputs_of_one_token_have_no_tpot(cases: ModuleType) -> None:
    found = latency(cases.collocated(law=cases.lengths(1000, 1)), 4.0)
    assert found.tpot.mean == 0.0
    assert found.e2el.mean == found.ttft.mean


def test_joint_lengths_use_their_correlation(cases: ModuleType) -> None:
    short, long = np.array([200.0, 3000.0]), np.array([50.0, 400.0])
    half = np.full(2, 0.5)

    def context(outputs: np.ndarray) -> float:
        law = Lengths(
            inputs=short, input_weights=half, outputs=outputs, output_weights=half, joint=True
        )
        return latency(cases.collocated(law=law), 3.0).tpot.quantile(0.9)

    assert context(long) > context(long[::-1])


def test_search_ends_where_the_chain_saturates_before_the_limit(cases: ModuleType) -> None:
    # the capacity of these systems is a little above what the chain can carry
    for policy in POLICIES:
        for prompt, output in ((4000, 30), (300, 600), (2048, 64)):
            system = cases.collocated(policy, cases.lengths(prompt, output, 0.8, 0.5))
            found = goodput(system, Target(ttft=1e4))
            assert 0.9 < found.rate / stability_rate(system) <= 1.0


def test_lumps_of_next_to_no_prompts_are_finite():
    """Where a request meets next to no prompt, counts and their spread are rounding."""
    two = np.array([0.5, 0.5])
    steps, base = np.array([10.0, 100.0]), np.array([0.010, 0.012])
    with np.errstate(all="raise", under="ignore"):
        law = compound_poisson_mixture(
            two,
            steps,
            base,
            np.array([1e-9, 1e-8]),
            Sums(np.array([1e-301, 0.0]), np.array([1e-3, 0.0])),
            Atoms(np.array([0.02, 0.03]), two),
        )
    assert law.mean == pytest.approx(0.011)
    assert law.quantile(0.99) == pytest.approx(0.012, rel=0.01)


def test_rounding_makes_no_answers_of_next_to_no_steps(cases: ModuleType) -> None:
    # a length of 1 + 4e-15 tokens: its whole decode over 4e-15 steps was its TPOT
    law = replace(
        cases.lengths(1000, 1),
        outputs=np.array([1.0 + 4e-15, 200.0]),
        output_weights=np.array([0.1, 0.9]),
    )
    system = cases.collocated("chunked", law)
    found = latency(system, 0.3 * stability_rate(system))
    assert found.no_decode == pytest.approx(0.1)
    assert found.tpot.mean < found.tpot.quantile(0.99)


@pytest.mark.parametrize("threshold", ["tpot", "ttft"])
def test_a_joint_goodput_is_as_wide_as_a_marginal_one(cases: ModuleType, threshold: str) -> None:
    system = cases.collocated("chunked")
    at = latency(system, 0.5 * stability_rate(system))
    limit = at.percentile(threshold, 0.9)
    marginal = goodput(system, Target(**{threshold: limit}))
    joint = goodput(system, Target(**{threshold: limit}, joint=True, attainment=0.9))
    assert joint.rate == pytest.approx(marginal.rate, rel=2e-3)
    wide = math.log(marginal.high / marginal.low)
    assert math.log(joint.high / joint.low) == pytest.approx(wide, rel=0.35)
