"""Objectives on the times of single tokens, and which requests of a run meet them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bestserve.arrays import Bools, Floats
from bestserve.models.token_times import Reader

TokenObjective = Literal["deadline", "stall", "fluidity", "itl"]

TOKEN_OBJECTIVES: tuple[TokenObjective, ...] = ("deadline", "stall", "fluidity", "itl")

EVERY = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTarget:
    """What is asked of token times; `None`: not asked for. `models.token_times` has definitions.

    pace : time per token of the reader [s]
    first : when the first token is due, from arrival [s]; None: when it comes
    slack : lateness that token deadlines allow; None: no deadlines are asked for [s]
    stall : time that a reader may wait in all after the first token [s]
    fluidity : least fluidity index [1]
    itl : longest gap between messages [s]
    deadline_share, stall_share, fluidity_share : of the requests that must meet each [1]
    itl_share : of all gaps that must be within `itl` [1]
    own_gaps : share of its own gaps that a request needs within `itl` to count as meeting it [1]
    """

    pace: float = 0.0
    first: float | None = None
    slack: float | None = None
    stall: float | None = None
    fluidity: float | None = None
    itl: float | None = None
    deadline_share: float = 0.9
    stall_share: float = 0.9
    fluidity_share: float = 0.9
    itl_share: float = 0.9
    own_gaps: float = EVERY

    @property
    def asked(self) -> tuple[TokenObjective, ...]:
        """Names of what is asked for."""
        thresholds = (self.slack, self.stall, self.fluidity, self.itl)
        return tuple(
            name
            for name, limit in zip(TOKEN_OBJECTIVES, thresholds, strict=True)
            if limit is not None
        )

    def required(self, name: str) -> float:
        """Return the share of requests, or gaps, that must meet an objective [1]."""
        share: float = getattr(self, f"{name}_share")
        return share

    def only(self, name: str) -> TokenTarget | None:
        """Return the target without its other objectives; None if nothing is left."""
        if name not in self.asked:
            return None
        return replace(
            self,
            slack=self.slack if name == "deadline" else None,
            stall=self.stall if name == "stall" else None,
            fluidity=self.fluidity if name == "fluidity" else None,
            itl=self.itl if name == "itl" else None,
        )

    @property
    def whole(self) -> bool:
        """Whether prefill and decode answer together: deadlines count from arrival."""
        return self.slack is not None or self.fluidity is not None

    def scaled(self, factor: float) -> TokenTarget:
        """Return the target with all its times times a factor."""
        first, slack, stall, itl = (
            None if value is None else factor * value
            for value in (self.first, self.slack, self.stall, self.itl)
        )
        return replace(
            self, pace=factor * self.pace, first=first, slack=slack, stall=stall, itl=itl
        )

    @property
    def without_formula(self) -> tuple[TokenObjective, ...]:
        """What no formula tells: only deadlines from arrival follow from the joint law."""
        return tuple(name for name in self.asked if name != "deadline")

    @property
    def doubt(self) -> str | None:
        """What is known of the formula for deadlines, in a sentence; None: none are asked for."""
        if self.slack is None:
            return None
        return "the formula for token deadlines comes out 3 % low to 12 % high against runs"

    @property
    def reader(self) -> Reader:
        """Whose deadlines runs must watch."""
        limit = np.inf if self.itl is None else self.itl
        return Reader(pace=self.pace, first=self.first, limit=float(limit))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What requests met token by token, in a run or in a log [n].

    latest : max (t_i − pace · i) from arrival [s]; stall : wait after the first message [s];
    fluidity : index [1]; gaps, long_gaps : between messages, and those above the limit
    Infinite, or 0 for fluidity, where a request was refused.
    """

    latest: Floats
    stall: Floats
    fluidity: Floats
    gaps: Floats
    long_gaps: Floats

    def meeting(self, target: TokenTarget) -> dict[str, Bools]:
        """Return which requests meet each objective asked for [n]."""
        served = np.isfinite(self.latest)
        met: dict[str, Bools] = {}
        if target.slack is not None:
            met["deadline"] = self.latest - (target.first or 0.0) <= target.slack
        if target.stall is not None:
            met["stall"] = served & (self.stall <= target.stall)
        if target.fluidity is not None:
            met["fluidity"] = self.fluidity >= target.fluidity
        if target.itl is not None:
            met["itl"] = served & (self.long_gaps <= (1.0 - target.own_gaps) * self.gaps)
        return met

    def gaps_within(self) -> Floats:
        """Return weights whose mean is the share of all gaps within the limit [n].

        Refused requests meet nothing: the share of them is taken off.
        """
        served = np.isfinite(self.latest)
        total = float(self.gaps[served].sum())
        if total == 0:
            return served.astype(np.float64)
        within = np.where(served, self.gaps - self.long_gaps, 0.0)
        return np.asarray(within * (served.sum() / total))
