"""A problem with its names resolved: records, formats, lengths, arrivals."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from bestserve.catalog import load_engine, load_hardware, load_model
from bestserve.lowering.images import image_tokens, with_images
from bestserve.lowering.lengths import lower_lengths
from bestserve.lowering.prefixes import lower_sharing, shared_lengths
from bestserve.models.prefixes import Sharing
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, Formats
from bestserve.models.step.engine import EngineConstants
from bestserve.models.system import Arrivals, Lengths, Role
from bestserve.specs.hardware import Hardware
from bestserve.specs.model import Model
from bestserve.specs.problem import Problem

PROMPTS_PER_CLIENT = 10
"""Prompts a closed-loop client sends when num_prompts is not given (InferenceMAX's protocol)."""

READ = ("model", "hardware", "sharing", "hashed", "lengths", "mean_lengths", "arrivals")
"""What is found without the engine and without constants."""


@dataclass(frozen=True)
class Resolved:
    """What the names in a problem stand for; each is looked up when first asked for.

    constants : of the operator models, a calibration's where there is one
    """

    problem: Problem
    constants: OperatorConstants = field(default=DEFAULT)

    def with_constants(self, engine: EngineConstants, constants: OperatorConstants) -> Self:
        """Return the same problem with other constants: the workload stays as it was read."""
        problem = self.problem.model_copy(update={"engine": engine})
        other = dataclasses.replace(self, problem=problem, constants=constants)
        _ = self.mean_lengths
        other.__dict__.update({name: self.__dict__[name] for name in READ if name in self.__dict__})
        return other

    @cached_property
    def model(self) -> Model:
        """The model record."""
        model = self.problem.model
        assert model is not None
        return model if isinstance(model, Model) else load_model(model)

    @cached_property
    def hardware(self) -> Hardware:
        """The hardware record."""
        hardware = self.problem.hardware
        assert hardware is not None
        return hardware if isinstance(hardware, Hardware) else load_hardware(hardware)

    @cached_property
    def device(self) -> Device:
        """The GPU with the problem's own node size and network, if given."""
        changes: dict[str, float] = {}
        if self.problem.gpus_per_node is not None:
            changes["gpus_per_node"] = self.problem.gpus_per_node
        if self.problem.network_bandwidth is not None:
            changes["network_bandwidth"] = self.problem.network_bandwidth
        return dataclasses.replace(self.hardware.device(), **changes)  # type: ignore[arg-type]

    @cached_property
    def engine(self) -> EngineConstants:
        """The engine preset with the problem's own limits."""
        p = self.problem
        engine = p.engine if isinstance(p.engine, EngineConstants) else load_engine(p.engine)
        if p.step_time is None:
            engine = engine.for_device(self.device)
        changes: dict[str, object] = {}
        if p.gpu_memory_utilization is not None:
            changes["gpu_memory_utilization"] = p.gpu_memory_utilization
        if p.enable_chunked_prefill is not None:
            changes["policy"] = "chunked" if p.enable_chunked_prefill else "prefill_priority"
        if p.routing == "prefix_aware" or any(tier.peers for tier in p.kv_tiers):
            changes["kv_events"] = True  # routers and peers learn from events what engines hold
        return dataclasses.replace(engine, **changes)  # type: ignore[arg-type]

    @cached_property
    def _roles(self) -> dict[Role, EngineConstants]:
        return {}

    def engine_for(self, role: Role) -> EngineConstants:
        """Return the engine of an instance in a role."""
        if role not in self._roles:
            self._roles[role] = self.engine.for_role(role)
        return self._roles[role]

    @cached_property
    def formats(self) -> Formats:
        """Number formats of weights and KV cache."""
        p = self.problem
        found = self.model.formats(precision=p.precision, kv_cache_dtype=p.kv_cache_dtype)
        if p.kv_cache_dtype == "auto":
            found = dataclasses.replace(found, kv_bytes=min(found.kv_bytes, self.engine.kv_bytes))
        return found

    @cached_property
    def sharing(self) -> Sharing:
        """What prompts share, where the workload says so."""
        return lower_sharing(self.problem.workload)

    @cached_property
    def hashed(self) -> bool:
        """Whether the workload is a trace that says which prompts share what."""
        if self.problem.workload.trace is None:
            return False
        from bestserve.readers.recorded import recorded

        return recorded(self.problem.workload).shares

    @cached_property
    def lengths(self) -> Lengths:
        """Input and output lengths as atoms: of whole prompts, what they share included."""
        if self.problem.workload.shares:
            text = shared_lengths(self.sharing)
        else:
            text = lower_lengths(self.problem.workload)
        return with_images(text, image_tokens(self)) if self.images else text

    @property
    def images(self) -> int:
        """Images in each prompt."""
        return self.problem.workload.images_per_request

    @cached_property
    def mean_lengths(self) -> tuple[float, float]:
        """Mean prompt and output length [tokens]."""
        law = self.lengths
        return float(law.inputs @ law.input_weights), float(law.outputs @ law.output_weights)

    @cached_property
    def arrivals(self) -> Arrivals:
        """How requests reach the service."""
        w = self.problem.workload
        if w.max_concurrency is not None:
            prompts = w.num_prompts or PROMPTS_PER_CLIENT * w.max_concurrency
            return Arrivals(kind="closed", concurrency=w.max_concurrency, num_prompts=prompts)
        if w.trace is not None:
            from bestserve.readers.recorded import recorded

            times = recorded(w).arrivals
            if times is not None:
                return Arrivals(kind="trace", times=times)
        return Arrivals(burstiness=w.burstiness)
