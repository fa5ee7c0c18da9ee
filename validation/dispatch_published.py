"""Is decode limited by the CPU's kernel launches? The dispatch model against published timings.

Reads two published sets that lie beside the checkout (not part of the project): decode-step times
of Splitwise's profile (DGX A100, eager era) and host times per iteration measured by Vidur's
authors. Writes derived figures only.

    python validation/dispatch_published.py            # writes validation/dispatch.md

Model: D_i = D_{i−1} + d_i, G_i = max(G_{i−1}, D_i) + T_i (`bestserve.models.step.dispatch`), T_i
from the operator forms with their universal constants, d_i = launches · launch time.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

from bestserve.catalog import load_engine, load_hardware, load_model
from bestserve.models.step.architecture import Architecture, Attention, Ffn, LayerGroup
from bestserve.models.step.constants import DEFAULT, OperatorConstants
from bestserve.models.step.device import Device, Formats, Parallelism
from bestserve.models.step.dispatch import bounds, kernel_sequence, launch_times, pipeline
from bestserve.models.step.operators import operator_list
from bestserve.models.step.step_work import StepWork

ROOT = Path(__file__).resolve().parents[1]
OUTPUT_TOKENS = 128
"""Rows with this answer length; their mean decode context is the prompt plus half of it."""

EAGER_ALL_REDUCE = 30e-6
"""Latency of an all-reduce called outside a graph [s]: 20 to 45 us in operator tables."""

BLOOM = Architecture(
    hidden_size=14336,
    vocab_size=250880,
    groups=(
        LayerGroup(
            count=70,
            attention=Attention(
                kind="full", num_heads=112, num_kv_heads=112, head_dim=128, bias=True, o_bias=True
            ),
            ffn=Ffn(kind="dense", intermediate_size=57344, gated=False, bias=True),
        ),
    ),
    tie_word_embeddings=True,
)
"""BLOOM-176B, from its published config.json."""

H100_SPLITWISE = {2: 37.0e-3, 4: 29.7e-3, 8: 29.8e-3}
"""Llama-2-70B decode at batch 1 on H100 by tp [s]; Splitwise's published profile."""

H100_GRAPHS = {2: 32.6e-3, 4: 20.1e-3, 8: 14.1e-3}
"""Mean TPOT of Llama-3.1-70B under vLLM with CUDA graphs at 0.5 req/s on H100 by tp [s]; APEX."""

HOST_PARTS = (
    "schedule_median",
    "sampler_e2e_median",
    "prepare_inputs_e2e_median",
    "process_model_outputs_median",
)
"""Host work per iteration outside the model's own kernels [ms]."""

CONTEMPORARY = ("a100_cpu_overheads_151169a1.csv", "meta-llama/Llama-2-70b-hf", 4)
"""Host times of the era and model of the Splitwise profile: its slope per sequence is a_seq."""


@dataclass(frozen=True)
class Decode:
    """One published decode step: batch sequences with `context` tokens each, measured [s]."""

    model: str
    tp: int
    batch: int
    prompt: int
    measured: float

    @property
    def context(self) -> float:
        """Mean context of a sequence while it decodes [tokens]."""
        return self.prompt + OUTPUT_TOKENS / 2


@dataclass(frozen=True)
class HostLine:
    """Host time per iteration = a_step + a_seq · batch of one model and tp [s]; points used."""

    file: str
    model: str
    tp: int
    a_step: float
    a_seq: float
    ray: float
    points: int


def shared_folder() -> Path:
    """Return the folder of measurements beside the checkout."""
    return Path(os.environ.get("BESTSERVE_SHARED", ROOT.parent / "shared"))


def read_decodes(shared: Path) -> list[Decode]:
    """Return the decode steps with the usual answer length."""
    with (shared / "measured" / "splitwise_a100.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [
        Decode(
            r["model"],
            int(r["tp"]),
            int(r["batch"]),
            int(r["prompt_tokens"]),
            float(r["decode_step_ms_median"]) * 1e-3,
        )
        for r in rows
        if int(r["output_tokens"]) == OUTPUT_TOKENS
    ]


