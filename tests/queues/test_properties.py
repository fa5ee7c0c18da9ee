"""Properties that hold whatever the system: monotone, scale-free, linear in replicas."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.models.goodput import goodput
from bestserve.models.latency import latency, stability_rate
from bestserve.models.policies import policies
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Target

NOISE = 0.03
"""Grids change with the rate, so percentiles move by up to this between neighbouring systems."""

names = st.sampled_from(sorted(policies()))
prompts = st.sampled_from([200, 700, 2000])
outputs = st.sampled_from([30, 150, 500])
spreads = st.sampled_from([0.0, 0.6])
factors = st.floats(1.1, 3.0)


@settings(max_examples=25)
@given(names, prompts, outputs, spreads, factors)
def test_looser_thresholds_never_lower_goodput(
    cases: ModuleType, policy: str, prompt: int, output: int, cv: float, factor: float
) -> None:
    system = cases.collocated(policy, cases.lengths(prompt, output, cv, cv))
    tight = Target(ttft=0.1 + prompt * 8e-5, tpot=0.012)
    loose = replace(tight, ttft=tight.ttft * factor, tpot=tight.tpot * factor)
    assert goodput(system, loose).rate >= goodput(system, tight).rate * (1 - NOISE)


@settings(max_examples=25)
@given(names, prompts, outputs, st.sampled_from(["w", "c", "k", "a_step", "a_seq"]))
def test_faster_steps_never_lower_goodput(
    cases: ModuleType, policy: str, prompt: int, output: int, name: str
) -> None:
    law = cases.lengths(prompt, output, 0.5, 0.5)
    slow = cases.SMALL
    fast = replace(slow, **{name: 0.8 * getattr(slow, name)})
    target = Target(ttft=0.1 + prompt * 8e-5, tpot=0.015)
    before = goodput(cases.collocated(policy, law, step=slow), target).rate
    after = goodput(cases.collocated(policy, law, step=fast), target).rate
    assert after >= before * (1 - NOISE)


@settings(max_examples=15)
@given(names, prompts, spreads, st.floats(0.2, 5.0))
def test_time_has_no_scale(
    cases: ModuleType, policy: str, prompt: int, cv: float, factor: float
) -> None:
    law = cases.lengths(prompt, 150, cv, cv)
    step = cases.LARGE
    names = ("w", "c", "e", "a", "k", "a_step", "a_seq")
    slower = StepTime(**{n: factor * getattr(step, n) for n in names}, phi=step.phi)
    first = cases.collocated(policy, law, step=step)
    second = cases.collocated(policy, law, step=slower)
    rate = 0.6 * stability_rate(first)
    assert stability_rate(second) * factor == pytest.approx(stability_rate(first))
    a, b = latency(first, rate), latency(second, rate / factor)
    for name in ("ttft", "tpot", "e2el"):
        for p in (0.5, 0.9):
            expected = factor * getattr(a, name).quantile(p)
            assert getattr(b, name).quantile(p) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=10)
@given(names, st.integers(2, 9))
def test_random_routing_is_linear_in_replicas(
    cases: ModuleType, policy: str, replicas: int
) -> None:
    target = Target(ttft=0.2, tpot=0.015)
    one = goodput(cases.collocated(policy), target).rate
    many = goodput(cases.collocated(policy, replicas=replicas), target).rate
    assert many == pytest.approx(replicas * one, rel=2e-3)


@settings(max_examples=20)
@given(names, prompts, outputs, spreads, st.floats(0.05, 0.93))
def test_laws_are_laws(
    cases: ModuleType, policy: str, prompt: int, output: int, cv: float, load: float
) -> None:
    system = cases.collocated(policy, cases.lengths(prompt, output, cv, cv))
    found = latency(system, load * stability_rate(system))
    for law in (found.ttft, found.tpot, found.e2el):
        assert (law.F[1:] >= law.F[:-1]).all()
        assert (law.x[1:] >= law.x[:-1]).all()
        assert law.F[-1] == 1.0
        assert 0 < law.quantile(0.01) <= law.mean <= law.quantile(1.0)
    assert found.e2el.mean > found.ttft.mean
    assert 0 < found.utilisation <= 1
