"""Every engine configuration of every model on every GPU type, lowered once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bestserve.errors import InputError
from bestserve.fleet.hybrids import units
from bestserve.lowering import Lowered, transfer_latency, unsuited
from bestserve.models.step.device import Parallelism
from bestserve.models.step.memory import memory_plan
from bestserve.models.system import Hybrid, Lane, Role, Transfer
from bestserve.solvers.allocation.tables import COLLOCATED, DECODE, PREFILL
from bestserve.solvers.enumerate import TOKEN_BUDGETS, shapes
from bestserve.specs.fleet import Fleet, FleetModel, GpuGroup
from bestserve.specs.strategy import Pool, Strategy

LETTERS: tuple[Role, Role, Role] = ("m", "p", "d")


@dataclass(frozen=True, slots=True)
class Configuration:
    """One engine configuration of one model on one GPU type, for one role.

    hybrid, strategy : of a hybrid, whose instances of two kinds are planned as one
    """

    gpu: int
    model: int
    role: int
    parallelism: Parallelism
    max_num_batched_tokens: int | None
    max_num_seqs: int | None
    lane: Lane
    lanes_per_instance: int
    transfer: Transfer
    hybrid: Hybrid | None = None
    strategy: Strategy | None = None

    @property
    def gpus(self) -> int:
        """GPUs of one instance."""
        return self.parallelism.gpus if self.strategy is None else self.strategy.gpus

    def written(self, replicas: int) -> str:
        """Return `replicas` such instances as text."""
        if self.strategy is None:
            return f"{replicas}{LETTERS[self.role]}{self.pool(replicas).options}"
        pools = [
            pool.model_copy(update={"replicas": pool.replicas * replicas})
            for pool in self.strategy.pools
        ]
        return str(Strategy(pools=tuple(pools)))

    def pool(self, replicas: int) -> Pool:
        """Return `replicas` such instances as strategies write them."""
        return Pool.of(
            LETTERS[self.role],
            replicas,
            self.parallelism,
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_num_seqs=self.max_num_seqs,
        )


@dataclass(frozen=True, slots=True)
class Buildable:
    """What of one model can be built on one GPU type.

    reason : why the last one that could not be built could not; kv_bytes : KV cache of a token
    [B]; price [$/GPU/h], watts [W/GPU] : of the record (None: unknown); nic [B/s], node : of the
    GPU type; reach : GPUs of the type that an instance may have
    """

    configurations: tuple[Configuration, ...]
    reason: str
    kv_bytes: float
    price: float | None
    watts: float | None
    nic: float
    node: int
    reach: int


def buildable(fleet: Fleet, g: int, m: int, bandwidth: float) -> Buildable:
    """Return the configurations of model `m` on GPU type `g`; `bandwidth` as `slowest_feeds` says.

    Up to a whole node is built, even if there are fewer GPUs: what more of them would bring is
    asked of the same tables.

    Raises InputError, UnknownNameError, DataError as lowering does.
    """
    group, model = fleet.gpus[g], fleet.models[m]
    lowered = Lowered(fleet.problem(group, model, model.classes))
    whole = _reach(group, lowered.device.gpus_per_node)
    if whole > group.count:
        group = group.model_copy(update={"count": whole})
        lowered = Lowered(fleet.problem(group, model, model.classes))
    kv_bytes = _kv_bytes_per_token(lowered)
    transfer = Transfer(
        latency=transfer_latency(lowered),
        seconds_per_token=kv_bytes / bandwidth if bandwidth > 0 else 0.0,
    )
    found: list[Configuration] = []
    reason = unsuited(lowered)
    running = [
        pool
        for d in fleet.deployed
        if (d.gpu, d.model) == (group.label, model.label)
        for pool in d.parsed()
    ]
    for role in () if reason else _roles(model, bandwidth):
        common = _limits(model, role, lowered)
        mine = [pool for pool in running if pool.role == LETTERS[role]]
        for shape in dict.fromkeys([*shapes(lowered), *(pool.parallelism for pool in mine)]):
            if shape.gpus > group.count:
                continue
            own = [
                (pool.max_num_batched_tokens, pool.max_num_seqs)
                for pool in mine
                if pool.parallelism == shape
            ]
            for tokens, seqs in dict.fromkeys([*common, *own]):
                built = lowered.lane(
                    shape,
                    max_num_batched_tokens=tokens,
                    max_num_seqs=seqs,
                    role=LETTERS[role],
                )
                if built.lane is None:
                    reason = built.reason
                    break
                found.append(
                    Configuration(
                        gpu=g,
                        model=m,
                        role=role,
                        parallelism=shape,
                        max_num_batched_tokens=tokens,
                        max_num_seqs=seqs,
                        lane=built.lane,
                        lanes_per_instance=built.lanes_per_instance,
                        transfer=transfer if role == DECODE else Transfer(),
                    )
                )
    if "hybrid" in model.layouts and not reason:
        found += [
            Configuration(
                gpu=g,
                model=m,
                role=COLLOCATED,
                parallelism=strategy.pools[0].parallelism,
                max_num_batched_tokens=strategy.pools[1].max_num_batched_tokens,
                max_num_seqs=None,
                lane=system.decode,
                lanes_per_instance=1,
                transfer=system.transfer,
                hybrid=system,
                strategy=strategy,
            )
            for strategy, system in units(lowered)
        ]
    if not found and not reason:
        reason = f"no parallelism fits {group.count} GPUs" if group.count else "there are no GPUs"
    price, power = lowered.hardware.price_per_hour, lowered.hardware.power
    return Buildable(
        configurations=tuple(found),
        reason=reason,
        kv_bytes=kv_bytes,
        price=price.value if price else None,
        watts=power.value if power else None,
        nic=lowered.device.network_bandwidth,
        node=lowered.device.gpus_per_node,
        reach=whole,
    )


def _reach(group: GpuGroup, node: int) -> int:
    """Return the GPUs of a type for which instances are built; none where there are none."""
    return max(group.count, node) if group.count else 0


def _roles(model: FleetModel, bandwidth: float) -> list[int]:
    """Return the roles that a model's layouts allow where KV can arrive at `bandwidth`."""
    roles = [COLLOCATED] if "collocated" in model.layouts else []
    if "disaggregated" in model.layouts and bandwidth > 0:
        roles += [PREFILL, DECODE]
    return roles


