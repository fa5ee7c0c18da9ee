"""`bestserve validate` and `bestserve calibrate` on hand-written files: contract and exit codes."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import bestserve as bs
from bestserve.cli import run
from bestserve.cli.validate import read_tolerance
from bestserve.errors import InputError
from bestserve.readers.logs import read_logs
from bestserve.validation import compare
from bestserve.validation.compare import compare_rows
from bestserve.validation.parity import draw_parity, parity_data
from bestserve.validation.replay import METRICS

HEADER = (
    "id", "model", "gpu", "num_gpus", "engine", "engine_version", "tp", "request_rate",
    "concurrency", "input_len_mean", "output_len_mean", "ttft_mean_ms", "tpot_mean_ms",
)  # fmt: skip
ROWS: list[tuple[Any, ...]] = [
    ("a", "meta-llama/Llama-3.1-8B", "NVIDIA H100 SXM", 1, "vLLM", "0.11.0", 1, "inf", 4, 1000,
     100, 60, 8.5),
    ("b", "meta-llama/Llama-3.1-8B", "NVIDIA H100 SXM", 1, "vLLM", "0.11.0", 1, "inf", 16, 1000,
     100, 120, 11),
    ("", "meta-llama/Llama-3.1-8B", "NVIDIA H100 SXM", 2, "vLLM", "0.11.0", 2, "inf", 16, 1000,
     100, 80, 8),
    ("d", "meta-llama/Llama-3.1-8B", "Cerebras WSE", 1, "vLLM", "0.11.0", 1, "inf", 4, 1000, 100,
     60, 8.5),
    ("e", "nobody/model-1T", "NVIDIA H100 SXM", 1, "vLLM", "0.11.0", 1, "inf", 4, 1000, 100, 60,
     8.5),
]  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A tidy CSV of five runs, two of which cannot be predicted."""
    path = tmp_path / "runs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(ROWS)
    return path


def test_json_contract(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(log), "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema_version"] == 1
    rows = {row["id"]: row for row in answer["rows"]}
    assert list(rows) == ["a", "b", "4", "d", "e"]
    good = rows["a"]
    assert (good["status"], good["method"]) == ("predicted", "simulated")
    assert good["measured"] == {"ttft_mean_ms": 60.0, "tpot_mean_ms": 8.5}
    assert set(good["predicted"]) == set(METRICS)
    low, high = good["intervals"]["tpot_mean_ms"]
    assert low < good["predicted"]["tpot_mean_ms"] < high
    assert rows["d"]["status"] == "gpu_unknown"
    assert rows["d"]["predicted"] == {}
    assert "Cerebras" in rows["d"]["reason"]
    assert rows["e"]["status"] == "model_unknown"
    [group] = answer["groups"]
    assert group["n"] == 3
    for metric in ("ttft", "tpot"):
        assert {"n", "median", "p90", "bias", "rank_correlation"} == set(group["metrics"][metric])
    assert group["choice"]["cases"] == 1
    assert answer["predicted"] == 3
    assert answer["statuses"]["model_unknown"] == 1


