"""Clients besides the engines' own, older versions, sweeps and ramps: figures as written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bestserve.errors import DataError
from bestserve.readers.logs import read_log, read_logs
from bestserve.readers.tidy import Regime, RowStatus

FIXTURES = Path(__file__).parent / "fixtures"


def rows(name: str):
    return read_log(FIXTURES / name).rows


def test_evalscope_in_both_wordings():
    (old,), (new,) = rows("evalscope/summary_2025.json"), rows("evalscope/summary_2026.json")
    assert (old.concurrency, old.regime, old.num_prompts) == (8, Regime.CLOSED_LOOP, 240)
    assert (old.completed, old.failed) == (236, 4)
    assert (old.ttft_mean_ms, old.tpot_mean_ms, old.e2el_mean_ms) == (210, 18.5, 3900)
    assert (old.input_len_mean, old.output_len_mean) == (500, 200)
    assert (new.request_rate, new.arrivals, new.concurrency) == (4, "poisson", None)
    assert (new.ttft_mean_ms, new.tpot_mean_ms) == (180, 19)
    assert new.speculative_decoding is True
    assert old.speculative_decoding is None


def test_evalscopes_percentiles_and_settings_lie_beside(tmp_path):
    shutil.copy(FIXTURES / "evalscope/summary_2025.json", tmp_path / "benchmark_summary.json")
    shares = [
        {"Percentiles": "min", "TTFT (s)": 0.1},
        {"Percentiles": "50%", "TTFT (s)": 0.2, "TPOT (s)": 0.018, "Latency (s)": 3.8},
        {"Percentiles": "99%", "TTFT (s)": 0.9, "TPOT (s)": 0.03, "Latency (s)": 5.0},
    ]
    (tmp_path / "benchmark_percentile.json").write_text(json.dumps(shares))
    (tmp_path / "benchmark_args.json").write_text(json.dumps({"model": "org/dense-8b"}))
    (row,) = read_log(tmp_path / "benchmark_summary.json").rows
    assert (row.ttft_p50_ms, row.ttft_p99_ms, row.tpot_p99_ms) == (200, 900, 30)
    assert row.model == "org/dense-8b"
    with pytest.raises(DataError, match=r"name benchmark_summary\.json"):
        read_log(tmp_path / "benchmark_percentile.json")


def test_evalscopes_random_prompts_have_the_lengths_of_its_settings(tmp_path):
    shutil.copy(FIXTURES / "evalscope/summary_2025.json", tmp_path / "benchmark_summary.json")
    asked = {"dataset": "random", "min_prompt_length": 300, "max_prompt_length": 700}
    for settings, expected in (
        (asked, (300, 700)),
        (asked | {"dataset": "openqa"}, None),
        (asked | {"max_prompt_length": 131072}, None),
    ):
        (tmp_path / "benchmark_args.json").write_text(json.dumps(settings))
        (row,) = read_log(tmp_path / "benchmark_summary.json").rows
        assert row.input_len_range == expected


def test_trtllm_bench_says_what_it_ran():
    (row,) = rows("trtllm-bench/streaming.json")
    assert (row.engine, row.engine_version, row.gpu) == ("TensorRT-LLM", "1.2.0", "NVIDIA H200")
    assert (row.tp, row.num_gpus, row.precision, row.kv_cache_dtype) == (2, 2, "fp8", "fp8")
    assert (row.concurrency, row.num_prompts, row.in_process) == (32, 300, True)
    assert (row.ttft_mean_ms, row.ttft_p99_ms, row.tpot_p90_ms) == (165, 420, 16.9)
    assert (row.max_num_seqs, row.max_num_batched_tokens) == (128, 4096)
    (plain,) = rows("trtllm-bench/plain.json")
    assert plain.status is RowStatus.USABLE  # by its throughput alone
    assert (plain.e2el_mean_ms, plain.precision, plain.speculative_decoding) == (1100, "bf16", True)


DECODING = {
    "mode": "Eagle3",
    "draft_acceptance_rate_percentiles": {"average": 0.51, "p50": 0.5},
    "acceptance_length_percentiles": {"average": 2.52, "p50": 2.5},
}


def test_trtllm_bench_says_what_was_drafted_and_accepted(tmp_path):
    report = json.loads((FIXTURES / "trtllm-bench/streaming.json").read_text())
    place = tmp_path / "report.json"
    place.write_text(json.dumps({**report, "decoding_stats": DECODING}))
    (row,) = read_log(place).rows
    assert (row.draft_method, row.draft_tokens, row.accept_length) == ("eagle3", 3, 2.52)
    open_ = {**DECODING, "draft_acceptance_rate_percentiles": {"average": 0.43}}
    place.write_text(json.dumps({**report, "decoding_stats": open_}))  # 3.53 drafts a step
    (row,) = read_log(place).rows
    assert (row.draft_tokens, row.accept_length, row.speculative_decoding) == (None, 2.52, True)


def test_aiperf_counts_steps_by_what_they_accepted(tmp_path):
    summary = json.loads((FIXTURES / "aiperf/phases.json").read_text())
    place = tmp_path / "profile_export_aiperf.json"
    steps = {"0": 50, "1": 30, "2": 12, "3": 8}
    place.write_text(json.dumps({**summary, "pooled_spec_decode_acceptance_histogram": steps}))
    (row,) = read_log(place).rows
    assert (row.draft_tokens, row.speculative_decoding) == (3, True)
    assert row.accepted_by_position == pytest.approx((0.5, 0.2, 0.08))
    assert row.accept_length == pytest.approx(1.78)
    place.write_text(json.dumps({**summary, "pooled_spec_decode_acceptance_histogram": {"a": 1}}))
    assert read_log(place).rows[0].speculative_decoding is None


def test_aiperfs_requests_add_their_steps_up(tmp_path):
    lines = (FIXTURES / "aiperf-requests/records.jsonl").read_text().splitlines()
    place = tmp_path / "profile_export.jsonl"
    own = {"num_spec_tokens": 4, "acceptance_histogram": {"0": 6, "1": 3, "3": 1}}
    place.write_text(
        "\n".join(json.dumps(json.loads(line) | {"spec_decode_acceptance": own}) for line in lines)
    )
    (row,) = read_log(place).rows
    assert row.draft_tokens == 4
    assert row.accepted_by_position == pytest.approx((0.4, 0.1, 0.1, 0.0))


def test_sglangs_one_batch_is_a_burst():
    first, second = rows("sglang-one-batch/steps.jsonl")
    assert (first.regime, first.num_prompts, first.in_process) == (Regime.BURST, 16, True)
    assert (first.ttft_mean_ms, first.tpot_p50_ms) == (250, pytest.approx(11.9))
    assert first.tpot_mean_ms == pytest.approx(12.0)
    assert second.num_prompts == 1
    served, drafted = rows("sglang-one-batch/server.jsonl")
    assert served.ttft_mean_ms is None
    assert served.more["ttft_max_ms"] == 400
    assert served.tpot_mean_ms == pytest.approx(12.0)
    assert (served.speculative_decoding, drafted.speculative_decoding) == (None, True)


@pytest.mark.parametrize("unit", ["seconds", "milliseconds"])
def test_genai_bench_in_either_unit(unit):
    (row,) = rows(f"genai-bench/{unit}.json")
    assert (row.ttft_mean_ms, row.tpot_mean_ms, row.e2el_mean_ms) == pytest.approx((120, 21, 2200))
    assert (row.concurrency, row.completed, row.failed) == (8, 90, 2)
    assert (row.input_len_mean, row.output_len_std) == (1000, 1)
    assert row.missing == ("model", "gpu", "engine", "tp")


def test_genai_benchs_experiment_lies_beside(tmp_path):
    shutil.copy(FIXTURES / "genai-bench/seconds.json", tmp_path / "D(1000,100)_8.json")
    settings = {"benchmark_version": "0.0.5", "traffic_scenario": ["D(1000,100)"]}
    settings |= {"api_backend": "openai", "model": "dense-8b", "server_engine": "SGLang"}
    settings |= {"server_gpu_type": "H100", "server_gpu_count": "4", "server_version": "0.5.9"}
    (tmp_path / "experiment_metadata.json").write_text(json.dumps(settings))
    reads = {r.format: r for r in read_logs([tmp_path])}
    (row,) = reads["genai-bench"].rows
    assert (row.engine, row.gpu, row.num_gpus, row.model) == ("SGLang", "H100", 4, "dense-8b")
    assert "settings of a genai-bench experiment" in reads["unreadable"].warnings[0]


def test_earlier_genai_perf():
    (csv,) = rows("aiperf-csv/genai_perf_2024.csv")
    assert (csv.input_len_mean, csv.output_len_mean) == (512, 100)
    assert (csv.ttft_mean_ms, csv.tpot_mean_ms) == pytest.approx((84, 15))
    (arguments,) = rows("genai-perf/arguments.json")
    assert (arguments.model, arguments.concurrency) == ("dense-8b", 8)
    assert (arguments.input_len_asked, arguments.output_len_asked) == (550, None)


def test_a_sweeps_table_has_what_it_varied():
    first, second = rows("vllm-bench-sweep/summary.csv")
    assert (first.max_num_seqs, second.max_num_seqs) == (64, 128)
    assert (first.concurrency, second.concurrency) == (16, 32)
    assert (first.regime, first.ttft_mean_ms, first.input_len_mean) == (Regime.CLOSED_LOOP, 95, 512)


def test_ramps_and_drafts_are_told_apart():
    ramp, drafts = rows("vllm-bench-serve/ramp_and_drafts.json")
    assert ramp.status is RowStatus.RAMP
    assert "1 to 9 req/s" in " ".join(ramp.notes)
    assert drafts.speculative_decoding is True
    assert drafts.status is RowStatus.USABLE


def changed(name: str, path: Path, **changes):
    """Return the row of a fixture with settings changed at the top."""
    data = json.loads((FIXTURES / name).read_text())
    data["input_config"] |= changes
    data["benchmark_duration"] = {"unit": "sec", "avg": 60.0}
    path.write_text(json.dumps(data))
    (row,) = read_log(path).rows
    return row


@pytest.mark.parametrize(
    ("seconds", "status"), [(0, RowStatus.USABLE), (1, RowStatus.USABLE), (1e4, RowStatus.RAMP)]
)
def test_aiperfs_ramps_count_where_they_are_the_run(tmp_path, seconds, status):
    name, path = "aiperf/loadgen.json", tmp_path / "run.json"
    plain = json.loads((FIXTURES / name).read_text())["input_config"]["loadgen"]
    row = changed(name, path, loadgen=plain | {"request_rate_ramp_duration": seconds})
    assert row.status is status
    assert any("rises" in note for note in row.notes) == bool(seconds)
    warm = changed(name, path, loadgen=plain | {"warmup_concurrency_ramp_duration": 1e4})
    assert warm.status is RowStatus.USABLE


def test_guidellms_ramps_are_told(tmp_path):
    text = (FIXTURES / "guidellm/v0_8_sampled.json").read_text()
    assert '"type_"' in text
    (tmp_path / "run.json").write_text(text.replace('"type_"', '"rampup_duration": 1e4, "type_"'))
    assert all(r.status is RowStatus.RAMP for r in read_log(tmp_path / "run.json").rows)


@pytest.mark.parametrize(
    ("content", "tool"),
    [
        (
            {"avg_latency": 3.6, "latencies": [3.6], "percentiles": {"50": 3.6}},
            "vllm bench latency",
        ),
        (
            {"elapsed_time": 9.0, "num_requests": 8, "total_num_tokens": 9, "tokens_per_second": 1},
            "vllm bench throughput",
        ),
        (
            {"successful_requests": 9, "total_latency": 2.0, "last_gen_throughput": 3.0},
            "bench_offline_throughput",
        ),
    ],
)
def test_benchmarks_without_latencies_are_named(tmp_path, content, tool):
    (tmp_path / "out.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=tool):
        read_log(tmp_path / "out.json")


CONFIG = """
data:
  type: shared_prefix
  shared_prefix:
    {num_groups: 4, num_prompts_per_group: 5, system_prompt_len: 300, question_len: 212}
