"""Universal operator forms against measured operator latencies, per GPU, engine and operator.

    python benchmarks/operator_tables.py [--moe] [folder of measured operators]

Needs pyarrow and the measurements beside the checkout (`shared/measured/operators`, latencies of
the Apache-2.0 package aiconfigurator 0.12.0); says so and stops where they are absent. Nothing is
fitted here: datasheet peak, bandwidth, link and SM count of the catalogue with the constants of
`bestserve.models.step.constants`.

Compared are kernels above 30 µs (all-reduce: all), below which timings are launch overhead that
serving hides, in shapes that serving has: contexts of at least 64 tokens and at
most 16 query heads per KV head in decode, experts over at
most 16 ranks, gated experts, power-law routing.
`expected` is the median error that the same constants reached on the tables they were rounded from
(upper end per GPU where several engines were measured); '-' where no figure is known.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bestserve.catalog import load_engine, load_hardware
from bestserve.models.step.architecture import Architecture, Attention, Ffn, LayerGroup
from bestserve.models.step.attention import (
    decode_attention,
    mla_decode,
    mla_prefill,
    prefill_attention,
)
from bestserve.models.step.collectives import all_reduce
from bestserve.models.step.device import Device, Formats, Parallelism, Precision
from bestserve.models.step.moe import MoeKernel, MoePath, grouped_experts
from bestserve.models.step.operators import operator_list
from bestserve.models.step.roofline import gemm, quantise
from bestserve.models.step.step_work import StepWork

FLOOR = 30e-6
"""Shortest kernel compared [s]."""

GPUS = {
    "a100_sxm": "a100-80gb-sxm",
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "b200_sxm": "b200-sxm",
    "l40s": "l40s",
}
GEMM_FORMATS: dict[str, Precision] = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "nvfp4": "nvfp4",
}
MOE_FORMATS: dict[str, Precision] = {
    "bfloat16": "bf16",
    "fp8_block": "fp8_block",
    "w4a16_mxfp4": "mxfp4",
    "int4_wo": "int4",
    "nvfp4": "nvfp4",
}
MOE_PATHS: tuple[tuple[str, MoePath], ...] = (
    ("triton", "G"),
    ("marlin", "G"),
    ("fused_moe", "G"),
    ("trtllmbf16", "L"),
    ("trtllm", "G"),
    ("cutlass", "L"),
)
"""Activation-pass path by a word in the kernel's name."""

EXPECTED = {
    ("gemm.bf16", "hopper"): 8.0,
    ("gemm.bf16", "b200_sxm"): 13.0,
    ("gemm.bf16", "a100_sxm"): 12.0,
    ("gemm.bf16", "l40s"): 18.0,
    ("gemm.fp8", "hopper"): 21.0,
    ("gemm.fp8", "b200_sxm"): 25.0,
    ("attention.prefill d=128", "hopper"): 16.0,
    ("attention.prefill d=128", "b200_sxm"): 34.0,
    ("attention.prefill d=128", "a100_sxm"): 29.0,
    ("attention.decode kv=bfloat16", "hopper"): 18.0,
    ("attention.decode kv=bfloat16", "b200_sxm"): 12.0,
    ("attention.decode kv=bfloat16", "a100_sxm"): 41.0,
    ("moe.bf16", "hopper"): 14.0,
    ("moe.fp8_block", "hopper"): 14.0,
    ("moe.bf16", "b200_sxm"): 23.0,
    ("moe.fp8_block", "b200_sxm"): 23.0,
    ("moe.mxfp4", "hopper"): 45.0,
    ("moe.mxfp4", "b200_sxm"): 45.0,
    ("mla.decode", "hopper"): 13.0,
    ("mla.decode", "b200_sxm"): 17.0,
    ("mla.prefill", "hopper"): 12.0,
    ("mla.prefill", "b200_sxm"): 12.0,
    ("all_reduce vllm", "hopper"): 16.0,
    ("all_reduce vllm", "a100_sxm"): 17.0,
}
"""Upper ends of the median errors [%] that these constants had on the tables they were rounded
from. Exceptions: MLA prefill had 8.4 with constants per table, one set for all costs up to 4
points; all-reduce is that of vLLM's kernel, whose latency the universal one is (SGLang and
TensorRT-LLM start 1.5 µs faster on Hopper, vLLM 3 µs slower on B200)."""


class Row(NamedTuple):
    """Errors of one operator on one GPU and engine [%]; n kernels; expected median or nan."""

    operator: str
    gpu: str
    engine: str
    n: int
    median: float
    bias: float
    p90: float
    expected: float