def read_host_lines(shared: Path) -> list[HostLine]:
    """Return a line through the host times of each file, model and tp."""
    lines = []
    for path in sorted((shared / "measured" / "host_overhead").glob("*.csv")):
        groups: dict[tuple[str, int], list[tuple[int, float, float]]] = defaultdict(list)
        with path.open(encoding="utf-8") as stream:
            for raw in csv.DictReader(stream):
                r = {k.lower(): v for k, v in raw.items()}
                host = sum(float(r[part]) for part in HOST_PARTS)
                ray = float(r.get("ray_comm_time_median") or r["ray_comm_time_mean"])
                key = r["model_name"], int(r["tensor_parallel_degree"])
                groups[key].append((int(r["batch_size"]), host * 1e-3, ray * 1e-3))
        for (model, tp), points in sorted(groups.items()):
            batch, host_time, ray_time = (np.array(c) for c in zip(*points, strict=True))
            a_seq, a_step = np.polyfit(batch, host_time, 1)
            lines.append(
                HostLine(
                    path.name, model, tp, float(a_step), float(a_seq),
                    float(np.median(ray_time)), len(points),
                )
            )  # fmt: skip
    return lines


def architecture(model: str) -> Architecture:
    """Return the architecture of a model of the Splitwise profile."""
    return (
        BLOOM if model.startswith("bloom") else load_model("meta-llama/Llama-2-70b-hf").architecture
    )


def sequence(
    arch: Architecture,
    device: Device,
    tp: int,
    batch: float,
    context: float,
    launch: float,
    constants: OperatorConstants = DEFAULT,
) -> tuple[np.ndarray, np.ndarray]:
    """Return d and T of every kernel group of a decode step, in order [s]."""
    step = StepWork.grid(context=context, decodes=batch)
    engine = load_engine("vllm-eager")
    parallel = Parallelism(tp=tp)
    operators = operator_list(arch, device, parallel, Formats(), engine, step, constants)
    host = kernel_sequence(operators, launch_times(operators, launch))
    return host[0], kernel_sequence(operators, [o.cost.time for o in operators])[0]


@dataclass(frozen=True)
class Compared:
    """A published step beside the model: ΣT, Σd, bounds, G_n, G_n with host time per sequence."""

    row: Decode
    device: float
    host: float
    lower: float
    upper: float
    pipeline: float
    with_host: float

    @property
    def inside(self) -> bool:
        """Whether the measurement lies between the bounds."""
        return self.lower <= self.row.measured <= self.upper


def compare(row: Decode, device: Device, launch: float, a_seq: float) -> Compared:
    """Return the model's figures for a published step [s]."""
    host, times = sequence(architecture(row.model), device, row.tp, row.batch, row.context, launch)
    low, high = bounds(host, times)
    end = float(pipeline(host, times))
    return Compared(
        row,
        float(times.sum()),
        float(host.sum()),
        float(low),
        float(high),
        end,
        end + a_seq * (row.batch - 1),
    )


def fit_launch(rows: Sequence[Decode], device: Device) -> float:
    """Return the host time per launch that reproduces the median of the fitting rows [s]."""

    def excess(launch: float) -> float:
        ratios = [compare(r, device, launch, 0.0).pipeline / r.measured for r in rows]
        return float(np.median(ratios)) - 1.0

    return float(brentq(excess, 1e-6, 1e-3, xtol=1e-9))


def is_fitting(row: Decode) -> bool:
    """Whether a row determines the launch time: batch 1 at the largest tp of Llama-2-70B."""
    return row.model.startswith("llama") and row.tp == 8 and row.batch == 1


GROUPS = {
    "Llama-2-70B TP8, batch 1 (fitted)": is_fitting,
    "Llama-2-70B TP8, batch 2-8": lambda r: _llama(r, 8) and 2 <= r.batch <= 8,
    "Llama-2-70B TP4, batch 1-8": lambda r: _llama(r, 4) and r.batch <= 8,
    "Llama-2-70B TP2, batch 1-8": lambda r: _llama(r, 2) and r.batch <= 8,
    "Llama-2-70B TP4 and TP8, batch 16-32": lambda r: (
        r.model.startswith("llama") and r.tp > 2 and 16 <= r.batch <= 32
    ),
    "Llama-2-70B TP2, batch 16-32": lambda r: _llama(r, 2) and 16 <= r.batch <= 32,
    "Llama-2-70B, batch 64": lambda r: r.model.startswith("llama") and r.batch == 64,
    "BLOOM-176B TP8, batch 1-8": lambda r: r.model.startswith("bloom") and r.batch <= 8,
    "BLOOM-176B TP8, batch 16-64": lambda r: r.model.startswith("bloom") and r.batch >= 16,
}


def _llama(row: Decode, tp: int) -> bool:
    return row.model.startswith("llama") and row.tp == tp


def mape(found: Sequence[Compared], name: str) -> float:
    """Return the mean of |prediction/measurement − 1| of one prediction [1]."""
    return float(np.mean([abs(getattr(c, name) / c.row.measured - 1) for c in found]))


