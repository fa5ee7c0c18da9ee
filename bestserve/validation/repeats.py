"""Rows of equal settings: measured again and again, predicted once."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

from bestserve.readers.tidy import TidyRow
from bestserve.validation.replay import METRICS, measured_figures

UNREAD = frozenset(
    {*METRICS, "id", "more", "origin", "format", "trust", "licence", "url_or_repo_path",
     "e2el_mean_ms", "e2el_p50_ms", "e2el_p90_ms", "e2el_p99_ms"}
)  # fmt: skip
"""Fields that no prediction reads: what was measured, and where it is written."""

READ = tuple(f.name for f in dataclasses.fields(TidyRow) if f.name not in UNREAD)


def first_of_equals(rows: Sequence[TidyRow]) -> list[int]:
    """Return for each row the place of the first row that has the same prediction.

    A row with figures of its requests stands for itself, and one without figures for its like.
    """
    seen: dict[Hashable, int] = {}
    places = []
    for place, row in enumerate(rows):
        key: Hashable = place
        if row.requests is None:
            key = (bool(measured_figures(row)), *(getattr(row, name) for name in READ))
        places.append(seen.setdefault(key, place))
    return places
