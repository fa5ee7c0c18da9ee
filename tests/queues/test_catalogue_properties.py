"""Random questions over the whole catalogue: what is asked, and what counts as a violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bestserve as bs
from bestserve.models.trust import Trust
from bestserve.results.document import AnswerStatus, Summary
from bestserve.results.prediction import Prediction


@pytest.fixture(scope="module")
def questions(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("validation/questions.py")


@pytest.fixture(scope="module")
def properties(questions: ModuleType, script: Callable[[str], ModuleType]) -> ModuleType:
    return script("validation/properties.py")


def test_questions_repeat_and_reach_every_regime(questions: ModuleType) -> None:
    asked = [questions.ask(3, number) for number in range(120)]
    assert asked[:5] == [questions.ask(3, number) for number in range(5)]
    counts = Counter(regime for question in asked for regime in question.regimes)
    assert set(counts) == set(questions.REGIMES)
    assert 0.35 < counts["moe"] / len(asked) < 0.65
    assert counts["moe"] + counts["dense"] == len(asked)
    assert len({question.problem.model for question in asked}) > 40


SOUND = Summary(0.11, 0.1, 0.2, 0.25, 0.4)
PREDICTED = Prediction(
    problem=bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        workload=bs.Workload(input_len=100, output_len=10),
    ),
    strategy="1m-tp1",
    request_rate=5.0,
    status=AnswerStatus.OK,
    ttft=SOUND,
    tpot=SOUND,
    e2el=SOUND,
    utilisation=0.5,
    stability_limit=10.0,
    attainment=0.8,
    attainment_by={"ttft": 0.9, "tpot": 0.8},
    trust=Trust(True),
)


def test_a_sound_prediction_violates_nothing(properties: ModuleType) -> None:
    assert list(properties.sound(PREDICTED)) == []


@pytest.mark.parametrize(("kind", "changes"), [
    ("not finite", {"tpot": replace(SOUND, mean=float("nan"))}),
    ("not finite", {"utilisation": 1.5}),
    ("joint above marginal", {"attainment": 0.81}),
    ("percentiles out of order", {"e2el": replace(SOUND, p90=0.09)}),
    ("mean outside its law", {"ttft": replace(SOUND, mean=0.02)}),
    ("status contradicts", {"request_rate": 10.0}),
    ("status contradicts", {"status": AnswerStatus.UNSTABLE}),
])  # fmt: skip
def test_each_impossible_figure_is_seen(
    properties: ModuleType, kind: str, changes: dict[str, object]
) -> None:
    assert [v.kind for v in properties.sound(replace(PREDICTED, **changes))] == [kind]


def test_a_crash_and_a_warning_are_counted_not_raised(
    properties: ModuleType, questions: ModuleType
) -> None:
    question = replace(questions.ask(3, 1), strategy="no strategy")
    found = properties.examine(question)
    assert {v.kind for v in found} == {"crash"}
    tally = properties.Tally()
    tally.add(question.regimes, found)
    assert tally.kinds == {"crash": 1}
    assert tally.trusted == {}


def seen(properties: ModuleType, question: object) -> list[object]:
    """What must not be: wherever a latency may still fall or a goodput rise, trust is low."""
    trusted = ("latency falls", "goodput rises", "interval without its value")
    found = properties.examine(question)
    return [v for v in found if v.high or v.kind not in trusted]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(100, 107))
def test_what_must_hold_of_every_answer(
    properties: ModuleType, questions: ModuleType, number: int
) -> None:
    assert seen(properties, questions.ask(3, number)) == []


@pytest.mark.slow
@settings(max_examples=6, derandomize=True)
@given(st.integers(0, 10**6))
def test_what_must_hold_wherever_hypothesis_looks(
    properties: ModuleType, questions: ModuleType, seed: int
) -> None:
    # neither the default mode nor a ranking: they take longer
    assert seen(properties, questions.ask(seed, 1)) == []