def report(shared: Path) -> str:
    """Return the report as Markdown."""
    device = load_hardware("a100-80gb-sxm").device()
    rows = read_decodes(shared)
    lines = read_host_lines(shared)
    a_seq = next(h.a_seq for h in lines if (h.file, h.model, h.tp) == CONTEMPORARY)
    launch = fit_launch([r for r in rows if is_fitting(r)], device)
    found = [compare(r, device, launch, a_seq) for r in rows]
    sections = [
        HEAD.format(launch=launch * 1e6, a_seq=a_seq * 1e3, rows=len(rows)),
        _errors(found),
        _plateau(found),
        _h100(launch),
        _host(lines),
        REACH,
        _regimes(),
    ]
    return "\n".join(sections)


HEAD = """# Dispatch: the launch pipeline against published timings

Generated by `python validation/dispatch_published.py`; what it means is in `docs/dispatch.md`.
No GPU of our own was measured for this page.

Splitwise's profile (DGX A100, eager launches, Llama-2-70B and BLOOM-176B, {rows} decode rows) is
compared with G_n of the launch pipeline. One constant is fitted, the host time per launch, on the
batch-1 rows of Llama-2-70B at TP 8: **{launch:.1f} us**. Everything else is the operator model
with its universal constants. The last column adds the host time per sequence that Vidur's authors
measured in the same era on the same model ({a_seq:.3f} ms), which is independent of these rows.
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(r) + " |" for r in rows)]) + "\n"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _errors(found: Sequence[Compared]) -> str:
    body = []
    groups = [(name, [c for c in found if rule(c.row)]) for name, rule in GROUPS.items()]
    groups.append(("Llama-2-70B, all", [c for c in found if c.row.model.startswith("llama")]))
    groups.append(("all", list(found)))
    for name, members in groups:
        body.append(
            [
                name,
                str(len(members)),
                _percent(mape(members, "device")),
                _percent(mape(members, "pipeline")),
                _percent(mape(members, "with_host")),
                f"{sum(c.inside for c in members)}/{len(members)}",
            ]
        )
    head = [
        "rows", "n", "kernels alone (ΣT)", "pipeline G_n", "G_n + a_seq·(b−1)", "within the bounds",
    ]  # fmt: skip
    return "## Mean absolute error of the decode step\n\n" + _table(head, body)


def _plateau(found: Sequence[Compared]) -> str:
    shown = [c for c in found if c.row.prompt == 512]
    body = [
        [
            c.row.model,
            str(c.row.tp),
            str(c.row.batch),
            *(
                f"{1e3 * t:.1f}"
                for t in (
                    c.row.measured,
                    c.device,
                    c.host,
                    c.lower,
                    c.pipeline,
                    c.upper,
                    c.with_host,
                )
            ),
        ]
        for c in shown
    ]
    head = ["model", "tp", "batch", "measured", "ΣT", "Σd", "lower", "G_n", "upper", "G_n + a_seq"]
    title = "## The plateau: prompts of 512 tokens, answers of 128, times in ms\n\n"
    return title + _table(head, body)


def _h100(a100_launch: float) -> str:
    """Return the two H100 tables: eager era and CUDA graphs."""
    device = load_hardware("h100-sxm").device()
    llama = load_model("meta-llama/Llama-2-70b-hf").architecture
    collective = dataclasses.replace(DEFAULT.collective, allreduce_latency=EAGER_ALL_REDUCE)
    eager = dataclasses.replace(DEFAULT, collective=collective)

    def excess(launch: float) -> float:
        ends = (pipeline(*sequence(llama, device, tp, 1, 576, launch)) for tp in (4, 8))
        wanted = (H100_SPLITWISE[tp] for tp in (4, 8))
        return sum(float(end) / m - 1.0 for end, m in zip(ends, wanted, strict=True))

    launch = float(brentq(excess, 1e-6, 1e-3, xtol=1e-9))
    body = []
    for tp, measured in H100_SPLITWISE.items():
        host, times = sequence(llama, device, tp, 1, 576, launch)
        low, high = bounds(host, times)
        slow = float(pipeline(*sequence(llama, device, tp, 1, 576, launch, eager)))
        cells: tuple[float, ...] = (
            measured,
            float(times.sum()),
            float(low),
            float(pipeline(host, times)),
            slow,
            float(high),
        )
        body.append([str(tp), *(f"{1e3 * t:.1f}" for t in cells)])
    head = ["tp", "measured", "ΣT", "lower", "G_n", "G_n, eager all-reduce", "upper"]
    first = (
        "## H100, Llama-2-70B, batch 1, eager era, times in ms\n\n"
        f"Launch time fitted on TP 4 and 8: {launch * 1e6:.1f} us, {launch / a100_launch:.2f} of "
        "the A100 machine's. It does not move from TP 4 to 8, so it is not the GPU's bandwidth.\n\n"
        + _table(head, body)
    )
    vllm, modern = load_engine("vllm"), load_model("meta-llama/Llama-3.1-70B").architecture
    body = []
    for tp, measured in H100_GRAPHS.items():
        _, times = sequence(modern, device, tp, 4, 512, 0.0)
        ours = float(times.sum()) + vllm.a_step + 4 * vllm.a_seq
        cells = (measured, float(times.sum()), ours, measured - ours)
        body.append([str(tp), *(f"{1e3 * t:.1f}" for t in cells)])
    head = ["tp", "measured mean TPOT", "ΣT", "ΣT + a_step + 4·a_seq", "left over"]
    second = (
        "## H100, Llama-3.1-70B, CUDA graphs (vLLM 2024-25), times in ms\n\n"
        "The plateau is gone. What is left over is the same at every TP, so it is time per step "
        "(the engine's host work of that version, prompts between decodes), not work per kernel. "
        "Batch 4 is assumed (0.5 req/s); from batch 1 to 8 the prediction moves by 0.4 ms.\n\n"
        + _table(head, body)
    )
    return first + "\n" + second


def _host(lines: Sequence[HostLine]) -> str:
    body = [
        [
            h.file.split("_")[0].upper(),
            h.file.rsplit("_", 1)[1].removesuffix(".csv"),
            h.model.rsplit("/", 1)[-1],
            str(h.tp),
            str(h.points),
            f"{1e3 * h.a_step:.2f}",
            f"{1e3 * h.a_seq:.3f}",
            f"{1e3 * h.ray:.1f}",
        ]
        for h in lines
    ]
    head = ["GPU", "profile", "model", "tp", "n", "a_step", "a_seq", "executor (Ray)"]
    note = (
        "## Host time per iteration (schedule, prepare, sample, process), ms\n\n"
        "Lines through the medians over batch sizes 8 to 128: the host's work outside the model's "
        "own kernels. Profile = commit of the measuring code.\n\n"
    )
    return note + _table(head, body)


REACH = """## Where decode is dispatch-bound (prediction, not measurement)

