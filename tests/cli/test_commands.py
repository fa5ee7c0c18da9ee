"""The command line as a new user meets it: answers on stdout, one line per failure, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys

import pytest

from bestserve.cli import COMMANDS, run

PROBLEM = [
    "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "4",
    "--input-len", "lognormal:1000,0.8", "--output-len", "lognormal:200,1",
    "--goodput", "ttft:1000", "tpot:50", "--percentile", "90",
]  # fmt: skip


def answer(capsys, *arguments: str) -> tuple[int, str, str]:
    code = run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_rank_prints_a_table_and_why(capsys):
    code, out, err = answer(capsys, "rank", *PROBLEM)
    assert code == 0
    assert "wins with" in out
    assert "Why others lose" in out
    assert "strategies considered" in err


def test_rank_as_json_has_the_documented_fields(capsys):
    code, out, _ = answer(capsys, "rank", *PROBLEM, "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["schema_version"] == 1
    assert document["problem"]["model"] == "meta-llama/Llama-3.1-8B"
    best = document["strategies"][0]
    assert {"strategy", "goodput", "goodput_per_gpu", "ttft", "tpot", "binding", "trust"} <= set(
        best
    )
    assert [s["goodput"] for s in document["strategies"]] == sorted(
        (s["goodput"] for s in document["strategies"]), reverse=True
    )
    assert all({"strategy", "reason"} <= set(r) for r in document["rejected"])


def test_predict_as_json_is_in_seconds(capsys):
    code, out, _ = answer(
        capsys, "predict", "2m-tp1", *PROBLEM, "--request-rate", "4", "--format", "json"
    )
    document = json.loads(out)
    assert code == 0
    for metric in ("ttft", "tpot", "e2el"):
        summary = document[metric]
        assert 0 < summary["p50"] <= summary["p90"] <= summary["p99"]
    assert document["e2el"]["mean"] > document["ttft"]["mean"] > document["tpot"]["mean"]
    assert 0 < document["utilisation"] < 1
    assert document["stability_limit"] > 4
    assert document["trust"]["level"] in ("high", "low")


def test_csv_goes_to_stdout_alone(capsys):
    code, out, _ = answer(capsys, "rank", *PROBLEM, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert rows[0]["rank"] == "1"
    assert float(rows[0]["goodput"]) > 0


@pytest.mark.parametrize("form", ["md", "html"])
def test_tables_for_documents(capsys, form):
    code, out, _ = answer(capsys, "rank", *PROBLEM, "--format", form)
    assert code == 0
    assert out.startswith("|" if form == "md" else "<table>")


def test_goodput_is_what_rank_says(capsys):
    _, out, _ = answer(capsys, "rank", *PROBLEM, "--format", "json")
    best = json.loads(out)["strategies"][0]
    code, out, _ = answer(capsys, "goodput", best["strategy"], *PROBLEM, "--format", "json")
    assert code == 0
    assert json.loads(out)["goodput"] == pytest.approx(best["goodput"], rel=0.01)


def test_rerun_reproduces_a_ranking(capsys, tmp_path):
    _, out, _ = answer(capsys, "rank", *PROBLEM, "--format", "json")
    file = tmp_path / "ranking.json"
    file.write_text(out)
    code, again, _ = answer(capsys, "rerun", str(file))
    assert code == 0
    assert json.loads(again)["strategies"] == json.loads(out)["strategies"]


SMALL = [*PROBLEM[:4], "--gpus", "1", *PROBLEM[6:]]


@pytest.mark.parametrize("asked", [
    ["goodput", "1m-tp1"],
    ["predict", "1m-tp1", "--request-rate", "3"],
    ["simulate", "1m-tp1", "--request-rate", "3", "--requests", "500", "--seed", "7"],
    ["simulate", "1m-tp1", "--request-rate", "3", "--requests", "500", "--replications", "2"],
    ["simulate", "1m-tp1", "--max-concurrency", "4", "--requests", "200"],
    ["whatif", "1m-tp1", "--set", "slo.tpot=x2", "--set", "workload.input_len=500"],
    ["whatif", "1m-tp1", "--sweep", "slo.tpot=20ms,40ms"],
    ["explain", "1m-tp1", "--versus", "1m-tp1-tokens1024"],
    ["sensitivity", "1m-tp1", "--method", "analytic"],
    ["memory", "1m-tp1", "--max-model-len", "8192", "--engine-version", "0.11"],
    ["memory", "1m-tp1", "--concurrency", "64", "--context", "4096", "--enforce-eager"],
    ["uncertainty", "1m-tp1", "1m-tp1-tokens1024", "--samples", "16"],
])  # fmt: skip
def test_every_answer_about_a_problem_can_be_asked_for_again(capsys, tmp_path, asked):
    code, first, _ = answer(capsys, *asked, *SMALL, "--format", "json")
    assert code == 0
    (tmp_path / "answer.json").write_text(first)
    code, again, _ = answer(capsys, "rerun", str(tmp_path / "answer.json"))
    assert code == 0
    assert json.loads(again) == json.loads(first)


@pytest.mark.parametrize(("question", "word"), [
    ({"command": "launch", "problem": {}}, "launch"),
    ({"command": "simulate", "problem": None}, "question"),
    ({"command": "goodput", "arguments": {"strategy": "1m-tp1", "shell": 1}}, "shell"),
    ({"command": "simulate", "arguments": {"save_detailed": "there"}}, "files"),
    ({"command": "curves", "arguments": {"plot": ["there.html"]}}, "files"),
    ({"command": "goodput", "arguments": {"strategy": "1m-tp1", "options": {}}}, "options"),
    ({"command": "predict", "arguments": {"strategy": "1m-tp1", "request_rate": "x"}}, "rate"),
    ({"command": "uncertainty", "arguments": {"samples": -1}}, "samples"),
    ({"command": "uncertainty", "arguments": {"strategies": [3]}}, "strategies"),
])  # fmt: skip
def test_rerun_repeats_questions_only(capsys, tmp_path, question, word):
    own = {"model": "meta-llama/Llama-3.1-8B", "hardware": "h100-sxm", "slo": "ttft:500"}
    own["workload"] = {"input_len": 100, "output_len": 10}
    asked = {"problem": own, **question}
    file = tmp_path / "answer.json"
    file.write_text(json.dumps({"schema_version": 1, "kind": "x", "question": asked}))
    code, out, err = answer(capsys, "rerun", str(file))
    assert (code, out) == (5, "")
    assert word in err.splitlines()[-1]


def test_a_problem_file_says_the_same_as_flags(capsys, tmp_path):
    file = tmp_path / "problem.toml"
    file.write_text(
        'model = "meta-llama/Llama-3.1-8B"\nhardware = "h100-sxm"\ngpus = 4\n'
        'slo = "ttft:1000 tpot:50"\n'
        '[workload]\ninput_len = "lognormal:1000,0.8"\noutput_len = "lognormal:200,1"\n'
    )
    _, by_flags, _ = answer(capsys, "rank", *PROBLEM, "--format", "json")
    code, by_file, _ = answer(capsys, "rank", "--problem", str(file), "--format", "json")
    assert code == 0
    assert json.loads(by_file)["strategies"] == json.loads(by_flags)["strategies"]


def test_defaults_are_said(capsys):
    code, _, err = answer(
        capsys,
        "rank",
        "--model",
        "meta-llama/Llama-3.1-8B",
        "--hardware",
        "h100-sxm",
        "--gpus",
        "1",
    )
    assert code == 0
    assert "no lengths given" in err
    assert "no objectives given" in err


def test_catalog_lists_names_with_records(capsys):
    code, out, _ = answer(capsys, "catalog", "--format", "json")
    listing = json.loads(out)
    assert code == 0
    assert "h100-sxm" in {row["name"] for row in listing["hardware"]}
    assert len(listing["hardware"]) >= 20
    assert len(listing["models"]) >= 30


def test_every_shown_figure_has_a_source(capsys):
    code, out, _ = answer(capsys, "catalog", "h100-sxm", "--format", "json")
    assert code == 0
    figures = [row for row in json.loads(out) if row["unit"]]
    assert len(figures) >= 10
    assert all(row["source"] and row["kind"] for row in figures)


def test_cite_prints_the_paper(capsys):
    code, out, _ = answer(capsys, "cite", "ranking")
    assert code == 0
    assert "2506.05871" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    code, out, _ = answer(capsys, command, "--help")
    assert code == 0
    assert "Usage: bestserve" in out


def with_(**changes: str) -> list[str]:
    values = dict(zip(PROBLEM[:10:2], PROBLEM[1:10:2], strict=True))
    values |= {f"--{k.replace('_', '-')}": v for k, v in changes.items()}
    return [word for pair in values.items() for word in pair] + PROBLEM[10:]


FAILURES = {
    "unknown command": (["rnak"], 2, "rank"),
    "unknown flag": (["rank", "--modle", "x"], 2, "--model"),
    "unknown model": (["rank", *with_(model="Llama-3.1-8")], 2, "nearest"),
    "unknown gpu": (["rank", *with_(hardware="h1000-sxm")], 2, "nearest"),
    "unknown engine": (["rank", *PROBLEM, "--engine", "vlllm"], 2, "vllm"),
    "no model": (["rank", "--hardware", "h100-sxm"], 2, "model"),
    "negative length": (["rank", *with_(input_len="-5")], 2, "-5"),
    "zero gpus": (["rank", *with_(gpus="0")], 2, "gpus"),
    "nan burstiness": (["rank", *PROBLEM, "--burstiness", "nan"], 2, "burstiness"),
    "bad objective": (["rank", *PROBLEM[:-5], "--goodput", "ttfd:5"], 2, "ttfd"),
    "slo below a bare prefill": (["rank", *PROBLEM[:-5], "--goodput", "ttft:1"], 3, "ms"),
    "model larger than the cluster": (
        ["rank", *with_(model="meta-llama/Llama-3.1-405B", gpus="1")], 3, "GB"),
    "tp does not divide heads": (
        ["rank", *PROBLEM, "--tensor-parallel-size", "3"], 3, "does not divide 32"),
    "tp larger than a node": (
        ["rank", *with_(gpus="64"), "--tensor-parallel-size", "16"], 3, "of a node"),
    "tp larger than the cluster": (
        ["rank", *PROBLEM, "--tensor-parallel-size", "8"], 3, "4 GPUs"),
    "strategy larger than the cluster": (
        ["predict", "9m-tp1", *PROBLEM, "--request-rate", "1"], 3, "9 GPUs"),
    "no rate": (["predict", "1m-tp1", *PROBLEM], 2, "request_rate"),
    "negative rate": (["predict", "1m-tp1", *PROBLEM, "--request-rate", "-1"], 2, "positive"),
    "unstable": (["predict", "1m-tp1", *PROBLEM, "--request-rate", "1e6"], 3, "without bound"),
    "missing problem file": (["rank", "--problem", "absent.toml"], 5, "absent.toml"),
    "missing config": (["rank", *with_(model="./absent/config.json")], 5, "absent"),
    "unknown method": (["cite", "rankin"], 2, "ranking"),
    "unknown catalogue entry": (["catalog", "h100-smx"], 2, "h100-sxm"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_one_line_with_the_right_code(capsys, name):
    arguments, expected, hint = FAILURES[name]
    code, out, err = answer(capsys, *arguments)
    assert code == expected, err
    assert hint in err
    assert "Traceback" not in err + out
    if expected == 2:
        assert len(err.strip().splitlines()) == 1, err


HOSTILE = {
    "brackets": b"[" * 10_000_000,
    "nested": b'{"a":' * 100_000,
    "binary": bytes(range(256)) * 100,
    "list": b"[1, 2, 3]",
    "number": b"42",
    "empty": b"",
    "nan": b'{"model": NaN}',
}


ROLES = [
    ("problem", ".json"),
    ("problem", ".toml"),
    ("problem", ".yaml"),
    ("model", ".json"),
    ("hardware", ".toml"),
    ("engine", ".toml"),
]


@pytest.mark.parametrize(("role", "suffix"), ROLES)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line(capsys, tmp_path, name, suffix, role):
    file = tmp_path / f"hostile{suffix}"
    file.write_bytes(HOSTILE[name])
    arguments = {
        "problem": ["--problem", str(file)],
        "engine": [*PROBLEM, "--engine", str(file)],
    }.get(role) or with_(**{role: str(file)})
    code, out, err = answer(capsys, "rank", *arguments)
    assert code in (2, 5)
    assert "Traceback" not in err + out
    assert len(err.strip().splitlines()) == 1, err
    assert len(err) < 600


@pytest.mark.parametrize(("flags", "word"), [
    (["--gpus", "2.5"], "2.5"),
    (["--gpus", "1e400"], "whole"),
    (["--tensor-parallel-size", "0"], "tensor_parallel_sizes"),
    (["--tensor-parallel-size"], "requires one or more values"),
    (["--pipeline-parallel-size", "-1"], "pipeline_parallel_sizes"),
    (["--layout"], "requires one or more values"),
    (["--top", "0"], "--top"),
    (["--attainment", "0.5"], "--joint"),
    (["--joint", "--percentile", "99"], "--attainment"),
    (["--goodput", "e2el:500@p9.9.9"], "9.9.9"),
])  # fmt: skip
def test_what_cannot_be_meant_is_one_line_and_exit_2(capsys, flags, word):
    base = [v for v in PROBLEM if v not in ("--gpus", "4", "--percentile", "90")]
    code, out, err = answer(capsys, "rank", *base, *flags)
    assert code == 2
    assert out == ""
    assert word in err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [
    ["simulate", "1m-tp1", "--request-rate", "2", "--requests", "0"],
    ["simulate", "1m-tp1", "--request-rate", "2", "--requests", "1000000000000"],
    ["simulate", "1m-tp1", "--request-rate", "2", "--replications", "0"],
    ["sensitivity", "1m-tp1", "--request-rate", "-1"],
    ["launch", "1m-tp1", "--request-rate", "-3"],
    ["launch", "1m-tp1", "--request-rate", "0"],
    ["whatif", "1m-tp1", "--sweep", "workload.input_len=500,1000", "--jobs", "0"],
    ["report", "--output", "."],
    ["whatif", "1m-tp1", "--set", "gpus=2", "--sweep", "slo.ttft=1s,2s", "--format", "json"],
])  # fmt: skip
def test_counts_and_rates_are_checked_before_any_work(capsys, arguments):
    code, out, err = answer(capsys, arguments[0], *arguments[1:], *PROBLEM)
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_tensor_parallelism_over_the_network_needs_its_flag(capsys):
    question = [
        "predict", "1m-tp16", "--model", "meta-llama/Llama-3.1-70B", "--hardware", "h100-sxm",
        "--gpus", "16", "--isl", "1000", "--osl", "200", "--goodput", "ttft:1000",
        "--request-rate", "1",
    ]  # fmt: skip
    assert answer(capsys, *question)[0] == 3
    assert answer(capsys, *question, "--tp-across-nodes")[0] == 0


def test_nothing_feasible_says_why_in_every_form(capsys):
    question = ["--model", "meta-llama/Llama-3.1-405B", "--hardware", "h100-sxm", "--gpus", "1"]
    for form in ("table", "csv", "md", "html"):
        code, out, err = answer(capsys, "rank", *question, "--format", form)
        assert (code, out) == (3, "")
        assert "no strategy is feasible on 1 GPU:" in err


def test_launch_names_the_model_as_engines_find_it(capsys):
    flags = ["--hardware", "h100-sxm", "--isl", "500", "--osl", "100", "--request-rate", "2"]
    for given, wanted in (
        ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ):
        _, out, _ = answer(capsys, "launch", "1m-tp1", "--model", given, *flags)
        assert f"vllm serve {wanted} " in out
        assert f"--model {wanted} " in out


def test_tables_in_a_pipe_cut_no_name_and_no_column(capsys):
    _, out, _ = answer(capsys, "catalog", "hardware")
    assert "rtx-pro-6000-workstation " in out
    assert "GPUs per node" in out


@pytest.mark.parametrize("redirect", [">&-", "> /dev/full", "2>&-", "| true"])
def test_streams_that_are_closed_or_full_raise_no_traceback(redirect):
    command = f"{shlex.quote(sys.executable)} -m bestserve cite {redirect}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == (5 if "full" in redirect else 0)


def test_a_terminal_without_unicode_gets_an_answer():
    flags = "explain 1m-tp1 --model Llama-3.1-8B --hardware h100-sxm --isl 500 --osl 100"
    done = subprocess.run(
        [sys.executable, "-m", "bestserve", *flags.split()],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_three_tables_are_no_csv(capsys):
    code, out, _ = answer(capsys, "catalog", "--format", "csv")
    assert (code, out) == (2, "")
    code, out, _ = answer(capsys, "catalog", "engines", "--format", "csv")
    assert code == 0
    assert len({len(row) for row in csv.reader(io.StringIO(out))}) == 1


def test_own_step_times_name_no_model_to_launch(capsys, tmp_path):
    file = tmp_path / "own.json"
    step = {"w": 5e-3, "c": 2e-5, "e": 0.0, "a": 1e-9, "k": 4e-8}
    workload = {"input_len": 500, "output_len": 100}
    file.write_text(json.dumps({"step_time": step, "workload": workload, "slo": "ttft:500"}))
    assert answer(capsys, "launch", "1m-tp1", "--problem", str(file))[0] == 2
    assert answer(capsys, "goodput", "1m-tp1", "--problem", str(file))[0] == 0


@pytest.mark.parametrize(("step", "word"), [
    ({"w": 5e-3, "c": 2e-5, "e": 0, "a": 1e-9, "kk": 1}, "nearest: k"),
    ({"w": 5e-3, "c": 2e-5, "e": 0, "a": 1e-9}, "missing: k"),
    ({"w": "x", "c": 2e-5, "e": 0, "a": 1e-9, "k": 0}, "must be a number"),
    ({"w": 5e-3, "c": 2e-5, "e": 0, "a": 1e-9, "k": 0, "moe": 3}, "moe"),
    (3, "dictionary"),
])  # fmt: skip
def test_step_times_that_cannot_be_used_are_one_line(capsys, tmp_path, step, word):
    file = tmp_path / "own.json"
    workload = {"input_len": 500, "output_len": 100}
    file.write_text(json.dumps({"step_time": step, "workload": workload, "slo": "ttft:500"}))
    code, out, err = answer(capsys, "goodput", "1m-tp1", "--problem", str(file))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert word in err


def test_an_answer_about_own_step_times_reruns(capsys, tmp_path):
    question = {
        "step_time": {"w": 5e-3, "c": 2e-5, "e": 0.0, "a": 1e-9, "k": 4e-8, "moe": [1e-4] * 30},
        "workload": {"input_len": 500, "output_len": 100},
    }
    (tmp_path / "own.json").write_text(json.dumps(question))
    asked = ["predict", "1m-tp1", "--problem", str(tmp_path / "own.json"), "--request-rate", "2"]
    code, first, _ = answer(capsys, *asked, "--format", "json")
    assert code == 0
    (tmp_path / "answer.json").write_text(first)
    assert answer(capsys, "rerun", str(tmp_path / "answer.json"))[1] == first


def test_wide_tables_in_a_pipe_break_no_word(capsys):
    from bestserve.cli.output import print_table

    names = [f"a_rather_long_name_of_figure_{i}_ms" for i in range(8)]
    print_table([{"id": "log.json", "status": "predicted", **dict.fromkeys(names, 1.5)}])
    out = capsys.readouterr().out
    assert "predicted" in out
    assert "a rather long name of figure 7 [ms]" in out


@pytest.mark.parametrize(("asked", "word"), [
    (["rank", "mine.toml"], "--problem mine.toml"),
    (["rank", "foo"], "see bestserve rank --help"),
    (["predict", *PROBLEM], "needs a strategy, for example 2m-tp4"),
    (["allocate"], "needs a fleet"),
    (["curves", "1m-tp1", *PROBLEM, "--plot", "there.gif"], "end it in .html"),
    (["curves", "1m-tp1", *PROBLEM, "--plot", "no/such/there.html"], "no folder no/such"),
])  # fmt: skip
def test_misuse_says_what_to_write_instead(capsys, asked, word):
    code, out, err = answer(capsys, *asked)
    assert (code, out) == (2, "")
    assert word in err


def test_what_comes_closest_is_said_when_nothing_is_feasible(capsys):
    hasty = [*PROBLEM[:6], "--goodput", "ttft:1"]
    code, _, err = answer(capsys, "rank", *hasty)
    assert code == 3
    assert "a lone request already misses the objective" in err
    assert "above the threshold of 1 ms)" in err.split("\n  ")[0]


@pytest.mark.parametrize(("text", "word"), [
    ("input_len = 1000\n", "belongs under workload"),
    ("ttft = 0.5\n", "belongs under slo"),
    ("[slo]\nttft = 500\n", 'write ttft = "500ms"'),
    ("[slo]\nttft = \"500\"\n", "names no unit"),
])  # fmt: skip
def test_slips_in_a_problem_file_are_named(capsys, tmp_path, text, word):
    file = tmp_path / "problem.toml"
    file.write_text('model = "meta-llama/Llama-3.1-8B"\nhardware = "h100-sxm"\n' + text)
    code, out, err = answer(capsys, "rank", "--problem", str(file))
    assert (code, out) == (2, "")
    assert word in err


def test_every_command_says_why_nothing_is_feasible(capsys):
    large = ["--model", "meta-llama/Llama-3.1-405B", "--hardware", "l4", "--gpus", "2"]
    for command in ("rank", "sensitivity", "uncertainty", "curves"):
        code, out, err = answer(capsys, command, *large)
        assert (code, out) == (3, ""), command
        assert "the weights do not fit" in err, command
    code, _, err = answer(capsys, "rank", *PROBLEM, "--tensor-parallel-size", "1024")
    assert code == 3
    assert "none of tensor_parallel_sizes 1024 fits" in err