@pytest.mark.parametrize("form", ["table", "csv", "md", "html"])
@pytest.mark.parametrize("rows", [[], ["--rows"]])
def test_every_format_prints(
    log: Path, form: str, rows: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", str(log), "--format", form, "--no-intervals", *rows]) == 0
    printed = capsys.readouterr()
    assert "h100-sxm" in printed.out
    assert "3 of 5 rows predicted" in printed.err


def test_tolerance_decides_the_exit_code(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["validate", str(log), "--no-intervals", "--tolerance"]
    assert run([*command, "1000"]) == 0
    assert run([*command, "tpot:0.001"]) == 4
    assert "exceeds" in capsys.readouterr().err
    assert run([*command, "soon"]) == 2


def test_tolerances_are_read() -> None:
    assert read_tolerance(["20"]) == {"ttft": 0.2, "tpot": 0.2}
    assert read_tolerance(["ttft:25%", "tpot:15"]) == {"ttft": 0.25, "tpot": 0.15}
    assert read_tolerance(None) == {}
    with pytest.raises(InputError, match="write per cent"):
        read_tolerance(["e2el:5"])


def test_flags_state_what_the_log_does_not(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(log), "--hardware", "h200-sxm", "--format", "json",
                "--no-intervals"]) == 0  # fmt: skip
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {r["gpu"] for r in rows if r["status"] == "predicted"} == {"h200-sxm"}
    assert rows[3]["status"] == "predicted"


def test_everything_missing_is_asked_for_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "bench.csv"
    row = ["a", "", "", "", "", "", "", "inf", "4", "1000", "100", "60", "8.5"]
    log.write_text(",".join(HEADER) + "\n" + ",".join(row) + "\n", encoding="utf-8")
    asked = {
        ("--model", "meta-llama/Llama-3.1-8B"): "(--model)",
        ("--engine", "vllm"): "(--engine,",
        ("--gpus", "1"): "(--gpus,",
        ("--gpu", "h100"): "(--gpu)",
    }
    given: list[str] = []
    for flag, words in asked.items():
        assert run(["validate", str(log), *given, "--no-intervals"]) == 3
        said = capsys.readouterr().err
        assert [w for w in asked.values() if w in said] == [
            w for f, w in asked.items() if f[0] not in given
        ]
        assert run(["calibrate", str(log), *given]) == 5
        assert words in capsys.readouterr().err
        given += flag
    assert run(["validate", str(log), *given, "--no-intervals"]) == 3
    assert "say which with --gpu: h100-nvl, h100-pcie, h100-sxm" in capsys.readouterr().err
    given[given.index("h100")] = "h100-sxm"
    assert run(["validate", str(log), *given, "--no-intervals"]) == 0
    assert "1 of 1 rows predicted" in capsys.readouterr().err


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    assert run(["validate"]) == 2
    assert run(["validate", str(tmp_path / "absent.json")]) == 5
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    assert run(["validate", str(broken)]) == 5


def test_python_and_command_line_agree(log: Path) -> None:
    answer = bs.validate(log, with_intervals=False)
    assert answer.predicted == 3
    assert "gpu is not in the catalogue" in answer.explain().lower()
    frame = answer.to_frame()
    assert list(frame["n"]) == [3]


def test_parity_data_and_drawings(log: Path, tmp_path: Path) -> None:
    answer = bs.validate(log, with_intervals=False)
    [series] = parity_data(answer.rows, "tpot")
    assert series.measured == (8.5, 11.0, 8.0)
    assert series.name == "vllm-0.11"
    assert draw_parity(answer.rows, tmp_path / "parity.png").stat().st_size > 5000
    page = draw_parity(answer.rows, tmp_path / "parity.html").read_text(encoding="utf-8")
    assert "measured [ms]" in page
    with pytest.raises(InputError, match="end it in"):
        draw_parity(answer.rows, tmp_path / "parity.gif")


def test_calibrate_writes_a_record_that_validate_takes(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "own.toml"
    assert run(["calibrate", str(log), "--output", str(record), "--only", "a_step", "t_req",
                "--jobs", "1", "--format", "json"]) == 0  # fmt: skip
    answer = json.loads(capsys.readouterr().out)
    assert {f["name"] for f in answer["factors"]} == {"a_step", "t_req"}
    assert record.is_file()
    assert run(["validate", str(log), "--calibration", str(record), "--no-intervals"]) == 0


def test_equal_settings_are_predicted_once_and_keep_their_own_measurements(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for read in read_logs([log]) for row in read.rows]
    again = [
        dataclasses.replace(r, id=f"{r.id}-2", ttft_mean_ms=2.0 * (r.ttft_mean_ms or 1.0))
        for r in rows
    ]
    asked: list[str] = []
    replay = compare.compare_row
    monkeypatch.setattr(compare, "compare_row", lambda r, **k: asked.append(r.id) or replay(r, **k))
    found = compare_rows([*rows, *again], with_intervals=False)
    assert asked == [row.id for row in rows]
    assert found == [replay(r, with_intervals=False) for r in [*rows, *again]]
