"""Replay: physics of the predicted figures, and what is refused only after building."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bestserve.models.system import Collocated, Disaggregated
from bestserve.readers.tidy import Regime, RequestLog, RowStatus, TidyRow
from bestserve.validation.compare import compare_row
from bestserve.validation.floor import impossible
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.replay import (
    METRICS,
    measured_figures,
    predict_row,
    prepare,
    system_of,
)
from bestserve.validation.shared_prefixes import at_best, behind_warming, warming_gap

Make = Callable[..., TidyRow]


def figures(row: TidyRow) -> dict[str, float]:
    """Predicted figures of a row."""
    return predict_row(prepare(row))[0]


def test_all_figures_are_predicted_under_tidy_names(make: Make) -> None:
    found, method, _ = predict_row(prepare(make()))
    assert method == "simulated"
    assert set(found) == set(METRICS)
    assert all(np.isfinite(v) and v > 0 for v in found.values())
    assert found["ttft_p50_ms"] <= found["ttft_p90_ms"] <= found["ttft_p99_ms"]


def test_a_prediction_is_deterministic(make: Make) -> None:
    assert figures(make()) == figures(make())


def test_a_lone_client_waits_for_nobody(make: Make) -> None:
    alone = figures(make(concurrency=1))
    # Prefill of 1,000 tokens of an 8B model: 2·8e9·1000 / 989e12 = 16 ms at the peak.
    assert alone["ttft_mean_ms"] > 16.0
    # Reading 16 GB at 3.35 TB/s takes 4.8 ms.
    assert 4.8 < alone["tpot_mean_ms"] < 12.0


def test_more_clients_wait_longer_and_complete_more(make: Make) -> None:
    few, many = figures(make(concurrency=4)), figures(make(concurrency=64))
    assert many["ttft_mean_ms"] > few["ttft_mean_ms"]
    assert many["tpot_mean_ms"] > few["tpot_mean_ms"]
    assert many["req_throughput"] > few["req_throughput"]


def test_the_initial_burst_counts(make: Make) -> None:
    """Fewer prompts per client leave the burst a larger share of the mean."""
    short = figures(make(concurrency=64, num_prompts=128))
    long = figures(make(concurrency=64, num_prompts=1280))
    assert short["ttft_mean_ms"] > 1.2 * long["ttft_mean_ms"]


def test_faster_boards_are_faster(make: Make) -> None:
    slow, fast = figures(make(gpu="NVIDIA A100-SXM4-80GB")), figures(make(gpu="NVIDIA H200 SXM"))
    assert fast["tpot_mean_ms"] < slow["tpot_mean_ms"]
    assert fast["ttft_mean_ms"] < slow["ttft_mean_ms"]


def test_unsaturated_open_loops_are_answered_by_formulas(make: Make) -> None:
    row = make(request_rate=0.5, concurrency=None)
    found, method, _ = predict_row(prepare(row))
    assert method == "analytic"
    simulated = figures(make(request_rate=0.5, concurrency=None, num_prompts=3000))
    assert found["tpot_mean_ms"] == pytest.approx(simulated["tpot_mean_ms"], rel=0.03)
    assert found["ttft_mean_ms"] == pytest.approx(simulated["ttft_mean_ms"], rel=0.1)


def test_overload_without_a_length_is_a_run_of_a_client_by_default(make: Make) -> None:
    row = make(request_rate=1000.0, concurrency=None)
    figures, method, notes = predict_row(prepare(row))
    assert method == "simulated"
    assert any("a run of 1000 requests" in note for note in notes)
    stated = predict_row(prepare(make(request_rate=1000.0, concurrency=None, num_prompts=1000)))[0]
    assert figures["ttft_mean_ms"] == pytest.approx(stated["ttft_mean_ms"], rel=0.1)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"status": RowStatus.ALL_FAILED}, Outcome.NOT_MEASURED),
        ({"ttft_mean_ms": None, "tpot_mean_ms": None}, Outcome.NOT_MEASURED),
        ({"model": "meta-llama/Llama-3.1-405B"}, Outcome.DOES_NOT_FIT),
    ],
)
def test_other_refusals(make: Make, changes: dict[str, Any], outcome: Outcome) -> None:
    with pytest.raises(UnpredictableError) as refusal:
        figures(make(**changes))
    assert refusal.value.outcome is outcome


def test_disaggregated_rows_become_two_pools(make: Make) -> None:
    row = make(disaggregated=True, prefill_workers=1, decode_workers=1, prefill_tp=1, decode_tp=1,
               num_gpus=2, tp=None)  # fmt: skip
    assert isinstance(system_of(prepare(row)), Disaggregated)
    assert figures(row)["ttft_mean_ms"] > 0


@pytest.mark.parametrize("engine", ["SGLang", "vLLM", "TensorRT-LLM"])
def test_replay_and_prediction_build_the_same_split_service(make: Make, engine: str) -> None:
    row = make(engine=engine, engine_version=None, model="openai/gpt-oss-120b", tp=None,
               disaggregated=True, prefill_workers=2, decode_workers=1, prefill_tp=1, decode_tp=2,
               num_gpus=4)  # fmt: skip
    prepared = prepare(row)
    replayed = system_of(prepared)
    predicted = prepared.lowered.system("2p-tp1+1d-tp2")
    assert isinstance(replayed, Disaggregated)
    assert isinstance(predicted, Disaggregated)
    assert (predicted.prefill, predicted.decode) == (replayed.prefill, replayed.decode)
    assert (predicted.prefill_replicas, predicted.decode_replicas) == (2, 1)
    assert predicted.transfer == replayed.transfer
    assert (predicted.prefill.step.a_seq > 0.01) == (engine == "SGLang")
    said = any("is taken as nothing" in note for note in prepared.notes)
    assert said == (engine != "SGLang")


def test_shared_prefixes_are_replayed_with_the_caches_that_find_them(make: Make) -> None:
    row = make(prefix_caching=True, prefix_len=800.0, prefix_groups=10)
    system = system_of(prepare(row))
    assert isinstance(system, Collocated)
    assert system.caching is not None
    assert system.caching.sharing is not None
    assert system.caching.sharing.own.mean == pytest.approx(
        float(system.lengths.inputs @ system.lengths.input_weights) - 800.0
    )
    assert figures(row)["ttft_mean_ms"] < 0.8 * figures(make())["ttft_mean_ms"]
    crowded = make(prefix_caching=True, prefix_len=800.0, prefix_groups=100_000)
    assert figures(crowded)["ttft_mean_ms"] == pytest.approx(
        figures(make())["ttft_mean_ms"], rel=0.1
    )


def test_a_policy_by_prefixes_is_the_routing_that_stands_for_it(make: Make) -> None:
    shared = {"prefix_caching": True, "prefix_len": 800.0, "prefix_groups": 10}
    for policy, routing in (
        ("precise prefix affinity + token load", "prefix_aware"),
        ("estimated-scheduling", "prefix_estimated"),
        ("KubeAI - Prefix Hash", "prefix_hash"),
        ("random (stock k8s service)", "random"),
        ("default-scheduling", "prefix_estimated"),
        ("load-scheduling", "least_outstanding"),
    ):
        assert system_of(prepare(make(**shared, routing=policy))).routing == routing


def test_prompts_that_repeat_each_other_nobody_says_how_are_named(make: Make) -> None:
    row = make(prefix_caching=True, dataset_or_lengths="custom multi-turn conversations")
    with pytest.raises(UnpredictableError, match="prefix caching was on"):
        prepare(row)
    prepare(make(prefix_caching=False, dataset_or_lengths="custom multi-turn conversations"))


def test_hits_that_servers_counted_stand_for_prefixes_nobody_states(make: Make) -> None:
    talk = {"prefix_caching": True, "dataset_or_lengths": "custom multi-turn conversations"}
    row = make(**talk, prefix_hit=0.8)
    prepared = prepare(row)
    lengths = system_of(prepared).lengths
    assert lengths.cached == pytest.approx(0.8 * lengths.inputs)
    assert any("80%" in note for note in prepared.notes)
    assert figures(row)["ttft_mean_ms"] < 0.8 * figures(make())["ttft_mean_ms"]
    # what is stated is simulated, and what servers counted is not needed
    stated = make(**talk, prefix_hit=0.8, prefix_len=800.0, prefix_groups=10)
    assert system_of(prepare(stated)).lengths.cached.size == 0


def test_hits_counted_for_each_request_keep_their_law(make: Make) -> None:
    lengths, found = np.array([1000, 1000, 1000, 1000]), np.array([0, 0, 900, 900])
    log = RequestLog(input_len=lengths, output_len=np.full(4, 100), cached=found)
    prepared = prepare(make(prefix_hit=0.45, requests=log))
    assert system_of(prepared).lengths.cached.tolist() == [0, 0, 900, 900]


def test_cached_prompts_do_not_take_their_computation(make: Make) -> None:
    fast = {"ttft_mean_ms": 12.0, "input_len_mean": 4000.0}
    assert impossible(prepare(make(**fast)), at_best(system_of(prepare(make(**fast)))))
    row = make(**fast, prefix_caching=True, prefix_len=3900.0, prefix_groups=10)
    assert not impossible(prepare(row), at_best(system_of(prepare(row))))


def test_a_warm_up_leaves_no_queue_behind(make: Make) -> None:
    row = make(prefix_caching=True, prefix_len=800.0, prefix_groups=10, request_rate=1000.0,
               concurrency=None, num_prompts=50)  # fmt: skip
    prepared = prepare(row)
    system = system_of(prepared)
    gap = warming_gap(system, prepared.protocol.rate)
    alone = figures(make(concurrency=1, num_prompts=1))["ttft_mean_ms"] / 1e3
    assert gap > alone  # at 1,000 requests a second four of its gaps would be a twentieth of that
    times = behind_warming(system.arrivals, 1000.0, gap, (10, 50, 0)).times
    assert times[9] == pytest.approx(9 * gap)
    assert times[10] > times[9] + 29
    assert len(times) == 60


def test_measured_figures_are_those_stated(make: Make) -> None:
    assert measured_figures(make()) == {"ttft_mean_ms": 60.0, "tpot_mean_ms": 9.0}


HUGE = 10**15


@pytest.mark.parametrize(
    "changes",
    [
        {"concurrency": HUGE},
        {"num_prompts": HUGE},
        {"num_prompts": HUGE, "concurrency": None, "regime": Regime.BURST},
        {"request_rate": 1e300, "concurrency": None},
        {"request_rate": 1e-300, "concurrency": None, "num_prompts": 5},
        {"input_len_mean": 1e15},
        {"output_len_mean": 1e15},
        {"max_num_seqs": HUGE},
        {"max_num_batched_tokens": HUGE},
        {"num_gpus": HUGE, "tp": 1},
        {"replicas": HUGE, "num_gpus": None},
        {"tp": HUGE, "num_gpus": None},
        {"pp": HUGE, "num_gpus": None},
        {"ep": HUGE},
        {"gpu_memory_utilization": 1e9},
        {"stream_interval": HUGE},
        {"ttft_mean_ms": 1e300, "tpot_mean_ms": 1e-300},
    ],
)
def test_absurd_rows_get_a_status_not_a_crash(make: Make, changes: dict[str, Any]) -> None:
    found = compare_row(make(**changes), with_intervals=False)
    assert isinstance(found.status, Outcome)
    assert found.reason
    assert all(np.isfinite(v) for v in found.predicted.values())


def test_a_growing_queue_is_said_and_a_calm_one_is_not(make: Make) -> None:
    open_loop = {"concurrency": None, "num_prompts": 600, "input_len_mean": 4000.0}
    calm = predict_row(prepare(make(**open_loop, request_rate=2.0)))[2]
    wild = predict_row(prepare(make(**open_loop, request_rate=60.0)))[2]
    assert not any(note.startswith("unstable") for note in calm)
    assert any(note.startswith("unstable") for note in wild)


def test_hits_of_the_replay_stand_beside_those_that_servers_counted(make: Make) -> None:
    row = make(prefix_caching=True, prefix_len=800.0, prefix_groups=10, prefix_hit=0.75)
    notes = predict_row(prepare(row))[2]
    said = next(n for n in notes if "of the prompt tokens found" in n)
    assert said.endswith("75% as servers counted")
    assert 0.7 < float(said.partition("%")[0]) / 100 < 0.85  # 800 of 1,000, whole blocks


def test_prompts_fetched_from_another_instance_take_their_bytes(make: Make) -> None:
    alone = {"concurrency": 1, "num_prompts": 4, "output_len_mean": 1.0, "tpot_mean_ms": None}
    alone |= {"model": "openai/gpt-oss-120b", "gpu": "NVIDIA H200", "engine_version": "0.18.0"}
    short, long = (
        figures(make(**alone, prefix_fetched=True, input_len_mean=n))["ttft_mean_ms"]
        for n in (8192.0, 16384.0)
    )
    # 36 layers · 8 heads · 128 · 2 B = 73.7 kB a token: with windows, which connectors do not keep
    assert long - short == pytest.approx(8192 * 73_728 / 6.9e9 * 1e3, rel=0.05)
    assert long < 0.6 * figures(make(**alone, input_len_mean=16384.0))["ttft_mean_ms"]
