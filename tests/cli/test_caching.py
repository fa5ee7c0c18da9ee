"""The commands that speak of prefix caches, as they are typed."""

from __future__ import annotations

import json

import pytest

from bestserve.cli import run

BARE = [
    "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "2",
    "--output-len", "50", "--goodput", "ttft:500", "tpot:40",
]  # fmt: skip
GPU = [*BARE, "--input-len", "500"]
SHARED = [*GPU, "--prefix-groups", "300", "--prefix-len", "6000"]


def test_goodput_turned_round(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["goodput", "2m-tp1", *BARE, "--input-len", "6000"]
    assert run([*asked, "--wanted-rate", "20", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0.1 < found["share"] < 0.9
    assert found["question"]["arguments"]["wanted_rate"] == 20
    assert run([*asked, "--wanted-rate", "10000"]) == 3
    assert "no share of cached prompt tokens" in capsys.readouterr().out


def test_memory_says_how_much_of_the_prefixes_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["memory", "2m-tp1", *SHARED]) == 0
    told = capsys.readouterr().out
    assert "working set: 1,800,000 tokens are asked for again" in told
    assert "if a router sent each prefix to one instance" in told


def test_peers_need_no_size_and_host_memory_does(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["simulate", "2m-tp1", *SHARED, "--request-rate", "4", "--requests", "400"]
    assert run([*asked, "--kv-peer-bandwidth", "6.9e9", "--format", "json"]) == 0
    capsys.readouterr()
    assert run([*asked, "--kv-offloading-bandwidth", "25e9"]) == 2
    assert "--kv-offloading-size" in capsys.readouterr().err


def test_what_routers_bring_is_asked_of_prompts_that_share(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["rank", *GPU, "--compare-routing", "random", "prefix_aware"]) == 2
    assert "prompts that share something" in capsys.readouterr().err
    assert run(["rank", *SHARED, "--compare-offloading", "0", "100"]) == 2
    assert "--kv-offloading-bandwidth" in capsys.readouterr().err


def test_sizes_that_are_compared_need_no_size_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["rank", *SHARED, "--compare-offloading", "0", "100", "--compare-routing", "precise"]
    assert run([*asked, "--kv-offloading-bandwidth", "25e9"]) == 2
    assert "routing 'precise'" in capsys.readouterr().err  # the bandwidth was enough
    asked = ["rank", *SHARED, "--compare-routing", "random", "--kv-offloading-bandwidth", "25e9"]
    assert run(asked) == 2
    assert "--kv-offloading-size" in capsys.readouterr().err
