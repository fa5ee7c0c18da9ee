"""Money, headroom and size: identities that must hold, and the commands that print them."""

from __future__ import annotations

import csv
import io
import json

import pytest

import bestserve as bs
from bestserve.catalog import list_hardware
from bestserve.catalog.prices import price_of, prices
from bestserve.cli import run
from bestserve.cli.output import emit_records
from bestserve.errors import InfeasibleError, InputError
from bestserve.results.headings import fewer

FLAGS = [
    "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm",
    "--input-len", "500", "--output-len", "50", "--goodput", "ttft:500", "tpot:40",
]  # fmt: skip


@pytest.fixture(scope="module")
def problem() -> bs.Problem:
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=2,
        workload=bs.Workload(input_len=500, output_len=50),
        slo="ttft:500 tpot:40",
    )


def test_every_price_names_a_gpu_of_the_catalogue_and_its_source():
    assert {p.hardware for p in prices()} <= set(list_hardware())
    assert all(p.source and p.date for p in prices())
    median = price_of("h100-sxm")
    assert median is not None
    offers = [p.usd_per_hour for p in prices() if (p.hardware, p.kind) == ("h100-sxm", "on-demand")]
    assert min(offers) <= median.usd_per_hour < max(offers)


def test_money_adds_up(problem):
    for strategy in ("2m-tp1", "1p1d-tp1"):
        row = bs.goodput(problem.replaced(price_per_hour=3.0), strategy, method="analytic")
        money = row.economics
        assert money.usd_per_hour == 6.0
        assert money.tokens_per_second == pytest.approx(row.goodput * 550)
        hourly = money.usd_per_million_tokens * money.tokens_per_second * 3600 / 1e6
        assert hourly == pytest.approx(6.0)
        split = 500 * money.usd_per_million_input + 50 * money.usd_per_million_output
        assert split == pytest.approx(550 * money.usd_per_million_tokens)
        assert "stated" in money.price
        # an answer token costs more than a prompt token: a step per token against a share of one
        assert money.usd_per_million_output > money.usd_per_million_input > 0


def test_energy_lies_between_idle_and_full_board_power(problem):
    row = bs.goodput(problem, "2m-tp1", method="analytic")
    watts = row.economics.joules_per_token * row.economics.tokens_per_second / row.gpus
    assert 0.15 * 700 < watts <= 700


def test_the_users_own_price_wins_and_no_price_is_no_figure(problem):
    own = bs.goodput(problem.replaced(price_per_hour=1.0), "1m-tp1", method="analytic").economics
    public = bs.goodput(problem, "1m-tp1", method="analytic").economics
    ratio = public.usd_per_million_tokens / own.usd_per_million_tokens
    assert ratio == pytest.approx(price_of("h100-sxm").usd_per_hour)
    none = bs.goodput(problem.replaced(hardware="rtx-4090"), "1m-tp1", method="analytic").economics
    assert none.usd_per_million_tokens is None
    assert "usd_per_million_tokens" not in none.records()


def test_headroom_is_goodput_over_the_rate(problem):
    found = bs.headroom(problem, "1m-tp1", 5.0)
    assert found.headroom == pytest.approx(found.best.goodput / 5.0 - 1)
    assert found.best.goodput == bs.goodput(problem, "1m-tp1").goodput
    missed = bs.headroom(problem, "1m-tp1", 2 * found.best.goodput)
    assert missed.headroom == pytest.approx(-0.5)
    assert "too much" in missed.explain()


def test_size_is_the_fewest_gpus_that_carry_the_rate(problem):
    one = bs.goodput(problem, "1m-tp1").goodput
    found = bs.size(problem, 2.4 * one)
    assert found.best.goodput >= 2.4 * one
    assert found.gpus == 3
    fewer_gpus = bs.rank(problem.replaced(gpus=2), verify=False)
    assert max(s.goodput for s in fewer_gpus.table) < 2.4 * one
    more = bs.size(problem, 2.4 * one, headroom=0.5)
    assert more.gpus > found.gpus
    assert more.best.goodput >= 1.5 * 2.4 * one


