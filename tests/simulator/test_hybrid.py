"""Hybrids in the simulator: their corners are the pure layouts, and routing by time is worth it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bestserve.errors import InputError
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import (
    Arrivals,
    Collocated,
    Disaggregated,
    Flow,
    Hybrid,
    Lane,
    Lengths,
    System,
    Transfer,
)
from bestserve.simulator import SimulationResult, simulate

STEP = StepTime(w=12e-3, c=60e-6, e=1e-6, a=0.5e-9, k=60e-9, a_step=1e-3, a_seq=20e-6)
WIDE = Lane(step=STEP, max_num_batched_tokens=4096, kv_capacity_tokens=60_000.0, kv_block=16)
NARROW = dataclasses.replace(WIDE, max_num_batched_tokens=256)
LENGTHS = Lengths(
    inputs=np.array([300.0, 1500.0, 5000.0]),
    input_weights=np.array([0.4, 0.4, 0.2]),
    outputs=np.array([1.0, 100.0, 400.0]),
    output_weights=np.array([0.1, 0.6, 0.3]),
)
MOVE = Transfer(latency=3e-3, seconds_per_token=2e-6)
ROUTINGS = ("random", "round_robin", "least_outstanding", "least_ttft")
LOADS = (Arrivals(), Arrivals(kind="closed", concurrency=24, num_prompts=400))


def hybrid(x: float, y: float, routing: str = "random", arrivals: Arrivals = LOADS[0]) -> Hybrid:
    return Hybrid(
        prefill=WIDE,
        prefill_replicas=2,
        decode=NARROW,
        decode_replicas=3,
        lengths=LENGTHS,
        local_prefill_share=x,
        local_decode_share=y,
        transfer=MOVE,
        arrivals=arrivals,
        routing=routing,  # type: ignore[arg-type]
    )


def run(system: System, rate: float = 3.0, requests: int = 400) -> SimulationResult:
    return simulate(system, rate, requests=requests, seed=5)


def assert_same(one: SimulationResult, other: SimulationResult) -> None:
    for name in ("arrival", "start", "first_token", "last_token", "preemptions"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("arrivals", LOADS, ids=["open", "closed"])
@pytest.mark.parametrize("routing", ROUTINGS[:3])
def test_no_local_work_is_the_disaggregated_system(routing: str, arrivals: Arrivals) -> None:
    mixed = hybrid(0.0, 0.0, routing, arrivals)
    pure = Disaggregated(
        prefill=WIDE,
        prefill_replicas=2,
        decode=NARROW,
        decode_replicas=3,
        lengths=LENGTHS,
        transfer=MOVE,
        arrivals=arrivals,
        routing=routing,  # type: ignore[arg-type]
    )
    assert_same(run(mixed), run(pure))


@pytest.mark.parametrize("arrivals", LOADS, ids=["open", "closed"])
@pytest.mark.parametrize("routing", ROUTINGS[:3])
@pytest.mark.parametrize("pool", ["prefill", "decode"])
def test_all_work_in_one_pool_is_the_collocated_system(
    pool: str, routing: str, arrivals: Arrivals
) -> None:
    mixed = hybrid(1.0, 0.0, routing, arrivals)
    if pool == "prefill":
        mixed = hybrid(0.0, 1.0, routing, arrivals)
    pure = Collocated(
        lane=getattr(mixed, pool),
        replicas=getattr(mixed, f"{pool}_replicas"),
        lengths=LENGTHS,
        arrivals=arrivals,
        routing=routing,  # type: ignore[arg-type]
    )
    assert_same(run(mixed), run(pure))


def alone(lane: Lane, prompt: int) -> float:
    """Time of a prompt that nothing else meets: one step a chunk."""
    total, done = 0.0, 0
    while done < prompt:
        take = min(lane.max_num_batched_tokens, prompt - done)
        total += STEP(T=take, A=take * (done + take / 2), K=0.0, n=1.0, prefill=True)
        done += take
    return float(total)


def test_each_pool_has_its_own_budget() -> None:
    found = run(hybrid(0.4, 0.0), rate=1e-3)
    for local, lane in ((True, NARROW), (False, WIDE)):
        mine = (found.replica < 0) == local
        for prompt in (300, 5000):
            seen = found.ttft[mine & (found.input_len == prompt)]
            np.testing.assert_allclose(seen, alone(lane, prompt), rtol=1e-9)
    assert np.mean(found.replica < 0) == pytest.approx(0.4, abs=0.01)


def test_prompts_go_by_length() -> None:
    mixed = dataclasses.replace(hybrid(0.0, 0.0), longest_local=400)
    found = run(mixed)
    np.testing.assert_array_equal(found.replica < 0, found.input_len <= 400)


def test_prompts_are_local_while_the_prefill_queue_is_long() -> None:
    """NVIDIA Dynamo's conditional disaggregation: neither short nor queued up goes away."""
    plain = dataclasses.replace(hybrid(0.0, 0.0), longest_local=400)
    queued = dataclasses.replace(plain, prefill_queue=3)
    few, many = run(plain, 18.0), run(queued, 18.0)
    away, taken = few.replica >= 0, (many.replica < 0) & (many.input_len > 400)
    assert taken.sum() > 20
    assert np.percentile(many.ttft[away], 90) < np.percentile(few.ttft[away], 90)


