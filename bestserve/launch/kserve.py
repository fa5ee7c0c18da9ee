"""KServe: an LLMInferenceService (serving.kserve.io/v1alpha2), which runs vLLM behind llm-d."""

from __future__ import annotations

import shlex

from bestserve.errors import InputError
from bestserve.launch import vllm
from bestserve.launch.deployment import Deployment
from bestserve.launch.images import image
from bestserve.launch.pods import SECRET, Json, as_yaml, gpus
from bestserve.launch.process import published_name
from bestserve.specs.strategy import Pool

NAME = "llm"


def manifest(deployment: Deployment) -> str:
    """Return the service as YAML. Raises InputError for what its presets do not start."""
    if deployment.family != "vllm":
        raise InputError(
            f"an LLMInferenceService runs vLLM, the plan is of {deployment.family}; take --format "
            "kubernetes or dynamo"
        )
    pools = {pool.role: pool for pool in deployment.strategy.pools}
    decode = pools["d"] if deployment.strategy.disaggregated else pools["m"]
    model = published_name(deployment.model)
    spec: Json = {"model": {"uri": f"hf://{model}", "name": model}, **_workload(deployment, decode)}
    spec["router"] = {"scheduler": {}, "route": {}, "gateway": {}}
    if "p" in pools:
        spec["prefill"] = _workload(deployment, pools["p"])
    return as_yaml(
        [
            {
                "apiVersion": "serving.kserve.io/v1alpha2",
                "kind": "LLMInferenceService",
                "metadata": {"name": NAME},
                "spec": spec,
            }
        ]
    )


def _workload(deployment: Deployment, pool: Pool) -> Json:
    nodes = deployment.nodes(pool)
    if nodes > 1 and pool.dp == 1:
        raise InputError(
            f"{pool.replicas}{pool.role}{pool.options} spans {nodes} machines: KServe's presets "
            "join machines by data parallelism alone; take --format kubernetes"
        )
    parallelism: Json = {"tensor": pool.tp}
    parallelism |= {"pipeline": pool.pp} if pool.pp > 1 else {}
    if pool.dp > 1:
        parallelism |= {"data": pool.dp, "dataLocal": pool.dp // nodes}
    parallelism |= {"expert": True} if pool.ep > 1 else {}
    out: Json = {
        "replicas": pool.replicas,
        "parallelism": parallelism,
        "template": {"containers": [_container(deployment, pool, nodes)]},
    }
    return out | (
        {"worker": {"containers": [_container(deployment, pool, nodes)]}} if nodes > 1 else {}
    )


def _container(deployment: Deployment, pool: Pool, nodes: int) -> Json:
    lowered = deployment.lowered
    limits = deployment.limits[deployment.strategy.pools.index(pool)]
    words = vllm.unsplit_arguments(lowered, pool, limits, nodes)
    if pool.role in vllm.KV_ROLES:
        words += ["--kv-transfer-config", vllm.transfer("kv_both")]
    token = {"secretKeyRef": {"name": SECRET, "key": "token", "optional": True}}
    address = {"fieldRef": {"fieldPath": "status.podIP"}}
    return {
        "name": "main",
        "image": image("vllm", lowered.engine.name, lowered.hardware),
        "env": [
            {"name": "HF_TOKEN", "valueFrom": token},
            {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": address},
            # the presets' shell splits this again
            {"name": "VLLM_ADDITIONAL_ARGS", "value": shlex.join(words)},
        ],
        "resources": gpus(deployment, pool.parallelism.gpus // nodes),
    }
