"""The two records of a campaign: the GPU as a hardware record, its constants as a calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bestserve.catalog import load_engine
from bestserve.host.writing import write_text
from bestserve.measure.device_info import SELF_TEST_BANNER
from bestserve.measure.fit import Fit, Fitted
from bestserve.measure.forms import (
    Row,
    Rows,
    column,
    fit_gemm,
    fit_host,
    fit_operators,
    fit_step_time,
    of_kind,
)
from bestserve.measure.shapes import ELEMENT_BYTES, LayerShape
from bestserve.models.step.architecture import Architecture, Attention, Ffn, LayerGroup
from bestserve.models.step.constants import DEFAULT
from bestserve.models.step.device import Device, Formats, Generation, Parallelism
from bestserve.models.step.dispatch import launch_times
from bestserve.models.step.operators import operator_list
from bestserve.models.step.step_work import StepWork
from bestserve.specs.calibration import Calibration, units
from bestserve.specs.hardware import Hardware

CAPABILITY: dict[int, Generation] = {7: "volta", 8: "ampere", 9: "hopper"}
"""Generation by major compute capability; 8.9 is Ada, 10 and later Blackwell."""

NO_LINK = 32e9
"""One way over PCIe 4 x16 [B/s], assumed for a GPU that no record knows and that has no peer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """What a journal says.

    device : the numbers that efficiencies refer to; base : its catalogue record, if any
    operators, host, steps : fits of the operator forms, the host's launches, the step times
    """

    header: Mapping[str, Any]
    shape: LayerShape
    device: Device
    base: Hardware | None
    operators: tuple[Fit, ...]
    host: Fit | None
    steps: tuple[Fit, ...]
    rows: tuple[Row, ...]

    @property
    def self_test(self) -> bool:
        """Whether the figures describe a CPU."""
        return bool(self.header["self_test"])

    def source(self) -> str:
        """Return where the figures come from, in one sentence."""
        head = self.header
        text = (
            f"bestserve measure on {head['device']}, driver {head['driver']}, PyTorch "
            f"{head['versions'].get('torch', '')}, {head['date']}; layer of {head['model']}, "
            f"tp {head['tp']}"
        )
        return f"{text}; {SELF_TEST_BANNER}" if self.self_test else text


def analyse(header: Mapping[str, Any], rows: Rows, base: Hardware | None = None) -> Analysis:
    """Fit everything that the rows allow.

    base : the catalogue's record of this GPU. Without one, peak and bandwidth are those with which
        the default efficiencies reproduce the measured GEMMs.
    """
    shape = LayerShape(**header["shape"])
    device = base.device() if base is not None else nominal_device(header, rows)
    modes = sorted({r["mode"] for r in rows if "mode" in r})
    steps = [fit_step_time(rows, mode) for mode in modes]
    return Analysis(
        header,
        shape,
        device,
        base,
        fit_operators(rows, shape, device),
        fit_host(rows),
        tuple(fit for fit in steps if fit is not None),
        tuple(rows),
    )


def nominal_device(header: Mapping[str, Any], rows: Rows) -> Device:
    """Return peak and bandwidth under which the default efficiencies fit the measured GEMMs."""
    gemms = of_kind(rows, "gemm")
    generation = generation_of(header)
    times = column(gemms, "median_s")
    flops = 2 * column(gemms, "m") * column(gemms, "n") * column(gemms, "k")
    size = [
        ELEMENT_BYTES[r["fmt"]] * r["n"] * r["k"] + 2 * r["m"] * (r["n"] + r["k"]) for r in gemms
    ]

    def best(work: Any, fmt: str = "") -> float:
        rates = zip(work, times, gemms, strict=True)
        return max((float(w / t) for w, t, r in rates if fmt in ("", r["fmt"])), default=0.0)

    guess = Device(
        flops_bf16=best(flops, "bf16"),
        flops_fp8=best(flops, "fp8"),
        flops_int8=0.0,
        flops_fp4=0.0,
        memory_bytes=float(header["memory"]),
        memory_bandwidth=best(size),
        sms=int(header["processors"]),
        link_bandwidth=NO_LINK,
        link_latency=0.0,
        network_bandwidth=0.0,
        network_latency=0.0,
        gpus_per_node=max(1, int(header["gpus"])),
        generation=generation,
        launch_time=0.0,
    )
    fit = fit_gemm(rows, guess)
    if fit is None:
        return guess
    found = {c.name: c.value for c in fit.constants}
    gemm = DEFAULT.gemm
    return dataclasses.replace(
        guess,
        flops_bf16=guess.flops_bf16 * found.get("gemm.compute_bf16", 1.0) / gemm.compute_bf16,
        flops_fp8=guess.flops_fp8 * found.get("gemm.compute_fp8", 1.0) / gemm.compute_fp8,
        memory_bandwidth=guess.memory_bandwidth * found["gemm.memory"] / gemm.memory,
    )


