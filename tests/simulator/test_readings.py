"""What readers meet in a run, against the times of every token."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bestserve.errors import InputError
from bestserve.models import token_times
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Disaggregated, Lane, Lengths, System, Target
from bestserve.models.token_target import TokenTarget
from bestserve.models.token_times import Reader
from bestserve.simulator import SimulationResult, simulate
from bestserve.simulator.vllm_log import inter_token_latencies

STEP = StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=35e-6)
RNG = np.random.default_rng(3)
ATOMS = np.ceil(RNG.lognormal(6.0, 0.8, 64)), np.ceil(RNG.lognormal(4.0, 0.9, 64))
LENGTHS = Lengths(
    inputs=ATOMS[0],
    input_weights=np.full(64, 1 / 64),
    outputs=ATOMS[1],
    output_weights=np.full(64, 1 / 64),
)
LANE = Lane(step=STEP, max_num_batched_tokens=1024)
SYSTEMS: dict[str, System] = {
    "collocated": Collocated(lane=LANE, replicas=2, lengths=LENGTHS),
    "disaggregated": Disaggregated(
        prefill=LANE, prefill_replicas=1, decode=LANE, decode_replicas=1, lengths=LENGTHS
    ),
}
READER = Reader(pace=0.012, first=0.1, limit=0.02)


def watched(system: System, **changes: object) -> SimulationResult:
    """Return a run of some load with a reader, its steps recorded."""
    return simulate(system, 20.0, requests=800, reader=READER, record_steps=True, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SYSTEMS)
def test_watching_changes_nothing(name):
    plain, seen = simulate(SYSTEMS[name], 20.0, requests=800), watched(SYSTEMS[name])
    np.testing.assert_array_equal(plain.last_token, seen.last_token)
    assert plain.readings is None
    with pytest.raises(InputError, match="reader"):
        plain.met(Target(tokens=TokenTarget(pace=0.01, first=0.1, slack=0.0)))


@pytest.mark.parametrize("name", SYSTEMS)
def test_histogram_of_gaps_gives_their_quantiles(name):
    run = watched(SYSTEMS[name])
    gaps = inter_token_latencies(run)
    kept = np.concatenate([gaps[i] for i in np.flatnonzero(run.kept)])
    assert run.readings.counts.sum() == kept.size
    for p in (0.5, 0.9, 0.99):
        assert run.readings.itl(p) == pytest.approx(np.quantile(kept, p), rel=0.025)


def test_smooth_goodput_is_that_of_all_token_times():
    run = watched(SYSTEMS["collocated"])
    waits = []
    for i in np.flatnonzero(run.kept):
        t = run.ttft[i] + np.concatenate([[0.0], np.cumsum(inter_token_latencies(run)[i])])
        waits.append(max(token_times.lateness(t, READER.first, READER.pace), 0.0))
    arrivals = run.arrival[slice(*run.window)]
    want = token_times.smooth_goodput(
        run.output_len[run.kept], np.array(waits), arrivals[-1] - arrivals[0], 50.0
    )
    assert max(waits) > 0
    assert run.smooth_goodput(50.0) == pytest.approx(want, rel=1e-6)


def test_shares_count_requests_and_those_of_gaps_gaps():
    run = watched(SYSTEMS["collocated"])
    target = TokenTarget(pace=READER.pace, first=READER.first, slack=0.05, itl=READER.limit)
    met = run.meeting(Target(tokens=target))
    kept = run.kept
    assert met["deadline"] == pytest.approx(
        np.mean(run.readings.lateness(READER.first)[kept] <= 0.05)
    )
    gaps, long = run.readings.gaps[kept].sum(), run.readings.long_gaps[kept].sum()
    assert 0 < long < gaps
    assert met["itl"] == pytest.approx(1 - long / gaps)
    joint = run.meeting(Target(tokens=target, joint=True))
    assert joint["itl"] == pytest.approx(np.mean(run.readings.long_gaps[kept] == 0))
    assert joint["joint"] <= min(joint["itl"], joint["deadline"])


def test_refused_requests_meet_nothing():
    small = dataclasses.replace(LANE, kv_capacity_tokens=900.0)
    run = watched(Collocated(lane=small, replicas=2, lengths=LENGTHS))
    assert run.refused.any()
    target = TokenTarget(
        pace=1.0, first=1e3, slack=1e3, stall=1e3, fluidity=1e-6, itl=READER.limit, own_gaps=0.0
    )
    share = 1 - run.refused[slice(*run.window)].mean()
    met = run.meeting(Target(tokens=target, joint=True))
    assert set(met) == {"deadline", "stall", "fluidity", "itl", "joint"}
    for name in ("deadline", "stall", "joint"):
        assert met[name] == pytest.approx(share)


def test_messages_of_several_tokens_are_seen_when_they_come():
    lane = dataclasses.replace(LANE, stream_interval=4)
    run = watched(Collocated(lane=lane, replicas=2, lengths=LENGTHS))
    i = int(np.flatnonzero(run.output_len > 20)[0])
    assert run.readings.gaps[i] == np.ceil((run.output_len[i] - 4) / 4)
