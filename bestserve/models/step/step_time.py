"""Time of one engine step as a function of the work in it.

    t = a_step + a_seq·n + φ·( [w³ + (cT)³]^(1/3) + eT + m(T) + aA + kK )

with T tokens in the step (prompt chunks plus one per decode), A prefill attention pairs,
K tokens of decode context read and n sequences that take part. φ applies only to steps that
contain prompt tokens. Derived from the operator list in `models/derive_step_time.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bestserve.arrays import Floats

KNOTS_PER_OCTAVE = 2
"""MoE table resolution: knot i holds m(T) at T = 2^(i / KNOTS_PER_OCTAVE)."""

MAX_STEP_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class StepTime:
    """Coefficients of the step time of one engine instance (one pipeline lane).

    Parameters
    ----------
    w : weight bytes read in a step, whatever its size [s]
    c : compute per token, in the p-norm with `w` [s/token]
    e : elementwise work and collectives per token [s/token]
    a : prefill attention per (query, key) pair [s/token²]
    k : reading one token of decode context from the KV cache [s/token]
    a_step : host time per step that no kernel hides, and kernel launches, which add to everything
        else (mixtures of experts carry those in `moe`) [s]
    a_seq : host time per sequence in the step [s/sequence]
    phi : factor on the device time of steps with prompt tokens, ≥ 1 [1]
    moe : m(T) at T = 2^(i/2), i = 0, 1, …: routed experts; empty for dense models [s]

    All are finite and ≥ 0; `w + c > 0`. `ValueError` otherwise.

    >>> StepTime(w=6e-3, c=26e-6, e=0, a=.35e-9, k=49e-9)(T=1, A=0, K=1000)
    0.0060490...
    """

    w: float
    c: float
    e: float
    a: float
    k: float
    a_step: float = 0.0
    a_seq: float = 0.0
    phi: float = 1.0
    moe: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, value in zip(COEFFICIENTS, self.coefficients(), strict=True):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"step time coefficient {name} = {value} must be finite and ≥ 0")
        if self.w + self.c <= 0:
            raise ValueError("step time needs w + c > 0: a step cannot take no time")
        if self.phi < 1:
            raise ValueError(f"phi = {self.phi} must be ≥ 1")
        if any(not (math.isfinite(m) and m >= 0) for m in self.moe):
            raise ValueError("MoE table values must be finite and ≥ 0")

    def coefficients(self) -> Floats:
        """Return (w, c, e, a, k, a_step, a_seq, phi) [8] for compiled loops."""
        return np.array([getattr(self, name) for name in COEFFICIENTS], dtype=np.float64)

    def moe_table(self) -> Floats:
        """Return m at the knots [len(moe)], empty for dense models [s]."""
        return np.array(self.moe, dtype=np.float64)

    def token_time(self, T: ArrayLike) -> Floats:
        """Return the part that depends on the token count alone, without φ and host time [s]."""
        tokens = np.asarray(T, dtype=np.float64)
        dense = np.cbrt(self.w**3 + (self.c * tokens) ** 3) + self.e * tokens
        return dense + moe_time(tokens, self.moe_table()) if self.moe else dense

    def __call__(
        self, T: ArrayLike, A: ArrayLike, K: ArrayLike, n: ArrayLike = 0.0, prefill: Any = None
    ) -> Any:
        """Return the step time [s]; arguments broadcast.

        `prefill` says whether the step contains prompt tokens (default: A > 0).
        """
        pairs = np.asarray(A, dtype=np.float64)
        has_prefill = pairs > 0 if prefill is None else np.asarray(prefill)
        device = self.token_time(T) + self.a * pairs + self.k * np.asarray(K, dtype=np.float64)
        total = (
            self.a_step
            + self.a_seq * np.asarray(n, dtype=np.float64)
            + np.where(has_prefill, self.phi, 1.0) * device
        )
        return float(total) if np.ndim(total) == 0 else total


COEFFICIENTS = tuple(f.name for f in fields(StepTime) if f.name != "moe")


def moe_time(tokens: Floats, table: Floats) -> Floats:
    """Interpolate the MoE table linearly in T between knots, proportionally beyond the last [s]."""
    knots = 2.0 ** (np.arange(table.size) / KNOTS_PER_OCTAVE)
    inside = np.interp(tokens, knots, table)
    return np.where(tokens > knots[-1], table[-1] * tokens / knots[-1], inside)
