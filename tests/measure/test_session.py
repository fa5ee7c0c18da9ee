"""`bestserve measure` as users call it, on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from bestserve.catalog.calibration import load_calibration
from bestserve.cli.measure import measure
from bestserve.errors import InputError
from bestserve.measure import pytorch
from bestserve.measure.journal import read_journal

TORCH = "kernels need PyTorch: pip install 'bestserve[measure]'"


def command(*arguments: str) -> int:
    app = App(result_action="return_value")
    app.command(measure)
    result = app(["measure", *arguments], exit_on_error=False)
    assert isinstance(result, int)
    return result


def test_a_missing_pytorch_gives_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(pytorch.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install 'bestserve\[measure\]'"):
        command("--device", "cpu")


def test_importing_the_package_imports_no_pytorch() -> None:
    code = (
        "import sys, bestserve.cli.measure, bestserve.measure.session, bestserve.measure.dispatch,"
        "bestserve.measure.serve_loop; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--device", "tpu"], "write auto, cpu, cuda or cuda:N"),
        (["--time-budget", "0"], "must be positive"),
        (["--request-rate", "0"], "positive request rate"),
        (["--num-prompts", "0", "--max-concurrency", "2"], "at least one request"),
        (["--device", "cpu", "--tensor-parallel-size", "3"], "does not divide"),
        (["--device", "cpu", "--model", "deepseek-ai/DeepSeek-V3"], "mla"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], reason: str) -> None:
    pytest.importorskip("torch", reason=TORCH, exc_type=ImportError)
    with pytest.raises(InputError, match=reason):
        command(*arguments)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    torch = pytest.importorskip("torch", reason=TORCH, exc_type=ImportError)
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="sees no GPU"):
        command("--device", "cuda")


@pytest.mark.slow
def test_self_test_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason=TORCH, exc_type=ImportError)
    arguments = ["--device", "cpu", "--output", str(tmp_path), "--format", "json"]
    assert command(*arguments, "--time-budget", "0.5") == 0
    first = capsys.readouterr()
    assert "self-test on CPU: figures describe this machine's CPU, not a GPU" in first.err
    assert "left: call again to go on" in first.err
    (path,) = tmp_path.glob("*.journal.jsonl")
    done = {row["key"] for row in read_journal(path)[1]}
    loads = ["--request-rate", "30", "--max-concurrency", "3", "--num-prompts", "25"]
    lengths = ["--input-len", "30", "--output-len", "6"]
    assert command(*arguments, "--time-budget", "60", *loads, *lengths) == 0
    second = capsys.readouterr()
    assert f"{len(done)} taken from the journal" in second.err
    assert "left" not in second.err
    assert {r["constant"] for r in json.loads(second.out)} >= {"gemm.launch", "decode.memory"}
    (record,) = tmp_path.glob("*.calibration.toml")
    assert load_calibration(record).provenance.self_test
    with pytest.raises(InputError, match="self-test"):
        load_calibration(record).for_gpus()
    for name in ("bench_rate30.json", "bench_clients3.json"):
        log = json.loads((tmp_path / name).read_text())
        assert log["completed"] == 25
        assert len(log["ttfts"]) == len(log["itls"]) == 25
        assert all(len(i) == o - 1 for i, o in zip(log["itls"], log["output_lens"], strict=True))
        assert "self-test on CPU" in log["label"]


@pytest.mark.slow
def test_all_reduce_between_two_processes() -> None:
    pytest.importorskip("torch", reason=TORCH, exc_type=ImportError)
    from bestserve.measure.collective import all_reduce_rows

    rows = all_reduce_rows(2, [1 << 10, 1 << 16], device="cpu")
    assert [row[0] for row in rows] == [1 << 10, 1 << 16]
    assert all(0 < low <= median <= high for _, median, low, high in rows)
