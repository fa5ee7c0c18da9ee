"""What drafting does for a strategy, as a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Speculated:
    """Drafting of the pool that decodes, at its mean number of running sequences.

    schedule : (decodes from which, drafts per decode); drafts : at the mean number of them
    tokens_per_step : that a decode gains, over all steps [tokens]
    token_time, plain_token_time : of decode steps alone, with and without drafts, with as many
        sequences [s]
    pays_until : decodes of a lane up to which drafts make tokens faster; slots : it has at most
    acceptance : chance of the first, second, … draft if all before it are accepted [1];
        acceptance_kind : stated, measured or assumed; bounds : of an assumed one [1]
    """

    schedule: tuple[tuple[int, int], ...]
    drafts: int
    tokens_per_step: float
    token_time: float
    plain_token_time: float
    pays_until: int
    slots: int
    acceptance: tuple[float, ...]
    acceptance_kind: str
    bounds: tuple[float, float] | None

    @property
    def speedup(self) -> float:
        """Time of a token without drafts over that with them, with as many sequences [1]."""
        return self.plain_token_time / self.token_time

    def explain(self) -> str:
        """Return it in one line."""
        chances = ", ".join(f"{a:g}" for a in self.acceptance)
        between = "" if self.bounds is None else f", {self.bounds[0]:g} to {self.bounds[1]:g}"
        said = (
            f"{self.drafts} drafts per decode, acceptance {chances} ({self.acceptance_kind}"
            f"{between}): {self.tokens_per_step:.2f} tokens a step, a token every "
            f"{self.token_time * 1e3:.3g} ms, {self.plain_token_time * 1e3:.3g} without"
        )
        if len(self.schedule) > 1:
            said += f"; by decodes in the step: {_rows(self.schedule)}"
        if self.pays_until >= self.slots:
            return f"{said}; faster at any number of sequences"
        if self.pays_until == 0:
            return f"{said}; slower at any number of sequences: take -spec0"
        return f"{said}; slower from {self.pays_until + 1} sequences a lane on"


@dataclass(frozen=True, slots=True)
class DraftChoice:
    """Why a strategy drafts as many tokens as it does, by the formulas.

    drafts : its own, a number or "table"; told : what they do at its goodput, of one without drafts
        what the usual number would do there, with `batch` decodes a lane
    carried : goodput over its own with other numbers of drafts and otherwise the same [1]
    costs_from : rate from which requests take longer with drafts than without, 0 at any, infinite
        at none that it sustains without [req/s]; running : decodes of a lane there
    limits : saturated rates with and without drafts [req/s]
    """

    drafts: int | str
    told: Speculated
    batch: float
    carried: Mapping[int, float]
    costs_from: float
    running: float
    limits: tuple[float, float]

    def explain(self) -> str:
        """Return the reason in two sentences."""
        told = self.told
        others = ", ".join(
            f"{drafts or 'none'}: {_more(share)}" for drafts, share in self.carried.items()
        )
        if self.drafts == 0:
            head = f"It drafts nothing; the same carries, with {others}"
        else:
            own = (
                f"as many as suit the decodes in the step ({_rows(told.schedule)})"
                if self.drafts == "table"
                else f"{told.drafts} {'tokens' if told.drafts > 1 else 'token'} per decode"
            )
            head = f"It drafts {own}: {self._gain()}"
            head += f"; the same carries, with {others}" if others else ""
        return f"{head}. {self._until()}."

    def _gain(self) -> str:
        told = self.told
        faster = "as fast" if told.speedup >= 1 else "the speed"
        return (
            f"with {self.batch:.0f} decodes a lane {told.tokens_per_step:.2f} tokens a step make a "
            f"token take {told.token_time * 1e3:.3g} ms, {told.plain_token_time * 1e3:.3g} without "
            f"({told.speedup:.2f} times {faster})"
        )

    def _until(self) -> str:
        drafts = "The table's drafts" if self.drafts == "table" else _count(self.told.drafts)
        if self.costs_from == 0:
            return f"{drafts} cost time at any load"
        mine, plain = self.limits
        if self.costs_from == math.inf:
            return (
                f"{drafts} save time at any load that it sustains without ({plain:.3g} req/s; "
                f"{mine:.3g} with them)"
            )
        return (
            f"{drafts} save time up to {self.costs_from:.3g} req/s ({self.running:.0f} decodes a "
            f"lane) and cost it beyond; it saturates at {mine:.3g} req/s with them, {plain:.3g} "
            "without"
        )


def _rows(schedule: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"{drafts} from {start}" for start, drafts in schedule)


def _count(drafts: int) -> str:
    return f"{drafts} draft{'s' if drafts > 1 else ''}"


def _more(share: float) -> str:
    percent = round(100 * (share - 1))
    return f"{abs(percent)}% {'more' if percent > 0 else 'less'}" if percent else "as much"