def rows(folder: Path, *, moe: bool = True) -> Iterator[Row]:
    """Yield one row per operator, GPU and engine found in `folder`."""
    import pandas as pd

    for directory, name in GPUS.items():
        device = load_hardware(name).device()
        for path in sorted((folder / directory).glob("*.parquet")):
            table, engine = path.name.removesuffix(".parquet").split(".", 1)
            reader = READERS.get(table)
            if reader is None or (table == "moe" and not moe):
                continue
            for operator, frame, predicted in reader(pd.read_parquet(path), engine, device):
                yield _row(operator, directory, engine, frame, predicted)


def _row(operator: str, gpu: str, engine: str, frame: Any, predicted: np.ndarray) -> Row:
    measured = frame["latency"].to_numpy(dtype=float) * 1e-3
    floor = 0.0 if operator == "all_reduce" else FLOOR
    ratio = (predicted / measured)[measured > floor] - 1.0
    family = "hopper" if gpu in ("h100_sxm", "h200_sxm") else gpu
    named = f"{operator} {engine.partition('-')[0]}" if operator == "all_reduce" else operator
    short = named.partition(" ")[0]
    expected = EXPECTED.get((named, family), EXPECTED.get((short, family), float("nan")))
    if not ratio.size:
        return Row(operator, gpu, engine, 0, float("nan"), float("nan"), float("nan"), expected)
    error = np.abs(ratio) * 100
    return Row(
        operator,
        gpu,
        engine,
        ratio.size,
        float(np.median(error)),
        float(np.median(ratio) * 100),
        float(np.percentile(error, 90)),
        expected,
    )


Prediction = tuple[str, Any, np.ndarray]


def _columns(frame: Any, *names: str) -> list[np.ndarray]:
    return [frame[n].to_numpy(dtype=float) for n in names]


def _gemm(frame: Any, engine: str, device: Device) -> Iterator[Prediction]:
    for dtype, part in frame.groupby("gemm_dtype"):
        precision = GEMM_FORMATS.get(str(dtype))
        # vLLM's block-scaled Hopper rows are host-bound timings.
        if precision is None or (precision == "fp8_block" and engine.startswith("vllm")):
            continue
        part = part[(part.n >= 512) & (part.k >= 512) & (part.m <= 32768)]
        predicted = np.zeros(len(part))
        for (n, k), index in part.groupby(["n", "k"]).indices.items():
            m = part.m.to_numpy(dtype=float)[index]
            predicted[index] = (
                quantise(m, k, device, precision).time + gemm(m, n, k, device, precision).time
            )
        yield f"gemm.{precision}", part, predicted


def _prefill(frame: Any, engine: str, device: Device) -> Iterator[Prediction]:
    frame = frame[(frame.attn_dtype == "bfloat16") & (frame.kv_cache_dtype == "bfloat16")]
    if "window_size" in frame:
        frame = frame[frame.window_size <= 0]
    for d in (64, 128):
        part = frame[frame.head_dim == d]
        b, q, h = _columns(part, "batch_size", "isl", "num_heads")
        cost = prefill_attention(b * q**2 / 2, b * q, q, h, d, d, device)
        yield f"attention.prefill d={d}", part, np.asarray(cost.time)


def _decode(frame: Any, engine: str, device: Device) -> Iterator[Prediction]:
    if "window_size" in frame:
        frame = frame[frame.window_size <= 0]
    served = (frame.num_heads <= 16 * frame.num_key_value_heads) & (frame.step + frame.isl >= 64)
    frame = frame[(frame.head_dim == 128) & served]
    for dtype, size in (("bfloat16", 2.0), ("fp8", 1.0)):
        part = frame[frame.kv_cache_dtype == dtype]
        if part.empty:
            continue
        b, step, isl, h, kv = _columns(
            part, "batch_size", "step", "isl", "num_heads", "num_key_value_heads"
        )
        context = b * (step + isl)
        cost = decode_attention(context, b, h, kv, 128, 128, size, device)
        yield f"attention.decode kv={dtype}", part, np.asarray(cost.time)


def _all_reduce(frame: Any, engine: str, device: Device) -> Iterator[Prediction]:
    if "backend" in frame:
        frame = frame[frame.backend.str.endswith("graph")]
    predicted = np.zeros(len(frame))
    for gpus, index in frame.groupby("num_gpus").indices.items():
        # message_size counts bf16 elements.
        message = 2.0 * frame.message_size.to_numpy(dtype=float)[index]
        predicted[index] = all_reduce(message, int(gpus), device).time
    yield "all_reduce", frame, predicted


def _mla_prefill(frame: Any, engine: str, device: Device) -> Iterator[Prediction]:
    # SGLang's Hopper table times the absorbed form.
    if engine.startswith("sglang") and device.generation == "hopper":
        return
    part = frame[frame.kv_cache_dtype == "bfloat16"]
    b, q, h = _columns(part, "batch_size", "isl", "num_heads")
    cost = mla_prefill(b * q**2 / 2, b * q, q, h, 192, 128, device)
    yield "mla.prefill", part, np.asarray(cost.time)


