"""What no implementation of a model can be faster than on a GPU: its FLOPs over the peak, the bytes
it must read over the memory bandwidth.

No kernel efficiency, launch, transfer or host time is in it, every number format runs at the
fastest rate that a kernel of its width could reach, and experts that no token uses are not read. A
measurement below it did something else than what is stated: prompts came from a prefix cache,
tokens were speculated, weights had fewer bits.
"""

from __future__ import annotations

from bestserve.models.step.architecture import Architecture
from bestserve.models.step.device import Device, Formats, Parallelism, Precision
from bestserve.models.step.memory import kv_bytes_of_layer
from bestserve.models.step.moe import active_experts
from bestserve.models.step.parameters import parameter_counts

SIXTEEN, EIGHT = ("bf16", "w8a16"), ("fp8", "fp8_block", "int8", "int4")


def fastest_rate(device: Device, precision: Precision) -> float:
    """Return the highest peak at which weights of a format could be multiplied [FLOP/s].

    8-bit weights at 8 bits, 4-bit integers with 8-bit activations, 4-bit floats at 4 bits.
    """
    if precision in SIXTEEN:
        return device.flops_bf16
    eight = max(device.flops_bf16, device.flops_fp8, device.flops_int8)
    return eight if precision in EIGHT else max(eight, device.flops_fp4)


def prompt_floor(
    arch: Architecture, device: Device, parallel: Parallelism, formats: Formats, tokens: float
) -> float:
    """Return the least time in which an instance computes prompts of so many tokens [s].

    Two FLOPs per active weight and token on all its GPUs; attention and the LM head are left out.
    """
    counts, parts = parameter_counts(arch), formats.parts
    routed = counts.experts * _used(arch, 1.0)
    seconds = 2.0 * (
        counts.attention / fastest_rate(device, parts.attention.precision)
        + (counts.dense_ffn + counts.shared_experts) / fastest_rate(device, parts.ffn.precision)
        + routed / fastest_rate(device, parts.experts.precision)
    )
    return tokens * seconds / parallel.gpus


def decode_floor(
    arch: Architecture,
    device: Device,
    parallel: Parallelism,
    formats: Formats,
    *,
    sequences: float = 1.0,
    context: float = 0.0,
) -> float:
    """Return the least time of a decode step of so many sequences, each of `context` tokens [s].

    Every weight that they use and all their keys and values are read once; pipeline stages follow
    each other, so that they save nothing.
    """
    counts, parts = parameter_counts(arch), formats.parts
    read = counts.attention * parts.attention.bytes
    read += (counts.dense_ffn + counts.shared_experts) * parts.ffn.bytes
    read += counts.experts * _used(arch, sequences) * parts.experts.bytes
    read += sequences * sum(
        group.count * kv_bytes_of_layer(group.attention, formats.kv_bytes, context)
        for group in arch.groups
        if group.attention.index_topk == 0 and group.attention.kind != "linear"
    )
    return read / device.memory_bandwidth / (parallel.tp * parallel.dp)


def _used(arch: Architecture, sequences: float) -> float:
    """Return the share of the routed experts that so many tokens use [1]."""
    weighed = [
        (group.count * group.ffn.num_experts, group.ffn) for group in arch.groups
        if group.ffn.kind == "moe"
    ]  # fmt: skip
    if not weighed:
        return 0.0
    total = sum(weight for weight, _ in weighed)
    used = sum(
        weight * float(active_experts(sequences * ffn.top_k, ffn.num_experts)) / ffn.num_experts
        for weight, ffn in weighed
    )
    return used / total
