"""The commands that put a plan into service, with the limits it was computed for.

Engines that serve: `vllm serve`, `python -m sglang.launch_server`, `trtllm-serve`; one command a
pool, its count beside it. `manifest` gives Kubernetes deployments, `bench_command` the
`vllm bench serve` run whose log `bestserve validate` reads.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bestserve.errors import InputError
from bestserve.lowering import Lowered
from bestserve.specs.lengths import Fixed
from bestserve.specs.model import KV_BYTES, KvDtype
from bestserve.specs.strategy import ROLE_NAMES, Pool, Strategy

PORT = 8000

KV_MARGIN = 0.9
"""Share of the predicted KV capacity that one request may claim: the prediction may be high."""

CONTEXT_STEP = 256
"""Contexts are limited to multiples of this [tokens]."""

IMAGES = {
    "vllm": "vllm/vllm-openai:latest",
    "sglang": "lmsysorg/sglang:latest",
    "tensorrt-llm": "nvcr.io/nvidia/tensorrt-llm/release:latest",
}


@dataclass(frozen=True, slots=True)
class PoolLaunch:
    """How to start one instance of a pool, and how many of them."""

    role: str
    instances: int
    gpus: int
    command: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.command)


def launch_pools(lowered: Lowered, strategy: Strategy) -> tuple[PoolLaunch, ...]:
    """Return one start command per pool. Raises InputError for engines without a translation."""
    engine = engine_family(lowered.engine.name)
    return tuple(
        PoolLaunch(
            role=ROLE_NAMES[pool.role],
            instances=pool.replicas,
            gpus=pool.parallelism.gpus,
            command=tuple(_COMMANDS[engine](lowered, pool)),
        )
        for pool in strategy.pools
    )


def engine_family(name: str) -> str:
    """Return the engine whose flags a preset uses. Raises InputError if there is none."""
    for family in _COMMANDS:
        if name.startswith(family):
            return family
    raise InputError(
        f"engine {name!r} has no launch command; presets of {', '.join(_COMMANDS)} have"
    )


def checkpoint(lowered: Lowered) -> str:
    """Return the model as engines find it: ``org/name`` also where the user left out the org."""
    name, record = lowered.model.name, lowered.model.record
    if "/" in name or "/" not in record:
        return name
    org, bare = record.split("/", 1)
    return record if bare.lower() == name.lower() else f"{org}/{name}"


def bench_command(
    lowered: Lowered, strategy: Strategy, request_rate: float, minutes: float = 5.0
) -> tuple[str, ...]:
    """Return the `vllm bench serve` run that measures this plan at a rate [requests/s].

    Random lengths have the workload's means; the log answers to `bestserve validate`.
    """
    workload, slo = lowered.problem.workload, lowered.problem.slo
    input_len, output_len = (round(x) for x in lowered.mean_lengths)
    fixed = isinstance(workload.input_len, Fixed) and isinstance(workload.output_len, Fixed)
    words = ["vllm", "bench", "serve", "--model", checkpoint(lowered), "--dataset-name", "random"]
    words += ["--random-input-len", str(input_len), "--random-output-len", str(output_len)]
    words += ["--random-range-ratio", "0" if fixed else "0.5", "--ignore-eos"]
    words += ["--request-rate", f"{request_rate:.4g}"]
    words += ["--num-prompts", str(max(100, round(request_rate * 60 * minutes)))]
    if workload.burstiness != 1:
        words += ["--burstiness", f"{workload.burstiness:g}"]
    if slo is not None:
        objectives = [
            f"{m}:{getattr(slo, m) * 1e3:g}" for m in ("ttft", "tpot", "e2el") if getattr(slo, m)
        ]
        words += ["--goodput", *objectives]
    words += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"]
    # Metadata makes the log describe itself: the client does not know the server's GPUs.
    words += ["--metadata", f"gpu={lowered.hardware.name}", f"engine={lowered.engine.name}"]
    pool = strategy.pools[-1]
    words += [f"tensor_parallel_size={pool.tp}", f"num_gpus={strategy.gpus}"]
    return (*words, "--save-result", "--save-detailed")


def manifest(pools: tuple[PoolLaunch, ...], engine: str) -> str:
    """Return Kubernetes deployments and services of all pools as YAML."""
    import yaml

    documents: list[dict[str, Any]] = []
    for pool in pools:
        name = f"llm-{pool.role}"
        labels = {"app": name}
        container = {
            "name": "engine",
            "image": IMAGES[engine],
            "command": list(pool.command),
            "ports": [{"containerPort": PORT}],
            "resources": {"limits": {"nvidia.com/gpu": pool.gpus}},
            "readinessProbe": {"httpGet": {"path": "/health", "port": PORT}},
            "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
        }
        spec = {
            "containers": [container],
            "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
        }
        documents += [
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {
                    "replicas": pool.instances,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": spec},
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"selector": labels, "ports": [{"port": PORT}]},
            },
        ]
    text: str = yaml.safe_dump_all(documents, sort_keys=False)
    return text


def _limits(lowered: Lowered, pool: Pool) -> tuple[int, int]:
    """Return max_num_seqs and max_num_batched_tokens as the plan was computed with.

    A step holds no more sequences than tokens, and vLLM refuses to start with more slots.
    """
    problem, engine = lowered.problem, lowered.engine
    seqs = pool.max_num_seqs or problem.max_num_seqs or engine.max_num_seqs
    tokens = (
        pool.max_num_batched_tokens
        or problem.max_num_batched_tokens
        or engine.max_num_batched_tokens
    )
    return min(seqs, tokens), tokens


def _context(lowered: Lowered, pool: Pool) -> int | None:
    """Return the longest context to allow, where the KV cache cannot hold the model's own.

    Engines refuse to start if one request of the longest context would not fit.
    """
    plan = lowered.lane(pool.parallelism, *_limits(lowered, pool), role=pool.role).plan
    own = lowered.model.max_position_embeddings
    if plan is None or plan.kv_capacity_tokens >= own / KV_MARGIN:
        return None
    return int(KV_MARGIN * plan.kv_capacity_tokens / CONTEXT_STEP) * CONTEXT_STEP or None


def _vllm(lowered: Lowered, pool: Pool) -> list[str]:
    seqs, tokens = _limits(lowered, pool)
    words = ["vllm", "serve", checkpoint(lowered), "--port", str(PORT)]
    words += ["--tensor-parallel-size", str(pool.tp)]
    words += ["--pipeline-parallel-size", str(pool.pp)] if pool.pp > 1 else []
    words += ["--data-parallel-size", str(pool.dp)] if pool.dp > 1 else []
    words += ["--enable-expert-parallel"] if pool.ep > 1 else []
    words += ["--max-num-seqs", str(seqs), "--max-num-batched-tokens", str(tokens)]
    context = _context(lowered, pool)
    words += ["--max-model-len", str(context)] if context else []
    words += ["--gpu-memory-utilization", f"{lowered.engine.gpu_memory_utilization:g}"]
    words += _kv_dtype(lowered, {"fp8": "fp8", "nvfp4": "nvfp4"})
    words += ["--quantization", "fp8"] if lowered.problem.precision == "fp8" else []
    words += ["--enforce-eager"] if not lowered.engine.cuda_graphs else []
    if pool.role != "m":
        role = "kv_producer" if pool.role == "p" else "kv_consumer"
        config = f'{{"kv_connector":"NixlConnector","kv_role":"{role}"}}'
        words += ["--kv-transfer-config", config]
    return words


def _kv_dtype(lowered: Lowered, words: Mapping[KvDtype, str]) -> list[str]:
    held = lowered.formats.kv_bytes
    return next((["--kv-cache-dtype", w] for d, w in words.items() if KV_BYTES[d] == held), [])


def _sglang(lowered: Lowered, pool: Pool) -> list[str]:
    seqs, tokens = _limits(lowered, pool)
    words = ["python", "-m", "sglang.launch_server", "--model-path", checkpoint(lowered)]
    words += ["--host", "0.0.0.0", "--port", str(PORT), "--tp", str(pool.tp * pool.dp)]
    words += ["--pp-size", str(pool.pp)] if pool.pp > 1 else []
    words += ["--dp", str(pool.dp), "--enable-dp-attention"] if pool.dp > 1 else []
    words += ["--ep", str(pool.ep)] if pool.ep > 1 else []
    words += ["--max-running-requests", str(seqs), "--chunked-prefill-size", str(tokens)]
    context = _context(lowered, pool)
    words += ["--context-length", str(context)] if context else []
    words += ["--mem-fraction-static", f"{lowered.engine.gpu_memory_utilization:g}"]
    words += _kv_dtype(lowered, {"fp8": "fp8_e4m3", "nvfp4": "fp4_e2m1"})
    words += ["--quantization", "fp8"] if lowered.problem.precision == "fp8" else []
    if pool.role != "m":
        words += ["--disaggregation-mode", ROLE_NAMES[pool.role]]
    return words


def _tensorrt_llm(lowered: Lowered, pool: Pool) -> list[str]:
    seqs, tokens = _limits(lowered, pool)
    words = ["trtllm-serve", checkpoint(lowered), "--host", "0.0.0.0", "--port", str(PORT)]
    words += ["--tp_size", str(pool.tp * pool.dp)]
    words += ["--pp_size", str(pool.pp)] if pool.pp > 1 else []
    words += ["--ep_size", str(pool.ep)] if pool.ep > 1 else []
    words += ["--max_batch_size", str(seqs), "--max_num_tokens", str(tokens)]
    context = _context(lowered, pool)
    words += ["--max_seq_len", str(context)] if context else []
    fraction = f"{lowered.engine.gpu_memory_utilization:g}"
    return [*words, "--kv_cache_free_gpu_memory_fraction", fraction]


_COMMANDS: dict[str, Callable[[Lowered, Pool], list[str]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "tensorrt-llm": _tensorrt_llm,
}
