"""A question to bestserve: a model, GPUs, an engine, a workload and objectives."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bestserve.errors import nearest_names, shown
from bestserve.models.step.device import Precision
from bestserve.models.step.engine import EngineConstants
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Routing
from bestserve.specs.base import Spec
from bestserve.specs.hardware import Hardware
from bestserve.specs.model import KvDtype, Model, kv_dtype
from bestserve.specs.prefixes import KvTier
from bestserve.specs.slo import SLO
from bestserve.specs.speculation import SpeculativeConfig, as_speculative_config
from bestserve.specs.strategy import Layout
from bestserve.specs.workload import Workload

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
PURE: tuple[Layout, ...] = ("collocated", "disaggregated")
"""Layouts that `rank` tries unless told otherwise: hybrids take several times as long."""

Sizes = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(max_length=64)]


class Problem(Spec):
    """What to serve, on what, for whom.

    model : bundled name, path of a config.json, or a `Model`
    hardware : bundled name, path of a TOML, or a `Hardware`
    gpus : GPUs that may be used
    engine : preset ("vllm", "sglang", "tensorrt-llm", …), path, or `EngineConstants`
    precision : weight format; default: the model's own
    kv_cache_dtype : "auto" (the checkpoint's, else bf16), "bf16", "fp8" or "nvfp4", as vLLM
    max_num_seqs, max_num_batched_tokens, gpu_memory_utilization : vLLM's; default: the engine's
    enable_chunked_prefill : None keeps the engine's policy
    enable_prefix_caching : None: as engines do by default, where the workload says what is shared
    kv_tiers : where KV blocks are offloaded, nearest first
    speculative_config : what drafts tokens, in vLLM's words and with its acceptance, as a mapping,
        JSON or `SpeculativeConfig`; None: nothing is speculated
    routing : how a request finds its replica; router_lag : how late a prefix-aware router learns
        what the engines hold [s]
    tensor_parallel_sizes, pipeline_parallel_sizes, layouts : what `rank` tries; by default all tp
        within a node, pipelines of 1, 2 and 4 stages, and no hybrids
    tp_across_nodes : allow tensor parallelism over the network
    price_per_hour : of one GPU [USD/h]; default: the hardware record's, if it states one
    network_bandwidth : one way, per GPU, across nodes [B/s]; default: the hardware record's
    step_time, kv_capacity_tokens : bring your own coefficients instead of model and hardware;
        then one GPU is one instance
    calibration : path of a record written by `bestserve calibrate` or `bestserve measure`
    """

    model: str | Model | None = None
    hardware: str | Hardware | None = None
    gpus: int = Field(default=8, ge=1, le=1_000_000)
    gpus_per_node: int | None = Field(default=None, ge=1, le=1024)
    engine: str | EngineConstants = "vllm"
    workload: Workload
    slo: SLO | None = None
    precision: Precision | None = None
    kv_cache_dtype: Annotated[KvDtype, BeforeValidator(kv_dtype)] = "auto"
    max_num_seqs: int | None = Field(default=None, ge=1, le=1_000_000)
    max_num_batched_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    enable_chunked_prefill: bool | None = None
    enable_prefix_caching: bool | None = None
    kv_tiers: tuple[KvTier, ...] = Field(default=(), max_length=8)
    speculative_config: Annotated[
        SpeculativeConfig | None, BeforeValidator(as_speculative_config)
    ] = None
    routing: Routing = "random"
    router_lag: float = Field(default=0.0, ge=0, le=1e4)
    tensor_parallel_sizes: Sizes | None = None
    pipeline_parallel_sizes: Sizes | None = None
    layouts: tuple[Layout, ...] = PURE
    tp_across_nodes: bool = False
    price_per_hour: float | None = Field(default=None, gt=0, le=1e9)
    network_bandwidth: float | None = Field(default=None, ge=0, le=1e18)
    step_time: StepTime | None = None
    kv_capacity_tokens: float | None = Field(default=None, gt=0, le=1e15)
    calibration: str | None = None

    @field_validator("slo", mode="before")
    @classmethod
    def _slo_text(cls, value: Any) -> Any:
        return SLO(value) if isinstance(value, str) else value

    @field_validator("step_time", mode="before")
    @classmethod
    def _coefficients(cls, value: Any) -> Any:
        return _step_time(value) if isinstance(value, dict) else value

    @field_validator("tensor_parallel_sizes", "pipeline_parallel_sizes", "layouts")
    @classmethod
    def _some(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is not None and not value:
            raise ValueError("nothing to try; name at least one, or leave it out")
        return value

    @model_validator(mode="after")
    def _known_tiers(self) -> Problem:
        known = [c.name for c in self.workload.classes]
        for name in self.slo.tiers if self.slo is not None else ():
            if name not in known:
                classes = f"its classes are {', '.join(known)}" if known else "it has no classes"
                raise ValueError(
                    f"objectives name the class {shown(name)} of the workload; {classes}"
                )
        return self

    @model_validator(mode="after")
    def _complete(self) -> Problem:
        if self.step_time is not None:
            if self.model is not None or self.hardware is not None:
                raise ValueError("give step_time, or model and hardware, not both")
            return self
        missing = [n for n in ("model", "hardware") if getattr(self, n) is None]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} missing; give a bundled name (see `bestserve catalog`) "
                "or a path, or bring your own step_time"
            )
        if self.kv_capacity_tokens is not None:
            raise ValueError("kv_capacity_tokens goes with step_time; otherwise it is computed")
        return self

    def replaced(self, **changes: Any) -> Problem:
        """Return a copy with some fields changed, validated again."""
        return Problem(**{**{k: getattr(self, k) for k in type(self).model_fields}, **changes})


def _step_time(values: dict[str, Any]) -> StepTime:
    """Return the coefficients of a problem file. Raises ValueError with the nearest names."""
    known = [f.name for f in fields(StepTime)]
    for name, given in values.items():
        if name not in known:
            near = ", ".join(nearest_names(str(name), known) or known)
            raise ValueError(f"{shown(name)} is no coefficient of a step time; nearest: {near}")
        parts = given if name == "moe" else [given]
        if not isinstance(parts, list | tuple) or any(
            isinstance(v, bool) or not isinstance(v, int | float) for v in parts
        ):
            raise ValueError(f"{name} must be a number (moe: a list of them)")
    missing = [f.name for f in fields(StepTime) if f.default is MISSING and f.name not in values]
    if missing:
        raise ValueError(f"missing: {', '.join(missing)}")
    plain: dict[str, Any] = {k: tuple(v) if k == "moe" else v for k, v in values.items()}
    return StepTime(**plain)