def _limits(model: FleetModel, role: int, lowered: Lowered) -> list[tuple[int | None, int | None]]:
    """Return the batch limits tried in a role, (tokens, sequences); None: the engine's own."""
    own = lowered.engine.max_num_batched_tokens
    tokens: list[int | None] = [None, *(b for b in TOKEN_BUDGETS[LETTERS[role]] if b != own)]
    if role == DECODE:
        tokens = [None]
    elif model.max_num_batched_tokens:
        tokens = list(model.max_num_batched_tokens)
    seqs: list[int | None] = [None]
    if model.max_num_seqs and role != PREFILL:
        seqs = list(model.max_num_seqs)
    return [(t, s) for t in tokens for s in seqs]


def _kv_bytes_per_token(lowered: Lowered) -> float:
    """Return the KV cache of one token over all layers [B]."""
    plan = memory_plan(
        lowered.model.architecture, lowered.device, Parallelism(), lowered.formats, lowered.engine
    )
    return float(plan.kv_bytes_per_token_total)


def network(fleet: Fleet, group: GpuGroup) -> float:
    """Return the network bandwidth of a GPU [B/s]: the fleet's, else the record's."""
    if group.network_bandwidth is not None:
        return group.network_bandwidth
    model = fleet.models[0]
    return Lowered(fleet.problem(group, model, model.classes[:1])).device.network_bandwidth


def slowest_feeds(fleet: Fleet) -> list[float]:
    """Return, per decode GPU type, the slowest network a transfer to one instance may use [B/s].

    Transfers are charged to the network even between instances that happen to share a node.
    """
    networks = [network(fleet, group) for group in fleet.gpus]
    worst = []
    for g, group in enumerate(fleet.gpus):
        ends = [networks[g]]
        if fleet.cross_type:
            closed = {(x.source, x.target) for x in fleet.links if x.bandwidth == 0}
            ends += [
                n
                for n, other in zip(networks, fleet.gpus, strict=True)
                if n > 0 and (other.label, group.label) not in closed
            ]
        worst.append(min(ends))
    return worst


def name(fleet: Fleet, c: Configuration) -> str:
    """Return what a configuration is called: model, role and options, GPU type."""
    what = c.written(1) if c.hybrid else c.written(1)[1:]
    return f"{fleet.models[c.model].label} {what} on {fleet.gpus[c.gpu].label}"


def deployed_counts(fleet: Fleet, configurations: Sequence[Configuration]) -> list[int]:
    """Return how many instances of each configuration run today [configuration].

    Raises InputError for instances that are none of the configurations.
    """
    running = [0] * len(configurations)
    for d in fleet.deployed:
        for pool in d.parsed():
            for i, c in enumerate(configurations):
                labels = fleet.gpus[c.gpu].label, fleet.models[c.model].label
                same = c.hybrid is None and c.pool(pool.replicas) == pool
                if labels == (d.gpu, d.model) and same:
                    running[i] += pool.replicas
                    break
            else:
                what = f"{pool.replicas}{pool.role}{pool.options} of {d.model!r} on {d.gpu!r}"
                raise InputError(
                    f"deployed {what} cannot be planned with: it needs "
                    "a role that the model's layouts allow and a parallelism that fits the GPUs"
                )
    return running
