"""The host-device pipeline: recursion, bounds, and what eager launching did to A100 decode."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bestserve.catalog import load_engine, load_model
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.breakdown import step_breakdown
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.dispatch import bounds, eager_step, pipeline
from bestserve.models.step.operators import operator_list
from bestserve.models.step.step_work import StepWork

times = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=st.floats(0, 10))] * 2)
)


def recursion(launch: np.ndarray, device: np.ndarray) -> float:
    launched = done = 0.0
    for d, t in zip(launch, device, strict=True):
        launched += d
        done = max(done, launched) + t
    return done


@given(times)
def test_cumulative_sums_equal_the_recursion(pair: tuple[np.ndarray, np.ndarray]) -> None:
    launch, device = pair
    assert float(pipeline(launch, device)) == pytest.approx(recursion(launch, device), abs=1e-9)


@given(times)
def test_bounds_hold(pair: tuple[np.ndarray, np.ndarray]) -> None:
    launch, device = pair
    low, high = bounds(launch, device)
    assert low - 1e-9 <= pipeline(launch, device) <= high + 1e-9


def test_many_steps_at_once() -> None:
    launch = np.full((3, 4), 2.0)
    device = np.array([[1.0] * 4, [2.0] * 4, [5.0] * 4])
    assert pipeline(launch, device).tolist() == [9.0, 10.0, 22.0]


LLAMA2 = "meta-llama/Llama-2-70b-hf"


def _decode(arch: Architecture, device: Device, tp: int, engine: str) -> tuple[float, str]:
    work = StepWork.grid(context=576, decodes=1)
    result = step_breakdown(arch, device, Parallelism(tp=tp), Formats(), load_engine(engine), work)
    return float(result.total[0]), result.binding()


def test_eager_decode_of_70b_is_dispatch_bound_and_graphs_are_not(a100: Device) -> None:
    arch = load_model(LLAMA2).architecture
    eager, binding = _decode(arch, a100, 8, "vllm-eager")
    replayed, graph_binding = _decode(arch, a100, 8, "vllm")
    assert binding == "dispatch"
    assert graph_binding == "memory"
    assert eager > 2.5 * replayed


def test_a_faster_host_never_hurts(a100: Device, llama8b: Architecture) -> None:
    work = StepWork.grid(context=1000, decodes=[1, 32, 256])
    engine = load_engine("vllm-eager")
    previous = None
    for launch in (1e-6, 5e-6, 20e-6, 80e-6):
        device = replace(a100, launch_time=launch)
        operators = operator_list(llama8b, device, Parallelism(), Formats(), engine, work)
        total = eager_step(operators, engine, device).total
        assert np.all(total >= (0 if previous is None else previous))
        previous = total


def test_the_measured_plateau_of_eager_decode_on_a100(shared: Path, a100: Device) -> None:
    """Splitwise's profile: batch 1 takes 45 ms at TP 4 and at TP 8, host-bound, and 55 at TP 2.

    The host's launch time was derived from the TP 8 row alone; TP 4 and BLOOM are predictions.
    """
    arch = load_model(LLAMA2).architecture
    with (shared / "measured" / "splitwise_a100.csv").open() as stream:
        rows = [
            r
            for r in csv.DictReader(stream)
            if r["model"] == "llama2-70b" and r["batch"] == "1" and r["prompt_tokens"] == "512"
        ]
    measured = {
        tp: float(np.median([float(r["decode_step_ms_median"]) for r in rows if r["tp"] == tp]))
        for tp in ("2", "4", "8")
    }
    predicted = {tp: 1e3 * _decode(arch, a100, int(tp), "vllm-eager")[0] for tp in measured}
    assert predicted["8"] == pytest.approx(measured["8"], rel=0.05)
    assert predicted["4"] == pytest.approx(measured["4"], rel=0.05)
    assert predicted["4"] / predicted["8"] == pytest.approx(1.0, abs=0.02)
    # Two GPUs are short of the plateau's end; other overheads of that stack are not modelled.
    assert predicted["2"] == pytest.approx(measured["2"], rel=0.25)
