"""KV capacity against what public vLLM start-ups printed: writes kv_capacity.md beside this file.

    python validation/kv_capacity.py

`kv_capacity.csv`: largest number of concurrent requests × max_model_len as printed at start-up
("Maximum concurrency for N tokens per request"), with the prediction of the first version.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bestserve.catalog import load_engine, load_hardware, load_model
from bestserve.catalog.engines import preset_for
from bestserve.models.step.device import Parallelism
from bestserve.models.step.memory import MemoryPlan, memory_plan

HERE = Path(__file__).parent
GOAL = (0.02, 0.06, 0.15)
"""Median, 90th percentile and largest error to stay within [1]."""


@dataclass(frozen=True)
class Start:
    """One start-up: what was printed, predicted now and by the first version [tokens]."""

    row: dict[str, str]
    plan: MemoryPlan
    measured: float
    before: float

    @property
    def error(self) -> float:
        """Signed error of the present prediction [1]."""
        return self.plan.kv_capacity_tokens / self.measured - 1

    @property
    def error_before(self) -> float:
        """Signed error of the first version [1]."""
        return self.before / self.measured - 1


def starts() -> list[Start]:
    """Return every start-up with its prediction."""
    with (HERE / "kv_capacity.csv").open(newline="") as file:
        return [_start(row) for row in csv.DictReader(file)]


def _start(row: dict[str, str]) -> Start:
    model, device = load_model(row["model"]), load_hardware(row["hardware"]).device()
    engine = load_engine(preset_for(row["engine"], row["engine_version"])).for_device(device)
    engine = replace(engine, gpu_memory_utilization=float(row["gpu_memory_utilization"]))
    precision, kv = row["precision"] or None, row["kv_cache_dtype"]
    plan = memory_plan(
        model.architecture,
        device,
        Parallelism(tp=int(row["tensor_parallel_size"])),
        model.formats(precision=precision, kv_cache_dtype=kv),  # type: ignore[arg-type]
        engine,
        context_len=float(row["max_model_len"]),
    )
    return Start(
        row=row,
        plan=plan,
        measured=float(row["measured_kv_tokens"]),
        before=float(row["kv_tokens_predicted_when_found"]),
    )


def table(found: list[Start]) -> str:
    """Return the report."""
    errors = np.abs([start.error for start in found])
    before = np.abs([start.error_before for start in found])
    lines = [
        "# KV capacity against public start-ups",
        "",
        "Written by `python validation/kv_capacity.py`. Tokens: concurrent requests times",
        "`max_model_len`, as vLLM prints both at start-up. Constants and their sources are in",
        "`bestserve/data/engines`.",
        "",
        "| | median | 90th percentile | largest |",
        "| --- | --: | --: | --: |",
        *(
            f"| {label} | {np.median(e):.1%} | {np.percentile(e, 90):.1%} | {e.max():.1%} |"
            for label, e in (("first version", before), ("now", errors))
        ),
        f"| goal | {GOAL[0]:.0%} | {GOAL[1]:.0%} | {GOAL[2]:.0%} |",
        "",
        "| model | GPU | tp | vLLM | length | measured | predicted | error | before | kind |",
        "| --- | --- | --: | --- | --: | --: | --: | --: | --: | --- |",
    ]
    for start in found:
        row = start.row
        lines.append(
            f"| {row['model']} {row['precision']} | {row['hardware']} "
            f"| {row['tensor_parallel_size']} | {row['engine_version']} | {row['max_model_len']} "
            f"| {start.measured:,.0f} | {start.plan.kv_capacity_tokens:,.0f} "
            f"| {start.error:+.1%} | {start.error_before:+.0%} | {row['kind']} |"
        )
    lines += [
        "",
        "Not explained: Llama 4 Scout (1.5 GB more is taken), ROCm (8 GB more, one start-up).",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    (HERE / "kv_capacity.md").write_text(table(starts()))
