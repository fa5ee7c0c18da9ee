"""The router in front of the instances, with the plan's way of choosing one."""

from __future__ import annotations

from typing import Any

from bestserve.launch.caching import event_sources
from bestserve.launch.hybrid import tensorrt_config
from bestserve.launch.placement import Instance
from bestserve.launch.process import Process, file_path
from bestserve.launch.tensorrt_llm import as_text
from bestserve.lowering import Lowered
from bestserve.specs.strategy import Strategy

ROUTER_PORT = 30000
STARTUP = 3600
"""Seconds to wait for the instances: a large model loads for half an hour."""

ROUTERS_AS_PACKAGES = {"vllm-router": "vllm-router==0.1.17", "python3": "sglang-router==0.3.2"}
"""Package of a router by the first word of its command; it needs no GPU and no engine."""

POLICIES = {
    "random": "random",
    "round_robin": "round_robin",
    "power_of_two": "power_of_two",
    "least_outstanding": "power_of_two",
    "least_kv": "power_of_two",
    "reported_kv": "power_of_two",
    "least_ttft": "power_of_two",
    "session_affine": "cache_aware",
    "prefix_hash": "cache_aware",
    "prefix_aware": "cache_aware",
    "prefix_estimated": "cache_aware",
}
"""Routing of a plan → the nearest policy of vLLM's and SGLang's routers."""

OWN = {
    "vllm": {"session_affine": "consistent_hash", "prefix_aware": "kv_aware"},
    "sglang": {"session_affine": "manual"},
}
"""Policies that one of them has."""

SAME = ("random", "round_robin", "power_of_two", "prefix_estimated")
"""Routing that both have; `cache_aware` goes by the router's own record of what it sent where."""

SESSIONS = {
    "vllm": "consistent_hash keeps together what clients name by one session or user",
    "sglang": "manual keeps together what clients send with one x-smg-routing-key",
}

TENSORRT_POLICIES = {
    "random": "round_robin",
    "round_robin": "round_robin",
    "power_of_two": "load_balancing",
    "least_outstanding": "load_balancing",
    "least_kv": "load_balancing",
    "reported_kv": "load_balancing",
    "least_ttft": "load_balancing",
    "session_affine": "kv_cache_aware",
    "prefix_hash": "kv_cache_aware",
    "prefix_aware": "kv_cache_aware",
    "prefix_estimated": "kv_cache_aware",
}


def policy(lowered: Lowered, family: str, *, disaggregated: bool) -> tuple[str, str]:
    """Return the routers' policy for a plan, and what to say if it is not the plan's own.

    A plan that counts on cached prefixes needs requests to find the instance that holds theirs.
    """
    routing = lowered.problem.routing
    if lowered.problem.workload.prefix_cache_hit:
        return "cache_aware", ""
    own = {} if disaggregated else OWN.get(family, {})
    chosen = own.get(routing, POLICIES[routing])
    if routing in own and routing == "session_affine":
        return chosen, SESSIONS[family]
    if routing in own or routing in SAME:
        return chosen, ""
    return chosen, f"the router knows no {routing}, {chosen} is nearest"


def router(
    lowered: Lowered,
    strategy: Strategy,
    family: str,
    instances: tuple[Instance, ...],
    model: str,
) -> Process | None:
    """Return the router's process; None where one collocated instance needs none."""
    if len(instances) == 1:
        return None
    prefill = [i for i in instances if i.pool.role == "p"]
    if family == "tensorrt-llm" and prefill:
        return _tensorrt(lowered, strategy, instances)
    words = router_words(lowered, family, disaggregated=bool(prefill))
    if not prefill:
        if policy(lowered, family, disaggregated=False)[0] == "kv_aware":
            words += tuple(event_sources(instances, model))
        return Process((*words, "--worker-urls", *(i.url for i in instances)))
    for instance in prefill:
        port = [str(instance.ports.bootstrap)] if family == "sglang" else []
        words += ("--prefill", instance.url, *port)
    for instance in instances:
        words += ("--decode", instance.url) if instance.pool.role == "d" else ()
    return Process(words)


def router_words(lowered: Lowered, family: str, *, disaggregated: bool) -> tuple[str, ...]:
    """Return the router's command without its workers."""
    sglang = family == "sglang"
    words = ["python3", "-m", "sglang_router.launch_router"] if sglang else ["vllm-router"]
    words += ["--host", "0.0.0.0", "--port", str(ROUTER_PORT)]
    words += ["--policy", policy(lowered, family, disaggregated=disaggregated)[0]]
    words += ["--worker-startup-timeout-secs", str(STARTUP)]
    if disaggregated and sglang:
        words += ["--pd-disaggregation"]
    elif disaggregated:
        words += ["--vllm-pd-disaggregation", "--kv-connector", "nixl"]
    return tuple(words)


def tensorrt_servers(lowered: Lowered, context: list[str], generation: list[str]) -> dict[str, Any]:
    """Return the configuration of `trtllm-serve disaggregated`; urls as host:port."""
    chosen = TENSORRT_POLICIES[lowered.problem.routing]
    if lowered.problem.workload.prefix_cache_hit:
        chosen = "kv_cache_aware"

    def servers(urls: list[str], router: str) -> dict[str, Any]:
        return {"num_instances": len(urls), "urls": urls, "router": {"type": router}}

    return {
        "hostname": "0.0.0.0",
        "port": ROUTER_PORT,
        "backend": "pytorch",
        "context_servers": servers(context, chosen),
        "generation_servers": servers(generation, TENSORRT_POLICIES[lowered.problem.routing]),
    }


def tensorrt_router(config: dict[str, Any]) -> Process:
    """Return `trtllm-serve disaggregated` with its configuration."""
    name = "disaggregated.yaml"
    words = ["trtllm-serve", "disaggregated", "--config_file", file_path(name)]
    words += ["--server_start_timeout", str(STARTUP), "--request_timeout", str(STARTUP)]
    return Process(tuple(words), files={name: as_text(config)})


def _tensorrt(lowered: Lowered, strategy: Strategy, instances: tuple[Instance, ...]) -> Process:
    def urls(role: str) -> list[str]:
        return [i.url.removeprefix("http://") for i in instances if i.pool.role == role]

    config = tensorrt_servers(lowered, urls("p"), urls("d"))
    config |= tensorrt_config(lowered, strategy) if strategy.hybrid else {}
    return tensorrt_router(config)
