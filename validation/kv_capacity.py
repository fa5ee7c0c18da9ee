"""KV capacity against what public vLLM start-ups printed: writes kv_capacity.md beside this file.

    python validation/kv_capacity.py

`kv_capacity.csv`: largest number of concurrent requests × max_model_len as printed at start-up
("Maximum concurrency for N tokens per request"), with the prediction of the first version; the
memory constants were fitted to these. `start_ups/checked.csv`: start-ups found afterwards, each
with its source; `informed` names what was mended after seeing one.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bestserve.catalog import load_engine, load_hardware, load_model
from bestserve.catalog.engines import preset_for
from bestserve.models.step.device import Parallelism
from bestserve.models.step.memory import MemoryPlan, memory_plan
from bestserve.specs.model import Model

HERE = Path(__file__).parent
GOAL = (0.02, 0.06, 0.15)
"""Median, 90th percentile and largest error to stay within [1]."""
GIB = float(2**30)


@dataclass(frozen=True)
class Start:
    """One start-up: what was printed, predicted now and by the first version.

    kind : of model; measured, before : tokens, or GiB of cache where the start-up names no tokens
    """

    row: Mapping[str, str]
    kind: str
    plan: MemoryPlan
    measured: float
    before: float = float("nan")

    @property
    def predicted(self) -> float:
        """What is predicted now, in the unit of `measured`; tokens of one data-parallel rank."""
        if self.row.get("measured_kv_tokens"):
            return self.plan.kv_capacity_tokens / int(self.row.get("data_parallel_size") or 1)
        return self.plan.kv_bytes / GIB

    @property
    def error(self) -> float:
        """Signed error of the present prediction [1]."""
        return self.predicted / self.measured - 1

    @property
    def of_memory(self) -> float:
        """Size of that error as a share of the GPU's memory [1]."""
        wrong = abs(self.error) / (1 + self.error) * self.plan.kv_bytes
        return wrong / self.plan.memory

    @property
    def error_before(self) -> float:
        """Signed error of the first version [1]."""
        return self.before / self.measured - 1


def starts() -> list[Start]:
    """Return the start-ups to which constants were fitted."""
    return [
        Start(
            row=row,
            kind=_kind(row),
            plan=_plan(row),
            measured=float(row["measured_kv_tokens"]),
            before=float(row["kv_tokens_predicted_when_found"]),
        )
        for row in _rows("kv_capacity.csv")
    ]


def checked() -> list[Start]:
    """Return the start-ups found afterwards."""
    return [
        Start(
            row=row,
            kind=_kind(row),
            plan=_plan(row),
            measured=float(row["measured_kv_tokens"] or row["measured_kv_gib"]),
        )
        for row in _rows("start_ups/checked.csv")
    ]


def _kind(row: Mapping[str, str]) -> str:
    """Return of which kind a start-up's model is, by what decides its cache."""
    groups = _model(row).architecture.groups
    attention = {group.attention.kind for group in groups}
    experts = any(group.ffn.kind == "moe" for group in groups)
    if "sliding" in attention or "chunked" in attention:
        return "windows, mixture of experts" if experts else "windows, dense"
    return "mixture of experts" if experts else "dense"


def _model(row: Mapping[str, str]) -> Model:
    folder = HERE / row["model"]
    return load_model(folder if folder.is_dir() else row["model"])


