"""Conservation, determinism, traps and what results say about themselves."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bestserve as bs
from bestserve.errors import InputError
from bestserve.lowering.lengths import lower_lengths
from bestserve.models.latency import stability_rate
from bestserve.models.policies import policies
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import (
    Arrivals,
    Collocated,
    Disaggregated,
    Lane,
    Lengths,
    Target,
    Transfer,
)
from bestserve.readers.traces import read_trace
from bestserve.simulator import (
    Requests,
    RunStatus,
    prefix_hits,
    replicate,
    saturation_rate,
    simulate,
    static_replicas,
    to_vllm_detailed,
    trace_requests,
)

ROUTINGS = ("random", "round_robin", "least_outstanding", "power_of_two", "least_kv")


@pytest.fixture
def lane(chat_step: StepTime) -> Lane:
    return Lane(step=chat_step)


@pytest.fixture
def system(lane: Lane, chat_lengths: Lengths) -> Collocated:
    return Collocated(lane=lane, replicas=2, lengths=chat_lengths)


@pytest.fixture
def tandem(lane: Lane, chat_lengths: Lengths) -> Disaggregated:
    return Disaggregated(
        prefill=lane,
        prefill_replicas=2,
        decode=lane,
        decode_replicas=1,
        lengths=chat_lengths,
        transfer=Transfer(latency=1e-3, seconds_per_token=1e-6, shared=True),
    )


def test_all_who_come_within_a_long_step_go_to_the_lane_that_told_the_least(lane: Lane) -> None:
    """Three lanes hold a long context each; prompts of 8,000 tokens come while one is processed."""
    one = np.ones(1)
    lengths = Lengths(inputs=one, input_weights=one, outputs=one, output_weights=one)
    times = np.concatenate([[0.0, 1.0, 2.0], 5.0 + 0.03 * np.arange(4)])
    work = Requests(input_len=np.array([7000, 7000, 7000] + [8000] * 4), output_len=np.full(7, 900))
    went = {}
    for routing in ("reported_kv", "least_kv"):
        many = Collocated(
            lane=lane,
            replicas=4,
            lengths=lengths,
            arrivals=Arrivals(kind="trace", times=times),
            routing=routing,  # type: ignore[arg-type]
        )
        went[routing] = simulate(many, None, given=work, warmup=0.0, cooldown=0.0)
    told = went["reported_kv"]
    assert told.first_token[3] > times[6]
    assert told.replica.tolist() == [0, 1, 2, 3, 3, 3, 3]
    assert told.ttft[3:].max() > 3 * went["least_kv"].ttft[3:].max()
    assert len(set(went["least_kv"].replica[3:])) > 2


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("policy", policies())
@pytest.mark.parametrize("kv", [float("inf"), 20_000.0])
def test_every_request_ends_once(system: Collocated, routing: str, policy: str, kv: float) -> None:
    lane = dataclasses.replace(system.lane, policy=policy, kv_capacity_tokens=kv, kv_block=16)
    busy = dataclasses.replace(system, lane=lane, routing=routing)
    result = simulate(busy, 24.0, requests=3000)
    assert result.status is RunStatus.OK
    assert result.completed == 3000
    assert (result.start >= result.arrival).all()
    assert (result.first_token > result.start).all()
    longer = result.output_len > 1
    assert (result.last_token[longer] > result.first_token[longer]).all()
    (use,) = result.pools
    assert (use.utilisation <= 1.0 + 1e-12).all()
    assert (use.kv_peak <= kv).all()
    assert use.preemptions.sum() == result.preemptions.sum()
    assert np.bincount(result.replica, minlength=2).sum() == 3000


def test_token_time_adds_up(lane: Lane, chat_lengths: Lengths) -> None:
    """Without KV cost, ∫batch dt over decode-only steps is the sum of decode spans."""
    step = StepTime(w=5e-3, c=0, e=0, a=0, k=0)
    plain = dataclasses.replace(lane, step=step)
    system = Collocated(lane=plain, replicas=1, lengths=chat_lengths)
    result = simulate(system, 10.0, requests=5000)
    (use,) = result.pools
    busy = use.utilisation[0] * result.last_token.max()
    # Every step takes 5 ms, and each request takes part in one step per output token.
    assert use.batch[0] * busy == pytest.approx(5e-3 * result.output_len.sum(), rel=1e-9)
    assert use.steps[0] * 5e-3 == pytest.approx(busy, rel=1e-9)


def test_same_seed_same_run(system: Collocated, tandem: Disaggregated) -> None:
    for each, rate in ((system, 20.0), (tandem, 10.0)):
        one, two = simulate(each, rate, seed=4), simulate(each, rate, seed=4)
        np.testing.assert_array_equal(one.last_token, two.last_token)
        other = simulate(each, rate, seed=5)
        assert not np.array_equal(one.last_token, other.last_token)


def test_common_random_numbers(system: Collocated) -> None:
    slow, fast = simulate(system, 10.0, seed=2), simulate(system, 20.0, seed=2)
    np.testing.assert_array_equal(slow.input_len, fast.input_len)
    np.testing.assert_array_equal(slow.output_len, fast.output_len)
    np.testing.assert_array_equal(slow.replica, fast.replica)
    np.testing.assert_allclose(slow.arrival, 2 * fast.arrival, rtol=1e-12)


def test_known_run_on_every_machine(lane: Lane) -> None:
    """A run small enough to follow by hand, so that a platform that differs is found out."""
    step = StepTime(w=0.5, c=0, e=0, a=0, k=0)
    plain = Collocated(
        lane=dataclasses.replace(lane, step=step),
        replicas=1,
        lengths=_any(),
        arrivals=Arrivals(kind="trace", times=np.array([0.0, 0.2, 2.0])),
    )
    given = Requests(input_len=np.array([10, 20, 30]), output_len=np.array([3, 1, 2]))
    result = simulate(plain, given=given)
    np.testing.assert_allclose(result.first_token, [0.5, 1.0, 2.5])
    np.testing.assert_allclose(result.last_token, [1.5, 1.0, 3.0])
    np.testing.assert_allclose(result.queue_time, [0.0, 0.3, 0.0])
    # Seed 0 of the documented streams: PCG64 of (0, purpose).
    draw = simulate(
        dataclasses.replace(plain, lengths=_spread(), arrivals=Arrivals()), 1.0, requests=5
    )
    assert draw.input_len.tolist() == SEED_0_INPUTS


SEED_0_INPUTS = [40, 82, 65, 16, 41]


def _any() -> Lengths:
    one = np.ones(1)
    return Lengths(inputs=one, input_weights=one, outputs=one, output_weights=one)


def _spread() -> Lengths:
    values = np.arange(1.0, 101.0)
    weights = np.full(100, 0.01)
    return Lengths(inputs=values, input_weights=weights, outputs=values, output_weights=weights)


def test_too_small_a_cache_is_a_status(system: Collocated) -> None:
    tiny = dataclasses.replace(system.lane, kv_capacity_tokens=100.0)
    result = simulate(dataclasses.replace(system, lane=tiny), 5.0, requests=500)
    assert result.status is RunStatus.ALL_REFUSED
    assert result.completed == 0
    assert result.throughput == 0.0
    assert result.attainment(Target(ttft=1.0)) == 0.0
    some = dataclasses.replace(system.lane, kv_capacity_tokens=1300.0)
    result = simulate(dataclasses.replace(system, lane=some), 0.5, requests=500)
    assert result.status is RunStatus.SOME_REFUSED
    np.testing.assert_array_equal(result.refused, result.input_len + result.output_len - 1 > 1300)
    counted = slice(*result.window)
    assert result.window == (25, 490)
    assert result.attainment(Target(ttft=1e9)) == pytest.approx(1 - result.refused[counted].mean())
    assert saturation_rate(dataclasses.replace(system, lane=tiny), requests=100) == 0.0


def test_closed_loop_with_more_clients_than_prompts(system: Collocated) -> None:
    loop = Arrivals(kind="closed", concurrency=100, num_prompts=7)
    result = simulate(dataclasses.replace(system, arrivals=loop))
    assert len(result) == 7
    assert (result.arrival == 0.0).all()
    assert result.kept.all()


def test_closed_loop_keeps_its_concurrency(system: Collocated, tandem: Disaggregated) -> None:
    loop = Arrivals(kind="closed", concurrency=12, num_prompts=200)
    for each in (system, tandem):
        result = simulate(dataclasses.replace(each, arrivals=loop))
        change = np.concatenate([result.arrival, result.last_token])
        sign = np.concatenate([np.ones(200), -np.ones(200)])
        # Ends first: the next prompt leaves at the very time the last one ended.
        order = np.lexsort((sign, change))
        present = np.cumsum(sign[order])
        assert present.max() == 12


def test_cap_never_binds_when_large(system: Collocated, tandem: Disaggregated) -> None:
    """The coupled loop and the open loop agree where both apply."""
    for each, rate in ((system, 20.0), (tandem, 10.0)):
        free = simulate(each, rate, requests=2000)
        capped = simulate(
            dataclasses.replace(each, arrivals=Arrivals(cap=5000)), rate, requests=2000
        )
        np.testing.assert_allclose(free.last_token, capped.last_token, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("arrivals", "scv"),
    [
        (Arrivals(), 1.0),
        (Arrivals(burstiness=4.0), 0.25),
        (Arrivals(burstiness=0.25), 4.0),
        (Arrivals(kind="mmpp", rates=np.array([1.0, 5.0]), stays=np.array([30.0, 10.0])), None),
        (Arrivals(kind="trace", times=np.cumsum(np.tile([1.0, 3.0], 500))), 0.25),
    ],
)
def test_arrivals_have_the_rate_asked(
    system: Collocated, arrivals: Arrivals, scv: float | None
) -> None:
    result = simulate(dataclasses.replace(system, arrivals=arrivals), 4.0, requests=20_000)
    gaps = np.diff(result.arrival)
    assert 1 / gaps.mean() == pytest.approx(4.0, rel=0.02 if scv else 0.15)
    if scv is None:
        assert gaps.var() / gaps.mean() ** 2 > 1.2
    else:
        assert gaps.var() / gaps.mean() ** 2 == pytest.approx(scv, rel=0.1)


def test_lengths_keep_their_mean_and_pairing(system: Collocated) -> None:
    result = simulate(system, 10.0, requests=20_000)
    assert result.input_len.mean() == pytest.approx(980.0, rel=2e-3)
    assert result.output_len.mean() == pytest.approx(212.75, rel=2e-3)
    joint = Lengths(
        inputs=np.array([10.0, 20.0, 30.0]),
        input_weights=np.array([0.5, 0.25, 0.25]),
        outputs=np.array([1.0, 2.0, 3.0]),
        output_weights=np.array([0.5, 0.25, 0.25]),
        joint=True,
        cached=np.array([0.0, 5.0, 50.0]),
    )
    result = simulate(dataclasses.replace(system, lengths=joint), 10.0, requests=4000)
    np.testing.assert_array_equal(result.input_len, 10 * result.output_len)
    assert np.mean(result.input_len == 10) == pytest.approx(0.5, abs=1e-3)


def test_cached_tokens_shorten_the_prefill(system: Collocated) -> None:
    n = np.full(200, 2000)
    given = Requests(input_len=n, output_len=np.full(200, 5))
    hits = dataclasses.replace(given, cached=np.full(200, 1999))
    cold, warm = simulate(system, 0.5, given=given), simulate(system, 0.5, given=hits)
    step = system.lane.step
    assert cold.ttft.min() == pytest.approx(step(2000, 2000**2 / 2, 0, 1, True))
    assert warm.ttft.min() == pytest.approx(step(1, 1999 + 0.5, 0, 1, True))


def test_front_end_time_is_added(system: Collocated) -> None:
    slow = dataclasses.replace(system.lane, t_req=0.03, t_req_token=1e-5)
    plain = simulate(system, 10.0, requests=500)
    late = simulate(dataclasses.replace(system, lane=slow), 10.0, requests=500)
    np.testing.assert_allclose(late.ttft - plain.ttft, 0.03 + 1e-5 * plain.input_len, atol=1e-12)
    np.testing.assert_allclose(late.tpot, plain.tpot, atol=1e-12)


def test_stream_interval_delays_the_first_message(system: Collocated) -> None:
    coarse = dataclasses.replace(system.lane, stream_interval=20)
    each = simulate(system, 2.0, requests=500)
    packed = simulate(dataclasses.replace(system, lane=coarse), 2.0, requests=500)
    np.testing.assert_allclose(packed.last_token, each.last_token, atol=1e-9)
    delay = packed.ttft - each.ttft
    np.testing.assert_allclose(delay / (19 * each.tpot), 1.0, rtol=0.5)


def test_more_rate_more_wait(system: Collocated) -> None:
    p90 = [simulate(system, r, requests=5000).summaries["ttft"].p90 for r in (5, 10, 15, 20, 25)]
    assert (np.diff(p90) > 0).all()


def test_saturation_bounds_the_rate(system: Collocated, tandem: Disaggregated) -> None:
    for each in (system, tandem):
        limit = saturation_rate(each, requests=10_000)
        below = simulate(each, 0.9 * limit, requests=20_000)
        above = simulate(each, 1.2 * limit, requests=20_000)
        assert below.queue_time[-2000:].mean() < 1.0
        assert above.e2el[-2000:].mean() > 10 * below.e2el[-2000:].mean() or (
            above.throughput < 1.05 * limit
        )


def test_saturation_of_equal_requests_does_not_depend_on_how_many_there_are(lane: Lane) -> None:
    """They complete in waves; the run ends within one."""
    small = dataclasses.replace(lane, max_num_seqs=300, kv_capacity_tokens=4e5)
    long = dataclasses.replace(_any(), inputs=np.array([1000.0]), outputs=np.array([200.0]))
    waves = Collocated(lane=small, replicas=1, lengths=long)
    limits = [saturation_rate(waves, requests=n) for n in (6000, 7100, 30_000)]
    assert limits == pytest.approx([limits[-1]] * 3, rel=0.005)


def test_saturation_of_uneven_answers_is_that_of_slots_found_in_service(lane: Lane) -> None:
    """Slots that all start afresh hold young answers: 20 % too much after 20 of a CV of 2."""
    small = dataclasses.replace(lane, max_num_seqs=256, kv_capacity_tokens=4e7)
    law = bs.Workload(input_len=10, output_len="lognormal:480,2")
    uneven = Collocated(lane=small, replicas=1, lengths=lower_lengths(law))
    limits = [saturation_rate(uneven, requests=1000, seed=seed) for seed in range(4)]
    assert np.mean(limits) == pytest.approx(stability_rate(uneven), rel=0.045)


def test_saturation_of_equal_answers_is_that_of_lanes_out_of_step(lane: Lane) -> None:
    """All at once they would share their prompts' steps for ever."""
    first = dataclasses.replace(lane, policy="prefill_priority", max_num_seqs=96)
    equal = lower_lengths(bs.Workload(input_len=4, output_len=19))
    whole = Collocated(lane=first, replicas=1, lengths=equal)
    assert saturation_rate(whole) == pytest.approx(stability_rate(whole), rel=0.02)
    at_once = simulate(whole, 1e9, requests=20_000)
    assert at_once.throughput > 1.2 * stability_rate(whole)


