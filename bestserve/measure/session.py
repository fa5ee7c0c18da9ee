"""`bestserve measure` from a model's name to the records on disk."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bestserve.catalog import load_hardware, load_model, resolve_hardware
from bestserve.catalog.calibration import save_calibration
from bestserve.errors import InputError
from bestserve.host.writing import write_text
from bestserve.measure.bench_log import bench_log
from bestserve.measure.campaign import Outcome, Say, check_memory, header, make_machine, run
from bestserve.measure.device_info import SELF_TEST_BANNER, DeviceInfo, describe_device
from bestserve.measure.grid import SELF_TEST, Grid, points
from bestserve.measure.journal import Journal
from bestserve.measure.layer import LayerStack
from bestserve.measure.loop_check import comparison, fit_steps, loop_step_time
from bestserve.measure.machine import Machine
from bestserve.measure.pytorch import require_torch
from bestserve.measure.records import (
    Analysis,
    analyse,
    calibration,
    hardware_record,
    write_toml,
)
from bestserve.measure.runner import CACHE_FACTOR, Runner
from bestserve.measure.serve_loop import LayerExecutor, Limits, Request, Run, serve
from bestserve.measure.shapes import ELEMENT_BYTES, Format, LayerShape, reduced, shard
from bestserve.models.step.step_time import StepTime
from bestserve.specs.hardware import Hardware

TIMING_BUDGET = 0.1
"""Host time per timing on a GPU [s]: some hundred repeats of a decode step."""

SELF_TEST_BUDGET = 0.02


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure.

    model : catalogue name or path of a config.json; tp : GPUs that share the model, of which one is
    measured; device : auto, cpu, cuda or cuda:N; hardware : catalogue record or path that peak and
    bandwidth come from (default: found by the driver's name); fmt : weight format of the layers;
    layers, kv_tokens : size of the measured stack (0: the grid's); time_budget [s]; output : folder
    of journal and records
    """

    model: str
    tp: int = 1
    device: str = "auto"
    hardware: str = ""
    fmt: Format = "bf16"
    layers: int = 0
    kv_tokens: int = 0
    time_budget: float = 240.0
    output: Path = Path("measured")


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """What a campaign found and where it was written."""

    info: DeviceInfo
    analysis: Analysis
    outcome: Outcome
    journal: Path
    hardware: Path
    calibration: Path


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """A device with the layer shape and the grid that fit it."""

    torch: Any
    info: DeviceInfo
    machine: Machine
    shape: LayerShape
    grid: Grid
    fmt: Format

    @property
    def budget(self) -> float:
        """Host time per timing [s]."""
        return SELF_TEST_BUDGET if self.info.self_test else TIMING_BUDGET


def set_up(options: Options) -> Setup:
    """Resolve model and device, and refuse what does not fit.

    A CPU gets a small layer of the model's kind, because it runs the self-test.
    """
    if options.time_budget <= 0 or options.layers < 0 or options.kv_tokens < 0:
        raise InputError("time budget, layers and KV tokens must be positive")
    torch = require_torch()
    shape = shard(load_model(options.model).architecture, options.tp)
    info = describe_device(torch, options.device)
    grid = Grid()
    if info.self_test:
        shape, grid = reduced(shape), SELF_TEST
    elif info.fp8:
        grid = dataclasses.replace(grid, formats=("bf16", "fp8"))
    if options.fmt == "fp8" and not (info.fp8 or info.self_test):
        raise InputError(f"{info.name} does not multiply fp8; use --format bf16")
    if not info.self_test:
        grid = dataclasses.replace(grid, layers=sweeping_layers(shape, options.fmt, info.cache))
    changes = {n: getattr(options, n) for n in ("layers", "kv_tokens") if getattr(options, n)}
    grid = dataclasses.replace(grid, **changes)
    check_memory(shape, grid, options.fmt, info)
    return Setup(torch, info, make_machine(torch, info), shape, grid, options.fmt)


