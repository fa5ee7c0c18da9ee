"""Speculative decoding of a lane: how many tokens are drafted, accepted, and what drafting takes.

A step with n decodes, γ drafts each, and x prompt tokens verifies (γ + 1)n tokens beside the x and
adds the drafter's time (Leviathan et al. 2023, arXiv:2211.17192; Li et al. 2025, arXiv:2503.01840)

    step + γ·(pass + token·n + context·K) + token·(x + γn)

A sequence reads its context once, however many of its tokens are verified. γ may depend on n
(vLLM's `num_speculative_tokens_per_batch_size`; Liu et al. 2024, arXiv:2406.14066).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from bestserve.arrays import Floats, Ints
from bestserve.models.acceptance import PLAIN, Drafting
from bestserve.models.step.step_time import StepTime, moe_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """What a lane drafts. The default is none.

    schedule : (decodes from which, drafts per decode), ascending, the first from 1 on
    acceptance : chance that the first, second, … draft is accepted if all before it are; as many
        as are ever drafted [1]
    spread : coefficient of variation, between requests, of steps per token [1]
    spread_at : with how many drafts; 0: as many as `acceptance` has chances
    draft_step : of each step with drafts, whatever their number: rejection sampling [s]
    draft_pass, draft_token, draft_context : of the drafter, per pass, per token that it processes
        and per context token that it reads [s]
    experts : with 0, 1, … drafts, the table m(T) of `StepTime` as T verified tokens have it: those
        of one sequence share experts; empty for dense models [s]

    >>> Speculation(schedule=((1, 3), (65, 1)), acceptance=(0.7, 0.7, 0.7)).drafts([1, 64, 65])
    array([3, 3, 1])
    """

    schedule: tuple[tuple[int, int], ...] = ((1, 0),)
    acceptance: tuple[float, ...] = ()
    spread: float = 0.0
    spread_at: int = 0
    draft_step: float = 0.0
    draft_pass: float = 0.0
    draft_token: float = 0.0
    draft_context: float = 0.0
    experts: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.schedule]
        if not starts or starts[0] != 1 or starts != sorted(set(starts)):
            raise ValueError("schedule: numbers of decodes must ascend from 1")
        if any(drafts < 0 for _, drafts in self.schedule):
            raise ValueError("schedule: drafts must be ≥ 0")
        if len(self.acceptance) < self.most:
            raise ValueError(f"acceptance: {self.most} drafts need as many chances")
        if not all(0 <= chance <= 1 for chance in self.acceptance):
            raise ValueError("acceptance must be in 0 … 1")

    @property
    def most(self) -> int:
        """Drafts per decode at most [tokens]."""
        return max(drafts for _, drafts in self.schedule)

    def drafts(self, decodes: ArrayLike) -> Ints:
        """Return γ with so many decodes in the step, real numbers rounded [tokens]."""
        count = np.rint(np.asarray(decodes, dtype=np.float64))
        starts = np.array([start for start, _ in self.schedule])
        each = np.array([drafts for _, drafts in self.schedule], dtype=np.int64)
        return each[np.maximum(np.searchsorted(starts, count, side="right") - 1, 0)]

    def drafts_beside(self, decodes: float) -> int:
        """Return `drafts` with one number of decodes [tokens].

        >>> Speculation(schedule=((1, 3), (65, 1)), acceptance=(0.7, 0.7, 0.7)).drafts_beside(65)
        1
        """
        count = round(decodes)
        return next(
            (n for start, n in reversed(self.schedule) if start <= count), self.schedule[0][1]
        )

    def fixed(self, drafts: int) -> Speculation:
        """Return the same with one number of drafts whatever the number of decodes."""
        return replace(self, schedule=((1, drafts),))

    def law(self, decodes: float) -> Drafting:
        """Return what decides how many tokens steps yield, with so many decodes."""
        drafts = self.drafts_beside(decodes)
        at = self.spread_at or len(self.acceptance)
        return Drafting(self.acceptance, self.spread, at, drafts) if drafts else PLAIN

    def draft_time(self, decodes: ArrayLike) -> Floats:
        """Return what the drafter takes beside `decodes`, contexts apart [s]."""
        n, drafts = np.asarray(decodes, dtype=np.float64), self.drafts(decodes)
        each = self.draft_pass + 2.0 * self.draft_token * n
        return np.asarray(np.where((drafts > 0) & (n > 0), self.draft_step + drafts * each, 0.0))

    def saved(self, decodes: ArrayLike, step: StepTime) -> Floats:
        """Return how much sooner experts are done because verified tokens share them [s]."""
        n, drafts = np.asarray(decodes, dtype=np.float64), np.asarray(self.drafts(decodes))
        out = np.zeros(np.shape(n))
        if not self.experts:
            return out
        tokens, own = n * (drafts + 1), step.moe_table()
        for count in np.unique(drafts[drafts > 0]):
            shared = moe_time(tokens, np.array(self.experts[count]))
            out = np.where(drafts == count, moe_time(tokens, own) - shared, out)
        return np.maximum(out, 0.0)


NOTHING_DRAFTED = Speculation()
