"""Moments of the M/G/1 busy period (Takács): the stall that a decode meets behind prompts.

    B1 = S1/(1−σ),  B2 = S2/(1−σ)³,  B3 = S3/(1−σ)⁴ + 3λ S2²/(1−σ)⁵,  σ = λ S1

and of the number N served in it: E N = 1/(1−σ), Var N = (σ(1−σ) + λ² S2)/(1−σ)³.
Derived in `models/derive_busy_period.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BusyPeriod:
    """Raw moments of its length [s, s², s³] and clumping of the customers served in it.

    others : mean number of others served in the same busy period as a given customer
    """

    first: float
    second: float
    third: float
    others: float


def busy_period(
    rate: float, s1: float, s2: float, s3: float, stretch: float | None = None
) -> BusyPeriod:
    """Return the moments for service moments s1 [s], s2 [s²], s3 [s³] at `rate` [1/s].

    `stretch` replaces 1/(1 − rate·s1), for busy periods cut off after finitely many generations.

    >>> busy_period(0.5, 1.0, 1.0, 1.0).first
    2.0
    """
    load = rate * s1
    g = 1.0 / (1.0 - load) if stretch is None else stretch
    variance = (load * (1 - load) + rate**2 * s2) * g**3
    return BusyPeriod(
        first=s1 * g,
        second=s2 * g**3,
        third=s3 * g**4 + 3 * rate * s2**2 * g**5,
        others=(variance + g * g) / g - 1.0,
    )