def generation_of(header: Mapping[str, Any]) -> Generation:
    """Return the GPU generation by compute capability; a self-test computes as "hopper"."""
    major, minor = header["capability"]
    if (major, minor) == (8, 9):
        return "ada"
    if "hip" in header["versions"]:
        return "cdna3"
    return "blackwell" if major >= 10 else CAPABILITY.get(major, "hopper")


def calibration(analysis: Analysis) -> Calibration:
    """Return the calibration record: operator constants, and host figures that are not applied.

    The host constants of a serving engine (`engine.a_step`, `engine.a_seq`) are not measured here:
    no engine ran. `bestserve calibrate` fits them to an engine's log.
    """
    head, known, source = analysis.header, units(), analysis.source()

    def entry(value: float, unit: str, sd: float, note: str = "") -> dict[str, Any]:
        text = f"{source}; {note}" if note else source
        return {"value": value, "unit": unit, "kind": "measured", "source": text, "sd": sd}

    constants = {
        c.name: entry(c.value, known[c.name], c.sd, described(fit))
        for fit in analysis.operators
        for c in fit.constants
        if c.identified
    }
    observed = {
        f"host.{c.name}": entry(c.value, "s", c.sd, "eager submission of this loop, not an engine")
        for c in (analysis.host.constants if analysis.host else ())
        if c.identified
    }
    for row in of_kind(analysis.rows, "launch"):
        figures = {"launch": "median_s", "sync": "sync_s", "graph_launch": "graph_launch_s"}
        for name, key in figures.items():
            if key in row:
                observed[f"host.{name}"] = entry(row[key], "s", 0.0, "host clock, idle device")
    for fit in analysis.steps:
        observed |= step_entries(analysis, fit, entry)
    return Calibration(
        provenance={
            "device": head["device"],
            "driver": head["driver"],
            "versions": head["versions"],
            "date": head["date"],
            "tool": "bestserve measure",
            "hardware": analysis.base.name if analysis.base else "",
            "model": head["model"],
            "tp": head["tp"],
            "data": f"{len(analysis.rows)} timed points",
            "self_test": analysis.self_test,
        },
        constants=constants,
        observed=observed,
    )


STEP_UNITS = {"w": "s", "c": "s/token", "e": "s/token", "a": "s/token^2", "k": "s/token"}


def step_entries(analysis: Analysis, fit: Fit, entry: Any) -> dict[str, dict[str, Any]]:
    """Return the step-time coefficients of all the model's layers on one GPU of its group."""
    layers = int(of_kind(analysis.rows, "layer_decode")[0]["layers"])
    factor = analysis.shape.model_layers / layers
    mode = fit.form.split("(")[1].rstrip(")")
    note = f"{described(fit)}; {layers} layers × {factor:g}, without LM head, collectives, engine"
    return {
        f"step_{mode}.{c.name}": entry(c.value * factor, STEP_UNITS[c.name], c.sd * factor, note)
        for c in fit.constants
        if c.identified
    }


def described(fit: Fit) -> str:
    """Return how well a form fits, in words."""
    return f"{fit.form}: {fit.points} points, median error {fit.median:.1%}, p90 {fit.p90:.1%}"


def launch_time(analysis: Analysis) -> Fitted | None:
    """Return the host time per launch as the dispatch model counts launches [s].

    The measured submission per kernel, times the kernels that PyTorch launches per layer, over the
    launches that `models.dispatch` assumes for a layer: their product is the layer's submission.
    """
    rows = of_kind(analysis.rows, "dispatch")
    if analysis.host is None or not rows:
        return None
    per_kernel = next(c for c in analysis.host.constants if c.name == "per_kernel")
    if not per_kernel.identified:
        return None
    kernels = rows[0]["prefix_kernels"][0]
    factor = kernels / launches_per_layer(analysis.shape, analysis.device)
    return Fitted("launch_time", per_kernel.value * factor, per_kernel.sd * factor)


