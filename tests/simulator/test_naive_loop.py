"""The jumping loop equals the naive iteration-by-iteration loop, in every mode."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.models import token_times
from bestserve.models.policies import policies
from bestserve.models.speculation import Speculation
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
from bestserve.models.token_times import Reader
from bestserve.simulator import Requests, SimulationResult, simulate
from bestserve.simulator.inputs import (
    BACK_ROUTES,
    POOLS,
    ROUTES,
    draw_acceptance,
    stratified,
    stream,
)


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


naive = _load("naive")

ROUNDING = 1e-9  # [s]
POLICIES = tuple(policies())
ROUTINGS = (
    "random",
    "round_robin",
    "least_outstanding",
    "power_of_two",
    "least_kv",
    "reported_kv",
    "least_ttft",
)

READERS = (
    Reader(pace=2.0**-5, first=2.0**-2, limit=2.0**-5),
    Reader(pace=2.0**-6, limit=2.0**-4),
    Reader(pace=2.0**-3, first=2.0**-1),
    Reader(pace=2.0**-8, first=2.0**-7, limit=2.0**-7),
)

ONE = np.ones(1)
ANY = Lengths(inputs=ONE, input_weights=ONE, outputs=ONE, output_weights=ONE)

# Sums of these are exact in binary, so that arrivals can fall exactly on step boundaries.
EXACT = StepTime(w=1e-200, c=0, e=2.0**-12, a=2.0**-22, k=2.0**-20, a_step=2.0**-7, a_seq=2.0**-13)
REAL = (
    StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=35e-6, phi=1.1),
    StepTime(w=1e-3, c=1e-4, e=0, a=1e-7, k=2e-6, moe=(1e-3, 1.2e-3, 2e-3, 3e-3, 5e-3)),
)


@st.composite
def workloads(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(arrival times, prompts, outputs, cached), bursts and simultaneous arrivals included."""
    n = draw(st.integers(1, 40))
    longest = draw(st.sampled_from((4, 30, 200)))
    most = draw(st.sampled_from((1, 6, 60)))
    gap = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 80))
    gaps = np.array(draw(st.lists(gap, min_size=n, max_size=n)))
    prompts = np.array(draw(st.lists(st.integers(1, longest), min_size=n, max_size=n)))
    outputs = np.array(draw(st.lists(st.integers(1, most), min_size=n, max_size=n)))
    cached = np.zeros(n, dtype=int)
    if draw(st.booleans()):
        cached = np.array(draw(st.lists(st.integers(0, longest), min_size=n, max_size=n)))
    cached = np.minimum(cached, prompts - 1)
    return np.cumsum(gaps) * 2.0**-7, prompts, outputs, cached


@st.composite
def speculations(draw: st.DrawFn, step: StepTime) -> Speculation:
    most = draw(st.sampled_from((0, 0, 0, 1, 3, 7)))
    later = draw(st.one_of(st.just(()), st.tuples(st.tuples(st.sampled_from((2, 4)), st.just(1)))))
    knots = range(len(step.moe))
    return Speculation(
        schedule=((1, most), *(later if most else ())),
        acceptance=(draw(st.sampled_from((0.0, 0.7, 1.0))), *[0.6] * 6),
        spread=draw(st.sampled_from((0.0, 0.05))),
        draft_step=2.0**-9,
        draft_pass=2.0**-10,
        draft_token=2.0**-16,
        draft_context=2.0**-24,
        experts=tuple(tuple(m - 1e-4 * i for i, m in enumerate(step.moe)) for _ in range(8))
        if knots
        else (),
    )


@st.composite
def engines(draw: st.DrawFn, step: StepTime) -> Lane:
    kv = draw(st.one_of(st.just(float("inf")), st.integers(20, 500).map(float)))
    speculation = draw(speculations(step))
    return Lane(
        step=step,
        policy=draw(st.sampled_from(POLICIES)),
        max_num_seqs=draw(st.sampled_from((1, 2, 5, 256))),
        max_num_batched_tokens=draw(
            st.sampled_from((8, 16, 64, 8192) if speculation.most else (1, 4, 16, 64, 8192))
        ),
        kv_capacity_tokens=kv,
        kv_reserve=draw(st.sampled_from((0.0, 0.0, 0.3, 0.6, 1.0))),
        kv_block=draw(st.sampled_from((1, 2, 7, 16))),
        t_req=draw(st.sampled_from((0.0, 2.0**-6))),
        t_req_token=draw(st.sampled_from((0.0, 2.0**-14))),
        stream_interval=draw(st.sampled_from((1, 1, 5))),
        async_scheduling=draw(st.booleans()),
        speculation=speculation,
    )


@st.composite
def steps(draw: st.DrawFn) -> StepTime:
    return draw(st.sampled_from((EXACT, EXACT, *REAL)))


