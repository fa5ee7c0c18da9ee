"""Prefix caches in commands: engines that keep and offload KV, and tell a router what they hold."""

from __future__ import annotations

import json

from bestserve.launch.placement import Instance
from bestserve.launch.process import model_argument
from bestserve.launch.site import Site
from bestserve.lowering import Lowered
from bestserve.specs.prefixes import KvTier
from bestserve.specs.strategy import Pool, Strategy

GIB, GB = 2.0**30, 1e9

TOLD = "prefix_aware"
"""The routing that needs to know what engines hold."""


def caches(lowered: Lowered) -> bool:
    """Whether the plan counts on cached prefixes."""
    workload = lowered.problem.workload
    return workload.shares or workload.prefix_cache_hit > 0


def host_tier(lowered: Lowered) -> KvTier | None:
    """Return the host memory of each instance that takes what its GPUs give up."""
    tiers = lowered.problem.kv_tiers
    return next((t for t in tiers if t.gigabytes is not None and not t.shared), None)


def vllm_words(lowered: Lowered, pool: Pool) -> list[str]:
    """Return vLLM's options of its cache, `--kv-offloading-size` in GiB of all its GPUs."""
    words = ["--enable-prefix-caching"] if caches(lowered) else []
    tier = host_tier(lowered)
    if tier is not None and tier.gigabytes is not None and pool.role == "m":
        size = tier.gigabytes * GB / GIB
        words += ["--kv-offloading-size", f"{size:.6g}", "--kv-offloading-backend", "native"]
    return words


def vllm_events(port: int) -> list[str]:
    """Return the option by which a vLLM says what its cache holds, to who asks at a port.

    Each data-parallel rank takes the next port.
    """
    events = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{port}"}
    return ["--kv-events-config", json.dumps(events)]


def sglang_words(lowered: Lowered, pool: Pool) -> list[str]:
    """Return SGLang's options of its cache, `--hicache-size` in gigabytes of each GPU."""
    tier = host_tier(lowered)
    if tier is None or tier.gigabytes is None or pool.role != "m":
        return []
    size = max(1, round(tier.gigabytes / pool.parallelism.gpus))
    return ["--enable-hierarchical-cache", "--hicache-size", str(size)]


def event_sources(instances: tuple[Instance, ...], model: str) -> list[str]:
    """Return what vLLM's router is told of where instances say what they hold."""
    words = []
    for i in instances:
        host = i.seats[0].host
        ports = range(i.ports.events, i.ports.events + i.pool.dp)
        words += ["--kv-event-source", f"{i.url}={','.join(f'tcp://{host}:{p}' for p in ports)}"]
    return [*words, "--kv-event-model", model_argument(model)]


def told_at(site: Site, lowered: Lowered, pool: Pool) -> list[str]:
    """Return the option by which the process of a site tells what it holds, if somebody asks."""
    asked = lowered.problem.routing == TOLD and pool.role == "m"
    return vllm_events(site.ports.events) if asked and site.leads else []


def remarks(lowered: Lowered, strategy: Strategy, family: str) -> list[str]:
    """Return what a reader of a plan with tiers should know."""
    said = []
    for tier in lowered.problem.kv_tiers:
        if tier.peers or tier.shared:
            said.append(
                f"the plan's tier {tier.name!r} needs a store that these commands do not start "
                "(LMCache, Mooncake): its transfer is yours to configure"
            )
        elif family == "tensorrt-llm" or strategy.disaggregated:
            said.append(f"the plan's tier {tier.name!r} is left out: see {family}'s own manual")
    return said
