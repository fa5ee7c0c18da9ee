"""Tokens held in the KV cache: moments by enumeration, evictions against the simulator."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from bestserve.models.queues.held_tokens import HeldTokens, safe_seqs
from bestserve.models.queues.requests import prepare
from bestserve.models.system import Arrivals, Lane, Lengths
from bestserve.simulator import simulate


def evictions_when_full(cases: ModuleType, law: Lengths, lane: Lane) -> float:
    """Return the evictions per request of a lane whose requests always wait; they come in bursts,
    hence several runs."""
    burst = Arrivals(kind="trace", times=np.zeros(20_000))
    system = replace(cases.collocated("chunked", law), lane=lane, arrivals=burst)
    runs = [simulate(system, requests=20_000, seed=seed) for seed in range(4)]
    ends = [np.argsort(run.last_token)[3_000:17_000] for run in runs]
    return float(np.mean([run.preemptions[end] for run, end in zip(runs, ends, strict=True)]))


@pytest.mark.parametrize("reserve", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("joint", [False, True])
def test_moments_are_those_over_all_steps(cases: ModuleType, reserve: float, joint: bool) -> None:
    prompts, outputs = np.array([100.0, 700.0, 900.0]), np.array([11.0, 41.0, 6.0])
    weight = np.array([0.5, 0.2, 0.3])
    law = Lengths(
        inputs=prompts, input_weights=weight, outputs=outputs, output_weights=weight, joint=joint
    )
    lane = Lane(step=cases.SMALL, kv_capacity_tokens=1e4, kv_reserve=reserve)
    held, shares = [], []
    for i, prompt in enumerate(prompts):
        for o, output in enumerate(outputs):
            share = (weight[i] if i == o else 0.0) if joint else weight[i] * weight[o]
            kept = prompt + int(reserve * (output - 1))
            for age in range(1, int(output)):
                held.append(max(kept, prompt + age))
                shares.append(share)
    x, p = np.array(held), np.array(shares) / np.sum(shares)
    mean = p @ x
    found = HeldTokens.of(lane, prepare(law))
    assert found.mean == pytest.approx(mean)
    assert found.variance == pytest.approx(p @ (x - mean) ** 2)
    assert found.third == pytest.approx(max(p @ (x - mean) ** 3, 0.0), abs=1e-6 * mean**3)


@pytest.mark.parametrize(("prompt", "output"), [(1000, 200), (300, 600), (100, 1000), (2000, 300)])
@pytest.mark.parametrize("sequences", [30, 150])
def test_safe_seqs_keep_evictions_below_the_stated_rate(
    cases: ModuleType, prompt: int, output: int, sequences: int
) -> None:
    law = cases.lengths(prompt, output, 0.6, 0.8)
    requests = prepare(law)
    capacity = sequences * requests.context
    lane = Lane(
        step=cases.SMALL, max_num_seqs=1024, kv_capacity_tokens=capacity, kv_block=16, kv_reserve=0
    )
    safe = safe_seqs(lane, requests, 0.01)
    assert evictions_when_full(cases, law, replace(lane, max_num_seqs=safe)) <= 0.01
    # and no more cautious than it must be
    bold = math.ceil(1.25 * safe)
    assert evictions_when_full(cases, law, replace(lane, max_num_seqs=bold)) > 0.01


@pytest.mark.parametrize(("prompt", "output"), [(1000, 200), (300, 600), (2000, 300)])
def test_evictions_of_a_full_cache(cases: ModuleType, prompt: int, output: int) -> None:
    law = cases.lengths(prompt, output, 0.5, 0.8)
    requests = prepare(law)
    lane = Lane(
        step=cases.SMALL,
        max_num_seqs=1024,
        kv_capacity_tokens=60 * requests.context,
        kv_block=16,
    )
    found = HeldTokens.of(lane, requests).evictions(1024.0)
    assert 0.7 < evictions_when_full(cases, law, lane) / found <= 1.1


def test_what_is_reserved_is_never_evicted(cases: ModuleType) -> None:
    law = cases.lengths(300, 600, 0.5, 0.8)
    lane = Lane(step=cases.SMALL, kv_capacity_tokens=2e4, kv_reserve=1.0)
    assert HeldTokens.of(lane, prepare(law)).evictions(256.0) == 0.0
    assert safe_seqs(lane, prepare(law), 0.0) == lane.max_num_seqs
    endless = replace(lane, kv_reserve=0.0, kv_capacity_tokens=math.inf)
    assert safe_seqs(endless, prepare(law), 0.0) == lane.max_num_seqs


def test_more_memory_is_safe_for_more(cases: ModuleType) -> None:
    law = cases.lengths(300, 600, 0.5, 0.8)
    requests = prepare(law)
    last = 0
    for capacity in np.geomspace(2e3, 1e6, 30):
        lane = Lane(step=cases.SMALL, max_num_seqs=1024, kv_capacity_tokens=capacity)
        safe = safe_seqs(lane, requests, 0.01)
        assert safe >= last
        assert safe <= safe_seqs(lane, requests, 0.1)
        last = safe
    assert last == 1024
