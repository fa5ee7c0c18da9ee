"""Rows whose prompts share prefixes: replayed with the caches that find them, or named.

A benchmark of groups sends their questions again and again, behind a warm-up or after other stages,
so that caches are warm when it counts: runs are preceded by requests that fill them. Where nobody
says what is shared, but servers counted what they found, prompts are replayed with that.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from bestserve.lowering.prefixes import PEER_SETUP
from bestserve.models.prefixes import Caching, Law, Sharing
from bestserve.models.system import Arrivals, Collocated, Lane, Lengths, Routing, System
from bestserve.readers.tidy import TidyRow
from bestserve.simulator.inputs import unit_gaps
from bestserve.validation.outcome import Noted, Outcome, UnpredictableError

MOST_WARMING = 20_000
"""Requests of a warm-up at most."""

SLOWER, PAUSE = 4.0, 30.0
"""A warm-up's gaps over the run's, and over what an uncached prompt takes, so that empty caches
cost no queue; the pause after it [s]."""

FETCHING = 6.9e9
"""At which a GPU fetches KV from another instance's cache over NIXL [B/s]; slope of lone fetches of
2,048 to 49,152 tokens of gpt-oss-120b between two pods on H200 (llm-d, 2026): 10.65 µs for the
73.7 kB of a token, as vLLM holds, and moves, all layers' full context under a KV connector."""

_ROUTERS: tuple[tuple[str, Routing], ...] = (
    (r"estimated|approximate|default.scheduling", "prefix_estimated"),
    (r"prefix hash|consistent hash", "prefix_hash"),
    (r"precise|prefix|kv-?cache-aware|cache.aware|affinity", "prefix_aware"),
    (r"session|sticky", "session_affine"),
)
"""Words of a router's policy, and the routing that stands for it. llm-d's default scores prefixes
by what it sent where, beside load."""

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
    stated = (row.prefix_len and row.prefix_groups) or row.prefix_hit is not None
    if row.prefix_caching and not stated and _UNSTATED.search(row.dataset_or_lengths or ""):
        raise UnpredictableError(
            Outcome.NOT_MODELLED,
            "prefix caching was on and the prompts repeat each other, but not how: give a trace "
            "with hashes or sessions, the server's log or metrics beside the result, or leave the "
            "row out",
        )


def counted_hits(row: TidyRow, lengths: Lengths) -> Noted[Lengths]:
    """Return the lengths with the hits that servers counted, where nobody says what is shared.

    Requests' own counts keep their law. A share of all tokens is given to every prompt alike,
    which is right for the load and not for the spread of TTFT.
    """
    if row.prefix_hit is None or caching_of(row, lengths) is not None:
        return Noted(lengths)
    log = row.requests
    if log is not None and log.cached is not None and lengths.joint:
        found = np.minimum(log.cached.astype(np.float64), lengths.inputs - 1.0)
        note = "prompts found in the cache as counted for each request"
    else:
        found = np.minimum(np.floor(row.prefix_hit * lengths.inputs), lengths.inputs - 1.0)
        note = f"{row.prefix_hit:.0%} of each prompt found in the cache, as the servers counted"
    return Noted(dataclasses.replace(lengths, cached=np.maximum(found, 0.0)), (note,))


def fetched(lane: Lane, lengths: Lengths, bytes_per_token: float) -> tuple[Lane, Lengths]:
    """Return a lane and lengths whose prompts come from another instance's cache, in whole blocks.

    bytes_per_token : KV that is fetched, over one GPU's link [B]
    """
    whole = np.floor((lengths.inputs - 1.0) / lane.kv_block) * lane.kv_block
    lane = dataclasses.replace(
        lane,
        t_req=lane.t_req + PEER_SETUP,
        t_req_token=lane.t_req_token + bytes_per_token / FETCHING,
    )
    return lane, dataclasses.replace(lengths, cached=whole)


def at_best(system: System) -> Lengths:
    """Return the lengths of a system with all that its caches may find, for floors of TTFT."""
    lengths = system.lengths
    if system.caching is None:
        return lengths
    return dataclasses.replace(lengths, cached=np.maximum(lengths.inputs - 1.0, 0.0))


def warming(caching: Caching) -> int:
    """Return how many requests fill the caches before a run counts: each prompt once."""
    assert caching.sharing is not None
    prompts = caching.sharing.groups * max(caching.sharing.questions, 1)
    return min(prompts, MOST_WARMING)


def warming_gap(system: System, rate: float) -> float:
    """Return the time between two requests of a warm-up [s].

    rate : of the run behind it [requests/s]
    """
    lane, lanes = (
        (system.lane, system.replicas)
        if isinstance(system, Collocated)
        else (system.prefill, system.prefill_replicas)
    )
    return SLOWER * max(1.0 / rate, _prefill(lane, system.lengths) / lanes)


def _prefill(lane: Lane, lengths: Lengths) -> float:
    """Return what a mean prompt takes alone, nothing of it cached [s]."""
    prompt = float(lengths.inputs @ lengths.input_weights)
    return float(lane.step(prompt, prompt * prompt / 2, 0.0, 1.0, True))


def behind_warming(
    arrivals: Arrivals, rate: float, gap: float, counts: tuple[int, int, int]
) -> Arrivals:
    """Return open arrivals of a run after those of a warm-up, which is slow and then over.

    counts : requests of the warm-up and of the run, and the seed
    """
    before, counted, seed = counts
    slow = np.arange(before) * gap
    gaps = unit_gaps(arrivals.burstiness, counted, seed) / rate
    start = slow[-1] + PAUSE if before else 0.0
    return Arrivals(kind="trace", times=np.append(slow, start + np.cumsum(gaps)))
