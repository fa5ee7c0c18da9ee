"""What a client writes down of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bestserve.models.system import Arrivals, Collocated, Disaggregated, Lengths
from bestserve.readers.tidy import TidyRow
from bestserve.simulator import simulate
from bestserve.validation.client_view import seen_by_client
from bestserve.validation.repeated_prompts import with_repeated_prompts
from bestserve.validation.replay import (
    one_replica,
    predict_row,
    prepare,
    system_of,
)
from bestserve.validation.runs import sent_in_periods

Make = Callable[..., TidyRow]
SPLIT: dict[str, Any] = {
    "disaggregated": True, "prefill_workers": 1, "decode_workers": 1, "prefill_tp": 1,
    "decode_tp": 1, "num_gpus": 2, "engine": "SGLang", "engine_version": "0.5.1",
}  # fmt: skip


def test_a_split_service_shows_its_first_token_after_the_handover(make: Make) -> None:
    prepared = prepare(make(**SPLIT))
    system = system_of(prepared)
    assert isinstance(system, Disaggregated)
    run = simulate(system, None)
    seen = seen_by_client(run, system, prepared.protocol)
    handed = system.transfer.latency + system.transfer.seconds_per_token * run.input_len
    assert np.all(seen.ttft > (run.ttft + handed)[run.kept] - 1e-12)
    # The whole is unchanged: what TTFT gains, the later tokens lose.
    gaps = run.output_len[run.kept] - 1
    assert seen.ttft + gaps * seen.tpot == pytest.approx(run.e2el[run.kept])


def test_empty_answers_count_as_zero_only_where_the_client_does_so(make: Make) -> None:
    row = make(
        source="dstack Llama-3.1-405B H100 vs MI300X", dataset_or_lengths="ShareGPT 1000 prompts",
        request_rate=16.0, concurrency=None, num_prompts=300, input_len_mean=215.0,
        output_len_mean=120.0,
    )  # fmt: skip
    prepared = prepare(row)
    system = system_of(prepared)
    run = simulate(system, prepared.protocol.rate, requests=300, warmup=0.0, cooldown=0.0)
    seen = seen_by_client(run, system, prepared.protocol)
    assert np.count_nonzero(seen.ttft == 0.0) == np.count_nonzero(run.output_len == 1)
    plain = dataclasses.replace(prepared.protocol, blanks_count_zero=False)
    assert seen_by_client(run, system, plain).ttft.min() > 0


LLMD: dict[str, Any] = {
    "source": "llm-d KV-cache-aware routing benchmark", "model": "Qwen/Qwen3-32B", "tp": 2,
    "num_gpus": 16, "replicas": 8, "prefix_caching": True, "prefix_groups": 150,
    "prefix_len": 6000, "input_len_mean": 7200.0, "output_len_mean": 1000.0,
    "request_rate": 10.0, "concurrency": None,
    "dataset_or_lengths": "shared_prefix: 150 groups x5, system 6000 + question 1200",
}  # fmt: skip


def test_a_throttled_client_sends_and_sees_at_the_ends_of_periods(make: Make) -> None:
    prepared = prepare(make(**LLMD, routing="random-scheduling"))
    protocol, system = prepared.protocol, system_of(prepared)
    assert protocol.client_period == 0.1
    due = Arrivals(kind="trace", times=np.array([0.0, 0.01, 0.1, 0.25]))
    sent = sent_in_periods(due, protocol.client_period)
    assert sent.times == pytest.approx([0.0, 0.1, 0.1, 0.3])
    assert sent_in_periods(due, 0.0) is due
    run = simulate(system, 10.0, requests=60)
    seen = seen_by_client(run, system, protocol).ttft
    own = run.ttft[run.kept]
    assert seen / 0.1 == pytest.approx(np.round(seen / 0.1))
    # A period to connect, then up to one until it looks.
    assert np.all((seen - own > 0.1 - 1e-9) & (seen - own < 0.2 + 1e-9))


@pytest.mark.parametrize(
    ("source", "policy", "routing"),
    [
        (LLMD["source"], "load-scheduling", "reported_kv"),
        (LLMD["source"], "random-scheduling", "random"),
        (LLMD["source"], "precise-scheduling", "prefix_aware"),
        ("another", "load-scheduling", "least_outstanding"),
    ],
)
def test_what_a_policy_by_load_amounts_to_depends_on_the_router(
    make: Make, source: str, policy: str, routing: str
) -> None:
    row = make(**{**LLMD, "source": source}, routing=policy, num_prompts=200)
    assert system_of(prepare(row)).routing == routing


def test_requests_that_timed_out_do_not_count(make: Make) -> None:
    row = make(
        ignore_eos=False, output_len_asked=4000.0, output_len_mean=36.0, num_prompts=80,
        completed=60, input_len_mean=500.0,
    )  # fmt: skip
    found = predict_row(prepare(row))[0]
    whole = predict_row(prepare(dataclasses.replace(row, completed=80, num_prompts=80)))[0]
    assert found["req_throughput"] < 0.5 * whole["req_throughput"]
    assert "out_tok_throughput" not in found


@pytest.mark.parametrize(
    ("clients", "replicas", "hit"),
    [(128, 1, False), (64, 1, True), (64, 2, False), (32, 2, True), (64, 3, True)],
)
def test_runs_in_turn_find_their_prompts_where_round_robin_puts_them_again(
    make: Make, clients: int, replicas: int, hit: bool
) -> None:
    """500 prompts and one test request a run: 501 is odd, and whole rounds of three."""
    row = make(
        source="dstack pd_ratio", prefix_caching=True, num_prompts=500, concurrency=clients, **SPLIT
    )
    prepared = prepare(row)
    system = system_of(prepared)
    assert isinstance(system, Disaggregated)
    large = dataclasses.replace(system.prefill, kv_capacity_tokens=1e6)
    lengths = with_repeated_prompts(prepared, large, replicas)
    assert (lengths.cached.size > 0) == hit
    small = dataclasses.replace(large, kv_capacity_tokens=400e3)
    assert with_repeated_prompts(prepared, small, replicas).cached.size == 0


def test_one_replica_of_many_sees_its_share(make: Make) -> None:
    row = make(
        source="MLPerf Inference v4.1 closed/X", request_rate=40.0, concurrency=None, num_gpus=4
    )
    prepared = prepare(row)
    system = system_of(prepared)
    assert isinstance(system, Collocated)
    assert system.replicas == 4
    one, protocol = one_replica(system, prepared.protocol)
    assert protocol.rate == 10.0
    args: dict[str, Any] = {"requests": 8000, "seed": 1}
    whole = simulate(system, 40.0, **args).summary("ttft").mean
    part = simulate(one, 10.0, **args).summary("ttft").mean
    assert part == pytest.approx(whole, rel=0.05)


def test_lengths_of_plain_rows_stay(make: Make) -> None:
    lengths: Lengths = prepare(make()).protocol.lengths
    assert lengths.cached.size == 0
