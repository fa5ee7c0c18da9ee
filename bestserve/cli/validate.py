"""`bestserve validate`."""

from __future__ import annotations

from typing import Annotated, Any

from bestserve.cli.flags import Count, Format, Many
from bestserve.cli.output import emit, emit_records
from bestserve.cli.stated import StatedOptions
from bestserve.cli.talk import progress, talk
from bestserve.errors import InputError

COLUMNS = (
    "model",
    "gpu",
    "engine",
    "regime",
    "n",
    "ttft_median_percent",
    "ttft_p90_percent",
    "ttft_bias_percent",
    "tpot_median_percent",
    "tpot_p90_percent",
    "tpot_bias_percent",
    "choices",
    "regret_percent",
)
ROW_COLUMNS = (
    "id",
    "status",
    "method",
    "model",
    "gpu",
    "layout",
    "ttft_predicted_ms",
    "ttft_measured_ms",
    "ttft_error_percent",
    "tpot_predicted_ms",
    "tpot_measured_ms",
    "tpot_error_percent",
    "reason",
)
METRICS = ("ttft", "tpot")


def validate(
    *logs: str,
    options: StatedOptions | None = None,
    calibration: str | None = None,
    goodput: Annotated[list[str] | None, Many] = None,
    joint: bool = False,
    tolerance: Annotated[list[str] | None, Many] = None,
    rows: bool = False,
    intervals: bool = True,
    plot: str | None = None,
    jobs: Annotated[int | None, Count] = None,
    format: Format = "table",
) -> int:
    """Compare predictions with measured logs, each run replayed under its client's protocol.

    Parameters
    ----------
    logs
        files, folders or patterns: vllm bench serve, SGLang, guidellm, AIPerf, llmperf,
        inference-perf, InferenceMAX, llm-d, MLPerf LoadGen, tidy CSV, …
    options
        what the logs do not say
    calibration
        record written by `bestserve calibrate`
    goodput
        compare the share of requests within these objectives, too: ttft:1000 deadline:50
    joint
        count requests that meet all objectives together
    tolerance
        largest median error, in per cent: 20, or ttft:25 tpot:15; exit code 4 above it
    rows
        show every run instead of the groups
    intervals
        compute 90 % prediction intervals
    plot
        write parity plots to this .html, .png, .svg or .pdf
    jobs
        worker processes; default: one a core
    """
    from bestserve.specs.slo import SLO
    from bestserve.validation.compare import validate as compare
    from bestserve.validation.parity import checked_parity, draw_parity

    limits = read_tolerance(tolerance)
    if plot is not None:
        checked_parity(plot)
    with progress("replaying") as tell:
        answer = compare(
            *logs,
            calibration=calibration,
            with_intervals=intervals,
            jobs=jobs,
            progress=tell,
            slo=None if goodput is None else SLO(" ".join(goodput), joint=joint),
            **(options or StatedOptions()).stated(),
        )
    if format == "json":
        emit(answer, format)
    elif rows or len(answer.rows) == 1:
        emit_records(answer.row_records(), format, columns=columns_of(answer))
    elif answer.groups:
        emit_records(answer.records(), format, columns=COLUMNS)
    for warning in answer.warnings:
        talk(warning)
    talk(answer.explain())
    if plot is not None:
        talk(f"parity plots: {draw_parity(answer.rows, plot)}")
    return outside(answer, limits)


def columns_of(answer: Any) -> tuple[str, ...]:
    """Return the columns of a table of rows; those of objectives where some were given."""
    attained = next((row.attained for row in answer.rows if row.attained is not None), None)
    more = () if attained is None else tuple(attained.record())
    return (*ROW_COLUMNS[:-1], *more, ROW_COLUMNS[-1])


def read_tolerance(texts: list[str] | None) -> dict[str, float]:
    """Read "20", "20%", "ttft:25 tpot:15" as largest median errors by metric [1]."""
    out: dict[str, float] = {}
    for text in texts or []:
        for part in text.replace(",", " ").split():
            name, _, number = part.rpartition(":")
            names = METRICS if not name else (name.lower(),)
            try:
                value = float(number.removesuffix("%")) / 100
            except ValueError:
                value = -1.0
            if not (value > 0 and set(names) <= set(METRICS)):
                raise InputError(
                    f"tolerance {part[:40]!r} is not understood; write per cent, such as 20, "
                    "or ttft:25 tpot:15"
                )
            out.update(dict.fromkeys(names, value))
    return out


def outside(answer: Any, limits: dict[str, float]) -> int:
    """Return 3 if nothing was predicted at all; 4 if a median error exceeds its tolerance, or if
    none could be computed; else 0.
    """
    if not answer.predicted:
        return 3
    code = 0
    for metric, limit in limits.items():
        summary = answer.overall.get(metric)
        if summary is None:
            talk(f"{metric.upper()}: nothing predicted, so outside the tolerance")
            code = 4
        elif summary.median > limit:
            talk(f"{metric.upper()}: median error {summary.median:.1%} exceeds {100 * limit:.3g}%")
            code = 4
    return code
