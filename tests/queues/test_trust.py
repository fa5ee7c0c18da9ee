"""The measured chance of being off: direction of each term, and what the user reads."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import pytest

from bestserve.models.attainment import deciders
from bestserve.models.binding import Binding
from bestserve.models.goodput import goodput
from bestserve.models.latency import latency, stability_rate
from bestserve.models.status import LatencyStatus
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Target
from bestserve.models.trust import (
    BENT,
    CAUSES,
    DOUBTED,
    ODDS,
    SHARP,
    Limits,
    Sight,
    Situation,
    chance_off,
    doubt,
    terms,
)

PLAIN = Situation(decodes_apart=False, load=0.4, spread=0.2)


@pytest.mark.parametrize("objective", list(ODDS))
def test_plain_settings_are_trusted(objective: Limits) -> None:
    chance, _ = chance_off(objective, PLAIN, Sight())
    assert 0 < chance < DOUBTED
    assert doubt(objective, PLAIN, Sight()) is None


@pytest.mark.parametrize(("objective", "situation", "sight", "cause"), [
    ("ttft", PLAIN, Sight(width=20 * SHARP), "wide"),
    ("tpot", PLAIN, Sight(discrepancy=0.3), "readings"),
    ("tpot", replace(PLAIN, spread=4.0), Sight(), "spread"),
    ("tpot", replace(PLAIN, experts=True), Sight(), "experts"),
    ("ttft", replace(PLAIN, load=0.97), Sight(), "load"),
    ("tpot at a rate", replace(PLAIN, steps=4.0), Sight(), "short"),
    ("tpot at a rate", replace(PLAIN, chunks=6.0), Sight(), "chunks"),
])  # fmt: skip
def test_chance_grows_with_what_makes_formulas_worse(
    objective: Limits, situation: Situation, sight: Sight, cause: str
) -> None:
    chance, found = chance_off(objective, situation, sight)
    assert chance > chance_off(objective, PLAIN, Sight())[0]
    weight, value = ODDS[objective][cause], terms(situation, sight)[cause]
    assert weight * value > 0
    assert found in CAUSES.values()


def test_bent_steps_are_doubted_for_what_tpot_decides() -> None:
    bent = replace(PLAIN, bend=0.04)
    assert doubt("tpot", bent, Sight()) == "steps grow unevenly with the sequences that run"
    assert doubt("ttft", bent, Sight()) is None
    assert doubt("tpot at a rate", bent, Sight()) is None


def test_few_sequences_of_experts_bend_steps(cases: ModuleType) -> None:
    table = tuple(30e-3 * (1 - math.exp(-(2.0 ** (i / 2)) / 8)) for i in range(29))
    dense = StepTime(w=3e-3, c=1e-5, e=0.0, a=1e-10, k=2e-8, a_seq=1e-5)
    experts = replace(dense, moe=table)
    for policy in ("chunked", "prefill_priority"):
        few, many, plain = (
            latency(system, share * stability_rate(system)).situation
            for system, share in (
                (cases.collocated(policy, step=experts), 0.02),
                (cases.collocated(policy, step=experts), 0.8),
                (cases.collocated(policy, step=dense), 0.02),
            )
        )
        assert few is not None
        assert many is not None
        assert plain is not None
        assert few.bend > BENT > max(many.bend, plain.bend)


def test_a_doubt_names_the_largest_contribution() -> None:
    said = doubt("tpot", replace(PLAIN, spread=1.0), Sight(discrepancy=0.2))
    assert said is not None
    assert said.endswith("single stalls and smooth laws of TPOT differ")
    assert said.startswith("one in ")


def test_every_term_has_a_weight_and_a_cause() -> None:
    assert set(terms(PLAIN, Sight())) == {name for odds in ODDS.values() for name in odds}
    assert set(CAUSES) | {"one", "apart"} == set(terms(PLAIN, Sight()))


@pytest.mark.parametrize(("short", "high"), [(0.98, False), (0.5, True)])
def test_infeasible_by_a_hair_is_doubted(cases: ModuleType, short: float, high: bool) -> None:
    system = cases.collocated("chunked")
    light = latency(system, 2e-3 * stability_rate(system))
    found = goodput(system, Target(ttft=short * light.percentile("ttft", 0.9)))
    assert found.status is LatencyStatus.INFEASIBLE
    assert found.trust.high == high


@pytest.mark.parametrize(("ttft", "tpot", "named"), [
    (0.9, 0.9999, ("ttft",)), (0.9999, 0.9, ("tpot",)), (0.92, 0.93, ("ttft", "tpot")),
])  # fmt: skip
def test_objectives_that_are_hardly_missed_decide_no_joint_goodput(
    cases: ModuleType, ttft: float, tpot: float, named: tuple[str, ...]
) -> None:
    system = cases.collocated("chunked")
    at = latency(system, 0.5 * stability_rate(system))
    limits = {"ttft": at.percentile("ttft", ttft), "tpot": at.percentile("tpot", tpot)}
    target = Target(**limits, joint=True, attainment=0.8)
    assert deciders(at, target, Binding.JOINT) == named


def test_what_makes_no_part_of_e2el_decides_none(cases: ModuleType) -> None:
    system = cases.collocated("chunked", cases.lengths(100, 400))
    at = latency(system, 0.3 * stability_rate(system))
    assert deciders(at, Target(e2el=10.0), Binding.E2EL) == ("tpot",)
