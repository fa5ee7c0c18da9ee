"""Nothing but the answer on standard output, in every form of every command."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from bestserve.cli import run
from bestserve.host.stdout import answers_alone, nothing_printed

FLEET = """
objective = "min_cost"
[[gpus]]
hardware = "h100-sxm"
count = 2
price_per_hour = 2.5
[[models]]
model = "meta-llama/Llama-3.1-8B"
tensor_parallel_sizes = [1]
layouts = ["collocated"]
max_num_batched_tokens = [8192]
[[models.classes]]
name = "=chat"
input_len = 500
output_len = 50
slo = "ttft:500 tpot:40"
rate = 5
"""
PROBLEM = [
    "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "1",
    "--input-len", "500", "--output-len", "50", "--goodput", "ttft:500", "tpot:40",
]  # fmt: skip
COMMANDS = {
    "rank": ["rank", *PROBLEM],
    "goodput": ["goodput", "1m-tp1", *PROBLEM],
    "predict": ["predict", "1m-tp1", *PROBLEM, "--request-rate", "2"],
    "simulate": ["simulate", "1m-tp1", *PROBLEM, "--request-rate", "2", "--requests", "300"],
    "curves": ["curves", "1m-tp1", *PROBLEM, "--points", "2"],
    "sensitivity": ["sensitivity", "1m-tp1", *PROBLEM, "--method", "analytic"],
    "whatif": ["whatif", "1m-tp1", *PROBLEM, "--set", "hardware.memory_bandwidth=x2"],
    "explain": ["explain", "1m-tp1", *PROBLEM],
    "allocate": ["allocate", "{fleet}", "--no-verify", "--no-certify"],
    "catalog": ["catalog", "hardware"],
    "cite": ["cite"],
}
QUICK = ("goodput", "predict", "simulate", "allocate", "catalog", "explain")


class Table(HTMLParser):
    """Counts what opens and closes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, _: object) -> None:
        self.tags.append(tag)
        self.rows += tag == "tr"

    def handle_endtag(self, tag: str) -> None:
        assert self.tags.pop() == tag


def asked(command: str, form: str, tmp_path) -> str:
    """Run a command as `main` does, and return what reached file descriptor 1."""
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(FLEET)
    arguments = [a.format(fleet=fleet) for a in COMMANDS[command]]
    with answers_alone():
        assert run([*arguments, "--format", form]) == 0
    return ""


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "cite"])
def test_json_is_json(command, tmp_path, capfd):
    asked(command, "json", tmp_path)
    json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("command", QUICK)
def test_csv_is_csv(command, tmp_path, capfd):
    asked(command, "csv", tmp_path)
    rows = list(csv.reader(io.StringIO(capfd.readouterr().out)))
    assert len(rows) > 1
    assert len({len(row) for row in rows}) == 1
    assert not any(cell.startswith(("=", "@", "\t")) for row in rows for cell in row)


@pytest.mark.parametrize("command", QUICK)
def test_html_is_one_table(command, tmp_path, capfd):
    asked(command, "html", tmp_path)
    out = capfd.readouterr().out
    table = Table()
    table.feed(out)
    assert out.startswith("<table>")
    assert table.tags == []
    assert table.rows > 1


@pytest.mark.parametrize("command", QUICK)
def test_markdown_begins_with_its_table(command, tmp_path, capfd):
    asked(command, "md", tmp_path)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("| ")
    assert set(lines[1]) <= set("|- ")
    assert lines[2].count("|") - lines[2].count("\\|") == lines[0].count("|")


def test_what_writes_past_python_goes_to_stderr(capfd):
    with answers_alone():
        os.write(1, b"banner\n")
        print("answer")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("answer\n", "banner\n")


def test_a_library_that_prints_while_it_is_built_is_not_heard(capfd):
    import highspy

    with nothing_printed():
        highspy.Highs()
    os.write(1, b"answer\n")
    assert capfd.readouterr().out == "answer\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">/dev/full", "| head -c 1"])
