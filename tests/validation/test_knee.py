"""Runs at their knee: the factor that makes the objectives bind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Lane, System
from bestserve.readers.tidy import TidyRow
from bestserve.validation.knee import (
    FASTEST,
    SLOWEST,
    TTFT_MARGIN,
    at_objectives,
    objectives_of,
    scaled,
)
from bestserve.validation.replay import predict_row, prepare

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


def test_scaling_multiplies_every_step(system: Collocated) -> None:
    doubled = scaled(system, 2.0)
    assert isinstance(doubled, Collocated)
    before = system.lane.step(T=50, A=1000, K=4000, n=8)
    assert doubled.lane.step(T=50, A=1000, K=4000, n=8) == pytest.approx(2 * before)


def test_the_factor_is_found_where_the_objectives_bind(system: Collocated) -> None:
    def run(changed: System) -> dict[str, float]:
        assert isinstance(changed, Collocated)
        factor = changed.lane.step.w / system.lane.step.w
        return {"tpot_p99_ms": 100.0 * factor, "ttft_p99_ms": 200.0 * factor}

    figures, factor = at_objectives(system, (1000.0, 150.0), run)
    assert factor == pytest.approx(1.5, rel=0.01)
    assert figures["tpot_p99_ms"] == pytest.approx(150.0, rel=0.01)
    _, by_ttft = at_objectives(system, (250.0 / TTFT_MARGIN, 1000.0), run)
    assert by_ttft == pytest.approx(1.25, rel=0.01)


def test_a_factor_out_of_range_is_not_used(system: Collocated) -> None:
    figures, factor = at_objectives(system, (1e9, 1e9), lambda s: {"tpot_p99_ms": 1.0})
    assert factor == 1.0
    assert figures == {"tpot_p99_ms": 1.0}
    assert FASTEST < 1.0 < SLOWEST


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
    used = max(figures["tpot_p99_ms"] / 200.0, figures["ttft_p99_ms"] / 2000.0)
    assert 0.85 < used <= 1.0