def test_least_predicted_ttft_beats_drawing_lots() -> None:
    by_lot, by_time = run(hybrid(0.3, 0.0), 18.0), run(hybrid(0.3, 0.0, "least_ttft"), 18.0)
    assert np.percentile(by_time.ttft, 90) < 0.8 * np.percentile(by_lot.ttft, 90)


@pytest.mark.parametrize("pool", ["collocated", "disaggregated"])
def test_least_predicted_ttft_beats_fewest_requests(pool: str) -> None:
    system: System = dataclasses.replace(hybrid(0.0, 0.0), routing="least_ttft")
    if pool == "collocated":
        system = Collocated(lane=WIDE, replicas=4, lengths=LENGTHS, routing="least_ttft")
    rate = 28.0 if pool == "collocated" else 17.0
    by_time = run(system, rate)
    by_number = run(dataclasses.replace(system, routing="least_outstanding"), rate)
    assert by_time.ttft.mean() < by_number.ttft.mean()


@pytest.mark.parametrize(
    ("field", "value"),
    [("local_prefill_share", 1.2), ("local_decode_share", -0.1), ("longest_local", -1)],
)
def test_what_is_no_hybrid_is_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        run(dataclasses.replace(hybrid(0.5, 0.0), **{field: value}))


def crowded(flow: Flow | None) -> Hybrid:
    """Decode lanes that fill their caches, beside prefill lanes with hardly anything to do."""
    small = dataclasses.replace(NARROW, kv_capacity_tokens=16_000.0)
    lengths = dataclasses.replace(LENGTHS, inputs=LENGTHS.inputs / 5)
    return dataclasses.replace(hybrid(0.0, 0.0), decode=small, lengths=lengths, flow=flow)


def test_decodes_flow_where_memory_is_and_come_back_in_time() -> None:
    tpot = 0.025
    stays, flows = (run(crowded(f), 50.0, 1500) for f in (None, Flow(watermark=0.8, tpot=tpot)))
    assert np.isfinite(flows.e2el).all()
    assert stays.preemptions.sum() > 5 * max(flows.preemptions.sum(), 1)
    late = [float(np.nanmean(found.tpot > tpot)) for found in (stays, flows)]
    assert late[1] < 0.7 * late[0]


def test_flowing_decodes_lose_no_token() -> None:
    """All requests end, and with as many steps as their answers have tokens, at least."""
    found = run(crowded(Flow(watermark=0.3, tpot=0.5)), 30.0, 800)
    least = float(STEP(T=1.0, A=0.0, K=60.0, n=1.0, prefill=False))
    several = found.output_len > 1
    assert np.isfinite(found.last_token).all()
    assert (found.tpot[several] >= least).all()
    plain = run(crowded(None), 30.0, 800)
    np.testing.assert_array_equal(found.arrival, plain.arrival)


def test_a_watermark_never_reached_changes_nothing() -> None:
    watched, plain = (run(crowded(f), 1.0) for f in (Flow(watermark=0.99, tpot=0.5), None))
    for name in ("arrival", "start", "first_token", "last_token"):
        np.testing.assert_allclose(getattr(watched, name), getattr(plain, name), rtol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_what_flows_is_neither_lost_nor_counted_twice(seed: int) -> None:
    """Random crowded hybrids: everything ends, in order, and no cache overflows."""
    rng = np.random.default_rng(seed)
    kv = float(rng.integers(7_000, 20_000))
    lanes = [
        dataclasses.replace(
            NARROW,
            max_num_batched_tokens=int(rng.choice([128, 512, 4096])),
            kv_capacity_tokens=kv,
            kv_block=int(rng.choice([1, 16])),
            async_scheduling=bool(rng.random() < 0.5),
        )
        for _ in range(2)
    ]
    flow = Flow(watermark=float(rng.uniform(0.2, 0.9)), tpot=float(rng.uniform(0.015, 0.05)))
    system = dataclasses.replace(
        hybrid(float(rng.random()), float(rng.random()), str(rng.choice(ROUTINGS))),
        prefill=lanes[0],
        decode=lanes[1],
        flow=flow,
    )
    found = run(system, float(rng.uniform(4.0, 20.0)), 400)
    assert np.isfinite(found.last_token).all()
    assert (found.first_token >= found.arrival).all()
    assert (found.last_token >= found.first_token).all()
    assert (found.start >= found.arrival).all()
    for pool in found.pools:
        # a prompt under way counts whole, its blocks come part by part
        assert (pool.kv_peak <= kv + LENGTHS.inputs.max()).all()
