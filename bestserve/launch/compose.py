"""docker compose: one service a process; a profile a machine where there are several."""

from __future__ import annotations

from typing import Any

from bestserve.errors import InputError
from bestserve.launch.deployment import Deployment
from bestserve.launch.images import ROUTER_IMAGE, image
from bestserve.launch.kubernetes import installed_first
from bestserve.launch.placement import Instance
from bestserve.launch.pods import CACHE, FOLDER, STARTUP_MINUTES, as_yaml
from bestserve.launch.process import Process, rendered
from bestserve.launch.routers import ROUTER_PORT, ROUTERS_AS_PACKAGES

Json = dict[str, Any]


def manifest(deployment: Deployment) -> str:
    """Return a compose file; on several machines `docker compose --profile HOST up` on each."""
    lowered = deployment.lowered
    wide = [p for p in deployment.strategy.pools if deployment.nodes(p) > 1]
    if wide and deployment.family == "tensorrt-llm":
        raise InputError(
            f"{wide[0].replicas}{wide[0].role}{wide[0].options} spans machines, which TensorRT-LLM "
            "joins by MPI; compose does not start that; take --format dynamo or commands"
        )
    tag = image(deployment.family, lowered.engine.name, lowered.hardware)
    services: Json = {}
    configs: Json = {}
    hosts = {seat.host for i in deployment.instances for seat in i.seats}
    for instance in deployment.instances:
        for rank, (host, process) in enumerate(deployment.processes(instance)):
            name = instance.name if rank == 0 else f"{instance.name}-{rank}"
            service = _engine(deployment, instance, rank, process, tag)
            services[name] = service | _profile(host, hosts)
            configs |= _contents(process)
    front = deployment.router
    if front is not None:
        first = deployment.instances[0].seats[0].host
        services["router"] = _router(front, tag) | _profile(first, hosts)
        configs |= _contents(front)
    document: Json = {"services": services, "volumes": {CACHE: {}}}
    return as_yaml([document | ({"configs": configs} if configs else {})])


def _word(text: str) -> str:
    """Return a word as compose reads it back: a dollar is doubled, or it names a variable."""
    return rendered(text, lambda s: s.replace("$", "$$"), lambda name: f"$${name}", FOLDER)


def _profile(host: str, hosts: set[str]) -> Json:
    return {"profiles": [host]} if len(hosts) > 1 else {}


def _contents(process: Process) -> Json:
    return {
        name.removesuffix(".yaml"): {"content": text.replace("$", "$$")}
        for name, text in process.files.items()
    }


def _mounted(process: Process) -> Json:
    mounts = [
        {"source": name.removesuffix(".yaml"), "target": f"{FOLDER}/{name}"}
        for name in process.files
    ]
    return {"configs": mounts} if mounts else {}


def _engine(
    deployment: Deployment, instance: Instance, rank: int, process: Process, tag: str
) -> Json:
    # the container sees its GPUs alone, numbered from 0; on AMD's it sees all, and the variable
    # narrows them
    nvidia = deployment.lowered.hardware.vendor == "NVIDIA"
    env = {n: _word(v) for n, v in process.env.items() if not (nvidia and n.endswith("_DEVICES"))}
    devices = [str(d) for d in instance.seats[rank].devices]
    service: Json = {
        "image": tag,
        "entrypoint": [_word(w) for w in process.words],
        "environment": {"HF_TOKEN": None, "HF_HOME": "/models", **env},
        "network_mode": "host",
        "ipc": "host",
        "restart": "unless-stopped",
        "volumes": [f"{CACHE}:/models"],
        **_mounted(process),
    }
    if nvidia:
        reserved = {"driver": "nvidia", "device_ids": devices, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [reserved]}}}
    else:
        service |= {"devices": ["/dev/kfd", "/dev/dri"], "group_add": ["video"]}
        service |= {"security_opt": ["seccomp=unconfined"]}
    return service | (_health(instance.ports.http) if rank == 0 else {})


def _health(port: int) -> Json:
    ask = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/health', timeout=5)"
    test = ["CMD", "python3", "-c", ask]
    return {"healthcheck": {"test": test, "start_period": f"{STARTUP_MINUTES}m"}}


def _router(process: Process, engine_image: str) -> Json:
    package = ROUTERS_AS_PACKAGES.get(process.words[0])
    words = [_word(w) for w in process.words]
    first = [w.replace("$", "$$") for w in installed_first(package)] if package else []
    return {
        "image": ROUTER_IMAGE if package else engine_image,
        "entrypoint": [*first, *words],
        "network_mode": "host",
        "restart": "unless-stopped",
        **_mounted(process),
        **_health(ROUTER_PORT),
    }
