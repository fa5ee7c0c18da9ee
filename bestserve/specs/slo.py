"""Latency objectives, read as vLLM writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from bestserve.errors import InputError
from bestserve.models.system import Target
from bestserve.specs.base import Spec
from bestserve.units import PositiveSeconds, parse_duration

LEAST = 1e-3
"""Objectives below it without a unit are taken for seconds written by mistake [s]."""

MOST = {"ttft": 100.0, "tpot": 5.0, "e2el": 1000.0}
"""Numbers in a table from which on they are taken for milliseconds written by mistake [s]."""

LONGEST = 400
"""Characters of objectives as text."""

METRICS = ("ttft", "tpot", "e2el")
_ITEM = re.compile(r"([a-z0-9]+)\s*[:=]\s*([^@\s]+)(?:@p?([0-9]+(?:\.[0-9]*)?))?", re.IGNORECASE)


class SLO(Spec):
    """Objectives on TTFT, TPOT and E2EL [s] with the share of requests that must meet them.

    Marginal (default, the paper's sense): each named latency's own percentile must meet its
    threshold. Joint (DistServe's and vLLM's sense): `attainment` of the requests must meet all
    of them at once.

    >>> SLO("ttft:1000 tpot:50", percentile=90).ttft
    1.0
    >>> str(SLO("ttft:0.5s@p99 tpot:50"))
    'P99 TTFT ≤ 500 ms, P90 TPOT ≤ 50 ms'
    """

    ttft: PositiveSeconds | None = None
    tpot: PositiveSeconds | None = None
    e2el: PositiveSeconds | None = None
    percentile: float = Field(default=90.0, gt=0, lt=100)
    ttft_percentile: float | None = Field(default=None, gt=0, lt=100)
    tpot_percentile: float | None = Field(default=None, gt=0, lt=100)
    e2el_percentile: float | None = Field(default=None, gt=0, lt=100)
    joint: bool = False
    attainment: float = Field(default=0.9, gt=0, lt=1)

    def __init__(self, text: str | None = None, /, **values: Any) -> None:
        super().__init__(**{**(parse_slo(text) if text is not None else {}), **values})

    @field_validator("ttft", "tpot", "e2el", mode="before")
    @classmethod
    def _with_unit(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.strip()[-1:] in ("", *"0123456789."):
            raise ValueError("names no unit; write it like 500ms, or a number of seconds")
        return parse_duration(value)

    @model_validator(mode="after")
    def _something(self) -> SLO:
        if self.ttft is None and self.tpot is None and self.e2el is None:
            raise ValueError("no objective given; write for example ttft:500 tpot:50 (ms)")
        return self

    def percentile_of(self, metric: str) -> float:
        """Return the percentile of a metric [%]."""
        own: float | None = getattr(self, f"{metric}_percentile")
        return self.percentile if own is None else own

    def target(self) -> Target:
        """Return the objectives as the models take them."""
        return Target(
            ttft=self.ttft,
            tpot=self.tpot,
            e2el=self.e2el,
            ttft_percentile=self.percentile_of("ttft") / 100,
            tpot_percentile=self.percentile_of("tpot") / 100,
            e2el_percentile=self.percentile_of("e2el") / 100,
            joint=self.joint,
            attainment=self.attainment,
        )

    def __str__(self) -> str:
        wanted = [m for m in METRICS if getattr(self, m) is not None]
        if self.joint:
            inner = ", ".join(f"{m.upper()} ≤ {getattr(self, m) * 1e3:.6g} ms" for m in wanted)
            return f"{self.attainment:.4g} of requests with {inner}"
        return ", ".join(
            f"P{self.percentile_of(m):.6g} {m.upper()} ≤ {getattr(self, m) * 1e3:.6g} ms"
            for m in wanted
        )


def checked_table(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return objectives as a file's table has them: numbers in seconds, or text with its unit.

    Raises InputError for numbers so large that they can only be milliseconds.
    """
    for metric, most in MOST.items():
        value = values.get(metric)
        if isinstance(value, int | float) and value >= most:
            given = f"{min(value, 1e300):g}"
            raise InputError(
                f'objective {metric} = {given} would be seconds; write {metric} = "{given}ms" '
                f'if you mean milliseconds, "{given}s" if not'
            )
    return dict(values)


def parse_slo(text: str) -> dict[str, float]:
    """Read "ttft:500 tpot:50" (ms), with units ("ttft:0.5s") and percentiles ("ttft:500@p99")."""
    if len(text) > LONGEST:
        raise InputError(f"objectives of more than {LONGEST} characters; write ttft:500 tpot:50")
    values: dict[str, float] = {}
    for part in re.sub(r"\s*([:=])\s*", r"\1", text.replace(",", " ")).split():
        match = _ITEM.fullmatch(part)
        metric = match.group(1).lower() if match else ""
        if match is None or metric not in METRICS:
            raise InputError(
                f"objective {part[:60]!r} is not understood; write ttft:500 tpot:50 e2el:30s "
                "(ms unless a unit is given)"
            )
        if metric in values:
            raise InputError(f"objective {metric} is given twice in {text[:80]!r}")
        values[metric] = parse_duration(match.group(2))
        if values[metric] < LEAST and match.group(2)[-1] in "0123456789.":
            raise InputError(
                f"objective {part[:60]!r} is below a millisecond; write {part[:60]}s if you mean "
                f"seconds, {part[:60]}ms if not"
            )
        if match.group(3):
            values[f"{metric}_percentile"] = float(match.group(3))
    return values
