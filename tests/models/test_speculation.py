"""Speculative decoding in the formulas: tokens a step, steps an answer, tables, latencies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bestserve.models.acceptance import (
    Drafting,
    chance_of,
    request_classes,
    steps_of,
    tokens_per_step,
    widest_spread,
)
from bestserve.models.latency import lane_engine, latency, stability_rate
from bestserve.models.speculation import Speculation
from bestserve.models.speculation_table import best_schedule, pays_until, token_times
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Disaggregated, Lane, Lengths, System
from bestserve.simulator import simulate

STEP = StepTime(w=6e-3, c=26e-6, e=0, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=10e-6)
THREE = Speculation(
    schedule=((1, 3),),
    acceptance=(0.7,) * 5,
    spread=0.15,
    spread_at=3,
    draft_step=0.6e-3,
    draft_pass=0.5e-3,
    draft_token=0.8e-6,
    draft_context=0.8e-9,
)


def test_tokens_a_step_are_the_geometric_sum() -> None:
    assert float(tokens_per_step(np.full(3, 0.7))) == pytest.approx((1 - 0.7**4) / 0.3)
    # MT-bench, Llama-3.1-8B with EAGLE-3 (vLLM's regression test): .730 .521 .355 make 2.60
    assert float(tokens_per_step(np.array([0.73, 0.521 / 0.73, 0.355 / 0.521]))) == pytest.approx(
        2.606, abs=1e-3
    )


def test_steps_of_an_answer_are_a_renewal_count() -> None:
    rng = np.random.default_rng(3)
    accepted = np.cumprod([0.8, 0.6, 0.5])
    for tokens in (1, 2, 7, 40, 300):
        counts = []
        for _ in range(4000):
            made = steps = 0
            while made < tokens:
                made += 1 + int(np.sum(rng.random() < accepted))
                steps += 1
            counts.append(steps)
        law = steps_of(np.array([float(tokens)]), Drafting((0.8, 0.6, 0.5), 0.0, 3, 3))
        error = np.std(counts) / 60
        assert float(law.mean[0]) == pytest.approx(np.mean(counts), abs=4 * error + 1e-9)
        assert float(law.variance[0]) == pytest.approx(np.var(counts), rel=0.15, abs=1e-9)


def test_requests_differ_by_the_spread_and_keep_the_mean() -> None:
    chances, weight = request_classes((0.7, 0.7, 0.7), 0.15, 3)
    each = 1 / tokens_per_step(chances)
    mean = float(weight @ each)
    assert mean == pytest.approx(1 / float(tokens_per_step(np.full(3, 0.7))), rel=1e-6)
    assert np.sqrt(weight @ (each - mean) ** 2) / mean == pytest.approx(0.15, abs=2e-3)
    drawn, shares = request_classes((0.7, 0.7, 0.7), 0.15, 3, 64)
    rates = 1 / tokens_per_step(drawn)
    assert float(shares @ rates) == pytest.approx(mean, rel=1e-4)
    assert float(chance_of(np.array([float(tokens_per_step(np.full(3, 0.7)))]), 3)[0]) == (
        pytest.approx(0.7)
    )
    assert 0.15 < widest_spread((0.7, 0.7, 0.7)) < 1


LENGTHS = Lengths(
    inputs=np.array([400.0, 1500.0]),
    input_weights=np.array([0.6, 0.4]),
    outputs=np.array([80.0, 300.0]),
    output_weights=np.array([0.5, 0.5]),
)


def _systems(speculation: Speculation) -> dict[str, System]:
    lane = Lane(step=STEP, max_num_seqs=256, max_num_batched_tokens=2048, speculation=speculation)
    prompts = dataclasses.replace(lane, speculation=Speculation(draft_token=0.8e-6))
    return {
        "chunked": Collocated(lane=lane, replicas=1, lengths=LENGTHS),
        "prefill_priority": Collocated(
            lane=dataclasses.replace(lane, policy="prefill_priority"), replicas=1, lengths=LENGTHS
        ),
        "mixed": Collocated(
            lane=dataclasses.replace(lane, policy="mixed"), replicas=1, lengths=LENGTHS
        ),
        "split": Disaggregated(
            prefill=prompts, prefill_replicas=2, decode=lane, decode_replicas=1, lengths=LENGTHS
        ),
    }


@pytest.mark.parametrize("name", ["chunked", "prefill_priority", "mixed", "split"])
def test_formulas_agree_with_runs(name: str) -> None:
    system = _systems(THREE)[name]
    rate = 0.5 * stability_rate(system)
    law, run = latency(system, rate), simulate(system, rate, requests=20_000, seed=5)
    tpot = run.summary("tpot")
    assert law.tpot.mean == pytest.approx(tpot.mean, rel=0.02)
    assert law.tpot.quantile(0.9) == pytest.approx(tpot.p90, rel=0.04)
    assert law.ttft.quantile(0.9) == pytest.approx(run.summary("ttft").p90, rel=0.05)
    assert law.itl_mean == pytest.approx(run.itl_mean, rel=0.02)
    assert run.tokens_per_step == pytest.approx(float(tokens_per_step(np.full(3, 0.7))), rel=0.03)


def test_nothing_drafted_is_as_before() -> None:
    """A table whose rows draft nothing is a lane without speculation, to the last digit."""
    none = Speculation(schedule=((1, 0), (9, 0)), acceptance=())
    for name, system in _systems(Speculation()).items():
        other = _systems(none)[name]
        if name == "split":
            other = dataclasses.replace(other, prefill=system.prefill)
        rate = 0.5 * stability_rate(system)
        assert stability_rate(other) == stability_rate(system)
        assert latency(other, rate).tpot.mean == latency(system, rate).tpot.mean
        one, two = (simulate(s, rate, requests=2000, seed=1) for s in (system, other))
        np.testing.assert_array_equal(one.last_token, two.last_token)


def test_a_table_follows_the_batch() -> None:
    schedule = ((1, 5), (20, 2), (60, 0))
    table = dataclasses.replace(THREE, schedule=schedule)
    assert table.drafts([1, 19, 20, 59, 60, 300]).tolist() == [5, 5, 2, 2, 0, 0]
    system = _systems(table)["split"]
    for load in (0.3, 0.7):
        rate = load * stability_rate(system)
        run = simulate(system, rate, requests=20_000, seed=2)
        assert latency(system, rate).tpot.mean == pytest.approx(run.summary("tpot").mean, rel=0.03)


def test_prompts_take_part_in_steps_as_they_are_whatever_requests_are_counted_with() -> None:
    """Steps beside 40 decodes draft two, whether the lane is counted with five drafts or two."""
    table = dataclasses.replace(THREE, schedule=((1, 5), (20, 2)))
    two = dataclasses.replace(THREE, schedule=((1, 2),))
    lanes = [_systems(s)["chunked"].lane for s in (table, two)]
    counted, own = (lane_engine(lane, LENGTHS, decodes=5.0) for lane in lanes)
    assert (counted.width, own.width) == (6, 3)
    more = float(tokens_per_step(np.full(5, 0.7)) / tokens_per_step(np.full(2, 0.7)))
    beside, room = np.array([40.0]), np.array([2048.0 - 120.0])
    for rate in (0.5, 5.0, 12.0):
        steps = (engine.mean_steps(rate, beside, room, True) for engine in (counted, own))
        assert next(steps) == pytest.approx(more * next(steps), rel=1e-3)


@pytest.mark.parametrize("name", ["chunked", "mixed"])
def test_a_table_beside_prompts_agrees_with_runs(name: str) -> None:
    table = dataclasses.replace(THREE, schedule=((1, 5), (20, 2), (60, 0)))
    system = _systems(table)[name]
    rate = 0.6 * stability_rate(system)
    run = simulate(system, rate, requests=20_000, seed=2)
    assert latency(system, rate).tpot.mean == pytest.approx(run.summary("tpot").mean, rel=0.06)


def test_the_best_table_falls_with_the_batch_and_ends_where_drafts_cost() -> None:
    full = dataclasses.replace(THREE, schedule=((1, 5),))
    slow = dataclasses.replace(STEP, a_seq=40e-6, c=60e-6)
    schedule = best_schedule(slow, full, 500.0, 256)
    drafts = [count for _, count in schedule]
    assert drafts[0] >= 3
    assert drafts == sorted(drafts, reverse=True)
    assert drafts[-1] == 0
    times = token_times(slow, full, 500.0, np.arange(1.0, 257.0))
    assert times.shape == (6, 256)
    until = pays_until(times, 5)
    assert 1 < until < 256
    assert times[5, until - 1] <= times[0, until - 1]
    assert times[5, until] > times[0, until]


def test_experts_that_tokens_share_save_time() -> None:
    moe = tuple(1e-3 * min(1 + 0.2 * i, 4.0) for i in range(20))
    less = tuple(0.8 * m for m in moe)
    step = dataclasses.replace(STEP, moe=moe)
    drafting = dataclasses.replace(THREE, experts=(moe, less, less, less))
    assert float(drafting.saved(4, step)) == pytest.approx(0.2 * 1e-3 * (1 + 0.2 * 8))
    assert float(THREE.saved(4, STEP)) == 0


def test_odd_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend from 1"):
        Speculation(schedule=((2, 3),), acceptance=(0.7,) * 3)
    with pytest.raises(ValueError, match="need as many chances"):
        Speculation(schedule=((1, 3),), acceptance=(0.7,))
