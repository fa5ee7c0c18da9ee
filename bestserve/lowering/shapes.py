"""Which parallelism can be built for a model."""

from __future__ import annotations

from bestserve.models.step.device import Device, Parallelism
from bestserve.specs.model import Model


def shape_problem(
    model: Model, device: Device, parallelism: Parallelism, gpus: int, *, across_nodes: bool
) -> str:
    """Return why this parallelism cannot be built for this model, or an empty string."""
    tp, dp, pp = parallelism.tp, parallelism.dp, parallelism.pp
    groups = model.architecture.groups
    if parallelism.gpus > gpus:
        return f"one instance needs {parallelism.gpus} GPUs, there are {gpus}"
    if pp > model.architecture.num_layers:
        return f"pp = {pp} exceeds the {model.architecture.num_layers} layers"
    for heads in sorted({g.attention.num_heads for g in groups if g.attention.num_heads}):
        if heads % tp:
            return f"tp = {tp} does not divide {heads} attention heads"
    for heads in sorted({g.attention.num_kv_heads for g in groups if g.attention.num_kv_heads}):
        if heads % tp and tp % heads:
            return f"tp = {tp} neither divides nor is a multiple of {heads} KV heads"
    experts = [g.ffn.num_experts for g in groups if g.ffn.kind == "moe"]
    if dp > 1 and not experts:
        return "dp > 1 is attention data parallelism of MoE models; use replicas instead"
    if parallelism.ep > 1:
        if not experts:
            return f"ep = {parallelism.ep} needs experts, {model.name} has none"
        if any(e % parallelism.ep for e in experts):
            return f"ep = {parallelism.ep} does not divide {experts[0]} experts"
    if tp > device.gpus_per_node and not across_nodes:
        return (
            f"tp = {tp} exceeds the {device.gpus_per_node} GPUs of a node; "
            "allow it with tp_across_nodes or use pp"
        )
    return ""
