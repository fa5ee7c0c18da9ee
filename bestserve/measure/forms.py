"""From journal rows to the constants of `bestserve.models.step.constants`, form by form.

Every form is the model's own function, called with other constants: what is fitted is what the
predictions use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bestserve.arrays import Floats
from bestserve.measure.fit import Fit, fit_form, fit_linear
from bestserve.measure.shapes import LayerShape
from bestserve.models.step.attention import decode_attention, prefill_attention
from bestserve.models.step.collectives import all_reduce
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device
from bestserve.models.step.roofline import gemm
from bestserve.models.step.step_time import StepTime

Row = Mapping[str, Any]
Rows = Sequence[Row]

EFFICIENCIES = (".compute", ".compute_bf16", ".compute_fp8", ".memory", ".allreduce_link")

KV_BYTES = 2.0
"""The measured cache is bf16 [B per element]."""


def with_constants(
    values: Mapping[str, float], base: OperatorConstants = DEFAULT
) -> OperatorConstants:
    """Return `base` with constants replaced, named "group.field" as in `constants.describe`."""
    groups: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        group, field = name.split(".")
        groups.setdefault(group, {})[field] = value
    return replace(base, **{g: replace(getattr(base, g), **f) for g, f in groups.items()})


def starting(names: Sequence[str], base: OperatorConstants = DEFAULT) -> dict[str, float]:
    """Return the present values of constants named "group.field"."""
    return {n: getattr(getattr(base, n.split(".")[0]), n.split(".")[1]) for n in names}


def of_kind(rows: Rows, kind: str) -> list[Row]:
    """Return the timed rows of one kind; points that were skipped have no time."""
    return [row for row in rows if row["kind"] == kind and "median_s" in row]


def column(rows: Rows, name: str) -> Floats:
    """Return one figure of all rows."""
    return np.array([float(row[name]) for row in rows])


def fit_operators(rows: Rows, shape: LayerShape, device: Device) -> tuple[Fit, ...]:
    """Fit every form that has enough points, in the order of the constants."""
    fits = (
        fit_gemm(rows, device),
        fit_prefill_attention(rows, shape, device),
        fit_decode_attention(rows, shape, device),
        fit_elementwise(rows, device),
        fit_all_reduce(rows, device),
    )
    return tuple(fit for fit in fits if fit is not None)


def _fit(
    form: str, names: Sequence[str], rows: Rows, time: Callable[[Row, OperatorConstants], Any]
) -> Fit | None:
    """Fit constants to rows; efficiencies are never given up in favour of offsets."""

    def predict(values: Mapping[str, float]) -> Floats:
        constants = with_constants(values)
        return np.array([float(time(row, constants)) for row in rows])

    keep = [n for n in names if n.endswith(EFFICIENCIES)]
    return fit_form(form, predict, column(rows, "median_s"), starting(names), keep=keep)


def fit_gemm(rows: Rows, device: Device) -> Fit | None:
    """Fit e_c (per weight format), e_m, t0 and A of t0 + ‖2k(mn + A·S)/(e_c·P), bytes/(e_m·W)‖."""
    used = of_kind(rows, "gemm")
    formats = sorted({row["fmt"] for row in used})
    names = [f"gemm.compute_{fmt}" for fmt in formats]
    return _fit(
        "gemm",
        [*names, "gemm.memory", "gemm.launch", "gemm.area_per_sm"],
        used,
        lambda r, c: gemm(r["m"], r["n"], r["k"], device, r["fmt"], c).time,
    )


def fit_prefill_attention(rows: Rows, shape: LayerShape, device: Device) -> Fit | None:
    """Fit e_c, t0, s0 and A of causal attention; batches of prompts tell s0 from A."""
    d = shape.head_dim
    return _fit(
        "prefill attention",
        ["prefill.compute", "prefill.launch", "prefill.query_offset", "prefill.rows_per_sm"],
        of_kind(rows, "prefill_attention"),
        lambda r, c: (
            prefill_attention(
                r["batch"] * r["prompt"] ** 2 / 2,
                r["batch"] * r["prompt"],
                r["prompt"],
                shape.heads,
                d,
                d,
                device,
                c,
            ).time
        ),
    )


def fit_decode_attention(rows: Rows, shape: LayerShape, device: Device) -> Fit | None:
    """Fit e_m and t0 of one-token attention."""
    d = shape.head_dim
    return _fit(
        "decode attention",
        ["decode.memory", "decode.launch"],
        of_kind(rows, "decode_attention"),
        lambda r, c: (
            decode_attention(
                r["batch"] * r["context"],
                r["batch"],
                shape.heads,
                shape.kv_heads,
                d,
                d,
                KV_BYTES,
                device,
                c,
            ).time
        ),
    )


def fit_elementwise(rows: Rows, device: Device) -> Fit | None:
    """Fit e_m and the fixed time per kernel of norms and activations."""
    return _fit(
        "elementwise",
        ["elementwise.launch", "elementwise.memory"],
        [*of_kind(rows, "norm"), *of_kind(rows, "activation")],
        lambda r, c: (
            r["kernels"] * c.elementwise.launch
            + r["bytes"] / (c.elementwise.memory * device.memory_bandwidth)
        ),
    )


def fit_all_reduce(rows: Rows, device: Device) -> Fit | None:
    """Fit α, δ and e of α(1 + δ(g − 2)) + 2(g − 1)/g·M/(e·W_link); δ only with several groups."""
    used = of_kind(rows, "all_reduce")
    names = ["collective.allreduce_latency", "collective.allreduce_link"]
    if len({row["gpus"] for row in used}) > 1:
        names.append("collective.allreduce_growth")
    if device.link_bandwidth <= 0:
        return None
    return _fit(
        "all-reduce",
        names,
        used,
        lambda r, c: all_reduce(r["bytes"], r["gpus"], device, c).time,
    )


def fit_host(rows: Rows) -> Fit | None:
    """Fit host time of an eager step = per step + per kernel · kernels + per sequence · batch."""
    used = [
        (row["batch"], kernels, seconds)
        for row in of_kind(rows, "dispatch")
        for kernels, seconds in zip(row["prefix_kernels"], row["prefix_host_s"], strict=True)
    ]
    if not used:
        return None
    batch, kernels, seconds = (list(map(float, c)) for c in zip(*used, strict=True))
    columns = {"per_step": [1.0] * len(used), "per_kernel": kernels, "per_sequence": batch}
    return fit_linear("host submission", columns, seconds)


def fit_step_time(rows: Rows, mode: str) -> Fit | None:
    """Fit the five coefficients of [w³ + (cT)³]^(1/3) + eT + aA + kK to whole-step timings.

    mode : "eager" or "graph". The coefficients are those of the measured stack of layers; one that
    the points do not determine is 0. None without both decodes and prompts.
    """
    decodes = [r for r in of_kind(rows, "layer_decode") if r["mode"] == mode]
    prompts = [r for r in of_kind(rows, "layer_prefill") if r["mode"] == mode]
    tokens = [*(r["batch"] for r in decodes), *(r["prompt"] for r in prompts)]
    pairs = [*(0.0 for _ in decodes), *(r["prompt"] ** 2 / 2 for r in prompts)]
    context = [*(r["batch"] * r["context"] for r in decodes), *(0.0 for _ in prompts)]
    T, A, K = (np.array(x, dtype=np.float64) for x in (tokens, pairs, context))
    measured = column([*decodes, *prompts], "median_s")

    def predict(v: Mapping[str, float]) -> Floats:
        return np.cbrt(v["w"] ** 3 + (v["c"] * T) ** 3) + v["e"] * T + v["a"] * A + v["k"] * K

    if not decodes or not prompts:
        return None
    per_token = float(np.min(measured[len(decodes) :] / T[len(decodes) :]))
    start = {
        "w": float(measured.min()),
        "c": per_token,
        "e": per_token / 10,
        "a": 0.1 * float(np.max(measured[len(decodes) :] / A[len(decodes) :])),
        "k": 0.1 * float(np.max(measured[: len(decodes)] / K[: len(decodes)])),
    }
    zero = dict.fromkeys(start, 0.0)
    return fit_form(f"step time ({mode})", predict, measured, start, zero, keep=("w",))


def step_time_of(fit: Fit, factor: float = 1.0) -> StepTime:
    """Return fitted coefficients as a `StepTime`, times `factor` (layers of the model/measured)."""
    w, c, e, a, k = (fit.value(name) * factor for name in "wceak")
    return StepTime(w=w, c=c, e=e, a=a, k=k)
