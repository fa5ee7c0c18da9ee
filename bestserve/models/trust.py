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

DOUBTED = 0.056
"""Chance of an error above 5 % from which a goodput is doubted: one in 18. Chosen so that a fifth
of the good answers, at most, are simulated without need."""

Served = Literal["shared", "mixed", "priority", "disaggregated", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Trust:
    """Verdict on one analytic answer.

    `high` is true when no condition known to break the model holds; otherwise `reasons` names
    every condition that does, and the answer should be simulated.
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
        return Trust.of(*self.reasons, *other.reasons)


TRUSTED = Trust(True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What makes the models of one system more or less exact.

    served : how prompts share lanes with decodes; met : prompts that arrive during a mean decode;
    scv : squared CV of a prompt's time; large : share of whole prompts of random length above half
    the budget; fixed : whether all prompts are equally long
    """

    served: Served
    met: float = 5.0
    scv: float = 0.0
    large: float = 0.0
    fixed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How well a goodput can be told at its rate.

    elasticity : relative change of the rate per relative change of the threshold; spread : log of
    the quantiles 30 % of the tail above and below the percentile; tail : whether it is above 95 %;
    load : rate over saturated rate
    """

    elasticity: float
    spread: float
    tail: bool
    load: float


FIRST = {
    "one": -3.439,
    "wide": 0.481,
    "flat": 0.348,
    "large": 2.066,
    "tail": 0.282,
    "load": -0.502,
    "met": -0.208,
}
"""Log odds that a goodput which TTFT limits is off, per unit of each term."""

DECODE = {"one": -2.141, "wide": 1.264, "tail": 0.63}
"""Likewise where TPOT limits it and prompts run elsewhere."""

COLLOCATED = {
    "one": -3.636,
    "flat": 0.606,
    "met": -0.556,
    "scv": 2.494,
    "fixed": 0.399,
    "tail": 1.71,
    "large_mixed": 2.561,
    "large_priority": 1.566,
    "priority": -0.99,
}
"""Likewise where TPOT limits it on lanes that do both."""

CAUSES = {
    "wide": "latency hardly depends on the rate",
    "flat": "latency hardly depends on the rate",
    "large": "large whole prompts are packed coarsely",
    "large_mixed": "large whole prompts are packed coarsely",
    "large_priority": "large whole prompts are packed coarsely",
    "met": "few prompts decide TPOT",
    "scv": "few long prompts decide TPOT",
    "fixed": "equal prompts make TPOT a staircase",
    "tail": "few requests decide this percentile",
    "load": "the load is low, where single prompts decide",
}


def chance_off(
    objective: Literal["ttft", "tpot"], situation: Situation, sight: Sight
) -> tuple[float, str]:
    """Return the chance that a goodput is off by more than 5 %, and what contributes most to it."""
    s = situation
    width = sight.elasticity * (sight.spread + 0.02)
    large = min(s.large, 0.3) / 0.3
    terms = {
        "one": 1.0,
        "wide": math.log(min(max(width, 0.005), 2.0)),
        "flat": max(math.log(min(max(sight.elasticity, 0.01), 30.0) / 3.0), 0.0),
        "large": large,
        "large_mixed": large * (s.served == "mixed"),
        "large_priority": large * (s.served == "priority"),
        "priority": float(s.served == "priority"),
        "met": math.log(min(max(s.met, 0.05), 100.0)),
        "scv": math.log1p(s.scv),
        "fixed": float(s.fixed),
        "tail": float(sight.tail),
        "load": math.log(min(max(sight.load, 0.03), 1.0)),
    }
    odds = FIRST if objective == "ttft" else COLLOCATED
    if objective == "tpot" and s.served in ("disaggregated", "decode"):
        odds = DECODE
    # against a plain setting: rate and threshold move together, ten prompts a decode
    plain = {"wide": math.log(0.12), "met": math.log(10.0), "load": math.log(0.5)}
    shares = {name: w * (terms[name] - plain.get(name, 0.0)) for name, w in odds.items()}
    cause = max((n for n in odds if n in CAUSES), key=lambda n: shares[n])
    z = sum(w * terms[name] for name, w in odds.items())
    return 1.0 / (1.0 + math.exp(-z)), CAUSES[cause]
