"""What one instance of each pool carries within the objectives, by kind of request."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bestserve.arrays import Floats
from bestserve.errors import InfeasibleError, InputError
from bestserve.fleet.schedule.load import Load
from bestserve.lowering.problem import Lowered
from bestserve.lowering.transfer import kv_transfer
from bestserve.models.goodput import Goodput, decode_goodput, goodput, prefill_goodput
from bestserve.models.system import Arrivals, Collocated, Lane, Lengths, Target, Transfer
from bestserve.specs.strategy import Pool, Strategy

NAMES = {"m": "collocated", "p": "prefill", "d": "decode"}


@dataclass(frozen=True, slots=True)
class Instances:
    """One pool of a schedule: what an instance is.

    gpus : of an instance; lanes : of an instance; lane : each of them
    """

    pool: Pool
    lane: Lane
    lanes: int

    @property
    def name(self) -> str:
        """The role in words."""
        return NAMES[self.pool.role]

    @property
    def gpus(self) -> int:
        """GPUs of one instance."""
        return self.pool.parallelism.gpus


@dataclass(frozen=True)
class Deployment:
    """The pools whose sizes are planned: one collocated, or prefill and decode.

    Counts in `strategy` are ignored; its parallelism and batch limits make the instances.
    """

    lowered: Lowered
    strategy: Strategy
    target: Target

    def __post_init__(self) -> None:
        if self.lowered.problem.workload.burstiness != 1.0:
            raise InputError(
                "schedule plans Poisson arrivals inside a window: leave burstiness at 1"
            )
        if self.strategy.hybrid:
            raise InputError(
                f"{self.strategy}: the pools of a hybrid carry its load together, which a schedule "
                "does not plan yet; give collocated instances or plain prefill and decode"
            )
        if self.lowered.problem.routing != "random":
            raise InputError("a schedule is planned for random routing: leave out --routing")

    @cached_property
    def pools(self) -> tuple[Instances, ...]:
        """The pools, prefill before decode. Raises InfeasibleError for one that cannot be built."""
        found = []
        for pool in self.strategy.pools:
            result = self.lowered.pool_result(pool)
            if result.lane is None:
                raise InfeasibleError(f"{pool.role}{pool.options}: {result.reason}")
            found.append(Instances(pool, result.lane, result.lanes_per_instance))
        return tuple(found)

    @cached_property
    def transfer(self) -> Transfer:
        """The KV transfer between the pools of a split strategy."""
        return kv_transfer(self.lowered, *(i.pool.parallelism for i in self.pools))

    def moving(self, instances: Instances) -> Transfer:
        """The KV transfer of a running request from one instance of a pool to another."""
        parallelism = instances.pool.parallelism
        return kv_transfer(self.lowered, parallelism, parallelism)

    def per_instance(self, load: Load) -> Floats:
        """Return the rate that an instance of each pool carries [pool, kind; req/s]."""
        used = sorted(set(load.kinds))
        rates = np.full((len(self.pools), len(load.lengths)), np.nan)
        for kind in used:
            for i, instances in enumerate(self.pools):
                found = self._goodput(instances, load.lengths[kind])
                if not found.rate > 0:
                    why = found.detail or found.status.value
                    raise InfeasibleError(f"{instances.name} instances: {why}")
                rates[i, kind] = found.rate * instances.lanes
        return rates

    def _goodput(self, instances: Instances, lengths: Lengths) -> Goodput:
        if instances.pool.role == "p":
            return prefill_goodput(instances.lane, lengths, self.target)
        if instances.pool.role == "d":
            return decode_goodput(instances.lane, lengths, self.target, self.transfer)
        alone = Collocated(lane=instances.lane, replicas=1, lengths=lengths, arrivals=Arrivals())
        return goodput(alone, self.target)
