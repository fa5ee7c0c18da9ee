"""Forecasts of the rate, their errors, and what a better one is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.fleet.schedule.accounts import carries, gpu_hours
from bestserve.fleet.schedule.terms import Terms

QUANTILE = 0.9
"""A forecast is raised so that it would have been enough in this share of the past windows [1]."""

FEWEST = 10
"""Past windows from which an error is told."""

SHARE = 0.999
"""Share of the requests within capacity at which forecasts are compared [1]."""


MARGINS = (0.1, 4.0)
"""Factors on a forecast's rates that are looked at [1]."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a rule expects of the last windows of a history.

    rates [stream, window; req/s], without margin; errors : |expected/actual − 1| of all windows of
    the history that it could forecast; margin : the QUANTILE of actual/expected before the horizon,
    at least 1; late : it is known when a window begins, not a day before
    """

    name: str
    rates: Floats
    errors: Floats
    margin: float
    late: bool

    @property
    def raised(self) -> Floats:
        """The rates to plan for [stream, window; req/s]."""
        return self.rates * self.margin


def last_window(rates: Floats, day: int) -> Floats:
    """Return the rate of the window before [window; req/s]; the first expects itself."""
    return np.concatenate([rates[:1], rates[:-1]])


def day_before(rates: Floats, day: int) -> Floats:
    """Return the rate of a day before [window; req/s], NaN on the first day."""
    return np.concatenate([np.full(min(day, rates.size), np.nan), rates[:-day]])


def seasonal(rates: Floats, day: int) -> Floats:
    """Return λ̂(w) = λ(w − day)·λ(w − 1)/λ(w − 1 − day) [window; req/s], NaN where it is unknown.

    The day before, at today's level.

    >>> seasonal(np.array([2.0, 4.0, 1.0, 2.0]), 2)
    array([nan, nan, nan, 2.])
    """
    old, level, before = (np.roll(rates, k) for k in (day, 1, day + 1))
    known = (np.arange(rates.size) > day) & (before > 0)
    return np.divide(old * level, before, out=np.full(rates.size, np.nan), where=known)


RULES: dict[str, tuple[Callable[[Floats, int], Floats], bool]] = {
    "the window before": (last_window, True),
    "the day before": (day_before, False),
    "the day before at today's level": (seasonal, True),
}
"""Rules, and whether they need the window before."""


def forecasts(history: Floats, day: int, horizon: int) -> tuple[Forecast, ...]:
    """Return the rules that can forecast all of the last `horizon` windows of a history.

    history : rates [stream, window; req/s]; day : windows of a day
    """
    found = []
    for name, (rule, late) in RULES.items():
        expected = np.array([rule(row, day) for row in history])
        if np.isnan(expected[:, -horizon:]).any():
            continue
        ahead = history.shape[1] - horizon
        found.append(
            Forecast(
                name,
                expected[:, -horizon:],
                _errors(history, expected),
                _margin(history[:, :ahead], expected[:, :ahead]),
                late,
            )
        )
    return tuple(found)


def _errors(actual: Floats, expected: Floats) -> Floats:
    known = np.isfinite(expected) & (actual > 0)
    known[:, 0] = False
    errors: Floats = np.abs(expected[known] / actual[known] - 1.0)
    return errors


def _margin(actual: Floats, expected: Floats) -> float:
    """Return the QUANTILE of actual over expected, weighted by what was asked for; at least 1."""
    known = np.isfinite(expected) & (np.nan_to_num(expected) > 0)
    if known.any():
        known[:, 0] = False
    if known.sum() < FEWEST:
        return 1.0
    return max(float(np.quantile(actual[known] / expected[known], QUANTILE)), 1.0)


@dataclass(frozen=True, slots=True)
class ForecastValue:
    """What a forecast costs where its margin makes it carry SHARE of the requests.

    median, p90 : of its relative errors [1]; margin : that makes it so, None if no MARGINS does
    gpu_hours : then; saved : share of them that knowing the load would save [1]
    """

    name: str
    median: float
    p90: float
    margin: float | None
    gpu_hours: float | None
    saved: float | None


Sizing = Callable[[Floats], Ints]
"""Counts [pool, window] for rates [stream, window; req/s]."""


def worth(terms: Terms, found: tuple[Forecast, ...], size: Sizing) -> tuple[ForecastValue, ...]:
    """Return what each forecast costs at the share of requests that it has to carry.

    Knowing the load has to carry the same share, planned ahead; headroom is the margin here.
    """
    terms = replace(terms, headroom=0.0)
    least = _least_margin(terms, terms.rates, 0.0, size)
    known = gpu_hours(terms, size(terms.rates * (1.0 if least is None else least)))
    values = []
    for forecast in found:
        wait = terms.times.start if forecast.late else 0.0
        margin = _least_margin(terms, forecast.rates, wait, size)
        hours = None if margin is None else gpu_hours(terms, size(forecast.rates * margin))
        values.append(
            ForecastValue(
                name=forecast.name,
                median=_quantile(forecast.errors, 0.5),
                p90=_quantile(forecast.errors, 0.9),
                margin=margin,
                gpu_hours=hours,
                saved=None if hours is None else 1.0 - known / hours,
            )
        )
    return tuple(values)


def _quantile(errors: Floats, q: float) -> float:
    return float(np.quantile(errors, q)) if errors.size else 0.0


def _least_margin(terms: Terms, rates: Floats, wait: float, size: Sizing) -> float | None:
    """Return the least margin, to 1 %, at which SHARE of the requests is carried."""

    def enough(margin: float) -> bool:
        return carries(terms, size(rates * margin), wait).share >= SHARE

    low, high = MARGINS
    if not enough(high):
        return None
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
