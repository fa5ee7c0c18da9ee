"""What each reader makes of a log written by hand: figures, units, definitions, notes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bestserve.readers.logs import read_log
from bestserve.readers.tidy import Regime, RowStatus

FIXTURES = Path(__file__).parent / "fixtures"


def rows(name):
    return read_log(FIXTURES / name).rows


def test_vllm_summary_with_metadata():
    (row,) = rows("vllm-bench-serve/summary.json")
    assert (row.model, row.gpu, row.tp, row.max_num_seqs) == ("acme/small-7b", "h100-sxm", 2, 64)
    assert row.prefix_caching is False
    assert (row.request_rate, row.burstiness, row.arrivals) == (4.0, 0.5, "gamma")
    assert (row.num_prompts, row.completed, row.failed) == (100, 98, 2)
    assert (row.ttft_mean_ms, row.ttft_p90_ms, row.tpot_p99_ms) == (80.0, 110.0, 15.0)
    assert (row.input_len_mean, row.output_len_mean) == (1000.0, 100.0)
    assert row.regime is Regime.OPEN_FINITE  # 3.77 of 4 requests/s is short by 6 %
    assert row.more["good_throughput"] == 3.5
    assert row.engine is None
    assert row.missing == ("engine",)


def test_vllm_details_leave_out_failed_and_silent_requests():
    (row,) = rows("vllm-bench-serve/detailed.json")
    assert len(row.requests) == 3
    # the client's 225 ms counts the silent request as 0; over the three others it is 300 ms
    assert row.ttft_mean_ms == pytest.approx(300.0)
    assert any(note.startswith("1 requests ended without a token") for note in row.notes)
    np.testing.assert_allclose(row.requests.tpot, [0.06, 0.04, 0.05])
    np.testing.assert_allclose(row.requests.start, [0.0, 0.5, 1.0])
    assert row.requests.input_len.tolist() == [100, 120, 140]
    assert row.e2el_mean_ms == pytest.approx((0.38 + 0.38 + 0.45) / 3 * 1e3)
    assert row.tpot_mean_ms == 50.0
    assert (row.failed, row.concurrency, row.regime) == (1, 2, Regime.CLOSED_LOOP)
    assert row.input_len_std == pytest.approx(np.std([100, 120, 140]))


def test_vllm_run_that_failed_has_no_latencies():
    read = read_log(FIXTURES / "vllm-bench-serve/all_failed.json")
    (row,) = read.rows
    assert row.status is RowStatus.ALL_FAILED
    assert row.reason == "no request of this run completed"
    assert (row.failed, row.ttft_mean_ms, row.req_throughput) == (8, None, None)
    assert read.warnings == ("all_failed.json: mean_tpot_ms is nan, taken as not stated",)


def test_vllm_sweep_and_one_token_answers():
    first, second = rows("vllm-bench-serve/sweep.json")
    assert (first.concurrency, second.concurrency, first.max_num_seqs) == (2, 4, 4)
    assert first.tpot_mean_ms == 8.0
    assert second.tpot_mean_ms is None  # one token each: the client prints 0


def test_sglang_runs_describe_their_server():
    first, second = rows("sglang-bench-serving/two_runs.jsonl")
    assert (first.engine, first.engine_version, first.model) == ("SGLang", "0.5.6", "acme/small-7b")
    assert (first.tp, first.ep, first.attention_dp, first.attention_tp) == (4, 4, 2, 2)
    assert (first.precision, first.kv_cache_dtype, first.prefix_caching) == ("fp8", None, False)
    assert (first.max_num_seqs, first.max_num_batched_tokens) == (128, 8192)
    assert first.input_len_range == (500.0, 1000.0)
    assert first.output_len_range == (100.0, 200.0)
    assert (first.request_rate, first.regime) == (math.inf, Regime.CLOSED_LOOP)
    assert (first.disaggregated, first.mean_concurrency) == (False, 7.6)
    assert first.missing == ("gpu",)
    assert (second.engine, second.arrivals, second.input_len_range) == (None, "poisson", None)
    assert second.regime is Regime.OPEN_STEADY
    assert second.e2el_mean_ms == 2400.0


def test_sglang_disaggregated():
    (row,) = rows("sglang-bench-serving/disaggregated.jsonl")
    assert row.disaggregated
    assert (row.prefill_workers, row.decode_workers) == (1, 2)
    assert (row.prefill_tp, row.decode_tp, row.decode_ep, row.tp) == (2, 4, 4, None)
    assert row.speculative_decoding
    assert row.max_num_batched_tokens is None  # the halves differ
    assert row.input_len_range == (2048.0, 2048.0)


def test_guidellm_itl_is_tpot_and_requests_are_weighted_equally():
    (row,) = rows("guidellm/v0_3.json")
    # printed mean 55 ms is weighted by tokens; per request 40 and 60, the one-token answer apart
    assert row.tpot_mean_ms == pytest.approx(50.0)
    assert row.ttft_mean_ms == pytest.approx(300.0)
    assert row.e2el_mean_ms == pytest.approx(2.3 / 3 * 1e3)
    assert (row.request_rate, row.arrivals, row.model) == (2.0, "poisson", "acme/small-7b")
    assert (row.completed, row.failed, row.num_prompts) == (3, 1, 4)
    assert row.req_throughput == pytest.approx(2.0)
    np.testing.assert_allclose(row.requests.start, [0, 0.4, 0.9])


def test_guidellm_with_sampled_requests_uses_the_printed_figures():
    (row,) = rows("guidellm/v0_8_sampled.json")
    assert row.requests is None
    assert (row.concurrency, row.regime) == (4, Regime.CLOSED_LOOP)
    assert (row.tpot_mean_ms, row.tpot_p99_ms, row.e2el_p90_ms) == (9.0, 10.5, 1200.0)
    assert any("weighted by output tokens" in note for note in row.notes)
    assert any(note.startswith("3 requests were cut off") for note in row.notes)


@pytest.mark.parametrize(
    ("name", "rate", "ttft", "tpot", "p90"),
    [("v0_3.csv", 2.0, 50.0, 40.0, 60.0), ("v0_8.csv", 4.0, 25.0, 32.0, 28.0)],
)
def test_guidellm_csv(name, rate, ttft, tpot, p90):
    (row,) = rows(f"guidellm-csv/{name}")
    assert (row.request_rate, row.ttft_mean_ms, row.tpot_mean_ms) == (rate, ttft, tpot)
    assert (row.ttft_p90_ms, row.model, row.completed) == (p90, "acme/small-7b", 20)
    assert row.output_len_mean == 16.0


def test_aiperf_reads_the_units():
    (row,) = rows("aiperf/phases.json")
    assert row.ttft_mean_ms == pytest.approx(120.0)  # stated in µs
    assert row.tpot_mean_ms == 14.0
    assert (row.concurrency, row.num_prompts, row.completed, row.failed) == (4, 53, 50, 3)
    assert (row.input_len_asked, row.output_len_asked) == (640.0, 100.0)
    assert (row.duration, row.mean_concurrency) == (20.0, 3.7)
    assert row.more["tpot_p95_ms"] == 15.5


def test_aiperf_open_loop_of_the_older_layout():
    (row,) = rows("aiperf/loadgen.json")
    assert (row.request_rate, row.arrivals, row.model) == (3.0, "poisson", "acme/small-7b")
    assert row.regime is Regime.OPEN_STEADY
    assert "WARNING run was cancelled" in row.notes


def test_aiperf_requests_leave_out_warmup_cancelled_and_failed():
    (row,) = rows("aiperf-requests/records.jsonl")
    assert (row.completed, row.failed, row.num_prompts) == (2, 1, 4)
    np.testing.assert_allclose(row.requests.tpot, [0.04, 0.04])
    np.testing.assert_allclose(row.requests.ttft, [0.1, 0.2])
    assert row.duration == pytest.approx(2.0)
    assert row.req_throughput == pytest.approx(1.0)
    assert "1 warm-up requests left out" in row.notes
    assert "request_rate" in row.missing


def test_aiperf_csv():
    (row,) = rows("aiperf-csv/summary.csv")
    assert (row.ttft_mean_ms, row.tpot_p99_ms, row.completed) == (26.74, 2.7, 20)
    assert (row.out_tok_throughput, row.duration) == (1291.22, 0.48)


def test_genai_perf():
    (row,) = rows("genai-perf/summary.json")
    assert (row.request_rate, row.concurrency, row.tpot_mean_ms) == (16.0, None, 1.2)
    (row,) = rows("genai-perf-requests/profile_export.json")
    assert (row.completed, row.failed, row.concurrency) == (2, 1, 2)
    assert row.ttft_mean_ms == pytest.approx(150.0)
    assert row.e2el_mean_ms == pytest.approx(250.0)
    assert row.tpot_mean_ms is None


def test_llmperf_tpot_is_derived():
    (row,) = rows("llmperf/summary.json")
    assert row.tpot_mean_ms == pytest.approx(
        (3.5 - 0.5) / 150 * 1e3
    )  # not the printed 20 ms + TTFT
    assert (row.concurrency, row.completed, row.failed, row.num_prompts) == (5, 59, 1, 60)
    assert row.req_throughput == pytest.approx(1.4)
    assert any(note.startswith("TPOT derived") for note in row.notes)
    (row,) = rows("llmperf-requests/individual.json")
    np.testing.assert_allclose(row.requests.tpot, [0.1, 0.1])
    assert (row.completed, row.failed) == (2, 1)
    first, second = rows("llmperf-bench/by_concurrency.json")
    assert (first.ttft_mean_ms, second.concurrency, first.tpot_mean_ms) == (160.0, 8, None)


def test_inference_perf_tpot_is_derived_and_rates_kept_apart():
    (row,) = rows("inference-perf/stage_0.json")
    assert row.tpot_mean_ms == pytest.approx((1.0 - 0.1) / 90 * 1e3)  # not the printed 5 ms
    assert (row.request_rate, row.achieved_rate, row.req_throughput) == (10.0, 9.0, 8.7)
    assert (row.num_prompts, row.completed, row.failed) == (630, 620, 10)
    assert row.regime is Regime.OPEN_FINITE
    assert "WARNING the client fell short of the rate asked" in row.notes


def test_inferencemax_rows_are_seconds():
    first, second = rows("inferencemax/collocated.json")
    assert (first.gpu, first.engine, first.precision, first.tp) == ("h200", "vLLM", "fp8", 4)
    assert (first.ttft_mean_ms, first.tpot_mean_ms) == (250.0, 20.0)
    assert (first.num_gpus, first.out_tok_throughput) == (4, 3200.0)
    assert (first.input_len_asked, first.output_len_asked, first.input_len_mean) == (
        1024.0,
        8192.0,
        None,
    )
    assert (first.attention_dp, first.speculative_decoding) == (None, False)
    assert first.missing == ()
    assert (second.engine, second.attention_dp, second.attention_tp, second.ep) == (
        "TensorRT-LLM",
        8,
        1,
        8,
    )
    assert second.speculative_decoding


def test_inferencemax_disaggregated_and_agentx():
    (row,) = rows("inferencemax/disaggregated.json")
    assert row.disaggregated
    assert (row.prefill_workers, row.decode_workers, row.num_gpus) == (3, 2, 28)
    assert (row.prefill_tp, row.decode_tp, row.prefill_attention_dp) == (4, 8, 4)
    assert row.decode_attention_dp is None
    assert row.out_tok_throughput == 24000.0  # per decode GPU
    (row,) = rows("inferencemax/agentx.json")
    assert (row.input_len_mean, row.output_len_mean, row.failed) == (90000.0, 500.0, 2)
    assert (row.ttft_p90_ms, row.more["ttft_p75_ms"]) == (8000.0, 3500.0)
    assert row.req_throughput == pytest.approx(0.11)
    assert row.engine is None


def test_inferencemax_flat_is_seconds():
    (row,) = rows("inferencemax-flat/position.json")
    assert (row.ttft_p50_ms, row.tpot_p99_ms) == (3400.0, 60.0)
    assert (row.input_len_mean, row.output_len_mean, row.num_prompts) == (8192.0, 128.0, 160)


def test_llmd_report_names_roles():
    (row,) = rows("llm-d-report/v0_2.yaml")
    assert row.disaggregated
    assert (row.gpu, row.num_gpus, row.engine) == ("NVIDIA-H100-80GB-HBM3", 10, "vLLM")
    assert (row.prefill_workers, row.prefill_tp, row.decode_workers, row.decode_tp) == (3, 2, 1, 4)
    assert row.tp is None
    assert (row.request_rate, row.concurrency, row.max_model_len) == (10.0, None, 8192)
    assert row.tpot_mean_ms == pytest.approx(10.0)  # derived: inference-perf prints 4 ms
    assert (row.prefix_len, row.prefix_groups) == (1000.0, 32)
    assert (row.completed, row.failed) == (498, 2)
    assert row.missing == ()


def test_llmd_report_keeps_vllm_tpot():
    (row,) = rows("llm-d-report/v0_1.yaml")
    assert row.disaggregated is False
    assert (row.tp, row.replicas, row.num_gpus, row.max_num_seqs) == (2, 1, 2, 64)
    assert (row.tpot_mean_ms, row.tpot_p90_ms, row.completed) == (16.0, 18.0, 39)
    assert row.missing == ("request_rate",)


def test_mlperf_summary_is_nanoseconds():
    (row,) = rows("mlperf-loadgen/mlperf_log_summary.txt")
    assert (row.request_rate, row.achieved_rate, row.req_throughput) == (10.0, 10.02, 9.5)
    assert [row.ttft_mean_ms, row.ttft_p99_ms, row.tpot_p90_ms] == pytest.approx([500, 900, 110])
    assert row.more["ttft_p99.9_ms"] == pytest.approx(950.0)
    assert row.output_len_mean == pytest.approx(200.0)
    assert (row.arrivals, row.regime) == ("poisson", Regime.OPEN_STEADY)
    assert "LoadGen INVALID" in row.notes


def test_accelmark():
    online, serial = rows("accelmark/result.json")
    assert (online.gpu, online.engine, online.num_gpus) == ("Acme X1", "vLLM", 1)
    assert (online.request_rate, online.ttft_p99_ms, online.tpot_p50_ms) == (5.0, 42.0, 9.5)
    assert (online.regime, online.num_prompts) == (Regime.OPEN_POISSON_300, 300)
    assert (serial.concurrency, serial.regime) == (1, Regime.CLOSED_LOOP)


def test_llmservingsim_keeps_the_clocks_apart():
    (row,) = rows("llmservingsim/requests.jsonl")
    np.testing.assert_allclose(row.requests.ttft, [0.2, 0.4, 0.6])
    np.testing.assert_allclose(row.requests.tpot, [0.05, 0.03, np.nan])
    np.testing.assert_allclose(row.requests.start, [0, 1, 2])
    assert (row.completed, row.failed, row.in_process) == (3, 1, True)
    assert row.request_rate == pytest.approx(1.0)
    assert row.duration == pytest.approx(2.6)
