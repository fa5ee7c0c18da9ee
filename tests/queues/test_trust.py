"""The measured chance of being off: direction of each term, and what the user reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bestserve.models.trust import CAUSES, DOUBTED, Sight, Situation, chance_off

PLAIN = Sight(elasticity=1.0, spread=0.1, tail=False, load=0.5)


@pytest.mark.parametrize("served", ["shared", "mixed", "priority", "disaggregated"])
@pytest.mark.parametrize("objective", ["ttft", "tpot"])
def test_plain_settings_are_trusted(objective: str, served: str) -> None:
    chance, _ = chance_off(objective, Situation(served=served, met=30.0), PLAIN)  # type: ignore[arg-type]
    assert 0 < chance < DOUBTED


@pytest.mark.parametrize("objective", ["ttft", "tpot"])
def test_chance_grows_with_what_makes_models_worse(objective: str) -> None:
    calm = Situation(served="mixed", met=30.0, scv=0.2)
    least, _ = chance_off(objective, calm, PLAIN)  # type: ignore[arg-type]
    worse = [
        (replace(calm, met=0.3), PLAIN),
        (replace(calm, large=0.4), PLAIN),
        (calm, replace(PLAIN, tail=True)),
        (calm, replace(PLAIN, elasticity=12.0)),
    ]
    for situation, sight in worse:
        chance, cause = chance_off(objective, situation, sight)  # type: ignore[arg-type]
        assert chance > least
        assert cause in CAUSES.values()


def test_cause_names_the_largest_contribution() -> None:
    few = Situation(served="shared", met=0.1)
    assert chance_off("tpot", few, PLAIN)[1] == "few prompts decide TPOT"
    flat = replace(PLAIN, elasticity=20.0, spread=0.5)
    served = Situation(served="disaggregated")
    assert chance_off("tpot", served, flat)[1] == "latency hardly depends on the rate"