load: {type: constant}
server: {type: vllm, model_name: org/dense-8b, ignore_eos: true}
api: {type: completion}
"""


@pytest.mark.parametrize(("sent", "groups", "prefix"), [(2000, 20, 512), (30, 4, 300)])
def test_inference_perfs_settings_lie_beside(tmp_path, sent, groups, prefix):
    """Prompts asked again and again are prefixes of their own; else only the shared part is."""
    stage = json.loads((FIXTURES / "inference-perf/stage_0.json").read_text())
    stage["load_summary"]["count"] = sent
    (tmp_path / "stage_0_lifecycle_metrics.json").write_text(json.dumps(stage))
    (tmp_path / "config.yaml").write_text(CONFIG)
    (row,) = read_log(tmp_path / "stage_0_lifecycle_metrics.json").rows
    assert (row.model, row.engine, row.arrivals) == ("org/dense-8b", "vLLM", "constant")
    assert (row.prefix_groups, row.prefix_len, row.prefix_caching) == (groups, prefix, True)


def test_a_link_beside_a_log_is_not_followed(tmp_path):
    shutil.copy(FIXTURES / "genai-bench/seconds.json", tmp_path / "run.json")
    (tmp_path / "elsewhere.json").write_text(json.dumps({"model": "secret"}))
    (tmp_path / "experiment_metadata.json").symlink_to(tmp_path / "elsewhere.json")
    (row,) = read_log(tmp_path / "run.json").rows
    assert row.model is None