def test_answers_of_one_token_meet_any_tpot(system: Collocated) -> None:
    given = Requests(input_len=np.full(2000, 200), output_len=np.tile([1, 1, 1, 1, 50], 400))
    result = simulate(system, 5.0, given=given)
    slow = Target(tpot=float(np.nanquantile(result.tpot[result.kept], 0.5)))
    assert result.margins(slow)["tpot"] == pytest.approx(0.0, abs=0.01)
    assert result.margins(dataclasses.replace(slow, joint=True))["joint"] == pytest.approx(
        result.margins(slow)["tpot"]
    )


def test_replications_narrow_the_interval(system: Collocated) -> None:
    few = replicate(system, 20.0, 3, requests=2000, target=Target(ttft=0.1))
    many = replicate(system, 20.0, 12, requests=2000, target=Target(ttft=0.1))
    assert many.seeds[:3] == few.seeds
    assert len(set(many.seeds)) == 12
    low, high = many.ttft.interval("mean")
    assert high - low < few.ttft.interval("mean")[1] - few.ttft.interval("mean")[0]
    assert many.attainment is not None
    assert 0 < many.attainment.low < many.attainment.value < many.attainment.high


def test_series_are_bounded_and_span_the_run(system: Collocated) -> None:
    result = simulate(system, 20.0, requests=20_000)
    for time, batch, kv in result.pools[0].series:
        assert 500 <= len(time) <= 1024
        assert (np.diff(time) > 0).all()
        assert time[-1] > 0.9 * result.arrival[-1]
        assert (batch >= 1).all()
        assert (kv >= 1).all()


