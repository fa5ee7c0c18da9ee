"""What CONTRIBUTING promises to strangers: a package of theirs adds a GPU, a model with its family,
an engine with its policy and a log format by entry points alone, and all questions take them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = '''
"""A package that is not bestserve's."""

import json
from pathlib import Path

from bestserve.catalog.hf.layers import assemble, dense, grouped_query
from bestserve.catalog.hf.plain import Traits, architecture as plain
from bestserve.models.policies import Policy
from bestserve.readers.tidy import TidyRow

ROOT = Path(__file__).parent / "records"

# a model family
MODEL_TYPES = ("acme",)
architecture = lambda config: plain(type(config)({**config.values, "model_type": "llama"}, "acme"))

# a scheduler policy
ONE_PROMPT = Policy(name="acme-one-prompt", splits=True, rides=True, most_prompts=1,
                    prompt_budget=512)

# a log format
NAME = "acme-log"
def sniff(source): return isinstance(source.value, dict) and "acme" in source.value
def read(source):
    name, ttft = source.name, source.value["acme"]
    return [TidyRow(format=NAME, origin=name, id=name, ttft_mean_ms=ttft)]
'''
ENTRY_POINTS = """
[bestserve.catalog]
acme = acme:ROOT
[bestserve.architectures]
acme = acme
[bestserve.policies]
acme = acme:ONE_PROMPT
[bestserve.log_formats]
acme = acme
"""
GPU = """
extends = "h100-sxm"
title = "Acme 1"
notes = "an H100 with twice the memory bandwidth"

[sources]
own = "the test"

[figures]
memory_bandwidth = { value = 6.7e12, unit = "B/s", kind = "assumed", source = "own" }
"""
ENGINE = """
extends = "vllm"
title = "Acme serve"
notes = "vLLM with a policy of its own"
policy = "acme-one-prompt"
"""
ASK = """
import json
import bestserve as bs
from bestserve.readers.logs import read_log

problem = bs.Problem(
    model="acme/Acme-8B", hardware="acme-1", gpus=1, engine="acme-serve",
    workload=bs.Workload(input_len=1000, output_len=100), slo=bs.SLO("ttft:2000 tpot:100"),
)
found = bs.predict(problem, "1m-tp1", 2.0)
best = bs.rank(problem).best
log = read_log("log.json")
print(json.dumps([found.method, found.tpot.mean, best.method, best.goodput, log.format]))
"""


@pytest.fixture
def stranger(tmp_path: Path, root: Path) -> Path:
    """An installed distribution, as pip would leave it: a module, its records, its metadata."""
    (tmp_path / "acme.py").write_text(MODULE)
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    for kind, name, text in (("hardware", "acme-1", GPU), ("engines", "acme-serve", ENGINE)):
        folder = tmp_path / "records" / kind
        folder.mkdir(parents=True)
        (folder / f"{name}.toml").write_text(text)
    known = root / "bestserve/data/models/meta-llama--Llama-3.1-8B/config.json"
    config = {**json.loads(known.read_text()), "model_type": "acme"}
    model = tmp_path / "records" / "models" / "acme--Acme-8B"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(config))
    (tmp_path / "log.json").write_text('{"acme": 12.5}')
    return tmp_path


@pytest.mark.slow
def test_a_package_of_a_stranger_extends_everything(stranger: Path, root: Path) -> None:
    path = os.pathsep.join([str(stranger), str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        cwd=stranger,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    method, tpot, judged, goodput, log = json.loads(done.stdout)
    assert (method, judged, log) == ("simulated", "simulated", "acme-log")
    assert 2e-3 < tpot < 8e-3
    assert goodput > 1.0
