"""The example from log to calibrated prediction, as its README tells it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bestserve.cli import run

STATED = ["--gpu", "h100-sxm", "--gpus", "1", "--tensor-parallel-size", "1", "--engine", "vllm",
          "--engine-version", "0.11.0"]  # fmt: skip


@pytest.mark.slow
def test_from_log_to_calibrated_prediction(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = root / "examples" / "validate_my_log" / "simulated_runs.py"
    logs, record = tmp_path / "logs", tmp_path / "my-server.toml"
    subprocess.run([sys.executable, str(script), str(logs)], check=True, timeout=300, cwd=root)
    assert len(list(logs.iterdir())) == 5
    base = [str(logs), *STATED, "--no-intervals"]
    assert run(["validate", *base, "--tolerance", "10"]) == 4
    capsys.readouterr()
    command = ["calibrate", str(logs), *STATED, "--output", str(record), "--format", "json",
               "--only", "a_step", "t_req"]  # fmt: skip
    assert run(command) == 0
    factors = {f["name"]: f["value"] for f in json.loads(capsys.readouterr().out)["factors"]}
    assert factors["a_step"] == pytest.approx(2.5, rel=0.25)
    assert factors["t_req"] == pytest.approx(3.0, rel=0.25)
    assert run(["validate", *base, "--calibration", str(record), "--tolerance", "10"]) == 0
