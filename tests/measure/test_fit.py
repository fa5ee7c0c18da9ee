"""Fits recover constants that are known, and say what the points do not determine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bestserve.catalog import load_hardware
from bestserve.measure.fit import Fit, fit_form, fit_linear
from bestserve.measure.forms import (
    fit_all_reduce,
    fit_decode_attention,
    fit_elementwise,
    fit_gemm,
    fit_prefill_attention,
    fit_step_time,
    step_time_of,
    with_constants,
)
from bestserve.measure.shapes import LayerShape
from bestserve.models.step.attention import decode_attention, prefill_attention
from bestserve.models.step.collectives import all_reduce
from bestserve.models.step.roofline import gemm
from bestserve.models.step.step_time import StepTime

DEVICE = load_hardware("h100-sxm").device()
SHAPE = LayerShape(hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=14336)
TRUE = {
    "gemm.compute_bf16": 0.71,
    "gemm.compute_fp8": 0.48,
    "gemm.memory": 0.79,
    "gemm.launch": 4.4e-6,
    "gemm.area_per_sm": 2100.0,
    "prefill.compute": 0.58,
    "prefill.launch": 16e-6,
    "prefill.query_offset": 800.0,
    "prefill.rows_per_sm": 120.0,
    "decode.memory": 0.72,
    "decode.launch": 15e-6,
    "elementwise.launch": 2.2e-6,
    "elementwise.memory": 0.66,
    "collective.allreduce_latency": 7e-6,
    "collective.allreduce_growth": 0.11,
    "collective.allreduce_link": 0.52,
}
NOISE = 0.02


def noisy(
    rows: list[dict[str, Any]], time: Callable[[dict[str, Any]], Any]
) -> list[dict[str, Any]]:
    """Return rows with 2 % log-normal noise on the model's times."""
    random = np.random.default_rng(3)
    for row in rows:
        row["median_s"] = float(time(row)) * float(np.exp(NOISE * random.standard_normal()))
    return rows


def check(fit: Fit | None) -> None:
    """Every constant is within four standard errors of the truth, which are not absurdly wide."""
    assert fit is not None
    assert fit.median < 1.5 * NOISE
    for c in fit.constants:
        assert c.identified
        assert abs(c.value - TRUE[c.name]) < 4 * c.sd, c
        assert c.sd < 0.5 * c.value, c


def test_gemm_constants_are_recovered_for_both_formats() -> None:
    constants = with_constants(TRUE)
    rows = [
        {"kind": "gemm", "m": m, "n": n, "k": k, "fmt": fmt}
        for fmt in ("bf16", "fp8")
        for n, k in SHAPE.gemms().values()
        for m in (1, 16, 64, 128, 256, 512, 1024, 4096)
    ]
    timed = noisy(rows, lambda r: gemm(r["m"], r["n"], r["k"], DEVICE, r["fmt"], constants).time)
    check(fit_gemm(timed, DEVICE))


def test_attention_constants_are_recovered() -> None:
    constants = with_constants(TRUE)
    prompts = [
        {"kind": "prefill_attention", "batch": b, "prompt": q}
        for b in (1, 4)
        for q in (128, 512, 1024, 2048, 4096, 8192)
    ]
    check(
        fit_prefill_attention(
            noisy(
                prompts,
                lambda r: (
                    prefill_attention(
                        r["batch"] * r["prompt"] ** 2 / 2,
                        r["batch"] * r["prompt"],
                        r["prompt"],
                        SHAPE.heads,
                        128,
                        128,
                        DEVICE,
                        constants,
                    ).time
                ),
            ),
            SHAPE,
            DEVICE,
        )
    )
    decodes = [
        {"kind": "decode_attention", "batch": b, "context": c}
        for b in (1, 8, 64, 256)
        for c in (512, 2048, 8192)
    ]
    check(
        fit_decode_attention(
            noisy(
                decodes,
                lambda r: (
                    decode_attention(
                        r["batch"] * r["context"],
                        r["batch"],
                        32,
                        8,
                        128,
                        128,
                        2.0,
                        DEVICE,
                        constants,
                    ).time
                ),
            ),
            SHAPE,
            DEVICE,
        )
    )