def launches_per_layer(shape: LayerShape, device: Device) -> float:
    """Return the launches of one decode layer in the dispatch model, on one GPU."""
    ffn = Ffn(
        kind="moe" if shape.experts else "dense",
        intermediate_size=shape.intermediate,
        gated=shape.gated,
        num_experts=shape.experts,
        top_k=shape.top_k,
    )
    attention = Attention(
        kind="full",
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )
    layer = Architecture(
        hidden_size=shape.hidden,
        vocab_size=1,
        groups=(LayerGroup(count=1, attention=attention, ffn=ffn),),
    )
    step = StepWork.grid(context=1, decodes=1)
    engine = load_engine("vllm-eager")
    operators = operator_list(layer, device, Parallelism(), Formats(), engine, step)
    layer_operators = [o for o in operators if o.group >= 0]
    # A launch time of 1 s makes the host's seconds a count.
    return float(sum(np.sum(count) for count in launch_times(layer_operators, 1.0)))


def hardware_record(analysis: Analysis) -> dict[str, Any]:
    """Return the tables of the hardware record.

    A GPU that the catalogue knows is extended; another one gets the nominal peak and bandwidth. A
    self-test says generation "cpu", which no reader of hardware records accepts as a GPU.
    """
    head, device = analysis.header, analysis.device
    figures: dict[str, dict[str, Any]] = {
        "memory_bytes": _figure(float(head["memory"]), "B", "measured", "driver"),
        "sms": _figure(float(head["processors"]), "1", "measured", "driver"),
    }
    launch = launch_time(analysis)
    if launch is not None:
        figures["launch_time"] = _figure(launch.value, "s", "measured", "eager")
    top: dict[str, Any] = {"title": f"{head['device']}, measured {head['date']}"}
    if analysis.base is not None:
        top["extends"] = analysis.base.name
    else:
        top |= {
            "vendor": str(head["device"]).split()[0],
            "generation": "cpu" if analysis.self_test else device.generation,
        }
        figures |= {
            "flops_bf16": _figure(device.flops_bf16, "FLOP/s", "derived", "achieved"),
            "memory_bandwidth": _figure(device.memory_bandwidth, "B/s", "derived", "achieved"),
            "link_bandwidth": _figure(NO_LINK, "B/s", "assumed", "link"),
            "gpus_per_node": _figure(float(max(1, head["gpus"])), "1", "measured", "driver"),
        }
        if device.flops_fp8 > 0:
            figures["flops_fp8"] = _figure(device.flops_fp8, "FLOP/s", "derived", "achieved")
    if analysis.self_test:
        top["notes"] = SELF_TEST_BANNER
    texts = {
        "driver": f"reported by the driver; {analysis.source()}",
        "eager": f"eager submission of one layer over the launches the model counts; "
        f"{analysis.source()}",
        "achieved": "measured rate over the default efficiency, so that predictions reproduce the "
        f"measurement; {analysis.source()}",
        "link": "not measured (one GPU): PCIe 4 x16, one way; replace it by the GPU's own link",
    }
    used = {figure["source"] for figure in figures.values()}
    return {**top, "sources": {k: v for k, v in texts.items() if k in used}, "figures": figures}


def _figure(value: float, unit: str, kind: str, source: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "kind": kind, "source": source}


def write_toml(tables: Mapping[str, Any], path: Path) -> Path:
    """Write tables as TOML and return the path."""
    import tomli_w

    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, tomli_w.dumps(dict(tables)))


def comparison(analysis: Analysis) -> list[dict[str, Any]]:
    """Return one row per fitted constant beside the universal one, for a table."""
    return [
        {
            "constant": c.name,
            "measured": c.value if c.identified else None,
            "sd": c.sd if c.identified else None,
            "universal": getattr(getattr(DEFAULT, c.name.split(".")[0]), c.name.split(".")[1]),
            "unit": units()[c.name],
            "points": fit.points,
            "median_error_percent": 100 * fit.median,
            "note": "" if c.identified else "not determined by these points",
        }
        for fit in analysis.operators
        for c in fit.constants
    ]