@pytest.mark.parametrize("kind", ["collocated", "tandem"])
def test_vllm_log_says_what_the_run_says(
    system: Collocated, tandem: Disaggregated, kind: str
) -> None:
    each = system if kind == "collocated" else tandem
    result = simulate(each, 8.0, requests=300, record_steps=True)
    log = json.loads(json.dumps(to_vllm_detailed(result, model_id="org/model")))
    assert log["completed"] == log["num_prompts"] == 300
    assert log["mean_ttft_ms"] == pytest.approx(1e3 * result.ttft.mean())
    assert log["p99_e2el_ms"] == pytest.approx(1e3 * np.percentile(result.e2el, 99))
    for i, gaps in enumerate(log["itls"]):
        assert len(gaps) == log["output_lens"][i] - 1
        assert min(gaps) > 0
        assert sum(gaps) == pytest.approx(result.e2el[i] - result.ttft[i])
    # Stalls behind prompts show up as long gaps, which equal gaps would hide.
    even = to_vllm_detailed(simulate(each, 8.0, requests=300))
    assert even["mean_itl_ms"] == pytest.approx(log["mean_itl_ms"])
    assert log["std_itl_ms"] > even["std_itl_ms"]


def test_recorded_gaps_are_step_times() -> None:
    """One request alone: its gaps are its decode steps."""
    step = StepTime(w=6e-3, c=0, e=0, a=0, k=1e-6)
    system = Collocated(
        lane=Lane(step=step),
        replicas=1,
        lengths=_any(),
        arrivals=Arrivals(kind="trace", times=np.array([0.0, 50.0])),
    )
    given = Requests(input_len=np.array([100, 100]), output_len=np.array([6, 6]))
    result = simulate(system, given=given, record_steps=True)
    want = [step(1, 0, 100 + j, 1) for j in range(1, 6)]
    for gaps in to_vllm_detailed(result)["itls"]:
        np.testing.assert_allclose(gaps, want, rtol=1e-9)