def _arrivals(draw: st.DrawFn, times: np.ndarray, exact: bool) -> Arrivals:
    kind = draw(st.sampled_from(("open", "cap", "closed")))
    # Off the binary grid no arrival falls on a boundary, where rounding would decide.
    times = times if exact else times * np.pi / 3
    if kind == "closed":
        return Arrivals(
            kind="closed",
            concurrency=draw(st.sampled_from((1, 2, 7, 100))),
            num_prompts=len(times),
            think=draw(st.sampled_from((0.0, 0.25 if exact else 0.2347))),
        )
    cap = draw(st.sampled_from((1, 3, 9))) if kind == "cap" else 0
    return Arrivals(kind="trace", times=times, cap=cap)


@st.composite
def collocated(draw: st.DrawFn) -> tuple[System, Any]:
    step = draw(steps())
    work = draw(workloads())
    return (
        Collocated(
            lane=draw(engines(step)),
            replicas=draw(st.sampled_from((1, 1, 2, 3))),
            lengths=ANY,
            arrivals=_arrivals(draw, work[0], step is EXACT),
            routing=draw(st.sampled_from(ROUTINGS)),
        ),
        work,
    )


@st.composite
def disaggregated(draw: st.DrawFn) -> tuple[System, Any]:
    step = draw(steps())
    work = draw(workloads())
    exact = step is EXACT
    shared = draw(st.booleans())
    return (
        Disaggregated(
            prefill=draw(engines(step)),
            prefill_replicas=draw(st.sampled_from((1, 2, 3))),
            decode=draw(engines(step)),
            decode_replicas=draw(st.sampled_from((1, 2, 3))),
            lengths=ANY,
            transfer=Transfer(
                latency=draw(st.sampled_from((0.0, 2.0**-8))),
                seconds_per_token=draw(st.sampled_from((0.0, 2.0**-10)))
                * (1.0 if exact and not shared else 1.0123),
                shared=shared,
                overlap=draw(st.sampled_from((0.0, 0.5))),
            ),
            arrivals=_arrivals(draw, work[0], exact),
            routing=draw(st.sampled_from(ROUTINGS)),
        ),
        work,
    )


@st.composite
def hybrid(draw: st.DrawFn) -> tuple[System, Any]:
    apart, work = draw(disaggregated())
    assert isinstance(apart, Disaggregated)
    shares = st.sampled_from((0.0, 0.3, 0.7, 1.0))
    lanes = {
        name: dataclasses.replace(getattr(apart, name), speculation=Speculation())
        for name in ("prefill", "decode")
    }
    return (
        Hybrid(
            **{f.name: getattr(apart, f.name) for f in dataclasses.fields(apart)} | lanes,
            local_prefill_share=draw(shares),
            local_decode_share=draw(shares),
            longest_local=draw(st.sampled_from((0, 0, 5, 100))),
            prefill_queue=draw(st.sampled_from((0, 0, 1, 4))),
        ),
        work,
    )


def _pools(system: System, n: int, seed: int) -> Any:
    """Which prompts the shares of a hybrid send where, in terms of the naive loop."""
    if not isinstance(system, Hybrid):
        return None
    rng = stream(seed, POOLS)
    local, stays = (stratified(rng, n) for _ in range(2))
    return naive.Pools(local < system.local_prefill_share, stays < system.local_decode_share)


