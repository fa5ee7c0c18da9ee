"""llm-d: values of its modelservice chart (Helm), for vLLM behind an inference gateway."""

from __future__ import annotations

import math

from bestserve.errors import InputError
from bestserve.launch import vllm
from bestserve.launch.deployment import Deployment
from bestserve.launch.images import image
from bestserve.launch.placement import HTTP_PORT
from bestserve.launch.pods import (
    CACHE_PATH,
    GIB,
    SECRET,
    STARTUP_MINUTES,
    Json,
    as_yaml,
    gpus,
    weight_bytes,
)
from bestserve.launch.process import published_name
from bestserve.specs.strategy import Pool

ACCELERATORS = {"NVIDIA": "nvidia", "AMD": "amd"}
BEHIND_PROXY = 8200
"""Where a decode server listens when the routing sidecar takes the service's port."""


def manifest(deployment: Deployment) -> str:
    """Return the chart's values as YAML. Raises InputError for what it does not start."""
    if deployment.family != "vllm":
        raise InputError(
            f"llm-d's chart starts vLLM, the plan is of {deployment.family}; take --format "
            "kubernetes or dynamo"
        )
    strategy, model = deployment.strategy, published_name(deployment.model)
    pools = {pool.role: pool for pool in strategy.pools}
    decode = pools["d"] if strategy.disaggregated else pools["m"]
    size = math.ceil(1.2 * weight_bytes(deployment) / GIB)
    values: Json = {
        "fullnameOverride": "llm",
        "modelArtifacts": {
            "name": model,
            "uri": f"hf://{model}",
            "size": f"{size}Gi",
            "authSecretName": SECRET,
            "mountPath": CACHE_PATH,
            "labels": {"llm-d.ai/inferenceServing": "true", "llm-d.ai/model": "llm"},
        },
        "multinode": any(deployment.nodes(pool) > 1 for pool in strategy.pools),
        "accelerator": {"type": ACCELERATORS.get(deployment.lowered.hardware.vendor, "")},
        "routing": {
            "servicePort": HTTP_PORT,
            "proxy": {
                "enabled": strategy.disaggregated,
                "connector": "nixlv2",
                "targetPort": BEHIND_PROXY,
            },
        },
        "decode": _workload(deployment, decode),
        "prefill": _workload(deployment, pools["p"]) if "p" in pools else {"create": False},
    }
    return as_yaml([values])


def _workload(deployment: Deployment, pool: Pool) -> Json:
    nodes = deployment.nodes(pool)
    if nodes > 1 and pool.dp == 1:
        raise InputError(
            f"{pool.replicas}{pool.role}{pool.options} spans {nodes} machines: llm-d's chart joins "
            "machines by data parallelism alone; take --format kubernetes"
        )
    parallelism = {"tensor": pool.tp, "data": pool.dp, "dataLocal": pool.dp // nodes}
    return {
        "create": True,
        "replicas": pool.replicas,
        "parallelism": parallelism | {"workers": nodes},
        "containers": [_container(deployment, pool, nodes)],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }


def _container(deployment: Deployment, pool: Pool, nodes: int) -> Json:
    lowered = deployment.lowered
    limits = deployment.limits[deployment.strategy.pools.index(pool)]
    port = BEHIND_PROXY if pool.role == "d" else HTTP_PORT
    words = ["--port", str(port), *vllm.unsplit_arguments(lowered, pool, limits, nodes)]
    if pool.role in vllm.KV_ROLES:
        words += ["--kv-transfer-config", vllm.transfer("kv_both")]
    address = {"fieldRef": {"fieldPath": "status.podIP"}}
    health = {"httpGet": {"path": "/health", "port": port}}
    return {
        "name": "vllm",
        "image": image("vllm", lowered.engine.name, lowered.hardware),
        "modelCommand": "vllmServe",
        "args": words,
        "env": [{"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": address}],
        "ports": [{"containerPort": port, "name": "metrics", "protocol": "TCP"}],
        "resources": gpus(deployment, pool.parallelism.gpus // nodes),
        "mountModelVolume": True,
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
        "startupProbe": {**health, "periodSeconds": 10, "failureThreshold": 6 * STARTUP_MINUTES},
        "readinessProbe": {**health, "periodSeconds": 5},
        "livenessProbe": {**health, "periodSeconds": 10},
    }
