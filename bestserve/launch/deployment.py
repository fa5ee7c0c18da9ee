"""A plan as what is started: limits per pool, a router, an address; formats write it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bestserve.errors import InputError
from bestserve.launch import caching, hybrid, sglang, tensorrt_llm, vllm
from bestserve.launch.limits import Limits, pool_limits
from bestserve.launch.placement import Instance, nodes_of, place
from bestserve.launch.process import Process
from bestserve.launch.routers import ROUTER_PORT, policy, router
from bestserve.launch.site import Site, sites
from bestserve.lowering import Lowered
from bestserve.models.step.device import Precision
from bestserve.specs.strategy import ROLE_NAMES, Pool, Strategy

_ENGINES: dict[str, Callable[[Lowered, Pool, Limits, Site, str], Process]] = {
    "vllm": vllm.process,
    "sglang": sglang.process,
    "tensorrt-llm": tensorrt_llm.process,
}


def engine_family(name: str) -> str:
    """Return the engine whose flags a preset uses. Raises InputError if there is none."""
    for family in _ENGINES:
        if name == family or name.startswith(f"{family}-"):
            return family
    raise InputError(
        f"engine {name!r} has no launch command; presets of {', '.join(_ENGINES)} have"
    )


def checkpoint(lowered: Lowered) -> str:
    """Return the model as engines find it: ``org/name`` also where the user left out the org.

    Of a model read from a config.json it is the folder around it.
    """
    name, record = lowered.model.name, lowered.model.record
    if name.endswith(".json"):
        return str(Path(name).parent)
    if "/" in name or "/" not in record:
        return name
    org, bare = record.split("/", 1)
    return record if bare.lower() == name.lower() else f"{org}/{name}"


@dataclass(frozen=True)
class Deployment:
    """What is started for a strategy, on hosts of the problem's GPUs.

    hosts : names or addresses of the machines; () for node0, node1, … or one machine itself
    """

    lowered: Lowered
    strategy: Strategy
    hosts: tuple[str, ...] = ()

    @cached_property
    def family(self) -> str:
        """The engine whose commands are printed. Raises InputError for what it does not run."""
        found = engine_family(self.lowered.engine.name)
        hybrid.refuse(self.strategy, found)
        if self.lowered.lengths.prioritised and found != "vllm":
            raise InputError(
                f"{found}: priorities are printed for vllm, whose queue the plan has; "
                "take it, or leave the classes' priority out"
            )
        return found

    @cached_property
    def model(self) -> str:
        """The model's name as engines find it."""
        return checkpoint(self.lowered)

    @cached_property
    def limits(self) -> tuple[Limits, ...]:
        """Batch limits, one a pool."""
        return tuple(pool_limits(self.lowered, pool) for pool in self.strategy.pools)

    @property
    def on_disk(self) -> bool:
        """Whether the model is a folder of this machine rather than a published name."""
        return self.lowered.model.name.endswith(".json")

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one machine."""
        return self.lowered.device.gpus_per_node

    def nodes(self, pool: Pool) -> int:
        """Return the machines one instance of a pool spans."""
        return nodes_of(pool, self.gpus_per_node)

    def process(self, pool: Pool, site: Site) -> Process:
        """Return what one machine of an instance runs."""
        limits = self.limits[self.strategy.pools.index(pool)]
        return _ENGINES[self.family](self.lowered, pool, limits, site, self.model)

    @cached_property
    def instances(self) -> tuple[Instance, ...]:
        """Every instance with its machines, GPUs and ports."""
        return place(self.strategy, self.gpus_per_node, self.hosts)

    def processes(self, instance: Instance) -> tuple[tuple[str, Process], ...]:
        """Return (host, process) of everything an instance runs; MPI starts all from the first."""
        places = sites(instance)
        if self.family == "tensorrt-llm":
            places = places[:1]
        return tuple((site.own, self.process(instance.pool, site)) for site in places)

    @cached_property
    def router(self) -> Process | None:
        """The router in front of the instances, on the first machine; None if none is needed."""
        return router(self.lowered, self.strategy, self.family, self.instances, self.model)

    @property
    def url(self) -> str:
        """Where clients send their requests."""
        first = self.instances[0]
        return first.url if self.router is None else f"http://{first.seats[0].host}:{ROUTER_PORT}"

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """Return what a reader should know before starting it."""
        said = []
        for pool, limits in zip(self.strategy.pools, self.limits, strict=True):
            if limits.lowered_from is not None:
                said.append(
                    f"{ROLE_NAMES[pool.role]}: {limits.seqs} sequences instead of the engine's "
                    f"{limits.lowered_from}: the KV cache holds no more mean requests"
                )
        said += [_file_remark(self.lowered.model.name) if self.on_disk else ""]
        said += [_checkpoint_remark(self.family, self.lowered.problem.precision)]
        if self.router is not None:
            apart = self.strategy.disaggregated
            said += [policy(self.lowered, self.family, disaggregated=apart)[1]]
        said += caching.remarks(self.lowered, self.strategy, self.family)
        said += hybrid.remarks(self.lowered, self.strategy, self.family)
        law = self.lowered.lengths
        if law.prioritised:
            each = zip(law.kind_names, law.priorities, strict=True)
            fields = ", ".join(f"{name} {priority}" for name, priority in each)
            said.append(f'clients send each request\'s "priority" with it: {fields}')
        return tuple(s for s in said if s)


def _file_remark(name: str) -> str:
    """Return what to say of a model read from a file that no engine looks for, or nothing."""
    file = Path(name)
    if file.name == "config.json":
        return ""
    return (
        f"engines look for {file.parent / 'config.json'}, and {file.name} was read: the folder "
        "must hold that checkpoint"
    )


def _checkpoint_remark(family: str, precision: Precision | None) -> str:
    """Return what to say of weights that an engine cannot quantise when it loads them."""
    if precision in (None, "bf16") or (precision == "fp8" and family != "tensorrt-llm"):
        return ""
    return f"the plan's {precision} weights need a checkpoint in that format: name it as the model"
