"""Laws where settings are odd: short prompts and answers, dear mixed steps, experts, tiny rates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.models.attainment import attainment, marginal_attainment
from bestserve.models.goodput import goodput
from bestserve.models.latencies import unstable
from bestserve.models.latency import latency, stability_rate
from bestserve.models.queues.gig1 import gig1_wait
from bestserve.models.queues.occupancy import occupancy
from bestserve.models.status import LatencyStatus
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Lane, Lengths, Target
from bestserve.simulator import saturation_rate, simulate

EXPERTS = tuple(float(m) for m in 30e-3 * (1 - np.exp(-(2.0 ** (np.arange(29) / 2)) / 40)) + 1e-3)
"""Routed experts that a few dozen tokens wake up all: m(T) rises steeply and then hardly."""

STEPS = {
    "dense": StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.7e-9, k=0.049e-6, a_step=0.8e-3, a_seq=35e-6),
    "dear mixed steps": StepTime(
        w=5.68e-3, c=8.9e-5, e=0, a=1.69e-10, k=2.66e-8, a_step=4.1e-4, a_seq=1.03e-5, phi=1.4
    ),
    "experts": StepTime(w=2e-3, c=1e-5, e=1e-6, a=1e-10, k=2e-8, phi=1.25, moe=EXPERTS),
}

length = st.one_of(
    st.integers(1, 200).map(lambda n: (np.array([float(n)]), np.ones(1))),
    st.integers(2, 60).map(
        lambda n: (np.arange(1.0, 2.0 * n), np.full(2 * n - 1, 1 / (2 * n - 1)))
    ),
)


@settings(max_examples=25)
@given(
    step=st.sampled_from(sorted(STEPS)),
    policy=st.sampled_from(["chunked", "mixed", "prefill_priority"]),
    prompt=length,
    answer=length,
    slots=st.sampled_from([8, 256, 2048]),
    budget=st.sampled_from([512, 2048, 8192]),
    load=st.one_of(st.floats(0.001, 0.98), st.just(1e-300)),
)
def test_stable_lanes_have_finite_laws(
    step: str,
    policy: str,
    prompt: tuple[np.ndarray, np.ndarray],
    answer: tuple[np.ndarray, np.ndarray],
    slots: int,
    budget: int,
    load: float,
) -> None:
    lengths = Lengths(
        inputs=prompt[0], input_weights=prompt[1], outputs=answer[0], output_weights=answer[1]
    )
    lane = Lane(
        step=STEPS[step],
        policy=policy,  # type: ignore[arg-type]
        max_num_seqs=slots,
        max_num_batched_tokens=budget,
    )
    system = Collocated(lane=lane, replicas=1, lengths=lengths)
    limit = stability_rate(system)
    assert 0 < limit < np.inf
    found = latency(system, load * limit)
    assert found.status is LatencyStatus.OK or not found.trust.high
    if found.status is LatencyStatus.OK:
        for law in (found.ttft, found.tpot, found.e2el):
            read = [law.quantile(p) for p in (0.5, 0.9, 0.95, 0.99)]
            assert np.all(np.isfinite([law.mean, *read]))
            assert np.all(np.diff([0.0, *read]) >= 0)
            # Markov: a share 1 − p of the requests takes the p-quantile or longer
            assert law.mean >= 0.95 * max(0.5 * read[0], 0.1 * read[1], 0.01 * read[3])
    target = Target(ttft=0.5, tpot=0.1)
    assert np.isfinite(goodput(system, target).rate)


@settings(max_examples=40)
@given(
    objectives=st.sets(st.sampled_from(["ttft", "tpot", "e2el"]), min_size=1),
    policy=st.sampled_from(["chunked", "mixed", "prefill_priority"]),
    share=st.floats(0.02, 0.98),
    prompt=length,
    answer=length,
)
def test_joint_attainment_is_above_no_marginal(
    objectives: set[str],
    policy: str,
    share: float,
    prompt: tuple[np.ndarray, np.ndarray],
    answer: tuple[np.ndarray, np.ndarray],
) -> None:
    lengths = Lengths(
        inputs=prompt[0], input_weights=prompt[1], outputs=answer[0], output_weights=answer[1]
    )
    lane = Lane(step=STEPS["experts"], policy=policy, max_num_seqs=256)  # type: ignore[arg-type]
    system = Collocated(lane=lane, replicas=1, lengths=lengths)
    found = latency(system, 0.6 * stability_rate(system))
    thresholds = {name: getattr(found, name).quantile(share) for name in objectives}
    target = Target(joint=True, **thresholds)  # type: ignore[arg-type]
    marginals = marginal_attainment(found, target)
    joint = attainment(found, target)
    assert joint <= min(marginals.values())
    assert joint >= 1.0 - sum(1.0 - m for m in marginals.values()) - 0.1
    if len(objectives) == 1:
        assert joint == pytest.approx(min(marginals.values()), abs=1e-12)


@pytest.mark.parametrize("policy", ["chunked", "mixed", "prefill_priority"])
def test_rare_prompts_of_very_many_budgets_are_said(policy: str) -> None:
    """One prompt in 10,000 has two hundred budgets and most of E[l²]."""
    lengths = Lengths(
        inputs=np.array([500.0, 200_000.0]),
        input_weights=np.array([0.9999, 0.0001]),
        outputs=np.array([100.0]),
        output_weights=np.ones(1),
    )
    lane = Lane(step=STEPS["dense"], policy=policy, max_num_batched_tokens=1024)  # type: ignore[arg-type]
    system = Collocated(lane=lane, replicas=1, lengths=lengths)
    found = latency(system, 0.3 * stability_rate(system))
    assert any("longest prompts" in reason for reason in found.trust.reasons)


def test_answers_of_one_token_meet_any_tpot() -> None:
    """Three in ten answers have no TPOT: P90 of all requests is P85.7 of the others."""
    lengths = Lengths(
        inputs=np.array([200.0]),
        input_weights=np.ones(1),
        outputs=np.array([1.0, 50.0]),
        output_weights=np.array([0.3, 0.7]),
    )
    system = Collocated(lane=Lane(step=STEPS["dense"]), replicas=1, lengths=lengths)
    found = latency(system, 0.5 * stability_rate(system))
    share = marginal_attainment(found, Target(tpot=found.percentile("tpot", 0.9)))
    assert share["tpot"] == pytest.approx(0.9, abs=1e-6)
    assert found.percentile("tpot", 0.9) == pytest.approx(found.tpot.quantile(0.6 / 0.7))
    assert found.percentile("tpot", 0.2) == 0.0


def test_mode_behind_a_deep_minimum_is_never_visited() -> None:
    """Beyond 60 sequences steps are far longer: π has a mode at 5, and one at 390."""
    n = np.arange(1, 401)
    times = np.where(n < 60, 0.05, 3.9)
    found = occupancy(rate=10.0, steps=10.0, step_times=times)
    assert found.second > 0.99
    assert found.mean == pytest.approx(5.0, rel=1e-6)
    assert found.tpot == pytest.approx(0.05, rel=1e-6)


def test_products_beyond_all_floats_are_a_law() -> None:
    n = np.arange(1, 5001)
    found = occupancy(rate=1000.0, steps=10.0, step_times=0.4 * np.minimum(n, 4000) / 4001)
    assert np.isfinite(found.mean)
    assert found.probability.sum() == pytest.approx(1.0)
    tiny = occupancy(rate=1e-300, steps=1.0, step_times=np.full(1024, 1e-9))
    assert tiny.idle == 1.0


def test_no_law_below_the_limit_is_said_and_doubted() -> None:
    assert unstable(2.0, 1.0).status is LatencyStatus.UNSTABLE
    assert unstable(2.0, 1.0).trust.high
    found = unstable(0.5, 1.0)
    assert found.status is LatencyStatus.NO_LAW
    assert not found.trust.high


@pytest.mark.parametrize(("prompt", "answer"), [(1.3, 19.0), (30.5, 16.0)])
def test_capacity_where_decodes_fill_most_of_the_budget(prompt: float, answer: float) -> None:
    low = np.floor(prompt)
    inputs, share = np.array([low, low + 1.0]), np.array([low + 1.0 - prompt, prompt - low])
    lengths = Lengths(
        inputs=inputs,
        input_weights=share,
        outputs=np.array([answer]),
        output_weights=np.ones(1),
    )
    lane = Lane(step=STEPS["experts"], policy="mixed", max_num_seqs=512, max_num_batched_tokens=512)
    system = Collocated(lane=lane, replicas=1, lengths=lengths)
    simulated = saturation_rate(system, requests=20_000)
    assert stability_rate(system) == pytest.approx(simulated, rel=0.05)


SLOTTED = {
    "ten tokens": np.eye(11)[10],
    "one to five": np.array([0, 0.2, 0.2, 0.2, 0.2, 0.2]),
    "mostly one": np.array([0, 0.7, 0.1, 0.1, 0.1]),
}


@pytest.mark.parametrize("policy", ["chunked", "mixed", "prefill_priority"])
@pytest.mark.parametrize("answers", list(SLOTTED))
@pytest.mark.parametrize("slots", [8, 64])
def test_capacity_of_few_slots_and_short_answers(policy: str, answers: str, slots: int) -> None:
    """Prompts hold slots in their own steps; answers of one token leave theirs to more prompts."""
    law = SLOTTED[answers]
    lengths = Lengths(
        inputs=np.array([20.0]),
        input_weights=np.ones(1),
        outputs=np.flatnonzero(law).astype(float),
        output_weights=law[law > 0],
    )
    step = StepTime(w=0.01, c=2e-5, e=0.0, a=1e-10, k=3e-8, a_step=3e-4, a_seq=2e-5)
    lane = Lane(step=step, policy=policy, max_num_seqs=slots, max_num_batched_tokens=8192)
    system = Collocated(lane=lane, replicas=1, lengths=lengths)
    # answers of one length stay in step as they began: many beginnings
    seen = [saturation_rate(system, requests=4000, seed=seed) for seed in range(12)]
    assert stability_rate(system) == pytest.approx(np.mean(seen), rel=0.05)


def test_dear_mixed_steps_have_the_mode_that_is_visited() -> None:
    """Steps of φ = 1.4: the law of running sequences has no second mode at the slot limit."""
    lengths = Lengths(
        inputs=np.arange(119.0, 360.0),
        input_weights=np.full(241, 1 / 241),
        outputs=np.array([26.0]),
        output_weights=np.ones(1),
    )
    lane = Lane(
        step=STEPS["dear mixed steps"],
        policy="mixed",
        max_num_seqs=1024,
        max_num_batched_tokens=2048,
    )
    system = Collocated(lane=lane, replicas=1, lengths=lengths)
    for load in (0.5, 0.6):
        rate = load * stability_rate(system)
        run = simulate(system, rate, requests=100_000)
        assert latency(system, rate).tpot.mean == pytest.approx(run.summary("tpot").mean, rel=0.03)


def test_light_loads_keep_the_law_of_the_service() -> None:
    """At next to no load a wait is the service, on a grid as fine as at any other."""
    service, share = np.array([0.5, 1.0, 2.0, 5.0]), np.array([0.3, 0.4, 0.2, 0.1])
    for scv in (1.0, 0.25, 4.0):
        wait = gig1_wait(service, share, 1e-6, scv)
        assert wait is not None
        law = wait.plus(service, share)
        assert law.quantile(0.5) == pytest.approx(1.0, abs=0.1)
        assert law.quantile(0.99) == pytest.approx(5.0, abs=0.1)
