"""Real logs beside the checkout, each against figures computed or published independently."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from bestserve.readers.logs import read_log, read_logs
from bestserve.readers.tidy import Regime, RowStatus

FORMATS = {
    "accelmark/result.json": "accelmark",
    "aiperf/aiperf_0.13.0_mock_profile_export.jsonl": "aiperf-requests",
    "aiperf/aiperf_0.13.0_mock_profile_export_aiperf.csv": "aiperf-csv",
    "aiperf/aiperf_0.13.0_mock_profile_export_aiperf.json": "aiperf",
    "aiperf/kimi2.5_mi355x_conc16_profile_export_aiperf.csv": "aiperf-csv",
    "aiperf/kimi2.5_mi355x_conc16_profile_export_aiperf.json": "aiperf",
    "aiperf/kimi2.5_mi355x_conc1_profile_export.jsonl": "aiperf-requests",
    "genai_perf/genai_perf_0.0.16_mock_profile_export.json": "genai-perf-requests",
    "genai_perf/genai_perf_0.0.16_mock_profile_export_genai_perf.csv": "aiperf-csv",
    "genai_perf/genai_perf_0.0.16_mock_profile_export_genai_perf.json": "genai-perf",
    "guidellm/guidellm_0.3.1_poisson_mock.csv": "guidellm-csv",
    "guidellm/guidellm_0.3.1_poisson_mock.json": "guidellm",
    "guidellm/guidellm_0.8.0dev_report_v2_mockbackend.json": "guidellm",
    "guidellm/guidellm_0.8.1_poisson_mock.csv": "guidellm-csv",
    "guidellm/guidellm_0.8.1_poisson_mock.json": "guidellm",
    "inference_perf/inference_perf_lifecycle.yaml": "inference-perf",
    "inference_perf/stage_2_lifecycle_metrics.json": "inference-perf",
    "inferencemax/agentx_agg_bmk_kimi_mi355x.json": "inferencemax",
    "inferencemax/qwen35_vllm_tp8_isl8192_osl128_conc16.json": "inferencemax-flat",
    "inferencemax/vllm_perf_eval_row_mi300x.json": "inferencemax",
    "llm-d-benchmark/br_v0_1_example.yaml": "llm-d-report",
    "llm-d-benchmark/br_v0_2_1_example.yaml": "llm-d-report",
    "llm-d-benchmark/br_v0_2_example.yaml": "llm-d-report",
    "llmperf/individual_responses_anyscale_7b.json": "llmperf-requests",
    "llmperf/meta-llama_Meta-Llama-3-8B-Instruct_tp_1_summary.json": "llmperf-bench",
    "llmperf/summary_anyscale_13b.json": "llmperf",
    "llmperf/tgi_llama3_8b_tp1_llmperf_summaries_by_concurrency.json": "llmperf",
    "llmservingsim_vllm_requestlog/RTXPRO6000_Llama-3.1-8B_requests.jsonl": "llmservingsim",
    "mlperf_loadgen/mlperf_log_summary.txt": "mlperf-loadgen",
    "sglang_bench_serving/legacy_sglang_line_2025.jsonl": "sglang-bench-serving",
    "sglang_bench_serving/pd_1p2d_n100_in2048_out512_c128.jsonl": "sglang-bench-serving",
    "vllm_bench_serve/bench_serve_all_requests_failed_v0.25.1.json": "vllm-bench-serve",
    "vllm_bench_serve/v0.25.1_bench_sweep_summary.json": "vllm-bench-serve",
    "vllm_bench_serve/v0.6.3_detailed_llama405b_8xH100_16qps.json": "vllm-bench-serve",
    "vllm_bench_serve/v0.8.4_summary_deepseek_r1_nebius_sharegpt.json": "vllm-bench-serve",
}


@pytest.fixture(scope="session")
def dev(shared):
    return {row.id: row for row in read_log(shared / "measured/measured_dev.csv").rows}


@pytest.mark.parametrize("name", FORMATS)
def test_every_sample_is_read(shared, name):
    read = read_log(shared / "logs" / name)
    assert read.format == FORMATS[name]
    assert read.rows


def test_whole_folder_of_logs_is_read_without_an_exception(shared):
    reads = read_logs([shared / "logs"])
    assert sum(len(read.rows) for read in reads) > 60
    assert all(len(read.warnings) == 1 for read in reads if read.format == "unreadable")


def test_sample_without_answers_biases_the_mean_ttft(shared):
    path = shared / "logs/vllm_bench_serve/v0.6.3_detailed_llama405b_8xH100_16qps.json"
    log = json.loads(path.read_text())
    (row,) = read_log(path).rows
    ttfts = np.array(log["ttfts"])
    assert row.completed == 1000
    assert len(row.requests) == (ttfts > 0).sum() == 621
    assert row.ttft_mean_ms == pytest.approx(ttfts[ttfts > 0].mean() * 1e3)
    assert log["mean_ttft_ms"] == pytest.approx(ttfts.mean() * 1e3)
    # gaps add up to the client's TPOT within the time of its last, empty message
    assert np.nanmean(row.requests.tpot) * 1e3 == pytest.approx(row.tpot_mean_ms, rel=0.02)


def test_guidellm_csv_agrees_with_its_json(shared):
    table = read_log(shared / "logs/guidellm/guidellm_0.8.1_poisson_mock.csv").rows
    full = read_log(shared / "logs/guidellm/guidellm_0.8.1_poisson_mock.json").rows
    for left, right in zip(table, full, strict=True):
        for name in ("ttft_mean_ms", "tpot_mean_ms", "e2el_mean_ms", "req_throughput"):
            assert getattr(left, name) == pytest.approx(getattr(right, name), rel=1e-9)
        assert left.request_rate == right.request_rate


def test_aiperf_summary_agrees_with_its_requests_and_csv(shared):
    folder = shared / "logs/aiperf"
    (summary,) = read_log(folder / "aiperf_0.13.0_mock_profile_export_aiperf.json").rows
    (requests,) = read_log(folder / "aiperf_0.13.0_mock_profile_export.jsonl").rows
    (table,) = read_log(folder / "aiperf_0.13.0_mock_profile_export_aiperf.csv").rows
    for name in ("ttft_mean_ms", "ttft_p90_ms", "tpot_mean_ms", "tpot_p99_ms", "e2el_p50_ms"):
        assert getattr(requests, name) == pytest.approx(getattr(summary, name), rel=1e-9)
        assert getattr(table, name) == pytest.approx(getattr(summary, name), abs=0.006)


def test_genai_perf_summary_agrees_with_its_time_stamps(shared):
    folder = shared / "logs/genai_perf"
    (summary,) = read_log(folder / "genai_perf_0.0.16_mock_profile_export_genai_perf.json").rows
    (requests,) = read_log(folder / "genai_perf_0.0.16_mock_profile_export.json").rows
    assert requests.ttft_mean_ms == pytest.approx(summary.ttft_mean_ms, rel=1e-4)


def test_readers_reproduce_the_tidy_rows(shared, dev):
    (log,) = read_log(
        shared / "logs/llmservingsim_vllm_requestlog/RTXPRO6000_Llama-3.1-8B_requests.jsonl"
    ).rows
    tidy = dev["m00005"]
    names = ["ttft_mean_ms", "ttft_p90_ms", "tpot_mean_ms", "tpot_p99_ms", "req_throughput"]
    for name in (*names, "input_len_mean", "output_len_mean", "request_rate", "num_prompts"):
        assert getattr(log, name) == pytest.approx(getattr(tidy, name), rel=1e-3), name
    (log,) = read_log(
        shared / "logs/vllm_bench_serve/v0.10_summary_pd_2p2d_gptoss120b_8xH200.json"
    ).rows
    tidy = dev["m00297"]
    for name in ("ttft_mean_ms", "ttft_p99_ms", "tpot_p50_ms", "concurrency", "num_prompts"):
        assert getattr(log, name) == pytest.approx(getattr(tidy, name), rel=1e-3), name


def test_every_row_of_the_measurements_is_read(dev):
    assert len(dev) == 1605
    assert Counter(row.status for row in dev.values()) == {RowStatus.USABLE: 1605}
    assert Counter(row.regime for row in dev.values()) == {
        Regime.CLOSED_LOOP: 1045,
        Regime.OPEN_POISSON_300: 211,
        Regime.BURST: 179,
        Regime.OPEN_STEADY: 114,
        Regime.OPEN_FINITE: 45,
        Regime.CLIENT_CAP: 11,
    }


def test_what_the_measurements_state_beside_their_columns(dev):
    def stating(name):
        return sum(getattr(row, name) is not None for row in dev.values())

    assert stating("num_prompts") == 798
    assert stating("max_num_seqs") == 55
    assert stating("max_num_batched_tokens") == 53
    assert stating("input_len_range") == 992
    assert stating("prefill_workers") == 37
    assert sum(row.saturated is True for row in dev.values()) == 8
    closed = [row for row in dev.values() if row.regime is Regime.CLOSED_LOOP]
    assert all(row.concurrency for row in closed)
    assert all(row.replicas is None for row in dev.values() if row.disaggregated)
