"""Bytes per weight and kernel of the formats that checkpoints store linear layers in.

Bytes include the scales as the formats' own definitions have them: one per group of `group_size`
weights (16 bit beside integers, 8 bit beside 4- and 8-bit floats, 32 bit in bitsandbytes).
"""

from __future__ import annotations

from bestserve.models.step.device import WEIGHT_BYTES, Precision, WeightFormat

KEPT = WeightFormat("bf16", 2.0)
MOST_GROUP = 1_000_000


def integer(bits: int, group_size: int = -1, *, zero_points: bool = False) -> WeightFormat:
    """Return integer weights with 16-bit activations: GPTQ, AWQ, AutoRound, pack-quantized.

    group_size : weights that share a 16-bit scale; −1: a whole row or column

    >>> integer(4, 128)
    WeightFormat(precision='int4', bytes=0.515625)
    """
    precision: Precision = "int4" if bits <= 4 else "w8a16"
    scales = (2.0 + (bits / 8 if zero_points else 0.0)) / group_size if group_size > 0 else 0.0
    return WeightFormat(precision, bits / 8 + scales)


def integer8(group_size: int = -1) -> WeightFormat:
    """Return 8-bit integers multiplied with 8-bit integer activations."""
    return WeightFormat("int8", 1.0 + (2.0 / group_size if group_size > 0 else 0.0))


def float8(*, block: tuple[int, int] | None = None, weight_only: bool = False) -> WeightFormat:
    """Return FP8 weights: one scale per tensor or channel, or a 32-bit one per block."""
    scales = 4.0 / (block[0] * block[1]) if block else 0.0
    precision: Precision = "fp8_block" if block else "fp8"
    return WeightFormat("w8a16" if weight_only else precision, 1.0 + scales)


def float8_group(group_size: int = 32, *, weight_only: bool = False) -> WeightFormat:
    """Return MXFP8: 8-bit floats, an 8-bit scale per group."""
    return WeightFormat("w8a16" if weight_only else "fp8_block", 1.0 + 1.0 / group_size)


def float4(group_size: int, *, weight_only: bool = False) -> WeightFormat:
    """Return 4-bit floats with an 8-bit scale per group: NVFP4 (16) or MXFP4 (32)."""
    precision: Precision = "mxfp4" if group_size >= 32 else "nvfp4"
    if weight_only and precision == "nvfp4":
        precision = "int4"  # unpacked to 16 bits before they are multiplied
    return WeightFormat(precision, 0.5 + 1.0 / group_size)


def float6(group_size: int = 32) -> WeightFormat:
    """Return 6-bit floats with an 8-bit scale per group (OCP MXFP6), unpacked to 16 bits."""
    return WeightFormat("w8a16", 0.75 + 1.0 / group_size)


def named(precision: Precision) -> WeightFormat:
    """Return a format by its own definition."""
    return WeightFormat(precision, WEIGHT_BYTES[precision])
