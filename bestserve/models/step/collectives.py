"""Collectives between GPUs: α-β forms inside a node, hierarchical across nodes.

Bandwidths are one way and per GPU. A group larger than a node runs the inner part over the fast
link and the rest, 1/gpus_per_node of the message per GPU, over the network.
"""

from __future__ import annotations

import math

import numpy as np

from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device
from bestserve.models.step.roofline import Cost, Number, present


def group_split(gpus: int, device: Device) -> tuple[int, int]:
    """Return (GPUs per node, nodes) that a communication group of `gpus` occupies."""
    inner = min(gpus, device.gpus_per_node)
    return inner, math.ceil(gpus / inner)


FULLY_READ = 4
"""GPUs up to which the faster of one shot and ring runs at every size."""


def all_reduce(
    message: Number,
    gpus: int,
    device: Device,
    constants: OperatorConstants = DEFAULT,
    *,
    ring: float = 0.0,
    latency: float | None = None,
    whole_bytes: float = 0.0,
) -> Cost:
    """Return an all-reduce of `message` bytes over `gpus` GPUs; no cost for one GPU.

    t = α(1 + δ(g − 2)) + 2(g − 1)/g·message/(e·W_link), with the library's α on AMD GPUs, and
    across n nodes in addition 2(n − 1)·latency + 2(n − 1)/n·(message/g)/(e_net·W_net):
    reduce-scatter inside, ring across, gather inside [derived].

    ring : latency per GPU of the library's ring [s]. An engine that states it reduces in one shot,
        each GPU reading all other messages, α(…) + (g − 1)·message/(e·W_link), until the ring's
        g·ring + 2(g − 1)/g·message/(e·W_link) is shorter. 0: the two-shot kernel above
    latency : of the engine's own kernel, whatever the number of GPUs, in place of α(…) [s]
    whole_bytes : message up to which it reduces in one shot over more than 4 GPUs, though the ring
        would be faster [B]
    """
    if gpus <= 1:
        return Cost()
    c = constants.collective
    size = np.asarray(message, dtype=np.float64)
    inner, nodes = group_split(gpus, device)
    fixed, link, sent = 0.0, np.zeros_like(size), np.zeros_like(size)
    if inner > 1:
        volume = 2.0 * (inner - 1) / inner * size
        # Engines bring a kernel of their own for NVIDIA's links and call the library elsewhere.
        amd = device.generation in ("cdna3", "cdna4")
        if latency is None or amd:
            alpha = c.rccl_latency if amd else c.allreduce_latency
            fixed += alpha * (1.0 + c.allreduce_growth * (inner - 2))
        else:
            fixed += latency
        moved = volume / (c.allreduce_link * device.link_bandwidth)
        if ring and not amd:
            # Which kernel runs depends on the size, so the ring's extra latency counts as transfer.
            whole, turns = 0.5 * inner * moved, np.maximum(inner * ring - fixed, 0.0) + moved
            alone = (size <= whole_bytes) & (inner > FULLY_READ)
            moved = np.where(alone, whole, np.minimum(whole, turns))
        link = link + moved
        sent = sent + volume
    if nodes > 1:
        volume = 2.0 * (nodes - 1) / nodes * size / inner
        fixed += 2.0 * (nodes - 1) * device.network_latency
        link = link + volume / (c.network_link * device.network_bandwidth)
        sent = sent + volume
    return Cost(fixed=fixed * present(size), link=link, traffic=sent)


def distinct_ranks(top_k: int, ranks: int) -> float:
    """Return the expected number of remote ranks that hold a token's `top_k` experts.

    ep·[1 − (1 − 1/ep)^k]·(ep − 1)/ep, for uniformly placed experts.

    >>> round(distinct_ranks(8, 8), 2)
    4.59
    """
    if ranks <= 1:
        return 0.0
    return ranks * (1.0 - (1.0 - 1.0 / ranks) ** top_k) * (ranks - 1) / ranks


def all_to_all(
    tokens: Number,
    token_bytes: float,
    top_k: int,
    ranks: int,
    device: Device,
    constants: OperatorConstants = DEFAULT,
    *,
    latency: float | None = None,
    link: float | None = None,
) -> Cost:
    """Return one phase (dispatch or combine) of an expert all-to-all.

    t = t0 + V/(e·W_link), V = tokens of this rank · bytes per token · distinct remote ranks;
    across nodes the share 1 − 1/nodes of V goes over the network instead. `latency` and `link`
    override the priors with an engine's own kernel [s, 1].
    """
    if ranks <= 1:
        return Cost()
    c = constants.collective
    rows = np.asarray(tokens, dtype=np.float64)
    _, nodes = group_split(ranks, device)
    volume = rows * token_bytes * distinct_ranks(top_k, ranks)
    remote = 1.0 - 1.0 / nodes
    efficiency = c.alltoall_link if link is None else link
    if device.generation == "blackwell":
        efficiency *= c.blackwell_alltoall
    time = volume * (1.0 - remote) / (efficiency * device.link_bandwidth)
    if nodes > 1:
        time = time + volume * remote / (c.network_link * device.network_bandwidth)
    fixed = (c.alltoall_latency if latency is None else latency) + (
        device.network_latency if nodes > 1 else 0.0
    )
    return Cost(fixed=fixed * present(rows), link=time, traffic=volume)


def point_to_point(
    message: Number,
    device: Device,
    constants: OperatorConstants = DEFAULT,
    *,
    across_nodes: bool = False,
) -> Cost:
    """Return one send of `message` bytes to a neighbour (pipeline stages)."""
    c = constants.collective
    size = np.asarray(message, dtype=np.float64)
    if across_nodes:
        latency, rate = device.network_latency, c.network_link * device.network_bandwidth
    else:
        latency, rate = device.link_latency, c.point_to_point_link * device.link_bandwidth
    return Cost(fixed=latency * present(size), link=size / rate, traffic=size)
