"""What drafting does for a strategy, as a result."""

from __future__ import annotations

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
            rows = ", ".join(f"{drafts} from {start}" for start, drafts in self.schedule)
            said += f"; by decodes in the step: {rows}"
        if self.pays_until >= self.slots:
            return f"{said}; faster at any number of sequences"
        if self.pays_until == 0:
            return f"{said}; slower at any number of sequences: take -spec0"
        return f"{said}; slower from {self.pays_until + 1} sequences a lane on"