def test_what_cannot_be_sized_says_why(problem):
    with pytest.raises(InputError, match="headroom"):
        bs.size(problem, 1.0, headroom=-0.1)
    with pytest.raises(InputError, match="request_rate"):
        bs.size(problem, -1.0)
    with pytest.raises(InfeasibleError):
        bs.size(problem.replaced(slo="ttft:1.5"), 5.0)


def answer(capsys, *arguments: str) -> tuple[int, str, str]:
    code = run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("asked", [
    ["headroom", "1m-tp1", *FLAGS, "--request-rate", "5"],
    ["size", *FLAGS, "--request-rate", "80"],
])  # fmt: skip
def test_answers_can_be_asked_for_again(capsys, tmp_path, asked):
    code, first, _ = answer(capsys, *asked, "--format", "json")
    assert code == 0
    (tmp_path / "answer.json").write_text(first)
    code, again, _ = answer(capsys, "rerun", str(tmp_path / "answer.json"))
    assert code == 0
    assert json.loads(again)["strategy"] == json.loads(first)["strategy"]


def test_a_load_that_is_too_much_is_no_success(capsys):
    code, out, _ = answer(capsys, "headroom", "1m-tp1", *FLAGS, "--request-rate", "5000")
    assert code == 3
    assert "too much" in out


def test_several_gpus_in_one_table(capsys):
    flags = [*FLAGS[:2], "--hardware", "h100-sxm,l40s", *FLAGS[4:], "--gpus", "1", "--no-verify"]
    code, out, err = answer(capsys, "rank", *flags, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["hardware"] for row in rows] == ["h100-sxm", "l40s"]
    assert "no price known of l40s" in err


def test_narrow_terminals_keep_what_decides(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = answer(capsys, "rank", *FLAGS, "--gpus", "2", "--no-verify")
    assert code == 0
    head = out.splitlines()[1:4]
    table = out[: out.index("(no room for")]
    assert all(len(line) <= 80 for line in table.splitlines())
    for word in ("binding", "trust", "confirmed", "[req/s]"):
        assert any(word in line for line in head), word
    assert ".rejected" not in out.replace(".rejected, or --format json", "")
    assert "bestserve explain" in err.splitlines()[-1]


def test_one_row_a_layout_and_all_on_request(capsys):
    asked = ["rank", *FLAGS, "--gpus", "2", "--no-verify", "--top", "50"]
    _, short, _ = answer(capsys, *asked)
    _, long, _ = answer(capsys, *asked, "--limits")
    tables = [text[: text.index("\n\n")].splitlines() for text in (short, long)]
    layouts = {line.split()[1].partition("-tokens")[0].partition("-seqs")[0] for line in tables[1]}
    assert len(tables[0]) < len(tables[1])
    assert len(tables[0]) <= len(layouts) + 1  # a title, a heading, a row a layout


def test_columns_go_in_the_order_of_their_worth():
    names = ["strategy", "goodput", "ttft_ms", "method", "binding"]
    assert fewer(names) == ["strategy", "goodput", "ttft_ms", "binding"]
    assert fewer(fewer(names)) == ["strategy", "goodput", "binding"]
    assert fewer(["a", "b"]) == ["a"]


def test_shares_are_in_per_cent_and_blank_columns_are_left_out(capsys):
    emit_records([{"name": "x", "utilisation": 0.5, "nothing": None}], "md")
    assert capsys.readouterr().out.splitlines()[0] == "| name | utilisation [%] |"


def test_print_shows_the_table_and_why(problem):
    for answer in (
        bs.goodput(problem, "1m-tp1", method="analytic"),
        bs.rank(problem, verify=False),
        bs.headroom(problem, "1m-tp1", 5.0),
    ):
        text = str(answer)
        assert "goodput [req/s]" in text.splitlines()[0]
        assert "Problem(" not in text
    assert "wins with" in str(bs.rank(problem, verify=False))


def test_the_method_is_a_flag(capsys):
    for method in ("analytic", "simulated"):
        _, out, _ = answer(
            capsys, "goodput", "1m-tp1", *FLAGS, "--method", method, "--format", "json"
        )
        assert json.loads(out)["method"] == method
