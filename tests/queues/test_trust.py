"""The measured chance of being off: direction of each term, and what the user reads."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Literal

import pytest

from bestserve.models.goodput import goodput
from bestserve.models.latency import latency, stability_rate
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Target
from bestserve.models.trust import (
    CAUSES,
    DOUBTED,
    ODDS,
    SHARP,
    Sight,
    Situation,
    chance_off,
    doubt,
    terms,
)

Objective = Literal["ttft", "tpot"]

PLAIN = Situation(decodes_apart=False, met=30.0, load=0.4, stall=0.1, spread=0.2)


@pytest.mark.parametrize("objective", ["ttft", "tpot"])
def test_plain_settings_are_trusted(objective: Objective) -> None:
    chance, _ = chance_off(objective, PLAIN, Sight())
    assert 0 < chance < DOUBTED
    assert doubt(objective, PLAIN, Sight()) is None


@pytest.mark.parametrize(("objective", "situation", "sight", "cause"), [
    ("ttft", PLAIN, Sight(width=20 * SHARP), "wide"),
    ("tpot", PLAIN, Sight(width=20 * SHARP), "wide"),
    ("tpot", PLAIN, Sight(discrepancy=0.3), "readings"),
    ("tpot", replace(PLAIN, met=0.1), Sight(), "few"),
    ("tpot", replace(PLAIN, stall=0.8), Sight(discrepancy=0.01), "stall"),
    ("ttft", replace(PLAIN, spread=4.0), Sight(), "spread"),
    ("ttft", replace(PLAIN, spread=1.0, cached=0.7, load=0.8), Sight(), "cached"),
    ("ttft", replace(PLAIN, load=0.97), Sight(), "load"),
])  # fmt: skip
def test_chance_grows_with_what_makes_formulas_worse(
    objective: Objective, situation: Situation, sight: Sight, cause: str
) -> None:
    chance, found = chance_off(objective, situation, sight)
    assert chance > chance_off(objective, PLAIN, Sight())[0]
    weight, value = ODDS[objective][cause], terms(situation, sight)[cause]
    assert weight * value > 0
    assert found in CAUSES.values()


def test_mixtures_of_experts_are_doubted_sooner() -> None:
    experts = replace(PLAIN, experts=True)
    assert chance_off("tpot", experts, Sight())[0] > chance_off("tpot", PLAIN, Sight())[0]


def test_a_doubt_names_the_largest_contribution() -> None:
    few = replace(PLAIN, met=0.05)
    said = doubt("tpot", few, Sight(discrepancy=0.05))
    assert said is not None
    assert said.endswith("few prompts decide TPOT")
    assert said.startswith("one in ")


def test_every_term_has_a_weight_and_a_cause() -> None:
    assert set(terms(PLAIN, Sight())) == set(ODDS["ttft"]) | set(ODDS["tpot"])
    assert set(CAUSES) | {"one", "apart"} == set(terms(PLAIN, Sight()))


@pytest.mark.parametrize(("short", "high"), [(0.98, False), (0.5, True)])
def test_infeasible_by_a_hair_is_doubted(cases: ModuleType, short: float, high: bool) -> None:
    system = cases.collocated("chunked")
    light = latency(system, 2e-3 * stability_rate(system))
    found = goodput(system, Target(ttft=short * light.percentile("ttft", 0.9)))
    assert found.status is LatencyStatus.INFEASIBLE
    assert found.trust.high == high