def _mla_decode(frame: Any, engine: str, device: Device) -> Iterator[Prediction]:
    part = frame[frame.kv_cache_dtype == "bfloat16"]
    b, step, isl, h = _columns(part, "batch_size", "step", "isl", "num_heads")
    cost = mla_decode(b * (step + isl), b, h, 512, 64, 2.0, device)
    yield "mla.decode", part, np.asarray(cost.time)


def _experts(frame: Any, engine: str, device: Device) -> Iterator[Prediction]:
    # Hidden size 2688 and top-22 are Nemotron's experts, which are not gated.
    frame = frame[
        (frame.distribution != "balanced")
        & (frame.topk <= 8)
        & (frame.hidden_size != 2688)
        & (frame.moe_tp_size * frame.moe_ep_size <= 16)
    ]
    for (dtype, source), part in frame.groupby(["moe_dtype", "kernel_source"]):
        precision = MOE_FORMATS.get(str(dtype))
        if precision is None or "nongated" in source:
            continue
        path = next((p for word, p in MOE_PATHS if word in source), "L")
        predicted = np.zeros(len(part))
        keys = ["hidden_size", "inter_size", "num_experts", "topk", "moe_tp_size", "moe_ep_size"]
        for key, index in part.groupby(keys).indices.items():
            hidden, inter, experts, top_k, tp, ep = (int(x) for x in key)
            tokens = part.num_tokens.to_numpy(dtype=float)[index]
            predicted[index] = grouped_experts(
                tokens,
                hidden,
                inter / tp,
                experts,
                top_k,
                ep,
                device,
                precision,
                MoeKernel(path=path),
            ).time
        kernel = source.removeprefix("vllm_").split("moe_")[-1]
        yield f"moe.{precision} {path} {kernel}", part, predicted


def _mla_module(frame: Any, engine: str, device: Device) -> Iterator[Prediction]:
    decode = "generation" in str(frame.op_name.iloc[0])
    frame = frame[(frame.kv_cache_dtype == "bfloat16") & frame.model.str.contains("DeepSeek-V3")]
    for dtype, part in frame.groupby("gemm_type"):
        precision = GEMM_FORMATS.get(str(dtype))
        if precision is None:
            continue
        predicted = np.zeros(len(part))
        for heads, index in part.groupby("num_heads").indices.items():
            b, length, step = (c[index] for c in _columns(part, "batch_size", "isl", "step"))
            work = (
                StepWork.grid(context=length + step, decodes=b)
                if decode
                else StepWork.grid(chunk=length, prompts=b)
            )
            predicted[index] = _mla_layer(int(heads), work, device, precision)
        phase = "decode" if decode else "prefill"
        yield f"mla.{phase}.module {precision}", part, predicted


def _mla_layer(heads: int, work: StepWork, device: Device, precision: Precision) -> np.ndarray:
    attention = Attention(
        kind="mla",
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=192,
        v_head_dim=128,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
    )
    ffn = Ffn(kind="dense", intermediate_size=128)
    arch = Architecture(
        hidden_size=7168,
        vocab_size=1024,
        groups=(LayerGroup(count=1, attention=attention, ffn=ffn),),
    )
    operators = operator_list(
        arch, device, Parallelism(), Formats(weights=precision), load_engine("vllm"), work
    )
    return sum(np.asarray(o.time) for o in operators if o.name.startswith("attention."))


READERS: dict[str, Callable[[Any, str, Device], Iterator[Prediction]]] = {
    "gemm": _gemm,
    "context_attention": _prefill,
    "generation_attention": _decode,
    "custom_allreduce": _all_reduce,
    "context_mla": _mla_prefill,
    "generation_mla": _mla_decode,
    "mla_context_module": _mla_module,
    "mla_generation_module": _mla_module,
    "moe": _experts,
}


def main() -> int:
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    beside = Path(__file__).resolve().parents[2] / "shared"
    shared = Path(os.environ.get("BESTSERVE_SHARED", beside))
    folder = Path(arguments[0]) if arguments else shared / "measured" / "operators"
    if not folder.is_dir():
        print(f"SKIPPED: no measured operators in {folder}", file=sys.stderr)
        return 0
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        print("SKIPPED: needs pyarrow; pip install 'bestserve[frame]'", file=sys.stderr)
        return 0
    print(
        f"{'operator':58}{'gpu':10}{'engine':20}{'n':>7}{'med%':>7}{'bias%':>7}{'p90%':>7}"
        f"{'expected':>10}"
    )
    for row in rows(folder):
        if not row.n:
            continue
        expected = "-" if np.isnan(row.expected) else f"≤ {row.expected:g}"
        print(
            f"{row.operator[:57]:58}{row.gpu:10}{row.engine:20}{row.n:7d}{row.median:7.1f}"
            f"{row.bias:+7.1f}{row.p90:7.1f}{expected:>10}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
