"""What one instance of each pool carries within the objectives, by kind of request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bestserve.arrays import Floats
from bestserve.errors import InfeasibleError, InputError
from bestserve.fleet.schedule.instances import NO_TRANSFER, Instances
from bestserve.fleet.schedule.load import Load
from bestserve.fleet.schedule.runs import Run
from bestserve.lowering.problem import Lowered
from bestserve.lowering.transfer import kv_transfer
from bestserve.models.goodput import Goodput, decode_goodput, goodput, prefill_goodput
from bestserve.models.latencies import Latencies
from bestserve.models.latency import by_batch, decode_alone, evaluator, lane_engine, prefill_alone
from bestserve.models.system import Arrivals, Hybrid, Lengths, Target, Transfer
from bestserve.specs.strategy import Strategy


@dataclass(frozen=True)
class Deployment:
    """The pools whose sizes are planned: one collocated, one of hybrids, or prefill and decode.

    Counts in `strategy` are ignored; its parallelism and batch limits make the instances. Only of a
    hybrid the counts are what an instance is: it comes and goes as a whole.
    """

    lowered: Lowered
    strategy: Strategy
    target: Target

    def __post_init__(self) -> None:
        if self.lowered.problem.workload.burstiness != 1.0:
            raise InputError(
                "schedule plans Poisson arrivals inside a window: leave burstiness at 1"
            )
        if self.lowered.problem.routing != "random":
            raise InputError("a schedule is planned for random routing: leave out --routing")
        back = self.strategy.pools[-1]
        if self.strategy.hybrid and (back.prefill_queue or back.flow_percent is not None):
            raise InputError(
                f"{self.strategy}: hybrids whose queues or decodes decide where requests go are "
                "known to simulate, not to schedules; leave out -queue and -flow"
            )

    @cached_property
    def pools(self) -> tuple[Instances, ...]:
        """The pools, prefill before decode. Raises InfeasibleError for one that cannot be built."""
        if self.strategy.hybrid:
            return (self._hybrid(),)
        found = []
        for pool in self.strategy.pools:
            result = self.lowered.pool_result(pool)
            if result.lane is None:
                raise InfeasibleError(f"{pool.role}{pool.options}: {result.reason}")
            found.append(
                Instances(
                    role=pool.role,
                    label=f"1{pool.role}{pool.options}",
                    gpus=pool.parallelism.gpus,
                    parallelism=pool.parallelism,
                    lane=result.lane,
                    lanes=result.lanes_per_instance,
                )
            )
        return tuple(found)

    def _hybrid(self) -> Instances:
        unit = self.lowered.system(self.strategy)
        assert isinstance(unit, Hybrid)
        return Instances(
            role="h",
            label=str(self.strategy),
            gpus=self.strategy.gpus,
            parallelism=self.strategy.pools[-1].parallelism,
            lane=unit.decode,
            lanes=1,
            unit=unit,
        )

    @property
    def label(self) -> str:
        """One instance of each pool, as strategies are written."""
        return str(Strategy.parse("+".join(pool.label for pool in self.pools)))

    @cached_property
    def transfer(self) -> Transfer:
        """The KV transfer between the pools of a split strategy."""
        if len(self.pools) < 2:
            return NO_TRANSFER
        return kv_transfer(self.lowered, *(i.parallelism for i in self.pools))

    def moving(self, instances: Instances) -> Transfer:
        """The KV transfer of a running request from one instance of a pool to another.

        Raises InputError for hybrids, whose requests are on lanes of either kind.
        """
        if instances.unit is not None:
            raise InputError("the KV of a hybrid's requests is not moved: leave kv at stays")
        return kv_transfer(self.lowered, instances.parallelism, instances.parallelism)

    def per_instance(self, load: Load) -> Floats:
        """Return the rate that an instance of each pool carries [pool, kind; req/s].

        By formula; where classes have objectives of their own, by runs.
        """
        used = sorted(set(load.kinds))
        rates = np.full((len(self.pools), len(load.lengths)), np.nan)
        for kind in used:
            for i, instances in enumerate(self.pools):
                rates[i, kind] = self._rate(instances, load.lengths[kind]) * instances.lanes
        return rates

    def latencies(self, instances: Instances, lengths: Lengths) -> Callable[[float], Latencies]:
        """Return what a lane does to its requests, by their rate [req/s]."""
        lane = instances.lane
        if instances.role == "p":
            engine = lane_engine(lane, lengths)
            return lambda rate: prefill_alone(engine, rate)
        if instances.role == "d":
            return lambda rate: by_batch(
                lane,
                lambda decodes: decode_alone(
                    lane_engine(lane, lengths, decodes), rate, self.transfer
                ),
            )
        return evaluator(instances.system(1, lengths, Arrivals()))

    def _rate(self, instances: Instances, lengths: Lengths) -> float:
        """Return what a lane carries [req/s]. Raises InfeasibleError where that is nothing."""
        if self.target.tiers:
            rate = Run(instances, self.target, self.transfer).goodput(lengths)
            if rate > 0:
                return rate
            raise InfeasibleError(
                f"{instances.name} instances: a request alone misses the objectives of its class"
            )
        found = self._goodput(instances, lengths)
        if not found.rate > 0:
            raise InfeasibleError(f"{instances.name} instances: {found.detail or found.status}")
        return found.rate

    def _goodput(self, instances: Instances, lengths: Lengths) -> Goodput:
        if instances.role == "p":
            return prefill_goodput(instances.lane, lengths, self.target)
        if instances.role == "d":
            return decode_goodput(instances.lane, lengths, self.target, self.transfer)
        return goodput(instances.system(1, lengths, Arrivals()), self.target)