def _rows(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _plan(row: Mapping[str, str]) -> MemoryPlan:
    model = _model(row)
    device = load_hardware(row["hardware"]).device()
    engine = load_engine(preset_for("vllm", row["engine_version"])).for_device(device)
    stated = {
        key: int(row[key]) for key in ("max_num_seqs", "max_num_batched_tokens") if row.get(key)
    }
    engine = replace(
        engine,
        gpu_memory_utilization=float(row["gpu_memory_utilization"]),
        cuda_graphs=engine.cuda_graphs and not row.get("eager"),
        **stated,
    )
    precision, kv = row["precision"] or None, row.get("kv_cache_dtype") or "auto"
    return memory_plan(
        model.architecture,
        device,
        Parallelism(
            tp=int(row["tensor_parallel_size"]),
            dp=int(row.get("data_parallel_size") or 1),
            ep=int(row.get("expert_parallel_size") or 1),
        ),
        model.formats(precision=precision, kv_cache_dtype=kv),  # type: ignore[arg-type]
        engine,
        context_len=float(row["max_model_len"]),
    )


def table(found: list[Start], later: list[Start]) -> str:
    """Return the report."""
    errors = np.abs([start.error for start in found])
    before = np.abs([start.error_before for start in found])
    unseen = [start for start in later if not start.row["informed"]]
    lines = [
        "# KV capacity against public start-ups",
        "",
        "Written by `python validation/kv_capacity.py`. Tokens: concurrent requests times",
        "`max_model_len`, as vLLM prints both at start-up. Constants and their sources are in",
        "`bestserve/data/engines`.",
        "",
        "| | start-ups | median | 90th percentile | largest |",
        "| --- | --: | --: | --: | --: |",
        _summary("fitted, first version", before),
        _summary("fitted, now", errors),
        _summary("found afterwards, all", np.abs([start.error for start in later])),
        _summary("found afterwards, nothing taken from them", np.abs([s.error for s in unseen])),
        f"| goal | | {GOAL[0]:.0%} | {GOAL[1]:.0%} | {GOAL[2]:.0%} |",
        "",
        *_by_kind([*found, *later]),
        "",
        "| model | GPU | tp | vLLM | length | measured | predicted | error | before | kind |",
        "| --- | --- | --: | --- | --: | --: | --: | --: | --: | --- |",
    ]
    for start in found:
        lines.append(f"{_cells(start)} {start.error_before:+.0%} | {start.row['kind']} |")
    lines += [
        "",
        "## Found afterwards",
        "",
        "GiB of cache where a source names no tokens. What the last column names was mended after",
        "the start-up was seen: buffers of communicators over PCIe and on A100, and the padding of",
        "MXFP4 experts; the weights of gpt-oss then fit (65.8 of 65.97 and 13.7 of 13.72 GiB).",
        "",
        "| model | GPU | tp | vLLM | length | measured | predicted | error | informed |",
        "| --- | --- | --: | --- | --: | --: | --: | --: | --- |",
    ]
    lines += [f"{_cells(start)} {start.row['informed']} |" for start in later]
    sources: dict[str, None] = {}
    for start in later:
        if start.row["source"] != "the same":
            sources[start.row["source"]] = None
    lines += ["", "Sources:", ""]
    lines += [f"- {source}" for source in sources]
    lines += [
        "",
        "Not explained: Llama 4 Scout (1.5 GB more is taken), ROCm (8 GB more, one start-up),",
        "gpt-oss-120b on one H100 (2 GiB more, which is most of the cache that it leaves; two",
        "start-ups agree).",
        "",
    ]
    return "\n".join(lines)


def _by_kind(all_of_them: list[Start]) -> list[str]:
    """Return the table by kind of model, and of all."""
    kinds = sorted({start.kind for start in all_of_them})
    lines = [
        "All start-ups by kind of model; the first version knew the fitted ones only. The last",
        "column is the largest error as a share of the GPU's memory: where little is left for the",
        "cache, little is missing from it.",
        "",
        "| kind | start-ups | median, first | median now | 90th percentile | largest | memory |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for kind in [*kinds, "all"]:
        of_kind = [start for start in all_of_them if kind in (start.kind, "all")]
        errors = np.abs([start.error for start in of_kind])
        before = np.nanmedian(np.abs([start.error_before for start in of_kind]))
        lines.append(
            f"| {kind} | {len(errors)} | {before:.0%} | {np.median(errors):.1%} "
            f"| {np.percentile(errors, 90):.1%} | {errors.max():.1%} "
            f"| {max(start.of_memory for start in of_kind):.1%} |"
        )
    return lines


def _summary(label: str, errors: np.ndarray) -> str:
    median, ninety = np.median(errors), np.percentile(errors, 90)
    return f"| {label} | {len(errors)} | {median:.1%} | {ninety:.1%} | {errors.max():.1%} |"


def _cells(start: Start) -> str:
    row = start.row
    digits = ",.0f" if row["measured_kv_tokens"] else ",.2f"
    name = f"{row['model'].removeprefix('start_ups/')} {row['precision']}".strip()
    return (
        f"| {name} | {row['hardware']} | {row['tensor_parallel_size']} | {row['engine_version']} "
        f"| {row['max_model_len']} | {start.measured:{digits}} | {start.predicted:{digits}} "
        f"| {start.error:+.1%} |"
    )


if __name__ == "__main__":
    (HERE / "kv_capacity.md").write_text(table(starts(), checked()))
