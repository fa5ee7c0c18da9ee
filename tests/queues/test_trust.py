"""The measured chance of being off: direction of each term, and what the user reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from bestserve.models.trust import CAUSES, DOUBTED, Sight, Situation, chance_off

Objective = Literal["ttft", "tpot"]

PLAIN = Sight(elasticity=1.0, spread=0.1, apart=0.001, tail=False)


@pytest.mark.parametrize("decodes_apart", [False, True])
@pytest.mark.parametrize("objective", ["ttft", "tpot"])
def test_plain_settings_are_trusted(objective: Objective, decodes_apart: bool) -> None:
    plain = Situation(decodes_apart=decodes_apart, met=30.0)
    chance, _ = chance_off(objective, plain, PLAIN)
    assert 0 < chance < DOUBTED


def test_chance_grows_with_what_makes_models_worse() -> None:
    shared = Situation(decodes_apart=False, met=30.0, scv=0.2)
    apart = Situation(decodes_apart=True)
    cases: list[tuple[Objective, Situation, Situation, Sight]] = [
        ("ttft", shared, shared, replace(PLAIN, tail=True)),
        ("ttft", shared, shared, replace(PLAIN, elasticity=12.0)),
        ("tpot", apart, apart, replace(PLAIN, elasticity=12.0)),
        ("tpot", shared, shared, replace(PLAIN, tail=True)),
        ("tpot", shared, shared, replace(PLAIN, apart=0.1)),
        ("tpot", shared, replace(shared, met=0.3), PLAIN),
        ("tpot", shared, replace(shared, scv=1.0), PLAIN),
    ]
    for objective, calm, situation, sight in cases:
        least, _ = chance_off(objective, calm, PLAIN)
        chance, cause = chance_off(objective, situation, sight)
        assert chance > least
        assert cause in CAUSES.values()


def test_cause_names_the_largest_contribution() -> None:
    few = Situation(decodes_apart=False, met=0.1)
    assert chance_off("tpot", few, PLAIN)[1] == "few prompts decide TPOT"
    flat = replace(PLAIN, elasticity=20.0, spread=0.5)
    served = Situation(decodes_apart=True)
    assert chance_off("tpot", served, flat)[1] == "latency hardly depends on the rate"