def test_answers_serialise(system: Collocated) -> None:
    result = simulate(system, 20.0, requests=2000)
    document = json.loads(result.to_json())
    assert document["kind"] == "simulationresult"
    assert document["ttft"]["p90"] == pytest.approx(result.summaries["ttft"].p90)
    assert document["completed"] == 2000
    rows = result.records()
    assert [row["latency"] for row in rows] == ["ttft", "tpot", "e2el", "queue_time"]
    assert rows[0]["mean_ms"] == pytest.approx(1e3 * result.ttft[result.kept].mean())
    frame = result.requests_frame()
    assert len(frame) == 2000
    assert frame["tpot"].isna().sum() == 0
    runs = replicate(system, 20.0, 2, requests=500)
    assert json.loads(runs.to_json())["ttft"]["mean"] == pytest.approx(runs.ttft.mean)
    # One run too short for batch means knows no intervals, and says so with blanks.
    assert simulate(system, 20.0, requests=30).records()[0]["mean_error_ms"] is None


def test_traces_replay_in_order(system: Collocated, shared: Path) -> None:
    """Mooncake conversation: hits recounted with plain sets; the trace repeats past its end."""
    trace = read_trace(shared / "traces" / "mooncake" / "conversation_trace.jsonl")
    given = trace_requests(trace, len(trace) + 10, cache_tokens=float("inf"))
    seen: set[int] = set()
    hit = 0
    assert trace.hash_ids is not None
    for ids, length in zip(trace.hash_ids, trace.input_len, strict=True):
        fresh = [key not in seen for key in ids]
        blocks = fresh.index(True) if any(fresh) else len(ids)
        hit += min(512 * blocks, int(length) - 1)
        seen.update(ids)
    assert given.cached is not None
    assert given.cached[: len(trace)].sum() == hit
    assert hit / trace.input_len.sum() == pytest.approx(0.374, abs=0.001)
    np.testing.assert_array_equal(given.input_len[-10:], trace.input_len[:10])
    assert trace.arrivals is not None
    busy = dataclasses.replace(
        system, replicas=8, arrivals=Arrivals(kind="trace", times=trace.arrivals)
    )
    warm = simulate(busy, 4.0, given=given)
    cold = simulate(busy, 4.0, given=trace_requests(trace, len(trace) + 10))
    assert warm.completed == len(trace) + 10
    assert warm.ttft.mean() < cold.ttft.mean()
    np.testing.assert_array_equal(warm.output_len[: len(trace)], trace.output_len)


