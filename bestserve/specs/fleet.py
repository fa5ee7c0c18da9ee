"""A whole fleet: GPUs of several types, several models, several request classes each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bestserve.models.step.device import Precision
from bestserve.models.step.engine import EngineConstants
from bestserve.models.system import Routing
from bestserve.specs.base import Spec
from bestserve.specs.hardware import Hardware
from bestserve.specs.lengths import LengthLaw
from bestserve.specs.model import KvDtype, Model, kv_dtype
from bestserve.specs.problem import Problem, Sizes
from bestserve.specs.slo import SLO
from bestserve.specs.strategy import Layout, Pool, Strategy
from bestserve.specs.workload import RequestClass, Workload
from bestserve.units import Name, RequestRate, Share

Objective = Literal["max_goodput", "min_cost", "max_headroom"]


class GpuGroup(Spec):
    """GPUs of one type.

    hardware : bundled name, path of a TOML, or a `Hardware`; name : how answers call it
    count : GPUs; gpus_per_node : GPUs that share the fast link, default: the record's
    network_bandwidth : one way, per GPU [B/s], default: the record's
    price_per_hour : of one GPU [$/h]; power : of one GPU [W]; both default to the record's
    reserved_price : of one GPU that is paid all day [$/h], for `schedule`
    """

    hardware: str | Hardware
    count: int = Field(ge=0, le=1_000_000)
    name: Name = ""
    gpus_per_node: int | None = Field(default=None, ge=1, le=1024)
    network_bandwidth: float | None = Field(default=None, ge=0, le=1e18)
    price_per_hour: float | None = Field(default=None, ge=0, le=1e9)
    power: float | None = Field(default=None, ge=0, le=1e9)
    reserved_price: float | None = Field(default=None, ge=0, le=1e9)

    @property
    def label(self) -> str:
        """The name in answers."""
        if self.name:
            return self.name
        return self.hardware if isinstance(self.hardware, str) else self.hardware.name


class Link(Spec):
    """Bandwidth between two GPU types in total.

    source, target : names of GPU types; bandwidth : one way [B/s], 0: no path
    """

    source: str
    target: str
    bandwidth: float = Field(ge=0, le=1e18)


class FleetClass(Spec):
    """Requests of one kind for one model.

    name : how answers call it; input_len, output_len : length laws [tokens]
    slo : its objectives, separate ones; prefix_cache_hit : share of the prompt found in the cache
    rate : to be carried [requests/s]; share : of the mix, if only the mix is known
    value : worth of one served request, for "max_goodput" with rates
    """

    name: Name
    input_len: LengthLaw
    output_len: LengthLaw
    slo: SLO
    rate: RequestRate | None = None
    share: float | None = Field(default=None, gt=0, le=1)
    value: float = Field(default=1.0, gt=0, le=1e9)
    prefix_cache_hit: Share = 0.0

    @field_validator("slo", mode="before")
    @classmethod
    def _slo_text(cls, value: Any) -> Any:
        return SLO(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_amount(self) -> FleetClass:
        if (self.rate is None) == (self.share is None):
            raise ValueError(f"class {self.name!r}: give rate or share, exactly one")
        if self.slo.tiers:
            raise ValueError(f"class {self.name!r}: its objectives are its own; state no classes")
        if self.slo.joint:
            raise ValueError(
                f"class {self.name!r}: a fleet needs marginal objectives, because prefill and "
                "decode pools are sized apart; give ttft and tpot percentiles instead of joint"
            )
        return self


class FleetModel(Spec):
    """One model with its request classes and what may be tried for it.

    model : bundled name or path of a config.json; name : how answers call it
    classes : its kinds of requests, `[[models.classes]]`
    engine, precision, kv_cache_dtype, gpu_memory_utilization : as in `Problem`
    tensor_parallel_sizes, pipeline_parallel_sizes, layouts : what is tried, as in `Problem`
    min_replicas : instances that each of its pools has at least, for availability
    max_num_batched_tokens : values tried; empty: the engine's own and common ones
    max_num_seqs : values tried where requests decode; empty: the engine's own
    """

    model: str | Model
    classes: tuple[FleetClass, ...] = Field(min_length=1, max_length=200)
    name: Name = ""
    engine: str | EngineConstants = "vllm"
    precision: Precision | None = None
    kv_cache_dtype: Annotated[KvDtype, BeforeValidator(kv_dtype)] = "auto"
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    tensor_parallel_sizes: Sizes | None = None
    pipeline_parallel_sizes: Sizes = (1,)
    max_num_batched_tokens: tuple[Annotated[int, Field(ge=1, le=10_000_000)], ...] = ()
    max_num_seqs: tuple[Annotated[int, Field(ge=1, le=1_000_000)], ...] = ()
    layouts: tuple[Layout, ...] = ("collocated", "disaggregated")
    min_replicas: int = Field(default=1, ge=1, le=10_000)

    @property
    def label(self) -> str:
        """The name in answers."""
        if self.name:
            return self.name
        return self.model if isinstance(self.model, str) else self.model.name


class Deployed(Spec):
    """Instances running today.

    gpu : GPU type; model : name of the model
    pools : as strategies are written, "4m-tp2", "3p-tp1+2d-tp4"
    """

    gpu: str
    model: str
    pools: str

    @field_validator("pools")
    @classmethod
    def _readable(cls, value: str) -> str:
        return str(Strategy.parse(value))

    def parsed(self) -> tuple[Pool, ...]:
        """Return the pools."""
        return Strategy.parse(self.pools).pools


class Fleet(Spec):
    """What to serve on which GPUs, and what the plan must respect.

    gpus : the types, `[[gpus]]`; models : what is served, `[[models]]`
    objective : "max_goodput" serves as much as possible (of the rates, or of the mix if shares are
        given), "min_cost" carries all rates at the least price, "max_headroom" finds the largest
        factor by which all rates can grow
    max_gpus [GPUs], max_cost [$/h], max_power [W] : budgets; None: no limit
    max_configurations : distinct engine configurations at most
    links : bandwidth between GPU types where a fabric limits it; others: the network cards alone
    cross_type : whether prefill may run on another GPU type than decode
    network_share : share of the links that KV transfers may use on average [1]
    headroom : by how much all rates are planned larger than stated: 0.2 is 20 % [1]
    spares : instances of every pool that may fail while it still carries its load
    deployed, start_price ($/h per GPU that starts serving something new), max_started_gpus : what
        runs today and what changing it costs
    routing : how a request finds its instance; all but "random" are simulated

    Prices are per GPU and hour, dollars unless you read them otherwise.
    """

    gpus: tuple[GpuGroup, ...] = Field(min_length=1, max_length=100)
    models: tuple[FleetModel, ...] = Field(min_length=1, max_length=100)
    objective: Objective = "max_headroom"
    max_gpus: int | None = Field(default=None, ge=1)
    max_cost: float | None = Field(default=None, gt=0)
    max_power: float | None = Field(default=None, gt=0)
    max_configurations: int | None = Field(default=None, ge=1)
    links: tuple[Link, ...] = Field(default=(), max_length=10_000)
    cross_type: bool = True
    network_share: float = Field(default=0.7, gt=0, le=1)
    headroom: float = Field(default=0.0, ge=0, le=100)
    spares: int = Field(default=0, ge=0, le=1000)
    deployed: tuple[Deployed, ...] = Field(default=(), max_length=10_000)
    start_price: float = Field(default=0.0, ge=0)
    max_started_gpus: int | None = Field(default=None, ge=0)
    routing: Routing = "random"

    @model_validator(mode="after")
    def _consistent(self) -> Fleet:
        types = [g.label for g in self.gpus]
        models = [m.label for m in self.models]
        classes = [c for m in self.models for c in m.classes]
        for kind, names in (("GPU type", types), ("model", models)):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{kind} {twice[0]!r} appears twice; give each its own name")
        for model in self.models:
            names = [c.name for c in model.classes]
            if len(set(names)) < len(names):
                raise ValueError(f"model {model.label!r} has two classes of one name")
        shares = [c.share for c in classes if c.share is not None]
        if shares and len(shares) < len(classes):
            raise ValueError("give all classes a rate, or all a share")
        if shares and self.objective != "max_goodput":
            raise ValueError(f"{self.objective} needs rates; shares go with max_goodput")
        if shares and self.headroom:
            raise ValueError("headroom needs rates; these classes have shares of a mix")
        if shares and abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"the shares of all classes sum to {sum(shares):.6g}, not 1")
        known = {*types}
        for link in self.links:
            for end in (link.source, link.target):
                if end not in known:
                    raise ValueError(f"link names {end!r}; GPU types are {', '.join(types)}")
        for d in self.deployed:
            if d.gpu not in known or d.model not in models:
                raise ValueError(f"deployed names {d.gpu!r} with {d.model!r}, not in the fleet")
        return self

    @property
    def mix_only(self) -> bool:
        """Whether classes have shares of a mix instead of rates."""
        return self.models[0].classes[0].share is not None

    def problem(
        self, group: GpuGroup, model: FleetModel, classes: tuple[FleetClass, ...]
    ) -> Problem:
        """Return the question about one model on one GPU type for a mix of its classes.

        The classes weigh by their rates or shares; objectives are those of the first.
        """
        if len(classes) == 1:
            only = classes[0]
            workload = Workload(
                input_len=only.input_len,
                output_len=only.output_len,
                prefix_cache_hit=only.prefix_cache_hit,
            )
        else:
            weights = [c.rate or c.share or 0.0 for c in classes]
            workload = Workload(
                classes=tuple(
                    RequestClass(
                        name=c.name,
                        share=w / sum(weights),
                        input_len=c.input_len,
                        output_len=c.output_len,
                    )
                    for c, w in zip(classes, weights, strict=True)
                ),
                prefix_cache_hit=min(c.prefix_cache_hit for c in classes),
            )
        return Problem(
            model=model.model,
            hardware=group.hardware,
            gpus=max(group.count, 1),
            gpus_per_node=group.gpus_per_node,
            network_bandwidth=group.network_bandwidth,
            engine=model.engine,
            workload=workload,
            slo=classes[0].slo,
            precision=model.precision,
            kv_cache_dtype=model.kv_cache_dtype,
            gpu_memory_utilization=model.gpu_memory_utilization,
            tensor_parallel_sizes=model.tensor_parallel_sizes,
            pipeline_parallel_sizes=model.pipeline_parallel_sizes,
            layouts=model.layouts,
            routing=self.routing,
            price_per_hour=group.price_per_hour or None,
        )
