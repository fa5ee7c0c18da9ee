"""Adapted roofline: what one kernel costs, split by the resource that it waits for.

A kernel takes ``fixed + ‖compute, memory‖_p + activation + link`` seconds: launches, then compute
and memory traffic that overlap imperfectly (p-norm with p = 3, between sum and maximum), then
traffic that overlaps with nothing. Because every part is proportional to one hardware figure,
the shares of `Cost.shares` are exact elasticities: ∂t/∂ln(peak FLOP/s) = −compute share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import WEIGHT_BYTES, Device, Precision

Number = float | Floats


class Shares(NamedTuple):
    """Time by what it waits for [s]; sums to the kernel's time."""

    compute: Number
    memory: Number
    activation: Number
    launch: Number
    link: Number


@dataclass(frozen=True, slots=True)
class Cost:
    """One kernel, or a sum of equal ones, over a vector of steps.

    fixed, activation, link [s]; compute, memory [s] before the p-norm with `exponent`;
    flops [FLOP]; traffic [B]: memory traffic, or bytes sent per GPU for a collective.
    """

    fixed: Number = 0.0
    compute: Number = 0.0
    memory: Number = 0.0
    activation: Number = 0.0
    link: Number = 0.0
    flops: Number = 0.0
    traffic: Number = 0.0
    exponent: float = 3.0

    @property
    def overlapped(self) -> Number:
        """‖compute, memory‖_p [s]."""
        if not np.any(self.compute):
            return self.memory
        if not np.any(self.memory):
            return self.compute
        return p_norm(self.compute, self.memory, self.exponent)

    @property
    def time(self) -> Number:
        """Device time [s]."""
        return self.fixed + self.overlapped + self.activation + self.link

    def shares(self) -> Shares:
        """Split the time; inside the p-norm in proportion to compute^p and memory^p."""
        norm = np.asarray(self.overlapped, dtype=np.float64)
        compute = np.asarray(self.compute, dtype=np.float64)
        safe = np.where(norm > 0, norm, 1.0)
        part = norm * (compute / safe) ** self.exponent
        return Shares(part, norm - part, self.activation, self.fixed, self.link)


def present(amount: Number) -> Floats:
    """Return 1.0 where there is work and 0.0 where there is none: kernels not launched are free."""
    return np.asarray(np.asarray(amount) > 0, dtype=np.float64)


def p_norm(a: Number, b: Number, p: float = 3.0) -> Number:
    """Return (a^p + b^p)^(1/p) for a, b ≥ 0."""
    if p == 3.0:
        return np.cbrt(a * a * a + b * b * b)
    largest = np.maximum(a, b)
    safe = np.where(largest > 0, largest, 1.0)
    return largest * ((a / safe) ** p + (b / safe) ** p) ** (1.0 / p)


def compute_format(device: Device, precision: Precision) -> Precision:
    """Return the format the multiplication runs in: bf16 where the device lacks the weights'."""
    if precision in ("fp8", "fp8_block"):
        return "fp8" if device.flops_fp8 > 0 else "bf16"
    if precision == "int8":
        return "int8" if device.flops_int8 > 0 else "bf16"
    if precision == "nvfp4":
        return "nvfp4" if device.flops_fp4 > 0 else "bf16"
    return "bf16"  # bf16 itself, and formats whose kernels unpack weights: w8a16, int4, mxfp4


def peak(device: Device, precision: Precision) -> float:
    """Return the dense peak of the format that a GEMM with such weights runs in [FLOP/s]."""
    return {
        "fp8": device.flops_fp8,
        "int8": device.flops_int8,
        "nvfp4": device.flops_fp4,
        "bf16": device.flops_bf16,
    }[compute_format(device, precision)]


def activation_bytes(device: Device, precision: Precision) -> float:
    """Return bytes per activation element that a GEMM with such weights reads [B]."""
    return {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "nvfp4": WEIGHT_BYTES["nvfp4"]}[
        compute_format(device, precision)
    ]


