"""What a stranger types first: the answer, or a line that says what to type instead."""

from __future__ import annotations

import json

import pytest

from bestserve.cli import run

BASE = ["--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "1"]
LENGTHS = ["--input-len", "500", "--output-len", "50"]
GOAL = ["--goodput", "ttft:500", "tpot:40"]


def answer(capsys, *arguments: str) -> tuple[int, str, str]:
    code = run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def trace(tmp_path):
    file = tmp_path / "log.csv"
    rows = [f"{0.5 * n},{100 + n},{10 + n % 7}" for n in range(201)]
    file.write_text("\n".join(["timestamp,prompt_tokens,completion_tokens", *rows]))
    return file


COLUMNS = ["arrival=timestamp", "input_len=prompt_tokens", "output_len=completion_tokens"]


def test_a_trace_with_other_names_is_told_the_flag_that_reads_it(capsys, trace):
    code, _, err = answer(capsys, "predict", "1m-tp1", *BASE, *GOAL, "--trace", str(trace))
    assert code == 5
    assert f"--trace-columns {' '.join(COLUMNS)}" in err


def test_a_trace_brings_its_own_rate(capsys, trace):
    asked = ["1m-tp1", *BASE, *GOAL, "--trace", str(trace), "--trace-columns", *COLUMNS]
    code, out, _ = answer(capsys, "predict", *asked, "--format", "json")
    assert code == 0
    assert json.loads(out)["request_rate"] == pytest.approx(2.0)
    code, out, _ = answer(capsys, "simulate", *asked, "--format", "json")
    assert code == 0


def test_the_file_is_looked_at_before_a_rate_is_asked_for(capsys):
    code, _, err = answer(capsys, "predict", "1m-tp1", *BASE, *GOAL, "--trace", "nowhere.csv")
    assert code == 5
    assert "nowhere.csv" in err


def test_flags_displace_what_the_problem_file_says_otherwise(capsys, tmp_path, trace):
    file = tmp_path / "problem.toml"
    file.write_text(
        'model = "meta-llama/Llama-3.1-8B"\nhardware = "h100-sxm"\ngpus = 1\nslo = "ttft:500"\n'
        "[workload]\ninput_len = 500\noutput_len = 50\n"
    )
    asked = ["predict", "1m-tp1", "--problem", str(file), "--format", "json"]
    code, out, _ = answer(capsys, *asked, "--trace", str(trace), "--trace-columns", *COLUMNS)
    assert code == 0
    assert "input_len" not in json.loads(out)["problem"]["workload"]
    file.write_text(
        'model = "meta-llama/Llama-3.1-8B"\nhardware = "h100-sxm"\ngpus = 1\nslo = "ttft:500"\n'
        f'[workload]\ntrace = "{trace}"\n'
    )
    code, out, _ = answer(capsys, *asked, *LENGTHS, "--request-rate", "1")
    assert code == 0
    assert "trace" not in json.loads(out)["problem"]["workload"]


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["validate", "missing.json"], 5, "missing.json"),
    (["calibrate", "missing.json"], 5, "missing.json"),
    (["goodput", "2m-tp8pp2", *BASE, *LENGTHS, *GOAL], 2, "2m-tp8-pp2"),
    (["rank", *BASE, "--isl", "lognormal:1500", "--osl", "9"], 2, "lognormal:1500,0.8"),
    (["rank", *BASE, "--input-len", "uniform:5", "--output-len", "9"], 2, "uniform:100,200"),
    (["predict", "1m-tp1", *BASE, *GOAL, "--trace", "x", "--trace-columns", "a"], 2, "arrival="),
    (["whatif", "1m-tp1", *BASE, *LENGTHS, *GOAL, "--set", "x=1"], 2, "group.figure"),
])  # fmt: skip
def test_messages_say_what_to_write(capsys, arguments, code, words):
    got, out, err = answer(capsys, *arguments)
    assert (got, out) == (code, "")
    assert words in err.splitlines()[-1]


def test_both_layouts_are_what_it_tries_anyway(capsys):
    asked = ["rank", *BASE[:-1], "2", *LENGTHS, *GOAL, "--format", "json"]
    answers = [answer(capsys, *asked, *more)[1] for more in ([], ["--layout", "both"])]
    assert json.loads(answers[0])["strategies"] == json.loads(answers[1])["strategies"]


def test_a_validation_that_predicts_nothing_is_no_success(capsys, root):
    log = root / "tests/formats/fixtures/vllm-bench-serve/summary.json"
    code, _, err = answer(capsys, "validate", str(log), "--gpu", "NVIDIA X9000")
    assert code == 3, err
