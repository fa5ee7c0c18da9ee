"""`bestserve watch`: how far from the goodput, as predicted or not, and files others accept."""

from __future__ import annotations

import json
import math
import tomllib

import pytest

import bestserve as bs
from bestserve.answers.watch import watched, workload_of
from bestserve.cli import run
from bestserve.errors import InputError
from bestserve.readers.logs import read_log
from bestserve.readers.metrics.histogram import Histogram
from bestserve.readers.metrics.live import LiveMetrics


def histogram(mean: float, count: float = 100.0) -> Histogram:
    return Histogram.of({mean: count, float("inf"): count}, mean * count)


def seen(**changes) -> LiveMetrics:
    values = {
        "server": "vLLM",
        "model": "meta-llama/Llama-3.1-8B",
        "seconds": 60.0,
        "request_rate": 4.0,
        "running": 6.0,
        "waiting": 0.0,
        "kv_usage": 0.2,
        "input_len": histogram(1000),
        "output_len": histogram(200),
        "ttft": histogram(0.06),
        "tpot": histogram(0.009),
    }
    return LiveMetrics(**(values | changes))


def problem(live: LiveMetrics) -> bs.Problem:
    return bs.Problem(
        model=live.model,
        hardware="h100-sxm",
        gpus=1,
        engine="vllm",
        workload=workload_of(live),
        slo="ttft:500 tpot:30",
    )


def test_it_says_how_far_the_goodput_is():
    live = seen()
    found = watched(live, problem(live), "1m-tp1")
    assert found.goodput == pytest.approx(bs.goodput(problem(live), "1m-tp1").goodput)
    assert found.load == pytest.approx(4.0 / found.goodput)
    said = found.explain()
    assert f"at {found.load:.0%} of the" in said
    assert "will bind" in said
    assert {a.metric for a in found.agreement} == {"TTFT", "TPOT"}


def test_it_says_whether_the_prediction_agrees():
    slow = seen(ttft=histogram(30.0), tpot=histogram(0.5))
    found = watched(slow, problem(slow), "1m-tp1")
    assert [a.agrees for a in found.agreement] == [False, False]
    assert "not as predicted" in found.explain()


def test_it_says_which_limit_to_change():
    live = seen()
    tight = problem(live).replaced(max_num_seqs=4)
    found = watched(live, tight, "1m-tp1")
    assert found.advice is not None
    assert (found.advice.limit, found.advice.now, found.advice.then) == ("max_num_seqs", 4, 8)
    better = bs.goodput(tight.replaced(max_num_seqs=8), "1m-tp1", method="analytic").goodput
    today = bs.goodput(tight, "1m-tp1", method="analytic").goodput
    assert found.advice.gain == pytest.approx(better - today)


def test_a_full_cache_and_evictions_are_named():
    live = seen(kv_usage=0.99, preemptions=0.5)
    said = watched(live, problem(live), "1m-tp1").explain()
    assert "99% full" in said
    assert "evicted" in said


def test_lengths_and_gaps_become_a_workload():
    workload = workload_of(seen(arrival_scv=4.0, prefix_cache_hit=0.3))
    assert (workload.burstiness, workload.prefix_cache_hit) == (0.25, 0.3)
    assert workload.input_len.mean_tokens == 1000
    with pytest.raises(InputError, match="no lengths"):
        workload_of(seen(input_len=None))


@pytest.fixture
def dumps(tmp_path):
    pytest.importorskip("prometheus_client", reason="the extra `watch` reads the text format")
    label = 'model_name="meta-llama/Llama-3.1-8B"'
    for file, count in (("a.txt", 100), ("b.txt", 220)):
        lines = [f"vllm:num_requests_running{{{label}}} 3"]
        lines.append(f"vllm:request_success_total{{{label}}} {count}")
        for name, value in (("request_prompt_tokens", 800), ("request_generation_tokens", 150)):
            for le in (100, 200, 500, 1000, math.inf):
                end = "+Inf" if math.isinf(le) else str(le)
                within = count if le >= value else 0
                lines.append(f'vllm:{name}_bucket{{{label},le="{end}"}} {within}')
            lines.append(f"vllm:{name}_sum{{{label}}} {value * count}")
        (tmp_path / file).write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_command_writes_what_other_commands_accept(dumps, capsys):
    arguments = ["watch", str(dumps / "a.txt"), str(dumps / "b.txt"), "--window", "60"]
    arguments += ["--strategy", "1m-tp1", "--hardware", "h100-sxm", "--gpus", "1"]
    arguments += ["--goodput", "ttft:500", "tpot:30", "--format", "json"]
    files = ["--save-workload", str(dumps / "w.toml"), "--save-run", str(dumps / "run.csv")]
    assert run([*arguments, *files]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["kind"] == "watched"
    assert out["live"]["request_rate"] == 2.0
    assert 0 < out["load"] < 1
    stated = tomllib.loads((dumps / "w.toml").read_text())
    assert stated["model"] == "meta-llama/Llama-3.1-8B"
    again = ["goodput", "1m-tp1", "--problem", str(dumps / "w.toml"), "--hardware", "h100-sxm"]
    assert run([*again, "--gpus", "1", "--goodput", "ttft:500", "tpot:30", "--format", "json"]) == 0
    question = json.loads(capsys.readouterr().out)["question"]
    assert question["problem"]["workload"]["input_len"]["tokens"] == 800
    (row,) = read_log(dumps / "run.csv").rows
    assert (row.model, row.request_rate, row.input_len_mean) == (stated["model"], 2.0, 800)


def test_without_a_strategy_the_figures_stand_alone(dumps, capsys):
    assert run(["watch", str(dumps / "a.txt"), str(dumps / "b.txt"), "--window", "60"]) == 0
    assert "prompts: mean 800 tokens" in capsys.readouterr().out


def test_a_rate_beyond_the_goodput_is_exit_3(dumps, capsys):
    arguments = ["watch", str(dumps / "a.txt"), str(dumps / "b.txt"), "--window", "0.5"]
    arguments += ["--strategy", "1m-tp1", "--hardware", "h100-sxm", "--gpus", "1"]
    assert run([*arguments, "--goodput", "ttft:500", "tpot:30"]) == 3
    assert "binds" in capsys.readouterr().out
