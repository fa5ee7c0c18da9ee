"""What the command of one process of an instance depends on besides its pool: where it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from bestserve.launch.placement import Instance, Ports

VISIBLE_DEVICES = {
    "NVIDIA": "CUDA_VISIBLE_DEVICES",
    "AMD": "HIP_VISIBLE_DEVICES",
    "Intel": "HABANA_VISIBLE_DEVICES",
    "Huawei": "ASCEND_RT_VISIBLE_DEVICES",
    "AWS": "NEURON_RT_VISIBLE_CORES",
    "Google": "TPU_VISIBLE_CHIPS",
}
"""The variable that narrows what a process sees, by the GPU's maker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a process runs.

    own, leader : addresses of its host and of the instance's first host, or references to them
    nodes, rank : hosts of the instance, and which of them this is (text: it may be a reference)
    leads : whether this is the first
    ports : the instance's
    devices : what it may see; None where a container sees its own GPUs only
    gpus_per_host : GPUs of the instance on each host
    """

    own: str
    leader: str
    nodes: int = 1
    rank: str = "0"
    leads: bool = True
    ports: Ports = field(default_factory=Ports)
    devices: tuple[int, ...] | None = None
    hosts: tuple[str, ...] = ()

    def visible(self, vendor: str) -> dict[str, str]:
        """Return the variable that narrows what the process sees."""
        if self.devices is None:
            return {}
        name = VISIBLE_DEVICES.get(vendor, "CUDA_VISIBLE_DEVICES")
        return {name: ",".join(map(str, self.devices))}


def sites(instance: Instance) -> tuple[Site, ...]:
    """Return one site for each host of a placed instance."""
    hosts = tuple(seat.host for seat in instance.seats)
    return tuple(
        Site(
            own=seat.host,
            leader=hosts[0],
            nodes=len(hosts),
            rank=str(rank),
            leads=rank == 0,
            ports=instance.ports,
            devices=seat.devices,
            hosts=hosts,
        )
        for rank, seat in enumerate(instance.seats)
    )
