"""vLLM: `vllm serve`, with the names of 0.33.

Several nodes share one instance by `--nnodes` (vLLM then finds its data-parallel ranks itself);
prefill and decode hand over through NIXL, whose handshake needs a host and a port of each instance.
"""

from __future__ import annotations

import json

from bestserve.launch import caching
from bestserve.launch.limits import Limits
from bestserve.launch.process import Process, model_argument
from bestserve.launch.site import Site
from bestserve.launch.speculation import vllm_words
from bestserve.lowering import Lowered
from bestserve.specs.model import KV_BYTES
from bestserve.specs.strategy import Pool

KV_ROLES = {"p": "kv_producer", "d": "kv_consumer"}

ALL_TO_ALL = {
    "NVIDIA": {"p": "deepep_high_throughput", "m": "deepep_high_throughput"}
    | {"d": "deepep_low_latency"},
    "AMD": {"p": "mori_high_throughput", "m": "mori_high_throughput"} | {"d": "mori_low_latency"},
}
"""Kernels of experts that span nodes, by maker and role; inside a node vLLM's default serves."""


def process(lowered: Lowered, pool: Pool, limits: Limits, site: Site, model: str) -> Process:
    """Return the command of one node of an instance."""
    words = ["vllm", "serve", model_argument(model)]
    words += ["--host", "0.0.0.0", "--port", str(site.ports.http)] if site.leads else []
    words += [*_nodes(site), *arguments(lowered, pool, limits, site.nodes)]
    words += caching.told_at(site, lowered, pool)
    env = site.visible(lowered.hardware.vendor)
    if pool.role in KV_ROLES:
        # instances that do the other pool's work, too, send and receive
        role = "kv_both" if pool.local else KV_ROLES[pool.role]
        words += ["--kv-transfer-config", transfer(role)]
        env |= {
            "VLLM_NIXL_SIDE_CHANNEL_HOST": site.own,
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(site.ports.side_channel),
        }
    return Process(tuple(words), env)


def arguments(lowered: Lowered, pool: Pool, limits: Limits, nodes: int = 1) -> list[str]:
    """Return what an instance is started with wherever it runs: its split, limits and formats."""
    words = ["--tensor-parallel-size", str(pool.tp)]
    words += ["--pipeline-parallel-size", str(pool.pp)] if pool.pp > 1 else []
    words += ["--data-parallel-size", str(pool.dp)] if pool.dp > 1 else []
    words += ["--enable-expert-parallel"] if pool.ep > 1 else []
    return [*words, *unsplit_arguments(lowered, pool, limits, nodes)]


def unsplit_arguments(lowered: Lowered, pool: Pool, limits: Limits, nodes: int = 1) -> list[str]:
    """Return `arguments` without the split, for launchers that are told it another way."""
    words = _all_to_all(lowered, pool, nodes)
    words += ["--max-num-seqs", str(limits.seqs)]
    words += ["--max-num-batched-tokens", str(limits.tokens)]
    words += ["--max-model-len", str(limits.context)] if limits.context else []
    words += ["--gpu-memory-utilization", f"{lowered.engine.gpu_memory_utilization:g}"]
    words += _formats(lowered)
    words += vllm_words(lowered, pool)
    words += ["--scheduling-policy", "priority"] if lowered.lengths.prioritised else []
    words += caching.vllm_words(lowered, pool)
    return [*words, *([] if lowered.engine.cuda_graphs else ["--enforce-eager"])]


def transfer(role: str) -> str:
    """Return `--kv-transfer-config` for a role of the KV transfer."""
    return json.dumps({"kv_connector": "NixlConnector", "kv_role": role})


def _nodes(site: Site) -> list[str]:
    if site.nodes == 1:
        return []
    words = ["--nnodes", str(site.nodes), "--node-rank", site.rank]
    words += ["--master-addr", site.leader, "--master-port", str(site.ports.rendezvous)]
    return words if site.leads else [*words, "--headless"]


def _all_to_all(lowered: Lowered, pool: Pool, nodes: int) -> list[str]:
    kernels = ALL_TO_ALL.get(lowered.hardware.vendor)
    if pool.ep == 1 or pool.dp == 1 or nodes == 1 or not kernels:
        return []
    words = ["--all2all-backend", kernels[pool.role]]
    return [*words, *(["--enable-eplb"] if moves_experts(lowered) else [])]


def moves_experts(lowered: Lowered) -> bool:
    """Whether engines can move this model's experts between GPUs: all of DeepSeek's kind."""
    return any(group.attention.kind == "mla" for group in lowered.model.architecture.layers)


def _formats(lowered: Lowered) -> list[str]:
    held = lowered.formats.kv_bytes
    words = ["--kv-cache-dtype", "fp8"] if held == KV_BYTES["fp8"] else []
    words += ["--kv-cache-dtype", "nvfp4"] if held == KV_BYTES["nvfp4"] else []
    return [*words, *(["--quantization", "fp8"] if lowered.problem.precision == "fp8" else [])]
