"""Runs at their knee: what makes the objectives bind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Lane, System
from bestserve.readers.tidy import TidyRow
from bestserve.validation import replay
from bestserve.validation.knee import (
    LOAD,
    TPOT_MARGIN,
    TTFT_MARGIN,
    Figures,
    at_objectives,
    corrected,
    highest_rate,
    load_of,
    objectives_of,
)
from bestserve.validation.pooling import GROWTH
from bestserve.validation.replay import METRICS, predict_row, prepare

Make = Callable[..., TidyRow]


@pytest.fixture(scope="module")
def system() -> Collocated:
    """One lane with round coefficients."""
    from bestserve.models.system import Lengths
    from bestserve.validation.datasets import whole_atoms

    inputs, outputs = whole_atoms(100.0), whole_atoms(10.0)
    lengths = Lengths(inputs=inputs[0], input_weights=inputs[1], outputs=outputs[0],
                      output_weights=outputs[1])  # fmt: skip
    step = StepTime(w=1e-3, c=1e-6, e=1e-7, a=1e-10, k=1e-9, a_step=1e-3, a_seq=1e-5)
    return Collocated(lane=Lane(step=step), replicas=1, lengths=lengths)


def test_corrections_stretch_steps_and_lengthen_them(system: Collocated) -> None:
    changed = corrected(system, 0.5, 3e-3)
    before = system.lane.step(T=50, A=1000, K=4000, n=8)
    assert changed.lane.step(T=50, A=1000, K=4000, n=8) == pytest.approx(0.5 * before + 3e-3)


def test_load_counts_what_grows_with_tokens(system: Collocated) -> None:
    step = system.lane.step
    tokens = 110 * (step.c + step.e) + 100**2 / 2 * step.a
    context = step.k * (100 * 10 + 10**2 / 2)
    expected = 5.0 * (tokens + context + 11 * step.a_seq)
    assert load_of(system, 5.0) == pytest.approx(expected, rel=1e-3)
    assert load_of(system, 10.0) == pytest.approx(2 * load_of(system, 5.0))


def test_the_added_time_is_that_at_which_the_first_objective_binds(system: Collocated) -> None:
    def run(changed: System) -> Figures:
        assert isinstance(changed, Collocated)
        more = 1e3 * (changed.lane.step.a_step - system.lane.step.a_step)
        return {"tpot_p99_ms": 10.0 + more, "ttft_p99_ms": 20.0 + 2 * more}

    def alone(_: System) -> Figures:
        return {"ttft_p99_ms": 20.0}

    figures, factor, more = at_objectives(system, 1.0, (1e4, 100.0), run, alone)
    assert factor == 1.0
    assert figures["tpot_p99_ms"] == pytest.approx(TPOT_MARGIN * 100.0, rel=0.03)
    assert more == pytest.approx(1e-3 * (TPOT_MARGIN * 100.0 - 10.0), rel=0.03)
    figures, _, _ = at_objectives(system, 1.0, (120.0, 1e4), run, alone)
    assert figures["ttft_p99_ms"] == pytest.approx(20.0 + TTFT_MARGIN * 100.0, rel=0.03)


def test_the_margin_counts_from_a_lone_request(system: Collocated) -> None:
    late: dict[float, bool] = {}
    for lone in (0.0, 80.0):
        _, _, more = at_objectives(
            system, 1.0, (100.0, 1e4), lambda _: {"ttft_p99_ms": 84.0},
            lambda _, own=lone: {"ttft_p99_ms": own},
        )  # fmt: skip
        late[lone] = more == 0.0
    assert late == {0.0: True, 80.0: False}


def test_tokens_that_would_fill_the_time_are_made_faster(system: Collocated) -> None:
    rate = 2.0 / load_of(system, 1.0)
    _, factor, _ = at_objectives(system, rate, (1.0, 1.0), lambda _: {}, lambda _: {})
    assert factor == pytest.approx(LOAD / 2.0)


def test_objectives_are_read_from_the_notes(make: Make) -> None:
    row = make(notes=("LoadGen VALID", "SLO TTFT p99<=2000ms TPOT p99<=200ms"))
    assert objectives_of(row) == (2000.0, 200.0)
    assert objectives_of(make()) is None


@pytest.mark.slow
def test_an_mlperf_row_reports_its_factor(make: Make) -> None:
    row = make(source="MLPerf Inference v4.1 closed/X", model="meta-llama/Llama-2-70b-chat-hf",
               gpu="NVIDIA H200 SXM", engine="TensorRT-LLM", request_rate=11.0, concurrency=None,
               input_len_mean=222.0, output_len_mean=290.0,
               notes=("SLO TTFT p99<=2000ms TPOT p99<=200ms",))  # fmt: skip
    figures, method, notes = predict_row(prepare(row))
    assert method == "simulated"
    assert "scaled by" in notes[-1]
    assert 0.7 < figures["tpot_p99_ms"] / 200.0 <= TPOT_MARGIN


def test_a_run_at_its_knee_has_figures_of_logs_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what else a simulated run tells has no interval, and once stopped `validate`
    row = make(source="MLPerf Inference v4.1 closed/X", request_rate=11.0, concurrency=None,
               notes=("SLO TTFT p99<=2000ms TPOT p99<=200ms",))  # fmt: skip
    told = {"ttft_p99_ms": 1.0, "req_throughput": 11.0, "out_tok_throughput": 1.0, GROWTH: 9.0}
    monkeypatch.setattr(replay, "at_objectives", lambda *_: (dict(told), 1.0, 0.0))
    figures, _, _ = predict_row(prepare(row))
    assert set(figures) <= set(METRICS)
    assert figures["ttft_p99_ms"] == 1.0


@pytest.mark.parametrize("limit", [0.3, 1.0, 7.0])
def test_the_highest_rate_is_bracketed_from_either_side(limit: float) -> None:
    found = highest_rate(1.0, lambda rate: rate <= limit)
    assert found is not None
    assert limit / 1.031 <= found <= limit


def test_no_rate_is_said_to_meet_what_none_meets() -> None:
    assert highest_rate(1.0, lambda rate: False) is None
