"""Tables of lanes whose steps hold decodes and prompts together: what they are at every rate."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bestserve.arrays import Floats
from bestserve.host.compiled import njit
from bestserve.models.queues.bulk.packing import packed_tokens
from bestserve.models.queues.bulk.wait import Prompts
from bestserve.models.queues.stability import shared_limit
from bestserve.models.schedulers.engine import Engine
from bestserve.models.schedulers.steps import MeanRequest, alone_times, decode_steps

LEAST_ADDED = 1e-9
"""What a prompt adds to decode-only steps at least [s], even where larger steps are faster."""


@dataclass(frozen=True, slots=True)
class SharedLane:
    """What does not depend on the rate.

    split : whether prompts are cut to fit the budget; capacity : saturated rate [1/s];
    saturated_decodes : decodes beside prompts then, on average; knots : logs of numbers of decodes
    [g] at which `table` has the moments of what a prompt adds to decode-only steps and the prompt
    tokens of a full step [4, g; s, s², s³, tokens]; service : time of each prompt by itself
    [m, s]; work : prompts in tokens of mean cost
    """

    engine: Engine
    split: bool
    capacity: float
    saturated_decodes: float
    knots: tuple[float, ...]
    table: Floats
    service: Floats
    work: Prompts

    def cost(self, n: float) -> tuple[float, float, float]:
        """Return the three moments of a prompt's cost beside n decodes [s, s², s³]."""
        s1, s2, s3, _ = self._beside(n)
        return s1, s2, s3

    def _beside(self, n: float) -> list[float]:
        """Return the column of `table` for n decodes."""
        x, knots = math.log(n), self.knots
        i = min(max(bisect_right(knots, x), 1), len(knots) - 1)
        if i == 0:
            return list(map(float, self.table[:, 0]))
        part = min(max((x - knots[i - 1]) / (knots[i] - knots[i - 1]), 0.0), 1.0)
        column = (1.0 - part) * self.table[:, i - 1] + part * self.table[:, i]
        return list(map(float, column))

    def stall_atoms(self, n: float) -> Floats:
        """Return what a mean decode meets of each prompt beside n decodes [m, s].

        Of a prompt of C chunks a decode of D steps meets C D/(C + D − 1) on average, at any offset.
        """
        engine, room = self.engine, self.engine.room(n)
        chunks = np.maximum(np.ceil(engine.requests.prompt / room), 1.0) if self.split else 1.0
        added = engine.prompt_times(n, self.split, room) - chunks * engine.decode(n)
        steps = max(engine.requests.d1, 1.0)
        return np.asarray(np.maximum(added, LEAST_ADDED) * steps / (chunks + steps - 1.0))

    def room(self, n: float) -> tuple[float, float]:
        """Return the prompt tokens that fit beside n decodes and those that fill a full step."""
        room = self.engine.room(n)
        return room, room if self.split else self._beside(n)[3]

    def stretched(self, rate: float, sigma: float | None = None, decodes: float = 1.0) -> Floats:
        """Return mean step times with n decodes, prompts included, for n = 1 … slots [s].

        What prompts add follows `mean_steps`, scaled to the chain's share `sigma` at `decodes` if
        that is known.
        """
        plain = self.engine.decode_times
        counts = np.exp(np.append(self.knots, math.log(decodes)))
        added = self.engine.mean_steps(rate, counts, self.rooms(counts), self.split)
        added = added / self.engine.decodes(counts) - 1.0
        scale = 1.0 if sigma is None else sigma / (1.0 - sigma) / max(added[-1], 1e-300)
        n = np.arange(1, plain.size + 1)
        times = plain * (1.0 + scale * np.interp(np.log(n), self.knots, added[:-1]))
        # the full lane's step is known from capacity
        joins = self.capacity * self.engine.decodes_per_prompt
        full = plain.size / (joins * max(self.engine.requests.d1, 1e-12))
        if times[-1] > full:
            part = np.clip((n - decodes) / max(plain.size - decodes, 1.0), 0.0, 1.0)
            part[-1] = 1.0
            times = times * (1.0 - part * (1.0 - full / times[-1]))
        return np.asarray(times)

    def longest(self, n: float) -> float:
        """Return the time of the longest steps beside n decodes [s]: no TPOT is above it.

        Full ones or, where prompts are whole, those of one prompt beyond the budget.
        """
        budget, fill = self.room(n)
        full = self.engine.prompt_step(fill, n, self.split)
        if self.split or self.engine.requests.prompt.max() <= budget:
            return full
        return max(full, float(self.engine.prompt_times(n, False, budget).max()))

    def rooms(self, counts: Floats) -> Floats:
        """Return the prompt tokens of a full step beside numbers of decodes [g, tokens]."""
        widths = self.engine.lane.speculation.drafts(counts) + 1.0
        room = np.maximum(self.engine.budget - widths * counts, 1.0)
        return room if self.split else np.array([self.room(float(n))[1] for n in counts])


@njit(cache=True)
def _costs(law: Floats, knots: Floats, rooms: Floats, split: bool, mean: MeanRequest) -> Floats:
    """Return `SharedLane.table` without its last row.

    law : prompts, what the cache has of them [tokens], shares [3, m]; rooms : of steps [g, tokens]
    """
    table = np.zeros((4, knots.size))
    plain = decode_steps(knots, mean)
    for g in range(knots.size):
        times = alone_times(law[0], law[1], knots[g], split, rooms[g], mean)
        for i in range(times.size):
            chunks = max(math.ceil(law[0, i] / rooms[g]), 1) if split else 1
            added = max(times[i] - chunks * plain[g], LEAST_ADDED)
            part = law[2, i] * added
            table[0, g] += part
            table[1, g] += part * added
            table[2, g] += part * added * added
    return table


@lru_cache(maxsize=512)
def shared_lane(engine: Engine, split: bool) -> SharedLane:
    """Return the rate-independent tables of an engine."""
    r, budget = engine.requests, engine.budget
    slots = max(min(float(engine.slots), budget / engine.width - 1.0), 1.0)
    knots = np.unique(np.geomspace(1.0, slots, 10))
    rooms = [engine.room(n) for n in knots]
    packed = rooms if split else [packed_tokens(r.prompt, r.weight, room) for room in rooms]
    law = np.stack((r.prompt, r.cached, r.weight))
    table = _costs(law, knots, np.array(rooms), split, engine.mean)
    table[3] = packed

    def packed_beside(decodes: float) -> float:
        return float(engine.room(decodes) if split else np.interp(decodes, knots, packed))

    def step(tokens: float, decodes: float) -> float:
        if tokens <= 0:
            return engine.decode(decodes)
        return engine.prompt_step(tokens, decodes, split)

    steps = engine.decodes_per_prompt * r.d1
    chunks = float(r.weight @ np.maximum(np.ceil(r.prompt / budget), 1.0)) if split else 1.0
    limit, saturated_decodes = shared_limit(slots, r.p1, steps, packed_beside, step, chunks)
    evictions = engine.decodes_per_prompt * engine.evictions(saturated_decodes)
    if evictions > 0.0:
        limit, saturated_decodes = shared_limit(
            slots, r.p1 * (1 + evictions), steps, packed_beside, step, chunks
        )
    return SharedLane(
        engine=engine,
        split=split,
        capacity=limit,
        saturated_decodes=max(saturated_decodes, 1.0),
        knots=tuple(np.log(knots)),
        table=table,
        service=engine.prompt_times(0.0, split, budget),
        work=Prompts.of(engine.work_tokens(packed[0]), r.weight),
    )
