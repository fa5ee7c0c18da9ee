"""NVIDIA Dynamo: a DynamoGraphDeployment (nvidia.com/v1beta1), its frontend as the router.

The operator starts an instance's machines itself, so the commands name none of them.
"""

from __future__ import annotations

import json

from bestserve.launch import sglang, tensorrt_llm, vllm
from bestserve.launch.caching import TOLD
from bestserve.launch.deployment import Deployment
from bestserve.launch.hybrid import DYNAMO as HYBRIDS
from bestserve.launch.hybrid import EVENTS, dynamo_words
from bestserve.launch.images import DYNAMO, dynamo_image
from bestserve.launch.pods import (
    CACHE,
    CACHE_PATH,
    FOLDER,
    Json,
    as_yaml,
    config_maps,
    config_name,
    environment,
    gpus,
    model_cache,
    word,
)
from bestserve.launch.process import Process, file_path, model_argument
from bestserve.specs.strategy import ROLE_NAMES, Pool

NAME = "llm"
FRAMEWORKS = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "trtllm"}
ROUTER_MODES = {
    "random": "random",
    "round_robin": "round-robin",
    "power_of_two": "power-of-two",
    "least_outstanding": "least-loaded",
    "least_kv": "kv",
    "reported_kv": "kv",
    "least_ttft": "kv",
    "session_affine": "kv",
    "prefix_hash": "kv",
    "prefix_aware": "kv",
    "prefix_estimated": "kv",
}
TYPES = {"m": "worker", "p": "prefill", "d": "decode"}


def manifest(deployment: Deployment) -> str:
    """Return the model's volume claim, configurations and the graph, as YAML."""
    version = HYBRIDS if deployment.strategy.hybrid else DYNAMO
    tag = dynamo_image(deployment.family, deployment.lowered.hardware, version)
    processes = [_process(deployment, pool) for pool in deployment.strategy.pools]
    workers = [
        _worker(deployment, pool, process, tag)
        for pool, process in zip(deployment.strategy.pools, processes, strict=True)
    ]
    graph: Json = {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": NAME},
        "spec": {
            "backendFramework": FRAMEWORKS[deployment.family],
            "components": [_frontend(deployment, tag), *workers],
        },
    }
    return as_yaml([model_cache(deployment), *config_maps(processes), graph])


def _frontend(deployment: Deployment, tag: str) -> Json:
    workload, routing = deployment.lowered.problem.workload, deployment.lowered.problem.routing
    hybrid = deployment.strategy.hybrid
    mode = "kv" if workload.prefix_cache_hit or hybrid else ROUTER_MODES[routing]
    command = ["python3", "-m", "dynamo.frontend", "--router-mode", mode]
    command += dynamo_words(deployment.lowered, deployment.strategy) if hybrid else []
    container = {"name": "main", "image": tag, "command": command}
    return {
        "name": "Frontend",
        "type": "frontend",
        "replicas": 1,
        "podTemplate": {"spec": {"containers": [container]}},
    }


def _worker(deployment: Deployment, pool: Pool, process: Process, tag: str) -> Json:
    nodes = deployment.nodes(pool)
    mounts = [{"name": CACHE, "mountPath": CACHE_PATH}]
    volumes: list[Json] = [{"name": CACHE, "persistentVolumeClaim": {"claimName": CACHE}}]
    if process.files:
        mounts.append({"name": "config", "mountPath": FOLDER})
        volumes.append({"name": "config", "configMap": {"name": config_name(process)}})
    container = {
        "name": "main",
        "image": tag,
        "command": [word(w) for w in process.words],
        "env": environment(process),
        "resources": gpus(deployment, pool.parallelism.gpus // nodes),
        "volumeMounts": mounts,
    }
    component: Json = {
        "name": ROLE_NAMES[pool.role],
        "type": TYPES[pool.role],
        "replicas": pool.replicas,
        "podTemplate": {"spec": {"containers": [container], "volumes": volumes}},
    }
    return component | ({"multinode": {"nodeCount": nodes}} if nodes > 1 else {})


def _process(deployment: Deployment, pool: Pool) -> Process:
    lowered, model = deployment.lowered, model_argument(deployment.model)
    limits = deployment.limits[deployment.strategy.pools.index(pool)]
    nodes, role = deployment.nodes(pool), ROLE_NAMES[pool.role]
    split = ["--disaggregation-mode", role] if pool.role != "m" else []
    told = deployment.strategy.hybrid or lowered.problem.routing == TOLD
    if deployment.family == "vllm":
        words = ["python3", "-m", "dynamo.vllm", "--model", model]
        words += vllm.arguments(lowered, pool, limits, nodes)
        # its frontend fills in the transfer of either side, so both take both roles
        words += ["--kv-transfer-config", vllm.transfer("kv_both")] if split else []
        words += ["--kv-events-config", json.dumps(EVENTS)] if told else []
        return Process((*words, *split))
    if deployment.family == "sglang":
        words = ["python3", "-m", "dynamo.sglang", "--model-path", model]
        words += ["--served-model-name", model, "--host", "0.0.0.0"]
        return Process((*words, *sglang.arguments(lowered, pool, limits, nodes)))
    name = f"{role}.yaml"
    words = ["python3", "-m", "dynamo.trtllm", "--model-path", model]
    words += ["--served-model-name", model, "--extra-engine-args", file_path(name), *split]
    words += ["--publish-kv-events"] if told else []
    content = tensorrt_llm.as_text(tensorrt_llm.engine_arguments(lowered, pool, limits))
    return Process(tuple(words), files={name: content})