def sweeping_layers(shape: LayerShape, fmt: Format, cache: int) -> int:
    """Return how many layers' copies of the smallest matrix sweep the last-level cache twice.

    At least `Grid.layers`, so that the step is long beside its synchronisation; at most four times
    that many.
    """
    least = Grid().layers
    smallest = min(n * k for n, k in shape.gemms().values()) * ELEMENT_BYTES[fmt]
    return max(least, min(4 * least, -(-CACHE_FACTOR * cache // smallest)))


def catalogue_record(options: Options, info: DeviceInfo) -> Hardware | None:
    """Return the GPU's catalogue record, None where there is none (or for a self-test)."""
    if options.hardware:
        return load_hardware(options.hardware)
    if info.self_test:
        return None
    return resolve_hardware(info.name).hardware


def measure(options: Options, say: Say | None = None) -> Session:
    """Run or resume the campaign, fit the constants and write both records.

    Raises InputError, InfeasibleError (memory) or DataError (a foreign journal).
    """
    setup = set_up(options)
    info = setup.info
    base = catalogue_record(options, info)
    stem = "self-test" if info.self_test else f"{_slug(info.name)}_{_slug(options.model)}"
    stem += f"_tp{options.tp}_{options.fmt}"
    head = header(info, options.model, options.tp, options.fmt, setup.shape)
    journal = Journal(options.output / f"{stem}.journal.jsonl", head)
    runner = Runner(
        setup.torch,
        setup.machine,
        info.torch_device,
        setup.shape,
        setup.grid,
        fmt=options.fmt,
        cache_bytes=info.cache,
        budget=setup.budget,
    )
    todo = points(setup.shape, setup.grid, info.gpus)
    outcome = run(todo, runner, journal, time_budget=options.time_budget, say=say)
    analysis = analyse(head, outcome.rows, base)
    return Session(
        info,
        analysis,
        outcome,
        options.output / f"{stem}.journal.jsonl",
        write_toml(hardware_record(analysis), options.output / f"{stem}.hardware.toml"),
        save_calibration(calibration(analysis), options.output / f"{stem}.calibration.toml"),
    )


def _slug(name: str) -> str:
    """Return a name as part of a file name.

    >>> _slug("NVIDIA H100 80GB HBM3"), _slug("meta-llama/Llama-3.1-8B")
    ('nvidia-h100-80gb-hbm3', 'llama-3.1-8b')
    """
    tail = name.rstrip("/").rsplit("/", 1)[-1].removesuffix(".json").lower()
    return "".join(c if c.isalnum() or c in ".-" else "-" for c in tail)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load for the serving loop: Poisson arrivals at `rate` [req/s], or `concurrency` clients.

    input_len, output_len : means of geometric lengths, cut at `longest` times the mean [tokens]
    """

    requests: int
    input_len: float
    output_len: float
    rate: float = math.inf
    concurrency: int = 0
    longest: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.requests < 1 or self.input_len < 1 or self.output_len < 1:
            raise InputError("a load needs at least one request with one token in and one out")
        if self.concurrency < 0 or not (
            self.rate > 0 and (self.concurrency or self.rate < math.inf)
        ):
            raise InputError(
                f"a load needs a positive request rate or a concurrency of at least 1 (given: "
                f"rate {self.rate:g}, concurrency {self.concurrency})"
            )

    @property
    def name(self) -> str:
        """Short name, for files and tables."""
        return f"clients{self.concurrency}" if self.concurrency else f"rate{self.rate:g}"

    def drawn(self) -> tuple[list[Request], list[float] | None]:
        """Return requests and, for an open loop, arrival times [s]."""
        random = np.random.default_rng(self.seed)

        def lengths(mean: float) -> Sequence[int]:
            drawn = random.geometric(1.0 / mean, self.requests)
            return np.minimum(drawn, int(self.longest * mean)).tolist()

        pairs = zip(lengths(self.input_len), lengths(self.output_len), strict=True)
        requests = [Request(i, o) for i, o in pairs]
        if self.concurrency:
            return requests, None
        return requests, np.cumsum(random.exponential(1.0 / self.rate, self.requests)).tolist()


def serve_load(setup: Setup, load: Load, limits: Limits) -> Run:
    """Serve a load on a fresh stack of layers, in real time, after one warm-up request."""
    requests, arrivals = load.drawn()
    slot = max(r.input_len + r.output_len for r in requests)
    stack = LayerStack(
        setup.torch,
        setup.shape,
        layers=setup.grid.layers,
        device=setup.info.torch_device,
        fmt=setup.fmt,
        max_tokens=limits.max_num_batched_tokens,
        kv_tokens=limits.max_num_seqs * (slot + 256),
        max_context=slot,
    )
    executor = LayerExecutor(stack, setup.machine, slot)
    serve(executor, requests[:1], limits, arrivals=[0.0])
    return serve(executor, requests, limits, arrivals=arrivals, concurrency=load.concurrency)


LIMITS = Limits(max_num_seqs=64, max_num_batched_tokens=2048)
"""Of the serving loop; small, so that queueing shows at loads that a minute can offer."""


def serve_loads(
    options: Options, loads: Sequence[Load], limits: Limits = LIMITS
) -> tuple[list[dict[str, Any]], list[Path]]:
    """Serve the loads in turn, log each, and predict all with the steps of the first.

    Returns rows of measured and predicted TTFT and TPOT, and the paths of the logs. The loads after
    the first are predictions; the first shows how well the step-time form describes the loop.
    """
    setup = set_up(options)
    rows: list[dict[str, Any]] = []
    paths = []
    step: StepTime | None = None
    device = SELF_TEST_BANNER if setup.info.self_test else setup.info.name
    label = f"{setup.grid.layers} of {setup.shape.model_layers} layers, tp {options.tp}; {device}"
    for load in loads:
        result = serve_load(setup, load, limits)
        log = bench_log(
            result,
            model=options.model,
            label=label,
            request_rate=load.rate,
            max_concurrency=load.concurrency or None,
        )
        paths.append(options.output / f"bench_{load.name}.json")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        write_text(paths[-1], json.dumps(log))
        if step is None:
            fit = fit_steps(result.steps)
            if fit is None:
                raise InputError(f"{len(result.steps)} steps are too few; serve more requests")
            step = loop_step_time(fit, result.steps)
        name = f"{load.name}{'' if rows else ' (fitted on)'}"
        rows += comparison(name, result, step, limits, load.concurrency)
    return rows, paths
