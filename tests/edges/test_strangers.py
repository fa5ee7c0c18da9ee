"""Files of strangers: problems, fleets, records, answers. One line, the right exit code, soon."""

from __future__ import annotations

import json
import pickle
import resource

import pytest

from bestserve import errors
from bestserve.catalog import load_engine, load_hardware, load_model
from bestserve.cli import run
from bestserve.errors import BestserveError, DataError, UnknownNameError
from bestserve.readers.mappings import parse_mapping, read_mapping
from bestserve.specs.fleet import Fleet
from bestserve.specs.problem import Problem
from bestserve.specs.slo import SLO
from bestserve.specs.workload import Workload

HEAD = 'model = "meta-llama/Llama-3.1-8B"\nhardware = "h100-sxm"\n'
WORK = "[workload]\ninput_len = 10\noutput_len = 10\n"
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
BIG = "9" * 400

PROBLEMS = {
    "alias bomb.yaml": BOMB + "model: m\nhardware: h\nworkload: {input_len: {kind: *a8}}\n",
    "dotted key.toml": "a" + ".a" * 400_000 + " = 1\n",
    "quoted dots.toml": "x = {a = '''it's''', " + ".".join(['"="'] * 9000) + " = 1}\n",
    "dotted table.toml": "[" + "a." * 30_000 + "a]\n",
    "flow list.yaml": "model: [" + "a," * 400_000 + "]\n",
    "deep flow.yaml": "model: " + "[" * 100_000 + "]" * 100_000,
    "deep block.yaml": "".join(" " * n + "a:\n" for n in range(400)),
    "spaces in slo.toml": HEAD + f'slo = "ttft:500{" " * 100_000}x"\n' + WORK,
    "spaces in law.toml": HEAD + f'[workload]\ninput_len = "a:{" " * 100_000}("\noutput_len = 1\n',
    "key self.toml": HEAD + "self = 1\n" + WORK,
    "key self below.toml": HEAD + WORK + "self = 1\n",
    "key self in slo.toml": HEAD + WORK + "[slo]\nself = 1\n",
    "key self in law.json": '{"model": "m", "hardware": "h", "workload":'
    ' {"input_len": {"kind": "fixed", "self": 1, "values": 2}, "output_len": 3}}',
    "key text in slo.toml": HEAD + WORK + "[slo]\ntext = 5\n",
    "key no text.yaml": "model: m\nhardware: h\nworkload: {input_len: 1, output_len: 1}\n1: 2\n",
    "keys.json": json.dumps({f"k{n}": n for n in range(100_000)}),
    "long key.json": json.dumps({"k" * 100_000: 1}),
    "integer.json": f'{{"gpus": {BIG}}}',
    "integer.toml": f"gpus = {BIG}\n" + HEAD + WORK,
    "hex.toml": f"gpus = 0x{'f' * 6000}\n" + HEAD + WORK,
    "length.json": f'{{"workload": {{"input_len": {BIG}, "output_len": 1}}}}',
    "float.json": '{"gpus": 1e999}',
    "nan.json": '{"gpus": NaN}',
    "surrogate.json": '{"hardware": "\\ud800"}',
    "nul.json": '{"hardware": "a\\u0000b"}',
    "set.yaml": "gpus: !!set {a, b}\n",
    "binary.yaml": "gpus: !!binary aGVsbG8=\n",
    "python.yaml": "gpus: !!python/object/apply:os.system [true]\n",
    "date.toml": "gpus = 2026-01-01\n" + HEAD + WORK,
    "steps.json": f'{{"step_time": {{"w": {BIG}}}, "workload": {{"input_len": 1}}}}',
    "clients.json": '{"model": "m", "hardware": "h", "workload": {"input_len": 1, "output_len": 1,'
    ' "max_concurrency": 1000000000000, "num_prompts": 10000000000000}}',
    "list.json": "[1]",
    "utf16.json": '{"gpus": 1}'.encode("utf-16"),
    "binary.json": bytes(range(256)) * 100,
    "cut.json": '{"gpus": 1',
    "control.json": '{"\\u001b]0;x\\u0007\\n[31mred": 1}',
    "classes.json": json.dumps(
        {"workload": {"classes": [{"name": f"c{n}", "share": 0.1} for n in range(50_000)]}}
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def bounded_memory():
    """Half a gigabyte more than now, so that a bomb fails here and not on the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as stream:
        now = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 512 * 2**20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refused(message: str) -> None:
    assert message.isprintable()
    assert len(message) <= errors.LONGEST_MESSAGE


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_file_is_refused_in_one_line(tmp_path, capsys, name):
    content = PROBLEMS[name]
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    code = run(["goodput", "1m-tp1", "--problem", str(file)])
    out, err = capsys.readouterr()
    assert code in (2, 5), err
    assert out == ""
    assert len(err.splitlines()) == 1
    refused(err.rstrip("\n").removeprefix("bestserve: "))


@pytest.mark.parametrize(
    "name",
    [
        "alias bomb.yaml",
        "dotted key.toml",
        "integer.toml",
        "hex.toml",
        "key self.toml",
        "deep flow.yaml",
        "keys.json",
        "control.json",
    ],
)
def test_fleets_records_and_answers_wear_the_same_armour(tmp_path, name):
    file = tmp_path / name
    file.write_text(PROBLEMS[name])
    for read in (load_hardware, load_engine, load_model, lambda f: Fleet(**read_mapping(f))):
        with pytest.raises(BestserveError) as error:
            read(file)
        refused(str(error.value))
    for command in (["allocate", str(file)], ["rerun", str(file)], ["catalog", "show", str(file)]):
        assert run(command) in (2, 5)


@pytest.mark.parametrize("content", [
    {"schema_version": 1, "kind": []},
    {"schema_version": 1, "kind": "x" * 100_000},
    {"schema_version": 1, "question": {"command": ["rank"], "problem": {}}},
    {"schema_version": 1, "question": {"command": "rank", "problem": {"self": 1}}},
    {"schema_version": 1, "bestserve_version": {"a": "\x1b[2J"}, "kind": 3},
])  # fmt: skip
def test_rerun_of_what_is_no_answer(tmp_path, capsys, content):
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(content))
    assert run(["rerun", str(file)]) in (2, 5)
    out, err = capsys.readouterr()
    assert out == ""
    for line in err.splitlines():
        refused(line.removeprefix("bestserve: "))


def test_rerun_takes_no_number_of_processes(monkeypatch):
    from bestserve.cli import question
    from bestserve.cli import uncertainty as module

    given = {}

    def uncertainty(options=None, *, samples: int = 16, jobs: int = 1, format: str = "") -> int:
        given.update(samples=samples, jobs=jobs)
        return 0

    monkeypatch.setattr(module, "uncertainty", uncertainty)
    own = {"model": "meta-llama/Llama-3.1-8B", "hardware": "h100-sxm", "slo": "ttft:500"}
    own["workload"] = {"input_len": 100, "output_len": 10}
    asked = {"command": "uncertainty", "problem": own, "arguments": {"jobs": 24, "samples": 32}}
    assert question.ask(question.question_of({"question": asked}), "json") == 0
    assert given == {"samples": 32, "jobs": 1}


@pytest.mark.parametrize("suffix", [".toml", ".yaml", ".json"])
def test_a_byte_order_mark_is_taken_for_what_it_is(tmp_path, suffix):
    file = tmp_path / f"problem{suffix}"
    text = {".toml": "gpus = 3", ".yaml": "gpus: 3", ".json": '{"gpus": 3}'}[suffix]
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_mapping(file) == {"gpus": 3}


def test_what_people_write_is_read():
    text = 'notes = """see a.b.c ... and so on ........................................ end"""\n'
    text += "x = [" + "0.5, " * 5000 + "]\n"
    assert len(parse_mapping(text, "toml", "x")["x"]) == 5000


def test_an_own_answer_of_several_megabytes_can_be_rerun(tmp_path):
    lengths = [100 + n % 7 for n in range(400_000)]
    file = tmp_path / "answer.json"
    file.write_text(json.dumps({"workload": {"input_len": {"values": lengths}}}, indent=2))
    assert file.stat().st_size > 4_000_000
    assert read_mapping(file)["workload"]["input_len"]["values"] == lengths


@pytest.mark.parametrize("error", [
    UnknownNameError("hardware", "h100x", ["h100-sxm", "h200"], "see catalog"),
    *(kind("what; why; what to try") for kind in BestserveError.__subclasses__()),
])  # fmt: skip
def test_errors_survive_the_way_back_from_a_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_messages_are_one_printable_line_whatever_they_quote():
    hostile = "\x1b]0;pwned\x07\n" * 1000
    for error in (DataError(hostile), UnknownNameError("model", hostile, ["a" * 9000])):
        refused(str(error))
    for build in (
        lambda: SLO(hostile),
        lambda: Problem(
            model=hostile,
            hardware="h",
            workload={},
            slo={hostile: 1},
        ),
        lambda: Workload(input_len=hostile, output_len=1),
        lambda: Workload(input_len={"kind": hostile}, output_len=1),
        lambda: Workload(input_len=10**5000, output_len=1),
        lambda: load_hardware(hostile),
    ):
        with pytest.raises(BestserveError) as error:
            build()
        refused(str(error.value))
