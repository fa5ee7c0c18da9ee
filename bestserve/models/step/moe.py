"""Mixture-of-experts layers: routing skew and the grouped expert GEMM.

    t = γ·t0 + rows·(8H + 2·m·I)/R + ‖2·m·H·I·n_pad/(e_c·P), m·H·I·w·E_act/(e_m·W)‖_p

with m matrices per expert (3 gated, 2 not) and I per rank. Gathering, quantising, activating and
scattering the rows overlaps with nothing, so it is added; R is bound by the multiprocessors, not
by memory, and scales with their number. `rows` are this rank's (path "L") or all routed rows of
the expert group (path "G", kernels that keep masked rows). Everything is of the most loaded rank.

Kernels that unpack narrow weights for 16-bit tensor cores (Marlin) do so at a rate of their own, a
third term of the norm: it is the multiprocessors', the same on H100 and H200.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import WEIGHT_BYTES, Device, Precision
from bestserve.models.step.roofline import Cost, Number, compute_format, peak, present

MoePath = Literal["L", "G"]

FILLED = 0.9
"""Of a tile which a kernel with several chooses by rows per expert: vLLM's `fused_marlin_moe`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeKernel:
    """How an engine runs its experts; `None` takes the universal constant.

    path : "L" only this rank's rows, "G" all routed rows pass through the activation pass
    compute, memory : reached share of peak FLOP/s and of memory bandwidth [1]
    launch : fixed time of a layer's expert part [s]; rate : of the activation pass [B/s/SM]
    unpack : rate at which packed weights are unpacked [B/s/SM]; None: on the way
    tile : rows to whose next multiple EVERY expert is padded, those without rows too, so that all
        weights are read and small batches cost as much as large ones; 0: only experts that are hit
    heights : of the tiles that the kernel chooses from, ascending: the lowest of which an expert's
        rows on average fill less than `FILLED` [rows]; none: `MoeConstants.tile`
    prefill : factor on the engine's φ of steps with prompt tokens [1]
    """

    path: MoePath = "L"
    compute: float | None = None
    memory: float | None = None
    launch: float | None = None
    rate: float | None = None
    unpack: float | None = None
    tile: int = 0
    heights: tuple[int, ...] = ()
    prefill: float = 1.0


def active_experts(assignments: Number, experts: float) -> Floats:
    """Return the expected number of experts that `assignments` routed rows touch, of `experts`.

    E·q/(1 + q) with q = assignments/E rows per expert: exponentially distributed popularity,
    within 5 % of power-law routing for q ≥ 0.5.

    >>> active_experts(64.0, 128.0).round(1)
    np.float64(42.7)
    """
    rows = np.asarray(assignments, dtype=np.float64)
    return rows * experts / (experts + rows)


def imbalance(assignments: Number, ranks: int, constants: OperatorConstants = DEFAULT) -> Floats:
    """Return rows on the most loaded expert rank over the mean, ≥ 1.

    The larger of the skew of popular experts and of chance: the fullest of `ranks` Poisson counts
    of mean μ lies about √(2μ·ln ranks) above μ. Never more than all rows on one rank.
    """
    rows = np.asarray(assignments, dtype=np.float64)
    if ranks <= 1:
        return np.ones_like(rows)
    c = constants.moe
    octaves = math.log2(ranks)
    skew = float(
        np.interp(octaves, [0, 1, 2, 3], [1.0, c.imbalance_2, c.imbalance_4, c.imbalance_8])
    ) + c.imbalance_step * max(0.0, octaves - 3)
    mean = np.maximum(rows / ranks, 1e-12)
    chance = 1.0 + np.sqrt(2.0 * math.log(ranks) / mean)
    return np.minimum(np.maximum(skew, chance), float(ranks))