def test_streams_that_are_closed_or_full(closed):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m bestserve catalog hardware --format json {closed}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 5)


def test_too_little_memory_is_one_line(capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as stream:
        now = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 100 * 2**20, hard))
    try:
        code = run(["simulate", "1m-tp1", *PROBLEM, "--request-rate", "2", "--requests", "9999999"])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert err.startswith("bestserve: out of memory")
    assert len(err.splitlines()) == 1


def test_markdown_and_tables_show_names_as_they_are(capfd):
    from bestserve.cli.output import emit_records

    hostile = "\x1b[31m|`x`\n<script>[x](javascript:1)"
    for form in ("md", "table", "csv", "html"):
        emit_records([{"name": hostile, "n": 1}], form)
        out = capfd.readouterr().out
        assert not any(c in out for c in "\x1b\x07")
        if form == "md":
            assert len(out.splitlines()) == 3
            assert "<script>" not in out
            assert "[x]" not in out.replace("\\[x]", "")


def test_a_file_cannot_name_things_with_control_characters(tmp_path, capsys):
    fleet = tmp_path / "fleet.json"
    fleet.write_text(json.dumps({"gpus": [{"hardware": "h200", "name": "\x1b]0;x\x07"}]}))
    assert run(["allocate", str(fleet)]) == 5
    assert "gpus.0.name" in capsys.readouterr().err


def test_an_interruption_is_one_word(capsys, monkeypatch):
    from bestserve.cli import cite

    def interrupted(**_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cite, "cite", interrupted)
    assert run(["cite"]) == 130
    assert capsys.readouterr().err == "bestserve: interrupted\n"


HYBRID = "2p-tp1-tokens2048+2d-tp1-tokens1024-prefill29-upto2000"


def shown_at(monkeypatch, capsys, columns: int, names: list[str]) -> list[str]:
    from bestserve.cli.output import emit_records

    monkeypatch.setenv("COLUMNS", str(columns))
    row = {
        "rank": 1, "strategy": HYBRID, "gpus": 4, "goodput": 127.8, "goodput_per_gpu": 31.95,
        "ttft_ms": 998.0, "utilisation": 0.97, "binding": "TTFT objective", "trust": "low",
        "method": "analytic", "confirmed": True, "tied": False,
    }  # fmt: skip
    emit_records([row], "table", columns=names)
    return capsys.readouterr().out.splitlines()


def test_a_long_name_pushes_no_verdict_off_a_narrow_terminal(monkeypatch, capsys):
    names = ["rank", "strategy", "gpus", "goodput", "goodput_per_gpu", "ttft_ms", "utilisation"]
    verdicts = ["binding", "trust", "confirmed"]
    columns = [*names, "binding", "trust", "method", "confirmed", "tied"]
    lines = shown_at(monkeypatch, capsys, 80, columns)
    table = "\n".join(lines[:-1])
    for verdict in verdicts:
        assert verdict in table
    first, second = HYBRID.split("+")
    assert f"{first}+ " in table
    assert second in table
    assert "no room for" in lines[-1]
    assert not any(verdict in lines[-1] for verdict in verdicts)
    assert all(len(line) <= 80 for line in lines[:-1])
    wide = shown_at(monkeypatch, capsys, 200, [*names, *verdicts])
    assert HYBRID in "\n".join(wide)


def test_columns_of_a_verdict_go_last():
    from bestserve.results.headings import fewer

    names = ["strategy", "goodput", "request_rate", "ttft_ms", "e2el_p90_ms", "trust"]
    gone = []
    while len(names) > 1:
        names, before = fewer(names), names
        gone += [n for n in before if n not in names]
    assert gone == ["ttft_ms", "e2el_p90_ms", "request_rate", "trust", "goodput"]


def test_shares_are_in_per_cent(capsys):
    from bestserve.cli.output import emit_records

    emit_records([{"scenario": "x", "gain": -0.083, "former_best": 115.1}], "md")
    shown = capsys.readouterr().out
    assert "gain [%]" in shown
    assert "-8.3 " in shown
    assert "former best [req/s]" in shown
