"""What a measured run speculated: only where its log says how much, and how much was accepted."""

from __future__ import annotations

import numpy as np

from bestserve.models.acceptance import chance_of
from bestserve.readers.tidy import TidyRow
from bestserve.specs.speculation import SpeculativeConfig
from bestserve.validation.outcome import Outcome, UnpredictableError


def drafted(row: TidyRow) -> SpeculativeConfig:
    """Return the configuration of a run that speculated. Raises `UnpredictableError`.

    Acceptance is that of all steps together, by position where the log has it.
    """
    open_ = [
        what
        for what, known in (
            ("method", row.draft_method),
            ("number of drafts", row.draft_tokens),
            ("acceptance", row.accepted_by_position or row.accept_length),
        )
        if known is None
    ]
    if open_:
        raise UnpredictableError(
            Outcome.NOT_MODELLED, f"speculative decoding whose {', '.join(open_)} is not stated"
        )
    assert row.draft_tokens is not None
    return SpeculativeConfig(
        method=row.draft_method,
        num_speculative_tokens=row.draft_tokens,
        acceptance=_chances(row, row.draft_tokens),
    )


def _chances(row: TidyRow, drafts: int) -> tuple[float, ...]:
    """Return the chance of each draft if all before it are accepted [1]."""
    if row.accepted_by_position is not None:
        shares = np.array(row.accepted_by_position[:drafts])
        before = np.concatenate(([1.0], shares[:-1]))
        given = np.divide(shares, before, out=np.zeros_like(shares), where=before > 0)
        return tuple(float(chance) for chance in np.minimum(given, 1.0))
    assert row.accept_length is not None
    chance = float(chance_of(np.array([row.accept_length]), drafts)[0])
    return (chance,) * drafts
