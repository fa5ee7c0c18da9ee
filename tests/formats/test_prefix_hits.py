"""Hit counts of prefix caches are read where clients and servers write them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from bestserve.errors import DataError
from bestserve.readers.logs import read_log, read_logs
from bestserve.readers.logs._hits import share_in_log

FIXTURES = Path(__file__).parent / "fixtures"
VLLM = (
    "(APIServer pid=1) INFO 12-01 10:00:0{n} [loggers.py:310] Engine 000: Avg prompt throughput: "
    "{tokens} tokens/s, Avg generation throughput: 107.7 tokens/s, Running: 2 reqs, Waiting: 0 "
    "reqs, GPU KV cache usage: 0.1%, Prefix cache hit rate: {rate}%\n"
)
SGLANG = (
    "[2026-12-01 10:00:00 TP0] Prefill batch. #new-seq: 2, #new-token: {new}, #cached-token: "
    "{cached}, token usage: 0.02, #running-req: 1, #queue-req: 0\n"
)
METRICS = """
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="m"}} 1.0
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{{model_name="m"}} {asked}
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{{model_name="m"}} {hits}
"""


def beside(tmp_path: Path, fixture: str, **files: str) -> Path:
    place = tmp_path / Path(fixture).name
    shutil.copy(FIXTURES / fixture, place)
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return place


def test_vllms_rates_are_weighted_with_their_prompt_tokens() -> None:
    text = VLLM.format(n=1, tokens=100.0, rate=20.0) + VLLM.format(n=2, tokens=300.0, rate=60.0)
    assert share_in_log(text) == pytest.approx(0.5)
    assert share_in_log(VLLM.format(n=1, tokens=0.0, rate=90.0)) is None  # nothing was asked
    assert share_in_log("INFO: started") is None
    assert share_in_log(VLLM.format(n=1, tokens="1.2.3", rate=20.0)) is None


def test_sglangs_tokens_are_added_up() -> None:
    text = SGLANG.format(new=500, cached=1500) + SGLANG.format(new=500, cached=0)
    assert share_in_log(text) == pytest.approx(0.6)


def test_a_servers_log_beside_the_result(tmp_path: Path) -> None:
    log = VLLM.format(n=1, tokens=50.0, rate=81.0)
    (row,) = read_log(beside(tmp_path, "vllm-bench-serve/summary.json", server__log=log)).rows
    assert row.prefix_hit == pytest.approx(0.81)
    assert any("server.log" in note for note in row.notes)


def test_what_two_dumps_of_the_metrics_counted_between_them(tmp_path: Path) -> None:
    files = {
        "metrics_before__txt": METRICS.format(asked=1000, hits=0),
        "metrics_after__txt": METRICS.format(asked=5000, hits=3000),
    }
    (row,) = read_log(beside(tmp_path, "vllm-bench-serve/summary.json", **files)).rows
    assert row.prefix_hit == pytest.approx(0.75)


def test_of_several_runs_in_a_file_nothing_is_said(tmp_path: Path) -> None:
    log = SGLANG.format(new=500, cached=1500)
    rows = read_log(beside(tmp_path, "sglang-bench-serving/two_runs.jsonl", server__log=log)).rows
    assert len(rows) > 1
    assert all(row.prefix_hit is None for row in rows)


def test_an_unreadable_log_beside_leaves_a_warning(tmp_path: Path) -> None:
    place = beside(tmp_path, "vllm-bench-serve/summary.json")
    (tmp_path / "server.log").write_bytes(b"\0\1\2")
    read = read_log(place)
    assert read.rows[0].prefix_hit is None
    assert any("server.log" in warning for warning in read.warnings)


def test_inference_perfs_report_of_the_servers_metrics(tmp_path: Path) -> None:
    place = tmp_path / "stage_0_lifecycle_metrics.json"
    shutil.copy(FIXTURES / "inference-perf/stage_0.json", place)
    other = tmp_path / "stage_0_prometheus_metrics.json"
    other.write_text(json.dumps({"prefix_cache_hit_percent": {"mean": 87.5}}))
    assert read_log(place).rows[0].prefix_hit == pytest.approx(0.875)
    other.write_text(json.dumps({"prefix_cache_hit_percent": {"mean": 0.0}}))  # nobody asked
    assert read_log(place).rows[0].prefix_hit is None


def test_aiperfs_share_and_its_requests_own(tmp_path: Path) -> None:
    summary = json.loads((FIXTURES / "aiperf/phases.json").read_text())
    summary["overall_usage_prompt_cache_read_pct"] = {"unit": "%", "avg": 68.5}
    place = tmp_path / "profile_export_aiperf.json"
    place.write_text(json.dumps(summary))
    assert read_log(place).rows[0].prefix_hit == pytest.approx(0.685)

    lines = (FIXTURES / "aiperf-requests/records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        if "input_sequence_length" in record["metrics"]:
            tokens = record["metrics"]["input_sequence_length"]["value"]
            record["metrics"]["usage_prompt_cache_read_tokens"] = {
                "value": tokens,
                "unit": "tokens",
            }
    place = tmp_path / "profile_export.jsonl"
    place.write_text("\n".join(json.dumps(record) for record in records))
    (row,) = read_log(place).rows
    assert row.requests is not None
    assert row.requests.cached is not None
    assert row.requests.input_len is not None
    # the last token of a prompt is computed in any case
    assert (row.requests.cached == row.requests.input_len - 1).all()
    assert row.prefix_hit == pytest.approx(1 - 1 / row.requests.input_len.mean())


def test_llm_ds_components_and_their_prefixes(tmp_path: Path) -> None:
    report = yaml.safe_load((FIXTURES / "llm-d-report/v0_2.yaml").read_text())
    rates = [{"units": "percent", "mean": 40.0}, {"units": "fraction", "mean": 0.8}]
    report["results"]["observability"] = {
        "components": [
            {"component_label": "m", "aggregate": {"cache_hit_rate": rate}} for rate in rates
        ]
    }
    report["scenario"]["load"]["standardized"]["prefix"] = {
        "prefix_len": {"distribution": "fixed", "value": 2048},
        "num_groups": 150,
        "num_users_per_group": 5,
        "num_prefixes": 1,
    }
    place = tmp_path / "report.yaml"
    place.write_text(yaml.safe_dump(report))
    (row,) = read_log(place).rows
    assert row.prefix_hit == pytest.approx(0.6)
    assert (row.prefix_groups, row.prefix_prompts, row.prefix_caching) == (150, 5, True)


def test_what_lies_beside_a_result_is_no_log_of_its_own(tmp_path: Path) -> None:
    log = VLLM.format(n=1, tokens=50.0, rate=81.0)
    beside(tmp_path, "vllm-bench-serve/summary.json", server__log=log)
    (read,) = read_logs([tmp_path])
    assert read.rows[0].prefix_hit == pytest.approx(0.81)
    assert not read.warnings
    place = tmp_path / "stage_0_prometheus_metrics.json"
    place.write_text(json.dumps({"prefix_cache_hit_percent": {"mean": 87.5}}))
    with pytest.raises(DataError, match="servers' metrics"):
        read_log(place)
