"""The URL is the problem: read, written back, and said in other words."""

from __future__ import annotations

import shlex
import tomllib
from urllib.parse import parse_qsl

import pytest

import bestserve as bs
from bestserve.cli import build
from bestserve.cli.options import ProblemOptions
from bestserve.web.copies import problem_file, python_call, shell_command, to_flags
from bestserve.web.fields import form_fields, grouped
from bestserve.web.query import query_of, read_query

LLAMA = {"model": "meta-llama/Llama-3.1-8B", "hardware": "h100-sxm"}
PROBLEMS = {
    "plain": bs.Problem(
        **LLAMA,
        gpus=4,
        workload=bs.Workload(input_len=bs.LogNormal(2000, cv=0.8), output_len=300),
        slo=bs.SLO("ttft:1000 tpot:50"),
    ),
    "everything a flag states": bs.Problem(
        **LLAMA,
        gpus=16,
        engine="sglang",
        precision="fp8",
        kv_cache_dtype="fp8",
        max_num_seqs=128,
        gpu_memory_utilization=0.85,
        enable_chunked_prefill=False,
        routing="least_outstanding",
        layouts=("collocated",),
        tensor_parallel_sizes=(1, 2),
        price_per_hour=2.5,
        workload=bs.Workload(
            input_len="uniform:100,200", output_len="geometric:300", burstiness=0.5
        ),
        slo=bs.SLO("ttft:0.5s@p99 tpot:50", percentile=95),
    ),
    "prefixes": bs.Problem(
        **LLAMA,
        workload=bs.Workload(
            input_len=200,
            output_len=100,
            prefixes=bs.PrefixGroups(groups=20, prefix_len=3000, skew=1.0),
        ),
        slo="ttft:1000 tpot:50",
    ),
    "a conversation": bs.Problem(
        **LLAMA,
        workload=bs.Workload(
            input_len=200, output_len=100, conversation=bs.Conversation(turns=5, think_time=10)
        ),
        slo=bs.SLO("e2el:30s", joint=True, attainment=0.95),
    ),
    "deadlines of tokens": bs.Problem(
        **LLAMA,
        workload=bs.Workload(input_len=200, output_len=100),
        slo=bs.SLO("deadline:1000+50 itl:200@p99 e2el:9s+0.05s fluidity:0.9"),
    ),
    "classes": bs.Problem(
        **LLAMA,
        workload=bs.Workload(
            classes=(
                bs.RequestClass(name="chat", share=0.75, input_len=500, output_len="geometric:200"),
                bs.RequestClass(name="<b>", share=0.25, input_len="lognormal:8000,1", output_len=9),
            )
        ),
        slo="ttft:2000 tpot:50",
    ),
    "own step time": bs.Problem(
        step_time=bs.StepTime(w=0.01, c=1e-5, e=1e-6, a=1e-10, k=1e-9),
        kv_capacity_tokens=100_000,
        gpus=2,
        workload=bs.Workload(input_len=500, output_len=100),
        slo="ttft:1000 tpot:50",
    ),
}


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> bs.Problem:
    return PROBLEMS[request.param]


def test_a_problem_survives_its_url(problem: bs.Problem) -> None:
    query = query_of(*to_flags(problem))
    asked = read_query(parse_qsl(query))
    assert asked.errors == {}
    assert asked.problem == problem
    assert asked.query == query


def test_only_what_no_flag_states_is_left_over() -> None:
    left = {name: to_flags(problem)[1] for name, problem in PROBLEMS.items()}
    assert {name for name, rest in left.items() if rest} == {"classes", "own step time"}


def test_a_problem_survives_its_file(problem: bs.Problem) -> None:
    assert bs.Problem(**tomllib.loads(problem_file(problem))) == problem


def test_the_python_call_states_the_problem(problem: bs.Problem) -> None:
    names: dict[str, bs.Problem] = {}
    exec(python_call(problem, call=""), names)
    assert names["problem"] == problem


def test_the_shell_command_states_the_problem(problem: bs.Problem, tmp_path) -> None:
    given, rest = to_flags(problem)
    asked = read_query(parse_qsl(query_of(given, rest)))
    words = shlex.split(shell_command(asked, "predict", "1m-tp1"))
    assert words[:3] == ["bestserve", "predict", "1m-tp1"]
    if rest:
        file = tmp_path / "problem.toml"
        file.write_text(problem_file(problem))
        words[words.index("problem.toml")] = str(file)
    command, bound, _ = build().parse_args(words[1:], exit_on_error=False, print_error=False)
    assert command.__name__ == "predict"
    assert bound.arguments["options"].build() == problem


def test_every_flag_is_a_field_with_what_help_says() -> None:
    flags = set(ProblemOptions.__dataclass_fields__) - {"problem"}
    assert {f.attribute for f in form_fields().values()} == flags
    assert {f.flag for _, group in grouped() for f in group} == set(form_fields())
    assert [f.flag for f in form_fields().values() if not f.help] == []


@pytest.mark.parametrize(("flag", "text", "words"), [
    ("hardware", "h100-sxn", "nearest: h100-sxm"),
    ("model", "llama-9-8b", "unknown model"),
    ("gpus", "2.5", "whole number"),
    ("gpus", "0", "must be at least 1"),
    ("input-len", "lognormal:1500", "lognormal:1500,0.8"),
    ("goodput", "ttft", "ttft:500 tpot:50"),
    ("precision", "fp7", "take bf16"),
    ("attainment", "0.9", "--joint"),
    ("max-concurrency", "8", "max-concurrency"),
    ("burstiness", "often", "number"),
    ("calibration", "nowhere.toml", "nowhere.toml"),
])  # fmt: skip
def test_what_is_wrong_is_said_beside_its_field(flag: str, text: str, words: str, question) -> None:
    asked = read_query({**question, flag: text}.items())
    assert asked.problem is None
    assert list(asked.errors) == [flag], asked.errors
    assert words in asked.errors[flag]


def test_nothing_asked_is_no_error() -> None:
    assert read_query([("model", " "), ("unknown", "x")]).errors == {}


def test_a_missing_model_is_asked_for() -> None:
    assert list(read_query([("gpus", "2")]).errors) == ["model"]


@pytest.mark.parametrize(("flag", "text"), [
    ("trace", "/etc/passwd"),
    ("model", "../config.json"),
    ("hardware", "~/x.toml"),
    ("calibration", "x"),
])  # fmt: skip
def test_strangers_name_no_files_of_this_machine(flag: str, text: str, question) -> None:
    asked = read_query({**question, flag: text}.items(), files=False)
    assert "for those who sit at it" in asked.errors[flag]


def test_defaults_that_were_taken_are_said() -> None:
    asked = read_query({"model": "meta-llama/Llama-3.1-8B", "hardware": "h100-sxm"}.items())
    assert asked.problem is not None
    assert [note.partition(":")[0] for note in asked.notes] == [
        "no lengths given",
        "no objectives given",
    ]


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": 1e999}', "x" * 200_000])
def test_a_hostile_rest_is_a_sentence(text: str, question) -> None:
    asked = read_query([*question.items(), ("rest", text)])
    assert list(asked.errors) == [""]
    assert len(asked.errors[""]) <= 500
