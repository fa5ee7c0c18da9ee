"""A day's schedule as a picture."""

from __future__ import annotations

from bestserve.reporting.chart import Chart, Series, rows
from bestserve.results.schedule import Schedule


def schedule_chart(found: Schedule) -> Chart:
    """Rate and planned capacity over the day."""
    hours = tuple(w.start / 3600 for w in found.windows)
    most = max(found.windows, key=lambda w: w.gpus)
    least = min(found.windows, key=lambda w: w.gpus)
    return Chart(
        key="schedule",
        title=f"Load and capacity of {found.strategy} over the day",
        summary=(
            f"From {least.gpus} GPUs at {least.clock()} to {most.gpus} at {most.clock()}: "
            f"{found.gpu_hours:,.1f} GPU-hours."
        ),
        kind="lines",
        x_label="time [h]",
        y_label="requests per second",
        series=(
            Series("request rate", x=hours, y=tuple(w.request_rate for w in found.windows)),
            Series("capacity", x=hours, y=tuple(w.capacity for w in found.windows)),
        ),
        records=rows(found.records()),
    )
