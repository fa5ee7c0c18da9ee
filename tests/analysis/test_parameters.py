"""Every figure can be named, read and changed, and wrong changes are refused in one line."""

from __future__ import annotations

import pytest

import bestserve as bs
from bestserve.analysis.figures import stretched
from bestserve.analysis.parameters import (
    at_value,
    changed,
    parameter,
    parameters,
    perturbed,
)
from bestserve.errors import InputError, UnknownNameError
from bestserve.lowering import lower
from bestserve.specs.calibration import Calibration, Constant, Provenance

LAWS = [
    bs.Fixed(500),
    bs.Uniform(100, 900),
    bs.LogNormal(500, cv=0.7),
    bs.Geometric(500),
    bs.Empirical((100, 500, 900)),
]


def test_every_figure_of_a_problem_moves_to_the_value_asked(real):
    lowered = lower(real)
    names = {p.name for p in parameters(lowered)}
    assert {"hardware.memory_bandwidth", "workload.input_cv", "engine.a_step", "slo.tpot"} <= names
    for figure in parameters(lowered):
        factor = 1.02 if figure.high > figure.value * 1.02 else 0.98
        moved = lower(perturbed(real, figure.name, factor))
        found = parameter(moved, figure.name).value
        if figure.name == "hardware.sms":
            assert found == round(figure.value * factor)
        else:
            assert found == pytest.approx(figure.value * factor), figure.name
        others = {p.name: p.value for p in parameters(moved) if p.name != figure.name}
        assert others == {p.name: p.value for p in parameters(lowered) if p.name != figure.name}


def test_own_coefficients_are_figures_too(own):
    lowered = lower(own)
    assert parameter(lowered, "step_time.w").value == 6e-3
    assert at_value(lowered, "step_time.w", 7e-3).problem.step_time.w == 7e-3
    assert not any(p.group in ("hardware", "engine") for p in parameters(lowered))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_stretching_a_law_stretches_its_mean_and_keeps_its_shape(law):
    twice = stretched(law, 2.0)
    assert twice.mean_tokens == pytest.approx(2 * law.mean_tokens)
    assert twice.scv == pytest.approx(law.scv, abs=0.01)


def test_classes_stretch_together():
    classes = tuple(
        bs.RequestClass(name=n, share=0.5, input_len=i, output_len=100)
        for n, i in (("short", 100), ("long", 900))
    )
    problem = bs.Problem(
        step_time=bs.StepTime(w=6e-3, c=26e-6, e=0, a=0, k=0),
        workload=bs.Workload(classes=classes),
        slo=bs.SLO("ttft:1000"),
    )
    moved = changed(problem, {"workload.input_len": 1000})
    assert [c.input_len.tokens for c in moved.workload.classes] == [200, 1800]


def test_several_figures_and_fields_change_at_once(real):
    moved = changed(real, {"hardware.sms": "x0.5", "gpus": 16, "slo.ttft": 2, "engine.a_seq": 0})
    assert moved.gpus == 16
    assert moved.hardware.sms.value == 66
    assert moved.slo.ttft == 2.0
    assert moved.engine.a_seq == 0.0
    assert moved.hardware.sms.kind == "assumed"


def test_a_network_stated_by_the_problem_is_the_one_that_changes(real):
    stated = real.replaced(network_bandwidth=25e9)
    moved = changed(stated, {"hardware.network_bandwidth": "x2"})
    assert lower(moved).device.network_bandwidth == 50e9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hardware.memory_bandwith": "x2"}, "memory_bandwidth"),
        ({"hardwear.sms": "x2"}, "hardware"),
        ({"workload.input_len": "many"}, "no finite number"),
        ({"engine.a_step": -1}, "no finite number"),
        ({"engine.phi": 0.5}, "at least 1"),
        ({"gpu": 4}, "gpus"),
        ({"slo.e2el": "nan"}, "not a positive number"),
        ({"step_time.w": 1.0}, "model and hardware"),
        ({"workload.prefix_cache_hit": 1.5}, "prefix_cache_hit"),
    ],
)
def test_wrong_changes_say_what_is_wrong_in_one_line(real, change, said):
    with pytest.raises(InputError, match=said) as error:
        changed(real, change)
    assert "\n" not in str(error.value)


def test_a_figure_that_is_not_there_is_unknown(real):
    with pytest.raises(UnknownNameError, match=r"slo\.tpot"):
        parameter(lower(real), "slo.tpo")


def test_what_a_calibration_sets_cannot_be_changed_behind_its_back(real, tmp_path):
    from bestserve.catalog.calibration import save_calibration

    record = Calibration(
        provenance=Provenance(device="H100", date="2025-01-01"),
        constants={
            "engine.a_step": Constant(value=2e-3, unit="s", kind="measured", source="here", sd=1e-4)
        },
    )
    path = save_calibration(record, tmp_path / "own.toml")
    problem = real.replaced(calibration=str(path))
    with pytest.raises(InputError, match="calibration record"):
        changed(problem, {"engine.a_step": "x2"})
    assert at_value(lower(problem), "engine.a_step", 3e-3).engine.a_step == 3e-3
    assert lower(changed(problem, {"engine.a_seq": "x2"})).engine.a_step == 2e-3


def test_what_splitting_costs_can_be_stated_scaled_and_not_invented(real):
    assert changed(real, {"engine.handover": "20 ms"}).engine.handover == pytest.approx(0.02)
    split = changed(real.replaced(engine="sglang"), {"engine.prefill_host": "x0.2"})
    assert split.engine.prefill_host == pytest.approx(2e-3)
    with pytest.raises(InputError, match="not stated"):
        changed(real, {"engine.prefill_phi": "x0.9"})
    with pytest.raises(InputError, match="at least 1"):
        changed(real, {"engine.prefill_phi": 0.9})
