"""TensorRT-LLM: `trtllm-serve` and the YAML that says what it has no option for.

Data-parallel attention, formats of the KV cache and the KV transfer have none. Several nodes are
MPI ranks of one command, started on the first.
"""

from __future__ import annotations

import math
from typing import Any

from bestserve.launch.limits import CONTEXT_STEP, Limits, longest_prompt
from bestserve.launch.process import Process, file_path, model_argument
from bestserve.launch.site import Site
from bestserve.launch.speculation import tensorrt_llm_config
from bestserve.lowering import Lowered
from bestserve.specs.model import KV_BYTES
from bestserve.specs.strategy import ROLE_NAMES, Pool


def process(lowered: Lowered, pool: Pool, limits: Limits, site: Site, model: str) -> Process:
    """Return the command of an instance, which its first node runs."""
    name = f"{ROLE_NAMES[pool.role]}.yaml"
    words = ["trtllm-serve", "serve", model_argument(model)]
    words += ["--host", "0.0.0.0", "--port", str(site.ports.http)]
    words += ["--tensor_parallel_size", str(pool.tp * pool.dp)]
    words += ["--pipeline_parallel_size", str(pool.pp)] if pool.pp > 1 else []
    words += ["--moe_expert_parallel_size", str(pool.ep)] if pool.ep > 1 else []
    words += ["--max_batch_size", str(limits.seqs), "--max_num_tokens", str(limits.tokens)]
    words += ["--max_seq_len", str(limits.context)] if limits.context else []
    words += ["--enable_chunked_prefill", "--config", file_path(name)]
    content = as_text(config(lowered, pool))
    if site.nodes > 1:
        each = pool.parallelism.gpus // site.nodes
        slots = ",".join(f"{host}:{each}" for host in site.hosts)
        ranks = ["mpirun", "--host", slots, "-np", str(pool.parallelism.gpus)]
        words = [*ranks, "trtllm-llmapi-launch", *words]
    return Process(tuple(words), site.visible(lowered.hardware.vendor), {name: content})


def config(lowered: Lowered, pool: Pool) -> dict[str, Any]:
    """Return what the options cannot say, as `--config` takes it."""
    cache: dict[str, Any] = {"free_gpu_memory_fraction": lowered.engine.gpu_memory_utilization}
    held = lowered.formats.kv_bytes
    cache |= {"dtype": "fp8"} if held == KV_BYTES["fp8"] else {}
    cache |= {"dtype": "nvfp4"} if held == KV_BYTES["nvfp4"] else {}
    cache["enable_block_reuse"] = lowered.problem.workload.prefix_cache_hit > 0
    out: dict[str, Any] = {"kv_cache_config": cache}
    out |= tensorrt_llm_config(lowered, pool)
    out |= {"enable_attention_dp": True} if pool.dp > 1 else {}
    out |= {"cuda_graph_config": None} if not lowered.engine.cuda_graphs else {}
    if pool.role != "m":
        tokens = math.ceil(longest_prompt(lowered) / CONTEXT_STEP) * CONTEXT_STEP
        # the buffer holds a prompt's whole cache; the prefill server hands over between steps
        out["cache_transceiver_config"] = {"backend": "DEFAULT", "max_tokens_in_buffer": tokens}
        out |= {"disable_overlap_scheduler": True} if pool.role == "p" else {}
    return out


def engine_arguments(lowered: Lowered, pool: Pool, limits: Limits) -> dict[str, Any]:
    """Return everything an engine is started with, for launchers that take no options."""
    out: dict[str, Any] = {"tensor_parallel_size": pool.tp * pool.dp}
    out |= {"pipeline_parallel_size": pool.pp} if pool.pp > 1 else {}
    out |= {"moe_expert_parallel_size": pool.ep} if pool.ep > 1 else {}
    out |= {"max_batch_size": limits.seqs, "max_num_tokens": limits.tokens}
    out |= {"max_seq_len": limits.context} if limits.context else {}
    return {"backend": "pytorch", **out, "enable_chunked_prefill": True, **config(lowered, pool)}


def as_text(values: dict[str, Any]) -> str:
    """Return a configuration as YAML."""
    import yaml

    text: str = yaml.safe_dump(values, sort_keys=False)
    return text
