"""Hardware and calibration records: read back, applied, and refused where they describe no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestserve.catalog import load_hardware
from bestserve.catalog.calibration import load_calibration, save_calibration
from bestserve.errors import DataError, InputError
from bestserve.lowering import lower
from bestserve.measure.dispatch import examine
from bestserve.measure.grid import Grid, Point, points
from bestserve.measure.records import (
    Analysis,
    analyse,
    calibration,
    comparison,
    hardware_record,
    launch_time,
    launches_per_layer,
    write_toml,
)
from bestserve.measure.shapes import LayerShape
from bestserve.measure.simulated import SimulatedMachine
from bestserve.models.step.attention import decode_attention, prefill_attention
from bestserve.models.step.constants import DEFAULT
from bestserve.models.step.device import Device
from bestserve.models.step.roofline import gemm
from bestserve.models.step.step_time import StepTime
from bestserve.specs.calibration import Calibration
from bestserve.specs.problem import Problem
from bestserve.specs.workload import Workload

H100 = load_hardware("h100-sxm")
SHAPE = LayerShape(
    hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=14336, model_layers=32
)
STEP = StepTime(w=7e-4, c=4e-6, e=0.0, a=3e-10, k=1.5e-9)
LAUNCH = 9e-6
KERNELS = 18


def exact_row(point: Point, device: Device) -> dict[str, Any]:
    """Return the row that a GPU obeying the universal constants would give."""
    row: dict[str, Any] = {"key": point.key, "kind": point.kind, **dict(point.sizes)}
    row |= {"low_s": 0.0, "high_s": 0.0, "repeats": 5}
    if point.kind == "gemm":
        t = gemm(row["m"], row["n"], row["k"], device, row["fmt"]).time
    elif point.kind == "decode_attention":
        t = decode_attention(
            row["batch"] * row["context"], row["batch"], 32, 8, 128, 128, 2.0, device
        ).time
    elif point.kind == "prefill_attention":
        tokens = row["batch"] * row["prompt"]
        pairs = tokens * row["prompt"] / 2
        t = prefill_attention(pairs, tokens, row["prompt"], 32, 128, 128, device).time
    elif point.kind in ("norm", "activation"):
        row |= {"bytes": 4 * row["m"] * 4096, "kernels": 1}
        c = DEFAULT.elementwise
        t = c.launch + row["bytes"] / (c.memory * device.memory_bandwidth)
    elif point.kind == "layer_decode":
        row |= {"layers": 4, "kernels": 4 * KERNELS, "host_s": 1e-4}
        t = STEP(row["batch"], 0, row["batch"] * row["context"])
    elif point.kind == "layer_prefill":
        row |= {"layers": 4, "kernels": 4 * KERNELS, "host_s": 1e-4}
        t = STEP(row["prompt"], row["prompt"] ** 2 / 2, 0)
    elif point.kind == "dispatch":
        machine = SimulatedMachine()
        ops = [machine.op(f"k{i % KERNELS}", LAUNCH, 4e-6) for i in range(4 * KERNELS)]
        found = examine(machine, ops, layers=4, budget=1e-4)
        row |= {"layers": 4, **found.row()}
        t = found.eager.median
    else:
        row |= {"sync_s": 5e-6, "graph_launch_s": 11e-6}
        t = 4e-6
    return {**row, "median_s": float(t)}


def header(**changes: Any) -> dict[str, Any]:
    import dataclasses

    head = {
        "device": "NVIDIA H100 80GB HBM3",
        "kind": "cuda",
        "memory": 85_000_000_000,
        "processors": 132,
        "gpus": 1,
        "capability": [9, 0],
        "driver": "580.1",
        "versions": {"torch": "2.13.0", "cuda": "13.0"},
        "self_test": False,
        "date": "2026-11-22",
        "model": "meta-llama/Llama-3.1-8B",
        "tp": 1,
        "fmt": "bf16",
        "shape": dataclasses.asdict(SHAPE),
    }
    return {**head, **changes}


def analysed(base: Any = H100, **changes: Any) -> Analysis:
    todo = points(SHAPE, Grid(formats=("bf16", "fp8")), gpus=1)
    return analyse(header(**changes), [exact_row(p, H100.device()) for p in todo], base)


@pytest.fixture(scope="module")
def known() -> Analysis:
    return analysed()


def test_a_gpu_that_obeys_the_constants_yields_them(known: Analysis) -> None:
    rows = {r["constant"]: r for r in comparison(known)}
    for name, row in rows.items():
        if row["measured"] is not None:
            assert row["measured"] == pytest.approx(row["universal"], rel=0.02), name
    assert rows["gemm.compute_fp8"]["measured"] is not None
    assert {fit.form for fit in known.steps} == {"step time (eager)", "step time (graph)"}


def test_launch_time_counts_launches_as_the_dispatch_model_does(known: Analysis) -> None:
    found = launch_time(known)
    assert found is not None
    d = DEFAULT.dispatch
    # Four projections and the attention kernel beside the small ones.
    launches = 5 + d.attention_launches + d.ffn_launches
    assert launches_per_layer(SHAPE, H100.device()) == launches
    assert found.value * launches == pytest.approx(LAUNCH * KERNELS, rel=1e-6)


def test_hardware_record_extends_the_catalogue(known: Analysis, tmp_path: Path) -> None:
    path = write_toml(hardware_record(known), tmp_path / "mine.toml")
    mine = load_hardware(path)
    assert mine.memory_bytes.value == 85e9
    assert mine.launch_time.kind == "measured"
    assert "driver 580.1" in mine.launch_time.source
    assert mine.flops_bf16 == H100.flops_bf16


def test_an_unknown_gpu_gets_rates_that_reproduce_its_gemms(tmp_path: Path) -> None:
    unknown = analysed(base=None, device="NVIDIA Unheard-of 1")
    path = write_toml(hardware_record(unknown), tmp_path / "new.toml")
    new = load_hardware(path)
    assert new.generation == "hopper"
    device, truth = new.device(), H100.device()
    assert device.flops_bf16 == pytest.approx(truth.flops_bf16, rel=0.02)
    assert device.flops_fp8 == pytest.approx(truth.flops_fp8, rel=0.02)
    assert device.memory_bandwidth == pytest.approx(truth.memory_bandwidth, rel=0.02)
    assert new.flops_bf16.kind == "derived"
    assert new.link_bandwidth.kind == "assumed"


def test_calibration_is_read_back_and_applied(known: Analysis, tmp_path: Path) -> None:
    record = calibration(known)
    path = save_calibration(record, tmp_path / "mine.toml")
    assert load_calibration(path) == record
    constant = record.constants["gemm.memory"]
    assert (constant.kind, constant.unit) == ("measured", "1")
    assert constant.sd >= 0
    assert record.observed["host.per_kernel"].value == pytest.approx(LAUNCH, rel=1e-6)
    assert record.observed["step_graph.w"].value == pytest.approx(STEP.w * 8, rel=0.05)
    # What no engine ran for is not handed to predictions.
    assert not [name for name in record.constants if name.startswith("engine.")]


def problem(path: Path) -> Problem:
    return Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=1,
        workload=Workload(input_len=512, output_len=64),
        calibration=str(path),
    )


def test_predictions_use_the_record(tmp_path: Path) -> None:
    values = {
        "gemm.memory": {"value": 0.42, "unit": "1", "kind": "measured", "source": "test"},
        "engine.a_step": {"value": 5e-3, "unit": "s", "kind": "measured", "source": "test"},
    }
    record = Calibration(provenance={"device": "x", "date": "2026-11-22"}, constants=values)
    lowered = lower(problem(save_calibration(record, tmp_path / "c.toml")))
    assert lowered.constants.gemm.memory == 0.42
    assert lowered.constants.gemm.launch == DEFAULT.gemm.launch
    assert lowered.engine.a_step == 5e-3


def test_a_self_test_says_so_and_is_refused_everywhere(tmp_path: Path) -> None:
    found = analysed(base=None, self_test=True, device="some CPU", capability=[0, 0])
    record = calibration(found)
    assert record.provenance.self_test
    assert "not a GPU" in record.constants["gemm.memory"].source
    path = save_calibration(record, tmp_path / "cpu.toml")
    with pytest.raises(InputError, match="self-test on some CPU, so it says nothing about a GPU"):
        lower(problem(path))
    hardware = write_toml(hardware_record(found), tmp_path / "cpu.hardware.toml")
    with pytest.raises(DataError, match="generation 'cpu' is not one of"):
        load_hardware(hardware)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "provenance"),
        ('[provenance]\ndevice="x"\ndate="2026"\n[constants."gemm.memry"]\nvalue=1.0\nunit="1"\n'
         'kind="measured"\nsource="s"\n', "gemm.memry is no constant.*gemm.memory"),
        ('[provenance]\ndevice="x"\ndate="2026"\n[constants."gemm.memory"]\nvalue=1.0\nunit="%"\n'
         'kind="measured"\nsource="s"\n', "write it in '1'"),
        ('[provenance]\ndevice="x"\ndate="2026"\n[constants."gemm.memory"]\nvalue=inf\nunit="1"\n'
         'kind="measured"\nsource="s"\n', "finite"),
        ('[provenance]\ndevice="x"\ndate="2026"\n[constants."gemm.memory"]\nvalue=-1.0\nunit="1"\n'
         'kind="measured"\nsource="s"\n', "must be at least 0"),
        ("constants = 3\n", "constants"),
    ],
)  # fmt: skip
def test_malformed_calibrations_are_refused_in_one_line(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=reason) as caught:
        load_calibration(path)
    assert "\n" not in str(caught.value)


def test_rows_without_any_fit_still_give_records() -> None:
    few = analyse(header(), [exact_row(points(SHAPE, Grid())[0], H100.device())], H100)
    assert few.operators == ()
    assert "launch_time" not in hardware_record(few)["figures"]
    assert np.isfinite(few.device.flops_bf16)
