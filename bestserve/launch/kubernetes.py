"""Plain Kubernetes: a StatefulSet a pool, a LeaderWorkerSet where an instance spans machines.

Both give each instance a stable name, so that the router is told its workers and needs no
permission to look for them.
"""

from __future__ import annotations

from typing import Any

from bestserve.errors import InputError
from bestserve.launch.deployment import Deployment
from bestserve.launch.images import ROUTER_IMAGE, image
from bestserve.launch.placement import HTTP_PORT, Instance, Ports, Seat
from bestserve.launch.pods import (
    FOLDER,
    Json,
    as_yaml,
    config_maps,
    config_name,
    engine_pod,
    model_cache,
    probes,
    word,
)
from bestserve.launch.process import Process, variable
from bestserve.launch.routers import ROUTER_PORT, ROUTERS_AS_PACKAGES, router
from bestserve.launch.site import Site
from bestserve.specs.strategy import ROLE_NAMES, Pool

SERVICE = "llm"
"""Name of the service that clients use."""


def manifest(deployment: Deployment) -> str:
    """Return everything a namespace needs to serve a plan, as YAML."""
    lowered, family = deployment.lowered, deployment.family
    tag = image(family, lowered.engine.name, lowered.hardware)
    documents: list[Json] = [model_cache(deployment)]
    started: list[Process] = []
    for pool in deployment.strategy.pools:
        workload, processes = _workload(deployment, pool, tag)
        started += processes
        # a LeaderWorkerSet makes the service that names its pods itself
        documents += (
            [workload] if deployment.nodes(pool) > 1 else [workload, _headless(_name(pool))]
        )
    front = router(lowered, deployment.strategy, family, _instances(deployment), deployment.model)
    if front is None:
        documents.append(_service(_name(deployment.strategy.pools[0]), HTTP_PORT))
    else:
        started.append(front)
        documents += [_router(front, tag), _service(f"{SERVICE}-router", ROUTER_PORT)]
    return as_yaml([*config_maps(started), *documents])


def _name(pool: Pool) -> str:
    return f"{SERVICE}-{ROLE_NAMES[pool.role]}"


def _instances(deployment: Deployment) -> tuple[Instance, ...]:
    """Return the instances as the cluster names them."""
    return tuple(
        Instance(f"{_name(p)}-{i}", p, (Seat(f"{_name(p)}-{i}.{_name(p)}", ()),), Ports())
        for p in deployment.strategy.pools
        for i in range(p.replicas)
    )


def _workload(deployment: Deployment, pool: Pool, tag: str) -> tuple[Json, list[Process]]:
    nodes = deployment.nodes(pool)
    each = pool.parallelism.gpus // nodes
    if nodes == 1:
        process = deployment.process(pool, Site(own=variable("POD_IP"), leader="localhost"))
        pod = engine_pod(deployment, process, tag, each, answers=True)
        return _stateful_set(pool, pod), [process]
    if deployment.family == "tensorrt-llm":
        raise InputError(
            f"{pool.replicas}{pool.role}{pool.options} spans {nodes} machines: TensorRT-LLM joins "
            "them by MPI, which plain Kubernetes does not start; take --format dynamo or commands"
        )
    leader_address = variable("LWS_LEADER_ADDRESS")
    leader = deployment.process(
        pool, Site(own=variable("POD_IP"), leader=leader_address, nodes=nodes)
    )
    worker = deployment.process(
        pool,
        Site(
            own=variable("POD_IP"),
            leader=leader_address,
            nodes=nodes,
            rank=variable("LWS_WORKER_INDEX"),
            leads=False,
        ),
    )
    name = _name(pool)
    spec = {
        "replicas": pool.replicas,
        "leaderWorkerTemplate": {
            "size": nodes,
            "restartPolicy": "RecreateGroupOnPodRestart",
            "leaderTemplate": _labelled(
                name, engine_pod(deployment, leader, tag, each, answers=True)
            ),
            "workerTemplate": {"spec": engine_pod(deployment, worker, tag, each, answers=False)},
        },
    }
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name},
        "spec": spec,
    }, [leader, worker]


def _labelled(name: str, pod: Json) -> Json:
    return {"metadata": {"labels": {"app": name}}, "spec": pod}


def _stateful_set(pool: Pool, pod: Json) -> Json:
    name = _name(pool)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "serviceName": name,
            "replicas": pool.replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": _labelled(name, pod),
        },
    }


def _headless(name: str) -> Json:
    """Return the service that names each pod, also while it loads its weights."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"app": name},
            "ports": [{"name": "http", "port": HTTP_PORT}],
        },
    }


def _service(app: str, port: int) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": port}]},
    }


def _router(process: Process, engine_image: str) -> Json:
    name = f"{SERVICE}-router"
    package = ROUTERS_AS_PACKAGES.get(process.words[0])
    words = [word(w) for w in process.words]
    container: dict[str, Any] = {
        "name": "router",
        "image": ROUTER_IMAGE if package else engine_image,
        "command": [*installed_first(package), *words] if package else words,
        "ports": [{"name": "http", "containerPort": ROUTER_PORT}],
        **probes(ROUTER_PORT),
    }
    pod: Json = {"containers": [container]}
    if process.files:
        container["volumeMounts"] = [{"name": "config", "mountPath": FOLDER}]
        pod["volumes"] = [{"name": "config", "configMap": {"name": config_name(process)}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": _labelled(name, pod),
        },
    }


def installed_first(package: str) -> tuple[str, ...]:
    """Return the words that install a pinned package, then run what follows them."""
    script = f'pip install --quiet {package} && exec "$0" "$@"'
    return ("/bin/sh", "-c", script)
