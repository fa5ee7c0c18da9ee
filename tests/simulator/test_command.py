"""`bestserve simulate`, and that readers of measured logs read simulated ones."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bestserve.cli.options import ProblemOptions
from bestserve.cli.simulate import simulate
from bestserve.errors import InputError
from bestserve.readers.logs import read_log

CHAT = ProblemOptions(
    model="meta-llama/Llama-3.1-8B",
    hardware="h100-sxm",
    gpus=2,
    input_len="lognormal:1000,0.8",
    output_len="lognormal:200,1",
)


def test_table_has_statistics_and_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("2m-tp1", CHAT, request_rate=8.0, requests=500) == 0
    out = capsys.readouterr().out
    for word in ("ttft", "tpot", "e2el", "queue_time", "p99 [ms]", "replicas", "req/s over"):
        assert word in out


def test_disaggregated_names_both_pools(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("1p1d-tp1", CHAT, request_rate=4.0, requests=300) == 0
    out = capsys.readouterr().out
    assert "prefill" in out
    assert "decode" in out


@pytest.mark.parametrize("rule", ["-prefill-upto800", "-prefill-upto800-queue2", "-prefill-flow50"])
def test_hybrids_keep_short_prompts_local(rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    """TaiChi's length-aware prefill and flowing decode, Dynamo's conditional disaggregation."""
    plan, asked = f"1p-tp1-tokens4096+1d-tp1-tokens256{rule}", replace(CHAT, goodput=["tpot:40"])
    assert simulate(plan, asked, request_rate=8.0, requests=300, format="csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    local = [int(row["input_len"]) for row in rows if int(row["replica"]) < 0]
    away = [int(row["input_len"]) for row in rows if int(row["replica"]) >= 0]
    assert local
    assert away
    if rule == "-prefill-upto800":
        assert max(local) <= 800 < min(away)
    elif "queue" in rule:
        assert max(local) > 800 < min(away)


def test_csv_lists_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate("2m-tp1", CHAT, request_rate=8.0, requests=200, format="csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 200
    assert all(float(row["e2el"]) >= float(row["ttft"]) > 0 for row in rows)


def test_replications_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        simulate("2m-tp1", CHAT, request_rate=8.0, requests=500, replications=3, format="json") == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document["kind"] == "replications"
    assert len(document["seeds"]) == 3
    assert document["throughput"]["low"] < document["throughput"]["high"]


def test_closed_loop_log_is_read_as_a_measured_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = ProblemOptions(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=1,
        input_len="512",
        output_len="64",
        max_concurrency=8,
        num_prompts=40,
    )
    path = tmp_path / "run.json"
    assert simulate("1m-tp1", loop, save_detailed=path) == 0
    log = json.loads(path.read_text())
    assert log["completed"] == 40
    assert log["max_concurrency"] == 8
    assert {len(gaps) for gaps in log["itls"]} == {63}
    found = read_log(path)
    (row,) = found.rows
    assert row.concurrency == 8
    assert row.input_len_mean == 512
    assert row.ttft_mean_ms == pytest.approx(log["mean_ttft_ms"])
    assert row.tpot_p99_ms == pytest.approx(log["p99_tpot_ms"])
    assert row.out_tok_throughput == pytest.approx(log["output_throughput"])


def test_flags_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="replications"):
        simulate(
            "1m-tp1", CHAT, request_rate=1.0, replications=2, save_detailed=tmp_path / "x.json"
        )
    with pytest.raises(InputError, match="trace"):
        simulate("1m-tp1", CHAT, request_rate=1.0, prefix_cache_tokens=1e6)