def test_prefix_hits_follow_the_cache() -> None:
    ids = [[1, 2, 3], [1, 2, 4], [5], [1, 2, 3]]
    lengths = np.array([1500, 1500, 500, 1500])
    assert prefix_hits(ids, lengths).tolist() == [0, 1024, 0, 1499]
    small = prefix_hits(ids, lengths, capacity_tokens=3 * 512)
    assert small.tolist() == [0, 1024, 0, 1024]
    apart = prefix_hits(ids, lengths, replica=np.array([0, 1, 0, 1]))
    assert apart.tolist() == [0, 0, 0, 1024]


def test_static_replicas_are_those_of_the_run(system: Collocated) -> None:
    for routing in ("random", "round_robin"):
        routed = dataclasses.replace(system, routing=routing)
        result = simulate(routed, 5.0, requests=300, seed=9)
        np.testing.assert_array_equal(static_replicas(routed, 300, 9), result.replica)
    with pytest.raises(InputError, match="state of the replicas"):
        static_replicas(dataclasses.replace(system, routing="least_kv"), 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"requests": 0}, "requests = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"warmup": 0.9, "cooldown": 0.2}, "warmup"),
        ({"rate": float("nan")}, "request rate"),
        ({"rate": None}, "request rate"),
        ({"rate": -1.0}, "request rate"),
    ],
)
def test_bad_arguments_are_named(
    system: Collocated, change: dict[str, float], message: str
) -> None:
    arguments: dict[str, float] = {"rate": 1.0, **change}
    with pytest.raises(InputError, match=message):
        simulate(system, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"kv_block": 0}, "kv_block"),
        ({"kv_reserve": 1.5}, "kv_reserve"),
        ({"kv_capacity_tokens": 0.0}, "kv_capacity_tokens"),
        ({"t_req": -1.0}, "t_req"),
        ({"policy": "fifo"}, "policy 'fifo'"),
    ],
)
def test_bad_lanes_are_named(system: Collocated, change: dict[str, object], message: str) -> None:
    lane = dataclasses.replace(system.lane, **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        simulate(dataclasses.replace(system, lane=lane), 1.0)


def test_a_million_requests_fit_in_memory(system: Collocated) -> None:
    """Peak memory of a fresh process with a million requests stays below 700 MB."""
    code = (
        "import numpy as np, resource\n"
        "from bestserve.models.step.step_time import StepTime\n"
        "from bestserve.models.system import Collocated, Lane, Lengths\n"
        "from bestserve.simulator import simulate\n"
        "l = Lengths(inputs=np.array([200., 800.]), input_weights=np.array([.5, .5]),"
        " outputs=np.array([50., 200.]), output_weights=np.array([.5, .5]))\n"
        "lane = Lane(step=StepTime(w=6e-3, c=26e-6, e=0, a=.35e-9, k=49e-9))\n"
        "r = simulate(Collocated(lane=lane, replicas=1, lengths=l), 15., requests=1_000_000)\n"
        "assert r.completed == 1_000_000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 700 * 1024