def gemm_efficiency(
    device: Device, precision: Precision, constants: OperatorConstants = DEFAULT
) -> tuple[float, float]:
    """Return (share of peak FLOP/s, share of memory bandwidth) that a large GEMM reaches [1]."""
    g = constants.gemm
    runs = compute_format(device, precision)
    if runs == "bf16" and precision != "bf16":
        compute = g.compute_weight_only
    else:
        compute = {
            "bf16": g.compute_bf16,
            "fp8": g.compute_fp8,
            "int8": g.compute_int8,
            "nvfp4": g.compute_fp4,
        }[runs]
    # The fp4 figure was fitted on Blackwell, the only generation that has it.
    if device.generation == "blackwell" and runs != "nvfp4":
        compute *= g.blackwell_compute
    if device.generation in ("cdna3", "cdna4"):
        compute *= g.cdna_compute
    compute *= device.compute_reach
    return compute, g.memory_fp4 if runs == "nvfp4" else g.memory


def gemm(
    m: Number,
    n: float,
    k: float,
    device: Device,
    precision: Precision = "bf16",
    constants: OperatorConstants = DEFAULT,
    *,
    weight_bytes: float | None = None,
) -> Cost:
    """Return the cost of an (m×k)·(k×n) product with stored n×k weights; no cost where m = 0.

    t = t0 + ‖2k(mn + A·S)/(e_c·P), (w·nk + x·mk + 2mn)/(e_m·W)‖_p with S multiprocessors, w and x
    bytes per weight and activation: A·S output elements are lost to half-filled multiprocessors.

    weight_bytes : w where a checkpoint's differs from the format's own definition [B]
    """
    g = constants.gemm
    e_c, e_m = gemm_efficiency(device, precision, constants)
    rows = np.asarray(m, dtype=np.float64)
    launched = present(rows)
    area = rows * n + g.area_per_sm * device.sms
    stored = WEIGHT_BYTES[precision] if weight_bytes is None else weight_bytes
    traffic = stored * n * k + rows * (activation_bytes(device, precision) * k + 2.0 * n)
    return Cost(
        fixed=g.launch * launched,
        compute=launched * (2.0 * k * area) / (e_c * peak(device, precision)),
        memory=launched * traffic / (e_m * device.memory_bandwidth),
        flops=2.0 * rows * n * k,
        traffic=launched * traffic,
        exponent=g.exponent,
    )


def quantise(
    m: Number,
    k: float,
    device: Device,
    precision: Precision = "bf16",
    constants: OperatorConstants = DEFAULT,
    launch: float = 0.0,
) -> Cost:
    """Return the pass that turns m×k bf16 activations into the format of a GEMM; none for 16 bits.

    Its bytes follow m·k, the multiplications m·n·k, so narrow matrices lose most to it.

    launch : of a kernel of its own; 0: fused with the kernel ahead [s]
    """
    g = constants.gemm
    passed = {"fp8": g.quantise_fp8, "int8": g.quantise_int8, "nvfp4": g.quantise_fp4}
    width = passed.get(compute_format(device, precision), 0.0)
    rows = np.asarray(m, dtype=np.float64)
    traffic = width * rows * k
    return Cost(
        fixed=launch * present(traffic),
        memory=traffic / device.memory_bandwidth,
        traffic=traffic,
    )


def elementwise(
    tokens: Number,
    hidden: float,
    ffn_width: float,
    device: Device,
    constants: OperatorConstants = DEFAULT,
) -> Cost:
    """Return norms, residuals and activation of one layer; `ffn_width` per GPU, 0 without one."""
    c = constants.elementwise
    rows = np.asarray(tokens, dtype=np.float64)
    traffic = 2.0 * rows * (c.hidden_passes * hidden + c.ffn_passes * ffn_width)
    return Cost(
        fixed=c.launches * c.launch * present(rows),
        memory=traffic / (c.memory * device.memory_bandwidth),
        traffic=traffic,
    )