At small batch a layer's kernels take about (its weight bytes per GPU)/(e_m·W). Eager decode is
dispatch-bound as long as that is less than launches · launch time, so below a fixed number of
weight bytes per layer and GPU.
"""


def _regimes() -> str:
    """Return ΣT against Σd of one decode step for today's shapes on H100, eager and with graphs."""
    hardware = load_hardware("h100-sxm")
    device = hardware.device()
    vllm = load_engine("vllm")
    body = []
    for name, tp in (
        ("meta-llama/Llama-3.1-8B", 1),
        ("Qwen/Qwen3-32B", 1),
        ("Qwen/Qwen3-32B", 4),
        ("meta-llama/Llama-3.1-70B", 2),
        ("meta-llama/Llama-3.1-70B", 8),
    ):
        arch = load_model(name).architecture
        cells = []
        for batch in (1, 32, 256):
            host, times = sequence(arch, device, tp, batch, 1024, device.launch_time)
            engine = vllm.a_step + batch * vllm.a_seq
            share = engine / (engine + float(times.sum()))
            cells += [
                f"{1e3 * times.sum():.1f}",
                f"{1e3 * float(pipeline(host, times)):.1f}",
                _percent(share),
            ]
        body.append([name.rsplit("/", 1)[-1], str(tp), f"{1e3 * float(host.sum()):.1f}", *cells])
    head = ["model", "tp", "Σd"]
    for batch in (1, 32, 256):
        head += [f"ΣT b={batch}", f"eager G_n b={batch}", f"host share with graphs b={batch}"]
    return (
        f"H100, bf16, context 1,024, launch time {device.launch_time * 1e6:.1f} us (eager stack of "
        "the Splitwise profile), vLLM's host time per step with graphs; ms.\n\n"
        + _table(head, body)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "validation" / "dispatch.md")
    options = parser.parse_args()
    shared = shared_folder()
    if not (shared / "measured" / "splitwise_a100.csv").is_file():
        print(f"needs the measurements in {shared.name}/ beside the checkout", file=sys.stderr)
        return 5
    text = report(shared)
    options.output.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
