"""What the allocation programme is made from: supply, demand, and goodput tables of pools.

A *pool* is a set of k identical engine instances behind one dispatcher: one GPU type, one role,
one recipe (a fixed mix of request classes of one model) and one engine configuration. Its table
F(k) is the largest total rate of that mix at which every class meets its SLO. The programme, the
brute-force oracle and the checker share these arrays and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from bestserve.arrays import Bools, Floats, Ints

Objective = Literal["max_goodput", "min_cost", "max_headroom"]

COLLOCATED, PREFILL, DECODE = 0, 1, 2
ROLES = ("collocated", "prefill", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """GPU types, one row each [g].

    gpus : GPUs available; node_size : GPUs of a node (the last node may be partly filled)
    price : [$/GPU/h]; watts : [W/GPU]
    nic : network bandwidth of a GPU, one way [B/s]; inf: no limit
    fabric : [g, g'] bandwidth from type g to type g' in total [B/s]; inf: no limit, 0: no path
    network_share : share of `nic` and `fabric` that KV transfers may use on average [1]
    """

    names: tuple[str, ...]
    gpus: Ints
    node_size: Ints
    price: Floats
    watts: Floats
    nic: Floats
    fabric: Floats
    network_share: float = 0.7

    @property
    def count(self) -> int:
        """Number of GPU types."""
        return len(self.names)

    @property
    def networked(self) -> bool:
        """Whether any link can bind, so that flows must be told apart by pair of GPU types."""
        return bool(np.isfinite(self.nic).any() or np.isfinite(self.fabric).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Request classes, one row each [w].

    models : names [m]; model : index into `models` [w]
    rate : rate to carry, or share of the mix under `max_headroom` [req/s or 1]
    value : worth of one served request under `max_goodput` [1]
    kv_bytes : KV cache that moves from prefill to decode per request [B]
    """

    names: tuple[str, ...]
    models: tuple[str, ...]
    model: Ints
    rate: Floats
    value: Floats
    kv_bytes: Floats

    @property
    def count(self) -> int:
        """Number of request classes."""
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Candidate pools, one row each [p].

    gpu, role, recipe, key, size : GPU type, role, mix, engine configuration, GPUs per instance
    goodput : [p, K + 1], F(k) for k = 0 … K; F(0) = 0, non-decreasing in k [req/s]
    Beyond K nothing is known: a pool never has more than K instances.
    """

    gpu: Ints
    role: Ints
    recipe: Ints
    key: Ints
    size: Ints
    goodput: Floats

    @property
    def count(self) -> int:
        """Number of pools."""
        return int(self.gpu.size)

    def take(self, rows: Ints | Bools) -> Pools:
        """Return the pools at `rows`."""
        return Pools(
            gpu=self.gpu[rows],
            role=self.role[rows],
            recipe=self.recipe[rows],
            key=self.key[rows],
            size=self.size[rows],
            goodput=self.goodput[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Supply, demand, mixes and pools of one allocation problem.

    mixes : [q, w] class weights of each recipe, rows sum to 1, one model per row
    keys : label of each engine configuration; pools with one key are the same deployment
    """

    supply: Supply
    demand: Demand
    mixes: Floats
    pools: Pools
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        pools, demand, supply = self.pools, self.demand, self.supply
        if np.any(pools.goodput[:, 0] != 0) or np.any(np.diff(pools.goodput, axis=1) < 0):
            raise ValueError("goodput tables must start at 0 and never fall with more instances")
        if not np.all(np.isfinite(pools.goodput)):
            raise ValueError("goodput tables must be finite")
        if not np.allclose(self.mixes.sum(axis=1), 1.0) or np.any(self.mixes < 0):
            raise ValueError("recipe weights must be ≥ 0 and sum to 1")
        for row in self.mixes:
            if np.unique(demand.model[row > 0]).size != 1:
                raise ValueError("a recipe mixes classes of one model only")
        if np.any(demand.rate <= 0) or np.any(demand.value < 0):
            raise ValueError("class rates must be > 0 and values ≥ 0")
        if np.any(supply.gpus < 0) or np.any(supply.node_size < 1):
            raise ValueError("GPU counts must be ≥ 0 and nodes hold at least one GPU")
        if pools.count and (pools.size.min() < 1 or pools.gpu.max() >= supply.count):
            raise ValueError("pools need ≥ 1 GPU per instance and a GPU type that exists")

    def with_supply(self, **changes: object) -> Tables:
        """Return the same problem with other GPU counts, prices, …"""
        return replace(self, supply=replace(self.supply, **changes))  # type: ignore[arg-type]

    def recipe_model(self) -> Ints:
        """Return the model that each recipe belongs to [q]."""
        return self.demand.model[np.argmax(self.mixes > 0, axis=1)]

    def extended(self, most: int) -> Tables:
        """Return tables that reach `most` instances, at the last known goodput per instance.

        Per-instance goodput does not fall with pooling, so the extension underestimates.
        """
        known = self.pools.goodput.shape[1] - 1
        if most <= known:
            return self
        k = np.arange(known + 1, most + 1)
        tail = self.pools.goodput[:, -1:] / max(known, 1) * k[None, :]
        goodput = np.concatenate([self.pools.goodput, tail], axis=1)
        return replace(self, pools=replace(self.pools, goodput=goodput))


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What the plan must respect besides the supply.

    objective : "max_goodput" serves as much of each class's rate as it can (weighted by value),
        "min_cost" carries all rates at the least price, "max_headroom" finds the largest factor
        by which all rates can be multiplied
    max_gpus [GPUs], max_cost [$/h], max_watts [W] : budgets; None: no limit
    max_configurations : distinct engine configurations (keys) at most
    min_replicas : [m] instances that every pool of a model needs at least; empty: 1
    deployed : [key] instances running today; empty: none, and nothing is charged
    start_price : charge for each GPU that starts serving a configuration it does not serve
        today, added to the cost of "min_cost" and to the cost budget [$/h per GPU]
    max_started_gpus : GPUs that may start so at most
    """

    objective: Objective
    max_gpus: int | None = None
    max_cost: float | None = None
    max_watts: float | None = None
    max_configurations: int | None = None
    min_replicas: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    deployed: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    start_price: float = 0.0
    max_started_gpus: int | None = None

    @property
    def migrating(self) -> bool:
        """Whether today's deployment matters."""
        return self.start_price > 0 or self.max_started_gpus is not None

    def fewest(self, tables: Tables) -> Ints:
        """Return the least instance count of each pool that is used at all [p]."""
        if self.min_replicas.size == 0:
            return np.ones(tables.pools.count, dtype=np.int64)
        return np.maximum(self.min_replicas[tables.recipe_model()[tables.pools.recipe]], 1)

    def deployed_count(self, tables: Tables) -> Ints:
        """Return today's instances of each key [key]."""
        return self.deployed if self.deployed.size else np.zeros(len(tables.keys), dtype=np.int64)


def isotone_per_instance(goodput: Floats) -> Floats:
    """Lower goodput tables until F(k)/k never falls with k [same shape, req/s].

    Pooling cannot make an instance worse; where evaluation noise says so, the smaller value
    counts. Keeps an optimiser from picking lucky cells, and makes merging configurations exact.

    >>> isotone_per_instance(np.array([[0.0, 1.0, 2.2, 3.0]]))
    array([[0., 1., 2., 3.]])
    """
    k = np.arange(1, goodput.shape[-1])
    per_instance = goodput[..., 1:] / k
    lowest_ahead = np.minimum.accumulate(per_instance[..., ::-1], axis=-1)[..., ::-1]
    return np.concatenate([np.zeros_like(goodput[..., :1]), lowest_ahead * k], axis=-1)
