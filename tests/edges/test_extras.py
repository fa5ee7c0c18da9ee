"""Every command in an installation of the wheel without its extras: an answer, or the pip line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bestserve.cli import COMMANDS
from bestserve.host.extras import EXTRAS, MissingExtraError, require

PROBLEM = [
    "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "1",
    "--input-len", "100", "--output-len", "10", "--goodput", "ttft:1000", "tpot:50",
]  # fmt: skip
LOG = "tests/formats/fixtures/vllm-bench-serve/summary.json"
ASKED: dict[str, list[list[str]]] = {
    "rank": [["--no-verify", *PROBLEM]],
    "goodput": [["1m-tp1", "--method", "analytic", *PROBLEM]],
    "headroom": [["1m-tp1", "--request-rate", "1", *PROBLEM]],
    "size": [["--request-rate", "1", *PROBLEM]],
    "schedule": [["--load", "load.csv", "--strategy", "1m-tp1", "--no-simulate", *PROBLEM]],
    "predict": [["1m-tp1", "--request-rate", "1", *PROBLEM]],
    "curves": [["1m-tp1", "--points", "2", *PROBLEM]],
    "sensitivity": [["1m-tp1", "--method", "analytic", *PROBLEM]],
    "whatif": [["1m-tp1", "--set", "slo.tpot=x2", *PROBLEM]],
    "uncertainty": [["1m-tp1", "1m-tp1-tokens1024", "--samples", "16", "--jobs", "1", *PROBLEM]],
    "explain": [["1m-tp1", *PROBLEM]],
    "simulate": [["1m-tp1", "--request-rate", "1", "--requests", "200", *PROBLEM]],
    "launch": [["1m-tp1", "--request-rate", "1", *PROBLEM]],
    "memory": [[]],
    "watch": [["answer.json"]],
    "validate": [[LOG, "--no-intervals"]],
    "calibrate": [[LOG]],
    "catalog": [["hardware"]],
    "rerun": [["answer.json"]],
    "cite": [[]],
    "allocate": [["fleet.toml", "--no-verify", "--no-certify"]],
}
REFUSED = {
    "report": ["report", *PROBLEM],
    "the page": ["ui", *PROBLEM],
    "curves to html": ["curves", "1m-tp1", "--plot", "x.html", *PROBLEM],
    "curves to png": ["curves", "1m-tp1", "--plot", "x.png", *PROBLEM],
    "allocate to a page": ["allocate", "fleet.toml", "--page", "x.html"],
    "validate to a plot": ["validate", LOG, "--plot", "x.svg"],
    "a server's text": ["watch", "fleet.toml"],
    "parquet": ["predict", "1m-tp1", *PROBLEM[:6], "--trace", "x.parquet"],
}
WITHOUT = f"""
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
def absent(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {sorted(EXTRAS)!r} else find(name, path, target)
importlib.machinery.PathFinder.find_spec = classmethod(absent)
from bestserve.cli import main
main(sys.argv[1:])
"""
"""The command line where no package of an extra can be found, as in a fresh installation."""


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory):
    """A folder with the unpacked wheel, and files that the commands read."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "bestserve"):
        os.symlink(root / name, source / name)
    build = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--target", str(folder / "site"), str(source)], check=True)
    (folder / "x.parquet").write_bytes(b"PAR1")
    (folder / "load.csv").write_text("start,request_rate\n0,1\n600,2\n")
    (folder / "fleet.toml").write_text(
        'objective = "min_cost"\n[[gpus]]\nhardware = "h100-sxm"\ncount = 1\nprice_per_hour = 2.0\n'
        '[[models]]\nmodel = "meta-llama/Llama-3.1-8B"\ntensor_parallel_sizes = [1]\n'
        'layouts = ["collocated"]\nmax_num_batched_tokens = [8192]\n[[models.classes]]\n'
        'name = "a"\ninput_len = 100\noutput_len = 10\nslo = "ttft:1000 tpot:50"\nrate = 1\n'
    )
    os.symlink(root / "tests", folder / "tests")
    return folder


def without_extras(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
    )  # fmt: skip


@pytest.mark.slow
def test_every_command_answers_without_extras(installed):
    asked = without_extras(installed, "predict", *ASKED["predict"][0], "--format", "json")
    (installed / "answer.json").write_text(asked.stdout)
    wanted = set(COMMANDS) - {"report", "ui", "measure"}
    missing = wanted - set(ASKED)
    assert not missing, f"ask something of {missing}"
    for command in sorted(wanted):
        for arguments in ASKED[command]:
            done = without_extras(installed, command, *arguments)
            assert "Traceback" not in done.stderr, (command, done.stderr)
            assert "pip install" not in done.stderr, (command, done.stderr)
            assert done.returncode in (0, 2, 3, 5), (command, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_an_extra_says_so_before_the_work(installed, name):
    done = without_extras(installed, *REFUSED[name])
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "pip install 'bestserve[" in done.stderr.splitlines()[-1]


def test_the_line_names_every_missing_package(monkeypatch):
    for name in ("plotly", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError) as error:
        require("this", "plotly", "pandas")
    assert str(error.value) == (
        "this needs plotly and pandas: pip install 'bestserve[report,frame]'"
    )
