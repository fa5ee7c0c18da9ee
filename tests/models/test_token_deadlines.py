"""Token deadlines by formula: Brownian paths, end conditions, and the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from bestserve.answers.witness import measured_goodput
from bestserve.errors import InputError
from bestserve.models.attainment import attainment, margin, marginal_attainment
from bestserve.models.binding import Binding
from bestserve.models.distribution import Distribution
from bestserve.models.goodput import goodput
from bestserve.models.lane_arrivals import refuse_untold
from bestserve.models.latencies import Latencies, OutputClasses
from bestserve.models.queues.tpot.mixture import cut
from bestserve.models.queues.tpot.pearson import Laws, Unstalled
from bestserve.models.status import LatencyStatus
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Lane, Lengths, Target
from bestserve.models.token_target import TokenTarget
from bestserve.models.trust import TRUSTED
from bestserve.specs.slo import SLO


def latencies(ttft: float, steps: int, mean: float, spread: float) -> Latencies:
    """Return latencies of one TTFT and one length, whose gaps scatter by `spread` each [s]."""
    one = np.ones(1)
    m, v = mean * one, spread**2 / steps * one
    parts = cut(Laws(m, v, 0 * one, 0.0, np.inf), Unstalled(0 * one, m, v))
    return Latencies(
        ttft=Distribution(np.array([ttft - 1e-9, ttft]), np.array([0.0, 1.0]), ttft),
        tpot=Distribution.point(mean),
        rate=1.0,
        utilisation=0.5,
        stability_rate=2.0,
        mean_batch=1.0,
        trust=TRUSTED,
        status=LatencyStatus.OK,
        classes=OutputClasses(
            steps=steps * one, weight=one, mean=m, variance=v, third=0 * one, parts=parts,
            no_decode=0.0,
        ),
    )  # fmt: skip


def deadlines(first: float, pace: float, slack: float = 0.0) -> Target:
    return Target(tokens=TokenTarget(pace=pace, first=first, slack=slack))


@pytest.mark.parametrize("pace", [0.029, 0.031, 0.034])
@pytest.mark.parametrize("first", [0.5, 0.8])
def test_all_on_time_is_what_random_walks_show(pace, first):
    ttft, steps, mean, spread = 0.4, 200, 0.03, 0.02
    rng = np.random.default_rng(7)
    walk = ttft + np.cumsum(rng.normal(mean, spread, (20_000, steps)), axis=1)
    late = walk - first - pace * np.arange(1, steps + 1)
    found = attainment(latencies(ttft, steps, mean, spread), deadlines(first, pace))
    # a walk is seen at whole steps only, as if its barrier stood 0.583 σ further (Siegmund 1985)
    assert found == pytest.approx(np.mean(late.max(axis=1) <= -0.583 * spread), abs=0.015)


def test_deadlines_are_stricter_than_their_ends_and_looser_with_slack():
    law = latencies(0.4, 200, 0.03, 0.02)
    all_tokens = attainment(law, deadlines(0.6, 0.031))
    ends = attainment(law, Target(ttft=0.6, e2el=0.6, e2el_per_token=0.031, joint=True))
    assert all_tokens < ends
    assert all_tokens < attainment(law, deadlines(0.6, 0.031, slack=0.1)) <= 1.0
    assert attainment(law, deadlines(0.3, 0.031)) == 0.0


def test_ends_are_an_end_to_end_objective_proportional_to_length():
    law = latencies(0.4, 200, 0.03, 0.02)
    walk_ends = Target(e2el=0.6, e2el_per_token=0.031)
    # t_D ≤ 0.6 + 0.031 · 200 is one normal variable's
    from math import erf, sqrt

    z = (0.6 + 0.031 * 200 - 0.4 - 0.03 * 200) / (0.02 * sqrt(200))
    assert attainment(law, walk_ends) == pytest.approx((1 + erf(z / sqrt(2))) / 2, abs=0.005)


def test_margin_of_deadlines_is_the_share_less_what_is_asked():
    law = latencies(0.4, 200, 0.03, 0.02)
    target = deadlines(0.6, 0.031)
    share = marginal_attainment(law, target)["deadline"]
    assert margin(law, target) == (pytest.approx(share - 0.9), Binding.DEADLINE)


STEP = StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=35e-6)


def geometric(mean: float, n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Return atoms of about a geometric law."""
    p = (np.arange(n) + 0.5) / n
    return np.ceil(-mean * np.log1p(-p)), np.full(n, 1 / n)


def lane_system(budget: int) -> Collocated:
    inputs, outputs = geometric(800.0), geometric(150.0)
    lengths = Lengths(
        inputs=inputs[0], input_weights=inputs[1], outputs=outputs[0], output_weights=outputs[1]
    )
    lane = Lane(step=STEP, max_num_batched_tokens=budget)
    return Collocated(lane=lane, replicas=1, lengths=lengths)


@pytest.mark.parametrize("budget", [512, 2048])
def test_goodput_under_deadlines_is_near_the_simulated_one(budget):
    system = lane_system(budget)
    target = SLO("deadline:300+25").target()
    found = goodput(system, target)
    assert found.binding is Binding.DEADLINE
    assert found.low <= found.rate <= found.high
    measured = measured_goodput(system, target, near=found.rate)
    assert measured.binding is Binding.DEADLINE
    assert found.rate == pytest.approx(measured.rate, rel=0.15)


def test_holding_back_raises_classic_goodput_and_not_that_of_deadlines():
    """What TTFT and TPOT come to with the first token held back (`token_times.held_back`)."""
    system = lane_system(2048)
    classic = measured_goodput(system, SLO("ttft:300 tpot:25", joint=True).target()).rate
    held = measured_goodput(system, SLO("ttft:300 e2el:300+25", joint=True).target()).rate
    assert held > 1.03 * classic


def test_stalls_fluidity_and_gaps_need_runs():
    target = SLO("ttft:300 stall:100 fluidity:0.9 itl:80@p99 pace:25").target()
    with pytest.raises(InputError, match="stall and fluidity and itl"):
        refuse_untold(target)
    found = measured_goodput(lane_system(512), target)
    assert found.rate > 0
    assert found.binding in (Binding.TTFT, Binding.STALL, Binding.FLUIDITY, Binding.ITL)
