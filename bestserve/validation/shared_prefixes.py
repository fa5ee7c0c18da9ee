"""Rows whose prompts share prefixes: replayed with the caches that find them, or named.

A benchmark of groups sends their questions again and again, behind a warm-up or after other stages,
so that caches are warm when it counts: runs are preceded by requests that fill them.
"""

from __future__ import annotations

import re

import numpy as np

from bestserve.models.prefixes import Caching, Law, Sharing
from bestserve.models.system import Arrivals, Lengths, Routing
from bestserve.readers.tidy import TidyRow
from bestserve.simulator.inputs import unit_gaps
from bestserve.validation.outcome import Outcome, UnpredictableError

MOST_WARMING = 20_000
"""Requests of a warm-up at most."""

SLOWER, PAUSE = 4.0, 30.0
"""A warm-up's gaps over the run's, so that empty caches cost no queue; the pause after it [s]."""

_ROUTERS: tuple[tuple[str, Routing], ...] = (
    (r"estimated|approximate", "prefix_estimated"),
    (r"prefix hash|consistent hash", "prefix_hash"),
    (r"precise|prefix|kv-?cache-aware|cache.aware|affinity", "prefix_aware"),
    (r"session|sticky", "session_affine"),
)
"""Words of a router's policy, and the routing that stands for it."""

_UNSTATED = re.compile(r"multi-?turn|conversation|shared.prefix|agentic", re.IGNORECASE)
"""Workloads whose prompts repeat each other."""


def caching_of(row: TidyRow, lengths: Lengths) -> Caching | None:
    """Return what a row's prompts share, if it says so and caching is on."""
    if not (row.prefix_caching and row.prefix_len and row.prefix_groups):
        return None
    own = np.maximum(lengths.inputs - row.prefix_len, 1.0)
    law = Law(values=own, weights=lengths.input_weights)
    return Caching(
        sharing=Sharing(
            groups=row.prefix_groups,
            prefix=Law.of(row.prefix_len),
            questions=row.prefix_prompts or 0,
            own=law,
            first=law,
            output=Law(values=lengths.outputs, weights=lengths.output_weights),
        )
    )


def routing_by_prefix(row: TidyRow) -> Routing | None:
    """Return the routing that a router's policy names, if it goes by what prompts share."""
    text = (row.routing or "").lower()
    if "random" in text or "round" in text or "service" in text:
        return None
    return next((routing for words, routing in _ROUTERS if re.search(words, text)), None)


def refuse_unstated(row: TidyRow) -> None:
    """Raise UnpredictableError for prompts that repeat each other nobody says how."""
    stated = row.prefix_len and row.prefix_groups
    if row.prefix_caching and not stated and _UNSTATED.search(row.dataset_or_lengths or ""):
        raise UnpredictableError(
            Outcome.NOT_MODELLED,
            "prefix caching was on and the prompts repeat each other, but not how: give a trace "
            "with hashes or sessions, or leave the row out",
        )


def warming(caching: Caching) -> int:
    """Return how many requests fill the caches before a run counts: each prompt once."""
    assert caching.sharing is not None
    prompts = caching.sharing.groups * max(caching.sharing.questions, 1)
    return min(prompts, MOST_WARMING)


def behind_warming(
    arrivals: Arrivals, rate: float, before: int, counted: int, seed: int
) -> Arrivals:
    """Return open arrivals of a run after those of a warm-up, which is slow and then over."""
    slow = np.arange(before) * SLOWER / rate
    gaps = unit_gaps(arrivals.burstiness, counted, seed) / rate
    start = slow[-1] + PAUSE if before else 0.0
    return Arrivals(kind="trace", times=np.append(slow, start + np.cumsum(gaps)))
