"""KV transfer between the instances that prefill and those that decode."""

from __future__ import annotations

from bestserve.errors import InputError
from bestserve.lowering.drafter import with_drafter
from bestserve.lowering.resolved import Resolved
from bestserve.models.step.device import Parallelism
from bestserve.models.step.memory import memory_plan
from bestserve.models.system import Transfer

KV_TRANSFER_SETUP = 3e-3
"""Set-up of one KV transfer [s]; assumed, of the order of the 2 ms measured for Mooncake."""


def transfer_latency(resolved: Resolved) -> float:
    """Return what a request waits between its two instances, besides moving its KV cache [s]."""
    if resolved.problem.step_time is not None:
        return KV_TRANSFER_SETUP
    return KV_TRANSFER_SETUP + resolved.engine.handover


def kv_transfer(resolved: Resolved, prefill: Parallelism, decode: Parallelism) -> Transfer:
    """Return the KV transfer between two instances.

    Inside a node if all GPUs of the problem share one, over the network otherwise; each rank
    of the smaller side moves its share over its own link.
    """
    if resolved.problem.step_time is not None:
        return Transfer(latency=transfer_latency(resolved))
    arch = with_drafter(resolved.model.architecture, resolved.problem.speculative_config)
    plan = memory_plan(arch, resolved.device, prefill, resolved.formats, resolved.engine)
    one_node = resolved.problem.gpus <= resolved.device.gpus_per_node
    bandwidth = resolved.device.link_bandwidth if one_node else resolved.device.network_bandwidth
    if bandwidth <= 0:
        where = "inside the node" if one_node else "across nodes"
        raise InputError(
            f"{resolved.hardware.name}: no link bandwidth {where} is recorded, so KV cannot be "
            "transferred; give network_bandwidth or leave out disaggregated layouts"
        )
    links = min(prefill.tp, decode.tp)
    return Transfer(
        latency=transfer_latency(resolved),
        seconds_per_token=plan.kv_bytes_per_token_total / (bandwidth * links),
    )
