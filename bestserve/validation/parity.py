"""Parity plot: predicted against measured, first as data, then drawn."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bestserve.errors import InputError
from bestserve.host.extras import require
from bestserve.host.writing import check_target, write_bytes, write_text
from bestserve.validation.comparison import RowComparison

BAND = 0.2
"""Half width of the band drawn about the diagonal [1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParitySeries:
    """Points of one group: measured and predicted [ms], labels for the reader."""

    name: str
    measured: tuple[float, ...]
    predicted: tuple[float, ...]
    labels: tuple[str, ...]


def parity_data(
    rows: Iterable[RowComparison], metric: str, by: str = "engine"
) -> tuple[ParitySeries, ...]:
    """Return the points of "ttft" or "tpot" in series by a field of the row ("engine", "gpu")."""
    series: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        pair = row.headline(metric)
        if pair is not None:
            label = f"{row.id}: {row.model} on {row.gpu}, {row.layout}, {row.workload}"
            series.setdefault(str(getattr(row, by)), []).append((pair[1], pair[0], label))
    return tuple(
        ParitySeries(
            name=name,
            measured=tuple(p[0] for p in points),
            predicted=tuple(p[1] for p in points),
            labels=tuple(p[2] for p in points),
        )
        for name, points in sorted(series.items())
    )


def draw_parity(rows: Iterable[RowComparison], path: str | Path) -> Path:
    """Draw TTFT and TPOT parity plots to .html (plotly) or .png, .svg, .pdf (matplotlib).

    Raises what `checked_parity` raises.
    """
    file = checked_parity(path)
    listed = list(rows)
    panels = [(m, parity_data(listed, m)) for m in ("ttft", "tpot")]
    draw = _plotly if file.suffix == ".html" else _matplotlib
    draw(panels, file)
    return file


def checked_parity(path: str | Path) -> Path:
    """Return where the plot goes, before the work.

    Raises InputError for another ending and for what cannot be written, MissingExtraError without
    the library that draws it.
    """
    file = Path(path)
    if file.suffix not in (".html", ".png", ".svg", ".pdf"):
        raise InputError(f"plot {file.name!r}: end it in .html, .png, .svg or .pdf")
    require(f"a plot in {file.suffix}", "plotly" if file.suffix == ".html" else "matplotlib")
    return check_target(file, "plot")


Panels = list[tuple[str, tuple[ParitySeries, ...]]]


def _limits(series: tuple[ParitySeries, ...]) -> tuple[float, float]:
    values = [v for s in series for v in (*s.measured, *s.predicted) if v > 0]
    return (0.7 * min(values), 1.4 * max(values)) if values else (1.0, 10.0)


def _plotly(panels: Panels, file: Path) -> None:
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, subplot_titles=[m.upper() for m, _ in panels])
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
    names = sorted({s.name for _, series in panels for s in series})
    for column, (_, series) in enumerate(panels, start=1):
        low, high = _limits(series)
        for factor, dash in ((1.0, "solid"), (1 + BAND, "dot"), (1 / (1 + BAND), "dot")):
            figure.add_scatter(
                x=[low, high], y=[low * factor, high * factor], mode="lines", row=1, col=column,
                line={"color": "#888", "dash": dash, "width": 1}, showlegend=False,
                hoverinfo="skip",
            )  # fmt: skip
        for s in series:
            figure.add_scatter(
                x=s.measured, y=s.predicted, text=s.labels, name=s.name, mode="markers",
                marker={"color": colours[names.index(s.name) % len(colours)], "size": 6},
                legendgroup=s.name, showlegend=column == 1, row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(type="log", title="measured [ms]", row=1, col=column)
        figure.update_yaxes(type="log", title="predicted [ms]", row=1, col=column)
    write_text(file, figure.to_html(include_plotlyjs=True))


def _matplotlib(panels: Panels, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 5))
    for axis, (metric, series) in zip(axes, panels, strict=True):
        low, high = _limits(series)
        ends: Any = [low, high]
        axis.plot(ends, ends, color="#888", linewidth=1)
        axis.fill_between(
            ends,
            [v / (1 + BAND) for v in ends],
            [v * (1 + BAND) for v in ends],
            color="#888",
            alpha=0.15,
            linewidth=0,
        )
        for s in series:
            axis.scatter(s.measured, s.predicted, s=8, alpha=0.6, label=s.name)
        axis.set(
            xscale="log",
            yscale="log",
            xlim=(low, high),
            ylim=(low, high),
            xlabel="measured [ms]",
            ylabel="predicted [ms]",
            title=metric.upper(),
        )
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    drawn = io.BytesIO()
    form = file.suffix.removeprefix(".")
    figure.savefig(
        drawn, format=form, dpi=110, metadata={"Software": None} if form == "png" else None
    )
    plt.close(figure)
    write_bytes(file, drawn.getvalue())
