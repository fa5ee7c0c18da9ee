"""One GPU type: figures with unit, kind and source, and what the models make of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import Field, model_validator

from bestserve.errors import InputError, nearest_names
from bestserve.models.step.device import Device, Generation
from bestserve.specs.base import Spec
from bestserve.specs.figure import Figure
from bestserve.units import parse_change

UNITS: dict[str, str] = {
    "flops_bf16": "FLOP/s",
    "flops_fp8": "FLOP/s",
    "flops_int8": "OP/s",
    "flops_fp4": "FLOP/s",
    "memory_bytes": "B",
    "memory_nominal": "B",
    "memory_visible": "B",
    "memory_bandwidth": "B/s",
    "sms": "1",
    "compute_reach": "1",
    "link_bandwidth": "B/s",
    "link_latency": "s",
    "network_bandwidth": "B/s",
    "network_latency": "s",
    "gpus_per_node": "1",
    "launch_time": "s",
    "power": "W",
    "price_per_hour": "USD/h",
}
"""The one unit in which each figure is written; a record in any other unit is refused."""

CONTEXT_BYTES = 0.5 * 2**30
"""What CUDA shows less than the driver [B]: 79.19 of 79.65 GiB (H100), 139.8 of 140.4 (H200), 44.40
of 44.99 (L40S), 23.5 of 23.99 (RTX 4090), as engines print it."""

REQUIRED = (
    "flops_bf16",
    "memory_bytes",
    "memory_bandwidth",
    "sms",
    "link_bandwidth",
    "gpus_per_node",
)
"""Figures that have no stand-in and must be positive."""


def _absent(name: str) -> Figure:
    source = "not stated in the record, so treated as having no such path"
    return Figure(value=0.0, unit=UNITS[name], kind="assumed", source=source)


def _stand_in(name: str, value: float, source: str) -> Figure:
    return Figure(value=value, unit=UNITS[name], kind="assumed", source=source)


class Hardware(Spec):
    """A GPU (or NPU) type with its links, as the records in `bestserve/data/hardware` state it.

    chip, form_factor, name_tokens, aliases : what spellings of the name the record answers to
    flops_bf16, flops_fp8, flops_fp4 : dense peaks, without sparsity [FLOP/s]; 0: no such path
    flops_int8 : dense peak [OP/s]
    memory_bytes : the driver's total [B]
    memory_visible : of it, what a process sees and serving engines take their share of [B]; not
        stated: half a GiB less on NVIDIA's boards, as on those that are known, all on others
    memory_nominal : what the vendor prints on the box ("80 GB") [B]; information only
    memory_bandwidth : [B/s]
    sms : streaming multiprocessors, compute units or AI cores [1]
    compute_reach : by how much GEMM and attention kernels exceed the share of the peak that they
        reach on other boards [1]; not stated: 1
    link_bandwidth : one way, per GPU, inside the node [B/s]; link_latency : per hop [s]
    network_bandwidth : one way, per GPU, across nodes [B/s]; network_latency [s]
    gpus_per_node : GPUs that share the inner link [1]
    launch_time : host time to launch one kernel eagerly [s]
    power : board power limit [W]; price_per_hour : dated [USD/h]
    """

    name: str = Field(min_length=1, max_length=120)
    title: str = ""
    vendor: str = ""
    generation: Generation
    form_factor: str = ""
    chip: str = Field(default="", max_length=60)
    name_tokens: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    notes: str = ""
    origin: str = ""
    flops_bf16: Figure
    flops_fp8: Figure = Field(default_factory=lambda: _absent("flops_fp8"))
    flops_int8: Figure = Field(default_factory=lambda: _absent("flops_int8"))
    flops_fp4: Figure = Field(default_factory=lambda: _absent("flops_fp4"))
    memory_bytes: Figure
    memory_nominal: Figure | None = None
    memory_visible: Figure | None = None
    memory_bandwidth: Figure
    sms: Figure
    compute_reach: Figure | None = None
    link_bandwidth: Figure
    link_latency: Figure = Field(
        default_factory=lambda: _stand_in(
            "link_latency", 1e-5, "not stated in the record; point-to-point as in other records"
        )
    )
    network_bandwidth: Figure = Field(
        default_factory=lambda: _stand_in(
            "network_bandwidth", 5e10, "not stated in the record; one 400 Gbit/s port per GPU"
        )
    )
    network_latency: Figure = Field(
        default_factory=lambda: _stand_in(
            "network_latency", 1e-5, "not stated in the record; point-to-point as in other records"
        )
    )
    gpus_per_node: Figure
    launch_time: Figure = Field(
        default_factory=lambda: _stand_in(
            "launch_time", 2.8e-5, "not stated in the record; taken as on an H100 host"
        )
    )
    power: Figure | None = None
    price_per_hour: Figure | None = None

    @model_validator(mode="after")
    def _plausible(self) -> Hardware:
        for name, figure in self.figures().items():
            if figure.unit != UNITS[name]:
                raise ValueError(
                    f"{name} is given in {figure.unit!r}; write it in {UNITS[name]!r} "
                    "(units are checked, never converted)"
                )
        for name in REQUIRED:
            if self.figures()[name].value <= 0:
                raise ValueError(f"{name} must be positive")
        for name in ("sms", "gpus_per_node"):
            if self.figures()[name].value != int(self.figures()[name].value):
                raise ValueError(f"{name} must be a whole number")
        if self.price_per_hour is not None and not self.price_per_hour.date:
            raise ValueError("price_per_hour needs a date (YYYY-MM): prices change")
        return self

    def figures(self) -> dict[str, Figure]:
        """Return the figures that the record has, by name, in the order of `UNITS`."""
        present = {name: getattr(self, name) for name in UNITS}
        return {name: figure for name, figure in present.items() if figure is not None}

    def _visible(self) -> float:
        if self.memory_visible is not None:
            return self.memory_visible.value
        hidden = CONTEXT_BYTES if self.vendor == "NVIDIA" else 0.0
        return self.memory_bytes.value - hidden

    def device(self) -> Device:
        """Return the plain numbers that the analytic models take."""
        return Device(
            flops_bf16=self.flops_bf16.value,
            flops_fp8=self.flops_fp8.value,
            flops_int8=self.flops_int8.value,
            flops_fp4=self.flops_fp4.value,
            memory_bytes=self.memory_bytes.value,
            visible=self._visible(),
            memory_bandwidth=self.memory_bandwidth.value,
            sms=int(self.sms.value),
            link_bandwidth=self.link_bandwidth.value,
            link_latency=self.link_latency.value,
            network_bandwidth=self.network_bandwidth.value,
            network_latency=self.network_latency.value,
            gpus_per_node=int(self.gpus_per_node.value),
            generation=self.generation,
            launch_time=self.launch_time.value,
            compute_reach=1.0 if self.compute_reach is None else self.compute_reach.value,
        )

    def with_changes(self, changes: Mapping[str, float | str]) -> Hardware:
        """Return a hypothetical GPU: figures replaced by a value or scaled by a factor.

        changes : figure name -> value in the figure's unit, "4.8 TB/s", or a factor "x1.5"

        The changed figures are marked as assumed and keep the original in their source; the name
        says what was changed. Raises InputError for an unknown figure or an unusable value.

        Example: ``h100.with_changes({"memory_bandwidth": "x1.5", "sms": 144})``
        """
        if not changes:
            return self
        updates: dict[str, Any] = {n: changed(self, n, to) for n, to in changes.items()}
        label = ",".join(f"{name}={to}" for name, to in changes.items())
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        renamed = {"name": f"{self.name}[{label}]"[:120], "aliases": ()}
        return Hardware(**{**kept, **updates, **renamed})


def changed(hardware: Hardware, name: str, to: float | str) -> Figure:
    """Return figure `name` of `hardware` set to a value or scaled (`bestserve.units`)."""
    if name not in UNITS:
        near = nearest_names(name, UNITS)
        hint = f"; nearest: {', '.join(near)}" if near else f"; known: {', '.join(UNITS)}"
        raise InputError(f"{name[:60]!r} is no figure of a hardware record{hint}")
    before: Figure | None = getattr(hardware, name)
    value = parse_change(name, to, UNITS[name], before.value if before else None)
    was = f"instead of {before.value:g} ({before.source})" if before else "stated by nobody else"
    return Figure(
        value=value,
        unit=UNITS[name],
        kind="assumed",
        source=f"what-if {to}: {was}"[:1000],
        date=before.date if before else "",
    )


def hardware_from_record(
    record: Mapping[str, Any], *, origin: str, base: Hardware | None = None
) -> Hardware:
    """Build a `Hardware` from the tables of a TOML record.

    record : top-level keys, `[sources]` (short name -> document) and `[figures]`; a figure whose
        source is a short name gets the document
    origin : where the record comes from, for the reader
    base : the GPU that the record extends; figures of the record replace the base's, and
        `[changes]` scales or sets them ("x1.5")

    Raises InputError saying which field is wrong and why.
    """
    known = {"sources", "figures", "changes", "extends"}
    head = {k: v for k, v in record.items() if k not in known}
    for table in ("sources", "figures", "changes"):
        if not isinstance(record.get(table, {}), Mapping):
            raise InputError(f"{table} must be a table")
    loose = [name for name in head if name in UNITS]
    if loose:
        raise InputError(
            f"{loose[0]} belongs into a table: [figures] with unit, kind and source, or, with "
            f'`extends`, [changes] as {loose[0]} = "x1.5" or a value in {UNITS[loose[0]]}'
        )
    unknown = [name for name in record.get("figures", {}) if name not in UNITS]
    if unknown:
        near = nearest_names(unknown[0], UNITS)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise InputError(f"figures.{unknown[0][:60]} is no figure of a hardware record{hint}")
    sources = record.get("sources", {})
    figures = {name: _figure(name, t, sources) for name, t in record.get("figures", {}).items()}
    if base is None:
        missing = [name for name in REQUIRED if name not in figures]
        if missing:
            raise InputError(
                f"figures.{missing[0]} is missing; a record needs {', '.join(REQUIRED)} "
                'or `extends = "<known GPU>"`'
            )
        if head.get("generation") not in get_args(Generation):
            raise InputError(
                f"generation {str(head.get('generation'))[:40]!r} is not one of "
                f"{', '.join(get_args(Generation))}"
            )
        built = Hardware(**{**head, **figures, "origin": origin})
    else:
        kept = {name: getattr(base, name) for name in Hardware.model_fields}
        fresh = {"aliases": (), "notes": f"extends {base.name}", "origin": origin}
        built = Hardware(**{**kept, **fresh, **head, **figures})
    changes = record.get("changes", {})
    if not changes:
        return built
    return Hardware(
        **{
            **{name: getattr(built, name) for name in Hardware.model_fields},
            **{name: changed(built, name, to) for name, to in changes.items()},
        }
    )


def _figure(name: str, table: Any, sources: Mapping[str, Any]) -> Figure:
    if not isinstance(table, Mapping):
        raise InputError(
            f"figures.{name} must be a table such as "
            f'{{ value = 1.0, unit = "{UNITS[name]}", kind = "assumed", source = "..." }}'
        )
    source = table.get("source")
    if isinstance(source, str):
        source = sources.get(source, source)
    try:
        return Figure(**{**table, "source": source})
    except InputError as error:
        raise InputError(f"figures.{name}: {str(error).removeprefix('Figure: ')}") from None