def test_elementwise_and_all_reduce_constants_are_recovered() -> None:
    constants = with_constants(TRUE)
    c = constants.elementwise
    rows = [
        {"kind": kind, "m": m, "kernels": kernels, "bytes": m * 10_000 * kernels}
        for kind, kernels in (("norm", 1), ("activation", 2))
        for m in (1, 16, 256, 1024, 4096, 16384)
    ]
    timed = noisy(
        rows,
        lambda r: r["kernels"] * c.launch + r["bytes"] / (c.memory * DEVICE.memory_bandwidth),
    )
    check(fit_elementwise(timed, DEVICE))
    messages = [
        {"kind": "all_reduce", "gpus": g, "bytes": 1 << e} for g in (2, 4, 8) for e in range(12, 28)
    ]
    reduced = noisy(messages, lambda r: all_reduce(r["bytes"], r["gpus"], DEVICE, constants).time)
    check(fit_all_reduce(reduced, DEVICE))


def test_standard_errors_are_those_of_repetition() -> None:
    # 200 data sets: the spread of the estimates is what the fit says about one of them.
    x = np.geomspace(1.0, 1e4, 30)
    random = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(200):
        y = (2.0 + 0.01 * x) * np.exp(0.05 * random.standard_normal(x.size))
        fit = fit_form("line", lambda v: v["a"] + v["b"] * x, y, {"a": 1.0, "b": 0.1})
        assert fit is not None
        values.append(fit.value("a"))
        errors.append(fit.constants[0].sd)
    assert np.median(errors) == pytest.approx(np.std(values), rel=0.2)


def test_what_the_points_do_not_see_is_reported() -> None:
    x = np.linspace(1.0, 2.0, 20)

    def predict(values: Any) -> Any:
        return values["seen"] * x

    fit = fit_form("blind", predict, 3.0 * x, {"seen": 1.0, "unseen": 7.0})
    assert fit is not None
    seen, unseen = fit.constants
    assert seen.value == pytest.approx(3.0)
    assert (unseen.value, unseen.identified) == (7.0, False)
    assert fit_form("short", predict, x[:2], {"seen": 1.0, "unseen": 1.0}) is None


def test_collinear_parameters_are_not_both_claimed() -> None:
    # One prompt at a time on one head count: s0 and A·S/h are the same thing.
    constants = with_constants(TRUE)
    rows = [{"kind": "prefill_attention", "batch": 1, "prompt": 128 << i} for i in range(8)]
    timed = noisy(
        rows,
        lambda r: (
            prefill_attention(
                r["prompt"] ** 2 / 2, r["prompt"], r["prompt"], 32, 128, 128, DEVICE, constants
            ).time
        ),
    )
    fit = fit_prefill_attention(timed, SHAPE, DEVICE)
    assert fit is not None
    known = {c.name: c for c in fit.constants if c.identified}
    assert len({"prefill.query_offset", "prefill.rows_per_sm"} & set(known)) == 1
    assert known["prefill.compute"].value == pytest.approx(TRUE["prefill.compute"], rel=0.05)


def test_step_time_coefficients_are_recovered() -> None:
    true = StepTime(w=8e-4, c=5e-6, e=0.0, a=4e-10, k=2e-9)
    rows: list[dict[str, Any]] = [
        {"kind": "layer_decode", "batch": b, "context": c, "mode": "graph", "layers": 4}
        for b in (1, 4, 16, 64, 256)
        for c in (512, 2048, 8192)
    ]
    rows += [
        {"kind": "layer_prefill", "prompt": q, "mode": "graph"}
        for q in (128, 512, 1024, 2048, 4096, 8192)
    ]
    for row in rows:
        if "batch" in row:
            row["median_s"] = true(row["batch"], 0, row["batch"] * row["context"])
        else:
            row["median_s"] = true(row["prompt"], row["prompt"] ** 2 / 2, 0)
    fit = fit_step_time(rows, "graph")
    assert fit is not None
    found = step_time_of(fit, 8.0)
    assert (found.w, found.c, found.a, found.k) == pytest.approx(
        (8 * true.w, 8 * true.c, 8 * true.a, 8 * true.k), rel=2e-2
    )
    assert fit_step_time(rows, "eager") is None


def test_linear_fit_of_host_times() -> None:
    kernels, batch = [10.0, 20.0, 30.0, 40.0, 10.0, 40.0], [1.0, 1.0, 1.0, 1.0, 9.0, 9.0]
    columns = {"step": [1.0] * 6, "kernel": kernels, "sequence": batch}
    y = [50e-6 + 5e-6 * k for k in kernels]
    fit = fit_linear("host", columns, y)
    assert fit is not None
    assert fit.value("step") == pytest.approx(50e-6)
    assert fit.value("kernel") == pytest.approx(5e-6)
    assert fit.value("sequence") == pytest.approx(0.0, abs=1e-9)
    assert fit_linear("short", {"a": [1.0]}, [1.0]) is None