def assert_equal_to_naive(system: System, work: Any, seed: int = 3, kinds: Any = None) -> int:
    """Compare everything; return the number of evictions."""
    _, prompts, outputs, cached = work
    n = len(prompts)
    decoding = system.lane if isinstance(system, Collocated) else system.decode
    drafting, drawn = decoding.speculation, {}
    # What is refused by name has no readings to compare: drafts, hybrids that send messages.
    messages = (
        isinstance(system, Hybrid)
        and max(system.prefill.stream_interval, decoding.stream_interval) > 1
    )
    read = not (drafting.most or messages)
    got = simulate(
        system,
        seed=seed,
        given=Requests(
            input_len=prompts,
            output_len=outputs,
            cached=cached,
            kinds=kinds,
            kind_names=system.lengths.kind_names,
        ),
        reader=READERS[len(prompts) % len(READERS)] if read else None,
    )
    scheduled = np.zeros(n)
    if system.arrivals.kind == "trace":
        scheduled = system.arrivals.times - system.arrivals.times[0]
    if drafting.most:
        facts, chances = draw_acceptance(drafting, n, seed, None)
        drawn = {"starts": facts[:, 0], "chances": chances[facts[:, 1]]}
    if kinds is not None:
        order = sorted(range(n), key=lambda i: (PRIORITIES[kinds[i]], i))
        drawn["ranks"] = np.argsort(order)
    want = naive.run(
        system,
        prompts,
        outputs,
        cached,
        scheduled,
        stream(seed, ROUTES).random((n, 2)),
        stream(seed, BACK_ROUTES).random((n, 2)),
        pools=_pools(system, n, seed),
        **drawn,
    )
    np.testing.assert_allclose(got.arrival, want.arrival, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(got.first_token, want.first, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(got.last_token, want.last, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(got.start, want.start, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(got.preemptions, want.evictions)
    np.testing.assert_array_equal(got.replica, want.replica)
    np.testing.assert_array_equal(got.decode_replica, want.decode_replica)
    for use, servers in zip(got.pools, want.pools, strict=True):
        for i, server in enumerate(servers):
            assert use.steps[i] == server.steps
            assert use.kv_peak[i] == server.peak
            if server.busy > 0:
                span = want.duration
                assert use.utilisation[i] == pytest.approx(server.busy / span, rel=1e-9)
                assert use.prefill_share[i] == pytest.approx(server.prefill / span, rel=1e-9)
                assert use.batch[i] == pytest.approx(server.batch / server.busy, rel=1e-9)
                assert use.kv[i] == pytest.approx(server.kv / server.busy, rel=1e-9)
    if read:
        assert_readings_equal(got, want.tokens)
    return int(got.preemptions.sum())


def assert_readings_equal(got: SimulationResult, tokens: list[list[float]]) -> None:
    """Compare what was kept on the way with the definitions, on the naive loop's token times."""
    assert got.readings is not None
    reader, stream = got.readings.reader, got.stream_interval
    for i in np.flatnonzero(~got.refused):
        n = len(tokens[i])
        assert n == got.output_len[i]
        index = np.array([*range(stream - 1, n - 1, stream), n - 1])
        t = np.array(tokens[i])[index] + got.front_end[i] - got.arrival[i]
        # Counted from the first message, that is in time by definition: rounding must not decide.
        first = t[0] - reader.pace * index[0] + 1e-12 if reader.first is None else reader.first
        late = token_times.lateness(t, first, reader.pace, index)
        assert got.readings.lateness(first)[i] == pytest.approx(late, abs=ROUNDING)
        stalled = token_times.stall_time(t, reader.pace, index)
        assert got.stall[i] == pytest.approx(stalled, abs=ROUNDING)
        assert (got.readings.met[i], got.readings.missed[i]) == token_times.fluidity(
            t, first, reader.pace, index
        )
        gaps = token_times.gaps(t)
        assert got.readings.gaps[i] == gaps.size
        assert got.readings.long_gaps[i] == np.count_nonzero(gaps > reader.limit)
        assert got.readings.longest_gap[i] == pytest.approx(gaps.max(initial=0.0), abs=ROUNDING)


@st.composite
def crowded(draw: st.DrawFn) -> tuple[System, Any]:
    """More requests at once than the KV cache holds, so that most cases evict."""
    step = draw(steps())
    n = draw(st.integers(5, 40))
    gaps = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    times = np.cumsum(gaps) * (2.0**-7 if step is EXACT else np.pi / 400)
    prompts = np.array(draw(st.lists(st.integers(1, 30), min_size=n, max_size=n)))
    outputs = np.array(draw(st.lists(st.integers(1, 60), min_size=n, max_size=n)))
    lane = Lane(
        step=step,
        policy=draw(st.sampled_from(POLICIES)),
        max_num_batched_tokens=draw(st.sampled_from((16, 64, 8192))),
        kv_capacity_tokens=float(draw(st.integers(90, 250))),
        kv_reserve=draw(st.sampled_from((0.0, 0.2, 0.5))),
        kv_block=draw(st.sampled_from((1, 3, 16))),
        stream_interval=draw(st.sampled_from((1, 5))),
        speculation=draw(speculations(step)),
    )
    arrivals = Arrivals(kind="trace", times=times)
    cached = np.minimum(draw(st.integers(0, 9)), prompts - 1)
    work = (times, prompts, outputs, cached)
    if draw(st.booleans()):
        return Collocated(lane=lane, replicas=1, lengths=ANY, arrivals=arrivals), work
    prefill = Lane(step=step, policy=lane.policy)
    return (
        Disaggregated(
            prefill=prefill,
            prefill_replicas=1,
            decode=lane,
            decode_replicas=1,
            lengths=ANY,
            arrivals=arrivals,
        ),
        work,
    )


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(collocated())
def test_collocated_equals_naive_loop(case: tuple[System, Any]) -> None:
    assert_equal_to_naive(*case)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(disaggregated())
def test_disaggregated_equals_naive_loop(case: tuple[System, Any]) -> None:
    assert_equal_to_naive(*case)


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(hybrid())
def test_hybrid_equals_naive_loop(case: tuple[System, Any]) -> None:
    assert_equal_to_naive(*case)


PRIORITIES = (3, 0, 3, -5)


def prioritised(seed: int) -> tuple[System, Any, Any]:
    """Crowded lanes of any layout whose requests have priorities; also of which kind each is."""
    rng = np.random.default_rng(seed)
    system, work = flowing(seed)
    assert isinstance(system, Hybrid)
    lengths = dataclasses.replace(
        ANY, kind_names=tuple("abcd"), priorities=PRIORITIES, kinds=np.zeros(1, dtype=int)
    )
    lanes = [
        dataclasses.replace(lane, async_scheduling=False)
        for lane in (system.prefill, system.decode)
    ]
    small = dataclasses.replace(lanes[1], kv_capacity_tokens=float(rng.integers(90, 200)))
    kinds = rng.integers(0, len(PRIORITIES), len(work[1]))
    found: System = dataclasses.replace(system, prefill=lanes[0], decode=small, lengths=lengths)
    if seed % 3 == 0:
        found = Collocated(
            lane=small,
            replicas=2,
            lengths=lengths,
            arrivals=system.arrivals,
            routing=system.routing,
        )
    elif seed % 3 == 1:
        found = Disaggregated(
            **{f.name: getattr(found, f.name) for f in dataclasses.fields(Disaggregated)}
        )
    return found, work, kinds


def test_priorities_equal_naive_loop() -> None:
    evicting = 0
    for seed in range(45):
        system, work, kinds = prioritised(seed)
        evicting += assert_equal_to_naive(system, work, kinds=kinds) > 0
    assert evicting > 25, "the cases must evict, or they do not show whom"


def flowing(seed: int) -> tuple[System, Any]:
    """Decode lanes that fill, prefill lanes with room: decodes go there, and come back."""
    rng = np.random.default_rng(seed)
    step = (EXACT, *REAL)[seed % 3]
    n = int(rng.integers(40, 80))
    times = np.cumsum(rng.integers(0, 6, n)) * (2.0**-7 if step is EXACT else np.pi / 400)
    policy, ahead = str(rng.choice(POLICIES)), bool(rng.random() < 0.5)

    def lane(least: int, most: int) -> Lane:
        return Lane(
            step=step,
            policy=policy,
            max_num_batched_tokens=int(rng.choice((16, 64, 8192))),
            kv_capacity_tokens=float(rng.integers(least, most)),
            kv_reserve=float(rng.choice((0.0, 0.0, 0.4))),
            kv_block=int(rng.choice((1, 3, 16))),
            async_scheduling=ahead,
        )

    alone = float(step(T=8.0, A=0.0, K=300.0, n=8.0, prefill=False))
    system = Hybrid(
        prefill=lane(300, 900),
        prefill_replicas=int(rng.integers(1, 3)),
        decode=lane(120, 400),
        decode_replicas=int(rng.integers(1, 3)),
        lengths=ANY,
        local_prefill_share=float(rng.choice((0.0, 0.0, 0.4))),
        local_decode_share=float(rng.choice((0.0, 0.0, 0.4))),
        longest_local=int(rng.choice((0, 0, 5))),
        # a decode lane keeps it, a prefill lane hardly
        flow=Flow(
            watermark=float(rng.uniform(0.4, 0.8)), tpot=alone * float(rng.uniform(1.3, 1.8))
        ),
        transfer=Transfer(
            latency=float(rng.choice((0.0, 2.0**-8))),
            seconds_per_token=float(rng.choice((0.0, 2.0**-14))),
            overlap=float(rng.choice((0.0, 0.5))),
        ),
        arrivals=Arrivals(kind="trace", times=times)
        if rng.random() < 0.7
        else Arrivals(kind="closed", concurrency=20, num_prompts=n),
        routing=str(rng.choice(ROUTINGS)),  # type: ignore[arg-type]
    )
    prompts, outputs = rng.integers(1, 31, n), rng.integers(1, 61, n)
    return system, (times, prompts, outputs, np.zeros(n, dtype=int))


def test_flowing_decodes_equal_naive_loop() -> None:
    away = back = 0
    for seed in (*range(48), 113, 183):  # the last two evict prompts under way
        assert_equal_to_naive(*flowing(seed))
        away += naive.MOVES["away"] > 0
        back += naive.MOVES["back"] > 0
    assert away > 35, "decodes must leave in most cases, or they show nothing"
    assert back > 15, "and come back in many"


def test_evictions_equal_naive_loop() -> None:
    evicting = 0

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(crowded())
    def check(case: tuple[System, Any]) -> None:
        nonlocal evicting
        evicting += assert_equal_to_naive(*case) > 0

    check()
    assert evicting > 100, "the cases must evict, or they show nothing"
