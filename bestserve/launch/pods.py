"""Pods as Kubernetes takes them: containers, probes, the model cache, secrets by reference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bestserve.launch.deployment import Deployment
from bestserve.launch.images import RESOURCES
from bestserve.launch.placement import HTTP_PORT
from bestserve.launch.process import Process, rendered

FOLDER = "/etc/bestserve"
"""Where the files of a process are mounted."""
CACHE = "model-cache"
"""Name of the volume claim that holds the weights."""
CACHE_PATH = "/models"
SECRET = "hf-token"
"""Name of the secret with the access token, under the key `token`; it need not exist."""
STARTUP_MINUTES = 60
GIB = 2**30

Json = dict[str, Any]


def word(text: str) -> str:
    """Return a word of a command or a value as Kubernetes reads it back: `$(` is not expanded."""
    return rendered(text, lambda s: s.replace("$(", "$$("), lambda name: f"$({name})", FOLDER)


def environment(process: Process) -> list[Json]:
    """Return a container's environment: its own address, the token, the cache, the process's."""
    address = {"fieldRef": {"fieldPath": "status.podIP"}}
    token = {"secretKeyRef": {"name": SECRET, "key": "token", "optional": True}}
    return [
        {"name": "POD_IP", "valueFrom": address},
        {"name": "HF_TOKEN", "valueFrom": token},
        {"name": "HF_HOME", "value": CACHE_PATH},
        *({"name": name, "value": word(value)} for name, value in process.env.items()),
    ]


def probes(port: int) -> Json:
    """Return probes of a server: an hour to load its weights, then seconds."""
    health = {"httpGet": {"path": "/health", "port": port}}
    return {
        "startupProbe": {**health, "periodSeconds": 10, "failureThreshold": 6 * STARTUP_MINUTES},
        "readinessProbe": {**health, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 5},
    }


def gpus(deployment: Deployment, count: int) -> Json:
    """Return the resources of a container with so many GPUs."""
    return {"limits": {RESOURCES[deployment.lowered.hardware.vendor]: count}}


def engine_pod(
    deployment: Deployment, process: Process, image: str, count: int, *, answers: bool
) -> Json:
    """Return the pod spec of one machine of an instance.

    count : its GPUs; answers : whether it serves requests (other machines of an instance do not)
    """
    mounts = [
        {"name": "shm", "mountPath": "/dev/shm"},
        {"name": CACHE, "mountPath": CACHE_PATH},
    ]
    volumes: list[Json] = [
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
        {"name": CACHE, "persistentVolumeClaim": {"claimName": CACHE}},
    ]
    if process.files:
        mounts.append({"name": "config", "mountPath": FOLDER})
        volumes.append({"name": "config", "configMap": {"name": config_name(process)}})
    container: Json = {
        "name": "engine",
        "image": image,
        "command": [word(w) for w in process.words],
        "env": environment(process),
        "resources": gpus(deployment, count),
        "volumeMounts": mounts,
    }
    if answers:
        container |= {"ports": [{"name": "http", "containerPort": HTTP_PORT}], **probes(HTTP_PORT)}
    return {"containers": [container], "volumes": volumes}


def config_name(process: Process) -> str:
    """Return the name of the ConfigMap that holds a process's files."""
    return f"llm-{next(iter(process.files)).removesuffix('.yaml')}-config"


def config_maps(processes: Iterable[Process]) -> list[Json]:
    """Return one ConfigMap for each process with files; equal ones once."""
    found = {
        config_name(process): {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": config_name(process)},
            "data": dict(process.files),
        }
        for process in processes
        if process.files
    }
    return list(found.values())


def model_cache(deployment: Deployment) -> Json:
    """Return the claim for the volume that holds the weights, shared by all pods."""
    size = math.ceil(1.2 * weight_bytes(deployment) / GIB)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CACHE},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": f"{size}Gi"}},
        },
    }


def weight_bytes(deployment: Deployment) -> float:
    """Return the weights of one copy of the model [B], rounding of shards included."""
    pool = deployment.strategy.pools[0]
    plan = deployment.lowered.lane(pool.parallelism, role=pool.role).plan
    assert plan is not None
    copies = 1 if pool.ep > 1 else pool.dp
    return plan.weights * pool.parallelism.gpus / copies


def as_yaml(documents: list[Json]) -> str:
    """Return documents as YAML, each value written where it stands (no anchors)."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text: str = yaml.dump_all(documents, Dumper=Plain, sort_keys=False, width=100)
    return text
