"""Where the memory of a GPU goes, as a picture."""

from __future__ import annotations

from bestserve.reporting.chart import Chart, Series, rows
from bestserve.results.document import AnswerStatus
from bestserve.results.memory import GB, Memory


def memory_chart(found: Memory) -> Chart:
    """Weights, activations, reserve and cache of one GPU, and what the engine leaves free."""
    parts = {
        "weights": found.weights_bytes,
        "activations": found.activation_bytes,
        "reserve": found.reserve_bytes,
        "KV cache": max(found.kv_cache_bytes, 0.0),
        "left free": (1 - found.gpu_memory_utilization) * found.memory_bytes,
    }
    kept = {name: size / GB for name, size in parts.items() if size > 0}
    summary = f"{found.strategy} does not fit: {found.reason}"
    if found.status is AnswerStatus.OK:
        summary = (
            f"The cache of an instance of {found.strategy} holds {found.kv_tokens:,.0f} tokens: "
            f"{found.concurrency_at_workload:,.0f} requests of the workload's mean length, or "
            f"{found.concurrency:,.1f} of {found.max_model_len:,.0f} tokens."
        )
    return Chart(
        key="memory",
        title=f"Memory of one GPU of {found.strategy}",
        summary=summary,
        kind="parts",
        x_label="memory [GB]",
        y_label="",
        series=(Series("memory", x=tuple(kept.values()), y=tuple(kept)),),
        records=rows(found.records()),
    )