def expert_efficiency(
    device: Device, precision: Precision, kernel: MoeKernel, constants: OperatorConstants = DEFAULT
) -> tuple[float, float]:
    """Return (share of peak FLOP/s, share of memory bandwidth) of the grouped GEMM [1]."""
    c = constants.moe
    memory = c.memory if kernel.memory is None else kernel.memory * c.memory_listed
    if kernel.compute is not None:
        return kernel.compute * c.compute_listed, memory
    runs = compute_format(device, precision)
    if runs == "bf16" and precision != "bf16":
        compute = c.compute_weight_only
    else:
        compute = {
            "bf16": c.compute_bf16,
            "fp8": c.compute_fp8,
            "int8": c.compute_fp8,
            "nvfp4": c.compute_fp4,
        }[runs]
    if device.generation == "blackwell" and runs != "nvfp4":
        compute *= c.blackwell_compute
    return compute, memory


def _tiles(
    apart: Floats, rows: Floats, experts: float, kernel: MoeKernel, height: float
) -> tuple[Floats, Floats]:
    """Return (experts whose weights are read, rows with padding) of one rank.

    apart : rows that choose their experts each for itself, as many as touch what all of them do
    height : of the tiles of kernels that pad only experts that are hit [rows]
    """
    every = kernel.tile
    if not every:
        active = active_experts(apart, experts)
        tile = _chosen(rows / experts, kernel.heights) if kernel.heights else height
        return active, rows + tile * active / (1.0 + rows / (experts * tile))
    # A tile each, or half a tile lost each where every expert has many rows.
    padded = np.maximum(experts * every, rows + 0.5 * experts * every) * present(rows)
    return experts * present(rows), padded


def _chosen(each: Floats, heights: tuple[int, ...]) -> Floats:
    """Return the height of the tiles that a kernel takes with `each` rows per expert [rows]."""
    tiles = np.array(heights, dtype=np.float64)
    lowest = np.searchsorted(FILLED * tiles, each, side="right")
    return np.asarray(tiles[np.minimum(lowest, tiles.size - 1)])


def grouped_experts(
    tokens: Number,
    hidden: float,
    intermediate: float,
    num_experts: int,
    top_k: int,
    ranks: int,
    device: Device,
    precision: Precision = "bf16",
    kernel: MoeKernel | None = None,
    constants: OperatorConstants = DEFAULT,
    *,
    gated: bool = True,
    gamma: float = 1.0,
    skew: Number | None = None,
    weight_bytes: float | None = None,
) -> Cost:
    """Return the routed experts of one layer on the most loaded of `ranks` expert ranks.

    tokens : entering the layer, over all data-parallel ranks [tokens]
    intermediate : width of an expert on this rank (I / moe_tp)
    gamma : factor on the fixed time: CUDA graphs hide part of it [1]
    skew : most-loaded factor; default `imbalance`
    weight_bytes : per weight where a checkpoint's differ from the format's definition [B]
    """
    c = constants.moe
    used = MoeKernel() if kernel is None else kernel
    e_c, e_m = expert_efficiency(device, precision, used, constants)
    matrices = 3.0 if gated else 2.0
    rows = np.asarray(tokens, dtype=np.float64) * top_k
    factor = imbalance(rows, ranks, constants) if skew is None else np.asarray(skew)
    own = np.minimum(rows, factor * rows / ranks)
    local = num_experts / ranks
    active, padded = _tiles(own * c.apart, own, local, used, c.tile)
    rate = (
        used.rate * c.rate_listed
        if used.rate is not None
        else (c.rate_local if used.path == "L" else c.rate_global)
    )
    passed = (own if used.path == "L" else rows) * (8.0 * hidden + 2.0 * matrices * intermediate)
    stored = WEIGHT_BYTES[precision] if weight_bytes is None else weight_bytes
    weights = matrices * hidden * intermediate * stored * active
    per_row = 2.0 * matrices * hidden * intermediate
    launch = c.launch if used.launch is None else used.launch
    computing = per_row * padded / (e_c * peak(device, precision))
    if used.unpack is not None:
        unpacking = weights / (used.unpack * device.sms)
        computing = (computing**c.exponent + unpacking**c.exponent) ** (1.0 / c.exponent)
    return Cost(
        fixed=gamma * launch * present(rows),
        compute=computing,
        memory=weights / (e_m * device.memory_bandwidth),
        activation=passed / (rate * device.sms),
        flops=per_row * own,
        traffic=weights + passed,
        exponent=c.exponent,
    )
