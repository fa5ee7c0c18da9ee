"""Whether an analytic answer may be used as it stands.

Of a latency the conditions are plain: requests wait for slots, arrivals or routing are not what the
models assume, prompts or loads where they are known to be off. Of a goodput it is a measured
chance, `chance_off`: how often settings like this one were off by more than 5 % against the
simulator. Both rest on 1,920 random settings of `validation/agreement.py` with seeds below 1000;
the report's seeds are others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

HIGH_LOAD = 0.85
"""Share of the saturated rate above which decodes and waiting prompts move together."""

LARGE_PROMPTS = 0.2
"""Share of prompts above half the budget from which packing of whole prompts is too coarse."""

DOUBTED = 0.043
"""Chance of an error above 5 % from which a goodput is doubted: one in 23. Chosen so that a fifth
of the good answers, at most, are simulated without need."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether a number can be relied on, and what speaks against it.

    Of an analytic answer `high` is true when no condition known to break the model holds;
    otherwise `reasons` names every condition that does, and the answer should be simulated.
    High trust may come with reasons, too: what is not known, and contradicted by no measurement.
    """

    high: bool
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, *reasons: str | None) -> Trust:
        """Return high trust unless some reason is given; `None` and repeats drop out."""
        kept = tuple(dict.fromkeys(r for r in reasons if r))
        return cls(not kept, kept)

    def __and__(self, other: Trust) -> Trust:
        """Return the verdict on an answer that rests on both."""
        reasons = dict.fromkeys((*self.reasons, *other.reasons))
        return Trust(self.high and other.high, tuple(reasons))

    @property
    def level(self) -> str:
        """ "high" or "low"."""
        return "high" if self.high else "low"

    def __str__(self) -> str:
        if self.high and not self.reasons:
            return self.level
        return self.level + (", but " if self.high else ": ") + "; ".join(self.reasons)


TRUSTED = Trust(True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What makes the models of one system more or less exact.

    decodes_apart : whether decodes and prompts have lanes of their own; met : prompts that arrive
    during a mean decode; scv : squared CV of a prompt's time
    """

    decodes_apart: bool
    met: float = 5.0
    scv: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How well a goodput can be told at its rate.

    elasticity : relative change of the rate per relative change of the threshold; spread : log of
    the quantiles 30 % of the tail above and below the percentile; apart : relative difference of
    the two readings of TPOT there (`TpotLaw`); tail : whether it is above 95 %
    """

    elasticity: float
    spread: float
    apart: float
    tail: bool


FIRST = {"one": -3.264, "wide": 1.84, "tail": 2.397}
"""Log odds that a goodput which TTFT limits is off, per unit of each term."""

DECODE = {"one": -1.578, "wide": 2.233}
"""Likewise where TPOT limits it and prompts run elsewhere."""

COLLOCATED = {"one": -1.916, "apart": 0.389, "tail": 1.624, "many": -2.657, "scv": 2.061}
"""Likewise where TPOT limits it on lanes that do both."""

FEW = 4.0
"""Prompts that arrive during a mean decode, below which there are few."""

CAUSES = {
    "wide": "latency hardly depends on the rate",
    "apart": "single stalls and smooth laws of TPOT differ",
    "many": "few prompts decide TPOT",
    "scv": "few long prompts decide TPOT",
    "tail": "few requests decide this percentile",
}


def chance_off(
    objective: Literal["ttft", "tpot"], situation: Situation, sight: Sight
) -> tuple[float, str]:
    """Return the chance that a goodput is off by more than 5 %, and what contributes most to it."""
    s = situation
    width = sight.elasticity * (sight.spread + 0.02)
    terms = {
        "one": 1.0,
        "wide": math.log(min(max(width, 0.005), 2.0)),
        "apart": math.log(min(sight.elasticity * sight.apart, 0.5) + 0.003),
        "tail": float(sight.tail),
        "many": math.log(min(max(s.met / FEW, 1.0), 25.0)),
        "scv": math.log1p(s.scv),
    }
    odds = FIRST if objective == "ttft" else COLLOCATED
    if objective == "tpot" and s.decodes_apart:
        odds = DECODE
    # against a plain setting: rate and threshold move together, ten prompts a decode
    plain = {"wide": math.log(0.12), "apart": math.log(0.008), "many": math.log(10.0 / FEW)}
    shares = {name: w * (terms[name] - plain.get(name, 0.0)) for name, w in odds.items()}
    cause = max((n for n in odds if n in CAUSES), key=lambda n: shares[n])
    z = sum(w * terms[name] for name, w in odds.items())
    return 1.0 / (1.0 + math.exp(-z)), CAUSES[cause]
