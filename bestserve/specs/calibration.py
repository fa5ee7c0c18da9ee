"""Constants measured or fitted by the user, with uncertainties and where they come from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import Field, model_validator

from bestserve.errors import InputError, nearest_names
from bestserve.models.step.constants import DEFAULT, OperatorConstants, describe
from bestserve.models.step.engine import EngineConstants
from bestserve.specs.base import Spec
from bestserve.specs.figure import FigureKind

ENGINE_UNITS = {
    "a_step": "s",
    "a_step_moe": "s",
    "a_seq": "s",
    "a_seq_moe": "s",
    "phi": "1",
    "phi_moe": "1",
    "t_req": "s",
    "t_req_moe": "s",
    "t_req_token": "s",
    "gamma": "1",
    "decode_host": "1",
    "prefill_host": "s",
    "prefill_phi": "1",
    "handover": "s",
    "launch_time": "s",
}
"""Engine constants that a record may carry, as "engine.<name>", and their units."""


DOUBT = "calibrated"
"""How each sentence of `Calibration.doubts` begins."""


def units() -> dict[str, str]:
    """Return the unit of every constant that a record may carry, by its full name."""
    own = {record.name: record.unit for record in describe()}
    return own | {f"engine.{name}": unit for name, unit in ENGINE_UNITS.items()}


class Provenance(Spec):
    """Where a record comes from.

    device : name as the driver reports it; hardware : catalogue record that P and W came from
    tool : what wrote it; data : what it was fitted to; self_test : figures describe no GPU
    gpus, models, engine, tps : of the runs it was fitted to, by their catalogue names; empty for
        constants that are measured kernel by kernel
    """

    device: str = Field(min_length=1, max_length=200)
    driver: str = Field(default="", max_length=200)
    versions: Mapping[str, str] = {}
    date: str = Field(min_length=4, max_length=40)
    tool: str = Field(default="", max_length=200)
    hardware: str = Field(default="", max_length=200)
    model: str = Field(default="", max_length=400)
    tp: int = Field(default=1, ge=1)
    data: str = Field(default="", max_length=1000)
    gpus: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    engine: str = Field(default="", max_length=200)
    tps: tuple[int, ...] = ()
    self_test: bool = False


def _named(names: tuple[str, ...]) -> str:
    """Return at most three names as people list them."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


class Constant(Spec):
    """One constant: value in `unit`, how it is known, its source and its standard error."""

    value: float = Field(ge=0)
    unit: str = Field(min_length=1, max_length=40)
    kind: FigureKind
    source: str = Field(min_length=1, max_length=1000)
    sd: float = Field(default=0.0, ge=0)


class Calibration(Spec):
    """A calibration record.

    constants : applied to predictions, by full name: "gemm.memory", "engine.a_step"
    observed : measured along the way and applied to nothing
    """

    provenance: Provenance
    constants: Mapping[str, Constant] = {}
    observed: Mapping[str, Constant] = {}

    @model_validator(mode="after")
    def _known(self) -> Calibration:
        known = units()
        for name, constant in self.constants.items():
            if name not in known:
                near = nearest_names(name, known)
                hint = f"; nearest: {', '.join(near)}" if near else ""
                raise ValueError(f"constants.{name[:60]} is no constant of the models{hint}")
            if constant.unit != known[name]:
                raise ValueError(
                    f"constants.{name} is given in {constant.unit!r}; write it in {known[name]!r} "
                    "(units are checked, never converted)"
                )
            if not math.isfinite(constant.value):
                raise ValueError(f"constants.{name} is not finite")
        return self

    def for_gpus(self) -> Calibration:
        """Return the record itself; `InputError` for a self-test, which describes no GPU."""
        if self.provenance.self_test:
            raise InputError(
                f"the calibration comes from a self-test on {self.provenance.device}, so it says "
                "nothing about a GPU; run `bestserve measure` on the GPU itself"
            )
        return self

    def doubts(
        self, *, hardware: str, model: str, engine: str, tps: Collection[int] = ()
    ) -> tuple[str, ...]:
        """Return one sentence for each thing that is not what the record was fitted to.

        hardware, model, engine : catalogue names of what is predicted; tps : tensor parallel sizes
        """
        own = self.provenance
        gpus = own.gpus or ((own.hardware,) if own.hardware else ())
        out = []
        for what, fitted, used in (
            ("GPU", gpus, hardware),
            ("model", own.models, model),
            ("engine", (own.engine,) if own.engine else (), engine),
        ):
            if fitted and used and used not in fitted:
                out.append(f"{DOUBT} with {what} {_named(fitted)}, applied to {used}")
        foreign = sorted(set(tps) - set(own.tps)) if own.tps else []
        if foreign:
            sizes = ", ".join(map(str, foreign))
            out.append(f"{DOUBT} at tp {_named(tuple(map(str, own.tps)))}, applied to tp {sizes}")
        return tuple(out)

    def operator_constants(self, base: OperatorConstants = DEFAULT) -> OperatorConstants:
        """Return `base` with this record's operator constants."""
        groups: dict[str, dict[str, float]] = {}
        for name, constant in self.constants.items():
            group, field = name.split(".")
            if group != "engine":
                groups.setdefault(group, {})[field] = constant.value
        changed = {g: dataclasses.replace(getattr(base, g), **f) for g, f in groups.items()}
        return dataclasses.replace(base, **changed)

    def engine_constants(self, base: EngineConstants) -> EngineConstants:
        """Return `base` with this record's engine constants."""
        prefix = "engine."
        own: dict[str, Any] = {
            name.removeprefix(prefix): constant.value
            for name, constant in self.constants.items()
            if name.startswith(prefix)
        }
        return dataclasses.replace(base, **own)

    def applied(self, lowered: Any) -> Any:
        """Return a lowered problem that predicts with this record's constants.

        lowered : `bestserve.lowering.Lowered`. Raises InputError for a self-test record.
        """
        self.for_gpus()
        engine = self.engine_constants(lowered.engine)
        return dataclasses.replace(
            lowered,
            problem=lowered.problem.replaced(engine=engine),
            constants=self.operator_constants(lowered.constants),
        )

    def record(self) -> dict[str, Any]:
        """Return the tables of the TOML file."""
        tables = self.model_dump(mode="json")
        return {name: table for name, table in tables.items() if table}
