"""SGLang: `sglang serve`, with the names of 0.5.23.

Under data-parallel attention the limits of the command are the instance's, and SGLang divides
them by the ranks; a plan's are those of one rank.
"""

from __future__ import annotations

from bestserve.launch import caching
from bestserve.launch.limits import Limits
from bestserve.launch.process import Process, model_argument
from bestserve.launch.site import Site
from bestserve.launch.speculation import sglang_words
from bestserve.launch.vllm import moves_experts
from bestserve.lowering import Lowered
from bestserve.specs.model import KV_BYTES
from bestserve.specs.strategy import ROLE_NAMES, Pool

TRANSFER = {"NVIDIA": "nixl", "Huawei": "ascend"}
"""Back end of the KV transfer by maker; elsewhere SGLang's own default."""
DEFAULT_TRANSFER = "mooncake"

EAGER = ["--cuda-graph-backend-decode", "disabled", "--cuda-graph-backend-prefill", "disabled"]

ALL_TO_ALL = {"NVIDIA": "deepep", "AMD": "mori", "Huawei": "ascend_fuseep"}


def process(lowered: Lowered, pool: Pool, limits: Limits, site: Site, model: str) -> Process:
    """Return the command of one node of an instance."""
    words = ["sglang", "serve", "--model-path", model_argument(model)]
    words += ["--host", "0.0.0.0", "--port", str(site.ports.http)]
    if site.nodes > 1:
        words += ["--nnodes", str(site.nodes), "--node-rank", site.rank]
        words += ["--dist-init-addr", f"{site.leader}:{site.ports.rendezvous}"]
    words += arguments(lowered, pool, limits, site.nodes)
    if pool.role != "m":
        words += ["--disaggregation-bootstrap-port", str(site.ports.bootstrap)]
    return Process((*words, "--enable-metrics"), site.visible(lowered.hardware.vendor))


def arguments(lowered: Lowered, pool: Pool, limits: Limits, nodes: int = 1) -> list[str]:
    """Return what an instance is started with wherever it runs: its split, limits and formats."""
    vendor = lowered.hardware.vendor
    words = ["--tp-size", str(pool.tp * pool.dp)]
    words += ["--pp-size", str(pool.pp)] if pool.pp > 1 else []
    words += ["--attn-dp-size", str(pool.dp)] if pool.dp > 1 else []
    words += ["--ep-size", str(pool.ep)] if pool.ep > 1 else []
    if pool.ep > 1 and nodes > 1 and vendor in ALL_TO_ALL:
        words += ["--moe-a2a-backend", ALL_TO_ALL[vendor]]
        words += ["--enable-eplb"] if moves_experts(lowered) else []
    words += ["--max-running-requests", str(limits.seqs * pool.dp)]
    words += ["--chunked-prefill-size", str(limits.tokens * pool.dp)]
    words += ["--context-length", str(limits.context)] if limits.context else []
    words += ["--mem-fraction-static", f"{lowered.engine.gpu_memory_utilization:g}"]
    words += _formats(lowered)
    words += sglang_words(lowered, pool)
    words += caching.sglang_words(lowered, pool)
    words += [] if lowered.engine.cuda_graphs else EAGER
    if pool.role != "m":
        words += ["--disaggregation-mode", ROLE_NAMES[pool.role]]
        transfer = TRANSFER.get(vendor, DEFAULT_TRANSFER)
        words += ["--disaggregation-transfer-backend", transfer]
    return words


def _formats(lowered: Lowered) -> list[str]:
    held = lowered.formats.kv_bytes
    words = ["--kv-cache-dtype", "fp8_e4m3"] if held == KV_BYTES["fp8"] else []
    words += ["--kv-cache-dtype", "fp4_e2m1"] if held == KV_BYTES["nvfp4"] else []
    return [*words, *(["--quantization", "fp8"] if lowered.problem.precision == "fp8" else [])]
