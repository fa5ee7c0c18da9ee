"""Predicted against measured as a picture for the page."""

from __future__ import annotations

from collections.abc import Sequence

from bestserve.reporting.chart import Chart, Series, rows
from bestserve.validation.comparison import RowComparison
from bestserve.validation.parity import parity_data


def parity_chart(compared: Sequence[RowComparison], metric: str) -> Chart:
    """Predictions of "ttft" or "tpot" against measurements [ms]; without either, no series."""
    found = parity_data(compared, metric)
    points = [(m, p, s.name, label) for s in found
              for m, p, label in zip(s.measured, s.predicted, s.labels, strict=True)]  # fmt: skip
    series = [Series(s.name, x=s.measured, y=s.predicted, text=s.labels) for s in found]
    errors = sorted(abs(p / m - 1) for m, p, _, _ in points if m > 0)
    summary = "No run has both figures."
    if errors:
        ends = [v for m, p, _, _ in points for v in (m, p) if v > 0]
        line = (min(ends), max(ends))
        series.append(Series("as measured", x=line, y=line, joined=True))
        middle = errors[len(errors) // 2]
        summary = f"{len(errors)} runs; the median prediction is off by {middle:.0%}."
    up = metric.upper()
    return Chart(
        key=f"parity-{metric}",
        title=f"{up}: predicted against measured",
        summary=summary,
        kind="points",
        x_label=f"measured {up} [ms]",
        y_label=f"predicted {up} [ms]",
        series=tuple(series),
        records=rows(
            [
                {"run": label, "engine": name, "measured_ms": m, "predicted_ms": p}
                for m, p, name, label in points
            ]
        ),
        log_x=True,
        log_y=True,
    )
