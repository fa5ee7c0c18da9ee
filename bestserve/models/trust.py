"""Whether an analytic answer may be used as it stands: a measured chance that it is off.

`chance_off` says how often answers like one were off by more than 5 % against the simulator, from
what makes a system hard for the formulas (`Situation`) and how well the answer can be told there
(`Sight`). It is fitted to random questions over the whole catalogue (`validation/trust.py`); those
of `validation/agreement.md` are others. Beside it stand conditions under which no law holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

DOUBTED = 0.12
"""Chance of an error above 5 % from which an answer is doubted. Of what was off in the fit, 97 % of
the goodputs lie above or where no law is known to hold, of the good ones 46 %. Of TPOT at a rate,
where a law is: 95 % of what was off and 23 % of the good ones, in questions left out."""

Limits = Literal["ttft", "tpot", "tpot at a rate"]
"""What an answer rests on: of a goodput what limits it, else a latency at a rate."""

SHORT = 24.0
"""Decode steps of an answer that counts as short: single stalls decide its TPOT."""

QUEUED = 0.3
"""Part of a mean latency in waits for a slot from which latencies at a rate are doubted: of 265
random questions 2 of 7 that were off and not doubted otherwise, and 4 of 126 good ones. Goodputs
are no worse for it."""

BENT = 0.03
"""Bend of step times from which a goodput that TPOT decides is doubted: mixtures of experts of
which few sequences run. Of those questions 3 of 9 that were off, and 1 of 140 good ones."""

SHARP = 0.04
"""Width of a goodput that follows its threshold one to one: 2 % to either side (`Sight`)."""

ODDS: dict[Limits, dict[str, float]] = {
    "ttft": {
        "one": -4.99,
        "wide": 0.91,
        "load": 1.12,
        "experts": 1.3,
    },
    "tpot": {
        "one": -4.07,
        "readings": 0.77,
        "apart": 1.85,
        "experts": 1.43,
        "spread": 0.52,
    },
    "tpot at a rate": {
        "one": -3.69,
        "readings": 0.3,
        "spread": 1.2,
        "short": 0.78,
        "chunks": 0.59,
    },
}
"""Log odds that an answer is off, per unit of each term, by what limits it."""


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
    """What makes the formulas of one system at one rate more or less exact.

    decodes_apart : whether decodes and prompts have lanes of their own; experts : whether the model
    is a mixture of them; load : share of the stability limit; spread : squared CV of prompts;
    steps : mean decode steps of an answer; chunks : token budgets in a mean prompt; queued : part
    of mean latency that is a wait for a slot (of TTFT, or of the decode where that has lanes of its
    own); bend : of step times over the sequences that decodes meet (`queues.tpot.noise`)
    """

    decodes_apart: bool
    experts: bool = False
    load: float = 0.0
    spread: float = 0.0
    steps: float = math.inf
    chunks: float = 0.0
    queued: float = 0.0
    bend: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How well an answer can be told.

    width : logarithm of the rates at which a goodput would stand with latencies off by a little
    (`Goodput.high` over `low`); that of latencies at a rate is `SHARP`
    discrepancy : relative difference of the two readings of TPOT (`TpotLaw`) at the percentile
    """

    width: float = SHARP
    discrepancy: float = 0.0


def terms(situation: Situation, sight: Sight) -> dict[str, float]:
    """Return what the odds are linear in; 0 where nothing speaks against an answer."""
    s = situation
    shared = 0.0 if s.decodes_apart else 1.0
    return {
        "one": 1.0,
        "apart": 1.0 - shared,
        "wide": math.log(min(max(sight.width / SHARP, 0.5), 50.0)),
        "load": -math.log(max(1.0 - s.load, 0.03)),
        "experts": float(s.experts) * shared,
        "spread": math.log1p(s.spread),
        "readings": math.log1p(min(sight.discrepancy, 1.0) / 0.005),
        "short": math.log1p(SHORT / max(s.steps, 1.0)),
        "chunks": math.log1p(s.chunks),
    }


CAUSES = {
    "wide": "latency hardly depends on the rate",
    "load": "the load is close to saturation",
    "experts": "prompts share steps with a mixture of experts",
    "spread": "few long prompts decide",
    "readings": "single stalls and smooth laws of TPOT differ",
    "short": "answers are short",
    "chunks": "prompts take many steps",
}


def chance_off(objective: Limits, situation: Situation, sight: Sight) -> tuple[float, str]:
    """Return the chance that an answer is off by more than 5 %, and what contributes most to it."""
    odds, found = ODDS[objective], terms(situation, sight)
    shares = {name: weight * found[name] for name, weight in odds.items()}
    cause = max((name for name in odds if name in CAUSES), key=lambda name: shares[name])
    return 1.0 / (1.0 + math.exp(-sum(shares.values()))), CAUSES[cause]


def doubt(objective: Limits, situation: Situation, sight: Sight) -> str | None:
    """Return why an answer is doubted, or None where it is off too rarely for that."""
    if objective == "tpot" and situation.bend > BENT:
        return "steps grow unevenly with the sequences that run"
    chance, cause = chance_off(objective, situation, sight)
    if chance <= DOUBTED:
        return None
    return f"one in {1 / chance:.0f} answers like this is off by more than 5 %: {cause}"
