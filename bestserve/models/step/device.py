"""A GPU and its links, as the operator models see them: numbers in SI units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Generation = Literal[
    "volta",
    "turing",
    "ampere",
    "ada",
    "hopper",
    "blackwell",
    "cdna3",
    "cdna4",
    "ascend",
    "gaudi",
    "tpu",
    "trainium",
]
Precision = Literal["bf16", "fp8", "fp8_block", "int8", "w8a16", "nvfp4", "mxfp4", "int4"]
"""Weight formats: fp8 per tensor or channel, fp8_block scaled by 128x128 block; nvfp4 and mxfp4
are 4-bit floats with block scales; w8a16 and int4 are 8- and 4-bit integer weights with 16-bit
activations, so they multiply at the bf16 rate."""

WEIGHT_BYTES: dict[Precision, float] = {
    "bf16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.0 + 4 / 128**2,
    "int8": 1.0,
    "w8a16": 1.0,
    "nvfp4": 0.5 + 1 / 16,
    "mxfp4": 0.5 + 1 / 32,
    "int4": 0.5 + 2 / 128,
}
"""Bytes per weight including block scales (formats' own definitions)."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the weights of one part are multiplied and stored.

    precision : decides the kernel; bytes : per weight, scales included [B]
    """

    precision: Precision
    bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """Formats of a checkpoint by part; where its layers differ, their mean size and main kernel.

    ffn : dense feed-forward layers and shared experts; experts : routed experts
    """

    attention: WeightFormat
    ffn: WeightFormat
    experts: WeightFormat
    embedding: WeightFormat = WeightFormat("bf16", 2.0)
    head: WeightFormat = WeightFormat("bf16", 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU type with its links.

    flops_* : dense peak [FLOP/s], 0 if the format has no tensor-core path
    memory_bytes : the driver's total [B]; visible : of it, what a process sees and engines take
        their share of [B]; 0: all
    memory_bandwidth [B/s], sms : streaming multiprocessors (compute units)
    link_bandwidth : one way, per GPU, inside the node [B/s]; link_latency : per hop [s]
    network_bandwidth : one way, per GPU, across nodes [B/s]; network_latency [s]
    gpus_per_node : GPUs that share the inner link
    launch_time : host time to launch one kernel without graphs [s]
    compute_reach : factor on the share of the peak that GEMM and attention kernels reach [1]
    """

    flops_bf16: float
    flops_fp8: float
    flops_int8: float
    flops_fp4: float
    memory_bytes: float
    memory_bandwidth: float
    sms: int
    link_bandwidth: float
    link_latency: float
    network_bandwidth: float
    network_latency: float
    gpus_per_node: int
    generation: Generation
    launch_time: float
    compute_reach: float = 1.0
    visible: float = 0.0

    @property
    def visible_bytes(self) -> float:
        """Memory that a process sees [B]."""
        return self.visible or self.memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """Of one engine instance: GPUs = tp · pp · dp. `ep` splits the experts over `ep` ranks."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1

    @property
    def gpus(self) -> int:
        """GPUs that one instance occupies."""
        return self.tp * self.pp * self.dp


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Number formats of a deployment.

    weights, experts, attention : by their own definitions: dense layers and shared experts, routed
        experts, attention projections (None: as `weights`)
    stored : a checkpoint's own formats, which come before those three
    kv_bytes : per element of the KV cache [B]
    """

    weights: Precision = "bf16"
    experts: Precision = "bf16"
    attention: Precision | None = None
    stored: StoredWeights | None = None
    kv_bytes: float = 2.0

    @property
    def parts(self) -> StoredWeights:
        """The formats by part."""
        if self.stored is not None:
            return self.stored
        attention = self.attention or self.weights
        return StoredWeights(
            attention=WeightFormat(attention, WEIGHT_BYTES[attention]),
            ffn=WeightFormat(self.weights, WEIGHT_BYTES[self.weights]),
            experts=WeightFormat(self.experts, WEIGHT_BYTES[self.experts]),
        )
