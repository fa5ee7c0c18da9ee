"""Which instance runs on which host, with which GPUs and ports."""

from __future__ import annotations

from dataclasses import dataclass

from bestserve.errors import InputError
from bestserve.launch.process import host_argument
from bestserve.specs.strategy import ROLE_NAMES, Pool, Strategy

HTTP_PORT = 8000
PORT_STEP = 100
"""Between two instances of a host: SGLang takes a port a data-parallel rank beside its own."""
SIDE_CHANNEL_PORT = 5600
"""vLLM's first port of NIXL's handshake; each data-parallel rank takes one."""
BOOTSTRAP_PORT = 8998
"""Where an SGLang prefill instance is asked for its KV cache."""
EVENTS_PORT = 5557
"""vLLM's first port of news of its KV cache; each data-parallel rank takes one."""
RENDEZVOUS_PORT = 25000
"""Where the nodes of one instance find each other."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Of one instance, on the host that leads it."""

    http: int = HTTP_PORT
    side_channel: int = SIDE_CHANNEL_PORT
    bootstrap: int = BOOTSTRAP_PORT
    rendezvous: int = RENDEZVOUS_PORT
    events: int = EVENTS_PORT


@dataclass(frozen=True, slots=True)
class Seat:
    """The part of an instance on one host."""

    host: str
    devices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """One engine: its name, pool, seats (the first leads) and ports."""

    name: str
    pool: Pool
    seats: tuple[Seat, ...]
    ports: Ports

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.seats[0].host}:{self.ports.http}"


def nodes_of(pool: Pool, gpus_per_node: int) -> int:
    """Return the hosts one instance spans. Raises InputError if it fills them unevenly."""
    gpus = pool.parallelism.gpus
    if gpus <= gpus_per_node:
        return 1
    if gpus % gpus_per_node:
        raise InputError(
            f"{pool.replicas}{pool.role}{pool.options}: {gpus} GPUs do not fill nodes of "
            f"{gpus_per_node} evenly, and engines start equal parts on each; choose a multiple"
        )
    return gpus // gpus_per_node


def place(strategy: Strategy, gpus_per_node: int, hosts: tuple[str, ...]) -> tuple[Instance, ...]:
    """Return every instance with its seats: first fit in the strategy's order.

    hosts : names or addresses; () names them node0, node1, …, or 127.0.0.1 if one is enough
    Raises InputError if there are too few.
    """
    named = [host_argument(h) for h in hosts]
    free: list[list[int]] = []
    taken: list[tuple[Pool, str, list[tuple[int, tuple[int, ...]]]]] = []
    for pool in strategy.pools:
        gpus, nodes = pool.parallelism.gpus, nodes_of(pool, gpus_per_node)
        for index in range(pool.replicas):
            seats = [_sit(free, min(gpus, gpus_per_node), gpus_per_node) for _ in range(nodes)]
            taken.append((pool, f"{ROLE_NAMES[pool.role]}-{index}", seats))
    if named and len(named) < len(free):
        raise InputError(
            f"{strategy} takes {len(free)} nodes of {gpus_per_node} GPUs, {len(named)} "
            f"host{'s are' if len(named) > 1 else ' is'} named; name {len(free)}, or set "
            "--gpus-per-node"
        )
    names = named or (["127.0.0.1"] if len(free) == 1 else [f"node{i}" for i in range(len(free))])
    led = [0] * len(free)
    ranks = [0] * len(free)
    instances = []
    for pool, name, seats in taken:
        leader = seats[0][0]
        k = led[leader]
        ports = Ports(
            http=HTTP_PORT + PORT_STEP * k,
            side_channel=SIDE_CHANNEL_PORT + ranks[leader],
            bootstrap=BOOTSTRAP_PORT + k,
            rendezvous=RENDEZVOUS_PORT + PORT_STEP * k,
            events=EVENTS_PORT + ranks[leader],
        )
        led[leader] += 1
        ranks[leader] += pool.dp
        placed = tuple(Seat(names[host], devices) for host, devices in seats)
        instances.append(Instance(name, pool, placed, ports))
    return tuple(instances)


def _sit(free: list[list[int]], gpus: int, per_node: int) -> tuple[int, tuple[int, ...]]:
    """Return the first host with so many GPUs free, and take them; a new one if there is none."""
    for host, left in enumerate(free):
        if len(left) >= gpus:
            return host, tuple(left.pop(0) for _ in range(gpus))
    free.append(list(range(per_node)))
    return len(free) - 1, tuple(free[-1].pop(0) for _ in range(gpus))
