"""The tidy CSV: its contract, what its free text states, and the way back."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest

from bestserve.errors import DataError, InputError
from bestserve.readers.logs import find_logs, read_log, read_logs
from bestserve.readers.logs._notes import settings_of_notes
from bestserve.readers.logs._settings import settings_of_command
from bestserve.readers.logs.tidy_csv import to_records
from bestserve.readers.tidy import COLUMNS, Regime, RowStatus, TidyRow, regime_of

FIXTURES = Path(__file__).parent / "fixtures"
ROWS = {row.id: row for row in read_log(FIXTURES / "tidy-csv/rows.csv").rows}


def test_columns_are_the_contract():
    header = (FIXTURES / "tidy-csv/rows.csv").read_text().splitlines()[0].split(",")
    assert tuple(header) == COLUMNS


def test_closed_loop_of_sampled_lengths():
    row = ROWS["t1"]
    assert (row.num_prompts, row.range_ratio) == (80, 0.8)
    assert row.input_len_range == pytest.approx((819.2, 1024.0))
    assert row.output_len_range == pytest.approx((6553.6, 8192.0))
    assert (row.moe_tp, row.ep, row.attention_dp, row.batch_size) == (4, 1, 1, 8)
    assert (row.regime, row.arrivals) == (Regime.CLOSED_LOOP, "closed")


def test_client_cap_with_server_arguments():
    row = ROWS["t2"]
    assert (row.saturated, row.concurrency, row.request_rate) == (True, 440, 183.4)
    assert (row.num_prompts, row.completed, row.failed) == (11005, 11002, 3)
    assert (row.max_num_seqs, row.max_model_len) == (128, 512)
    assert (row.prefix_caching, row.chunked_prefill) == (False, False)
    assert row.gpu_memory_utilization == 0.9
    assert (row.prefix_groups, row.prefix_prompts, row.prefix_len) == (10, 10, 128.0)
    assert (row.input_len_asked, row.output_len_asked, row.ignore_eos) == (192.0, 64.0, True)
    times = [row.send_duration, row.e2el_mean_ms, row.e2el_p99_ms]
    assert times == pytest.approx([60.0, 4143.0, 4549.3])
    assert (row.engine_generation, row.arrivals) == ("V0", "constant")


def test_disaggregated_pairs():
    row = ROWS["t3"]
    assert (row.prefill_workers, row.decode_workers) == (1, 3)
    assert (row.prefill_tp, row.decode_tp, row.prefill_pp) == (1, 4, 1)
    assert (row.prefill_attention_dp, row.decode_attention_dp) == (4, 8)
    assert (row.decode_ep, row.decode_batch_size) == (4, 24)
    assert (row.tp, row.replicas) == (None, None)
    assert row.input_len_range == (4000.0, 4000.0)


def test_launch_command_in_the_notes():
    row = ROWS["t4"]
    assert (row.tp, row.ep, row.attention_dp, row.attention_tp) == (8, 8, 8, 1)
    assert (row.num_prompts, row.regime, row.arrivals) == (984, Regime.BURST, "burst")
    assert row.more == {"itl_p50_ms": 59.97}


def test_scheduler_settings_and_data_set():
    row = ROWS["t5"]
    assert (row.max_num_seqs, row.max_num_batched_tokens, row.num_scheduler_steps) == (512, 512, 10)
    assert (row.chunked_prefill, row.prefix_caching, row.num_prompts) == (True, False, 1000)
    row = ROWS["t6"]
    assert (row.num_prompts, row.duration, row.in_process) == (300, 40.1, True)
    assert (row.output_len_p50, row.output_len_max) == (310.0, 512.0)
    assert (row.arrivals, row.ttft_p50_ms, row.missing) == ("poisson", 105.7, ())


def test_nothing_is_taken_from_notes_that_say_nothing():
    assert settings_of_notes(("trust=A", "hw 'eight GPUs'", "median of the runs"), 8) == {}
    assert settings_of_notes(("speculative none",), 8) == {}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("vllm serve m -tp 4 --enable-expert-parallel", {"tp": 4, "ep": 4}),
        ("vllm serve m --max-num-batched-tokens=4096", {"max_num_batched_tokens": 4096}),
        ("trtllm-serve m --max_num_tokens=16", {"max_num_batched_tokens": 16}),
        ("x --tp 8 --dp 4 --enable-dp-attention", {"tp": 8, "attention_dp": 4, "attention_tp": 2}),
        ("x --tp 2 --dp 4", {"tp": 2, "replicas": 4}),
        ("x --speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 1",
         {"speculative_decoding": True, "draft_method": "eagle", "draft_tokens": 3}),
        ("x --speculative-algorithm EAGLE3 --speculative-num-steps 3 --speculative-eagle-topk 4",
         {"speculative_decoding": True, "draft_method": "eagle3"}),
        ("x --speculative-config '{\"method\": \"mtp\", \"num_speculative_tokens\": 1}'",
         {"speculative_decoding": True, "draft_method": "mtp", "draft_tokens": 1}),
        ("x --disable-radix-cache 'unclosed", {"prefix_caching": False}),
        ("x --port 8000", {}),
    ],
)  # fmt: skip
def test_settings_of_launch_commands(command, expected):
    assert settings_of_command(command) == expected


def test_way_back(tmp_path):
    original = tuple(ROWS.values())
    records = to_records(original)
    assert tuple(records[0])[: len(COLUMNS)] == COLUMNS
    text = io.StringIO()
    writer = csv.DictWriter(text, records[0].keys())
    writer.writeheader()
    writer.writerows(records)
    path = tmp_path / "again.csv"
    path.write_text(text.getvalue())
    for before, after in zip(original, read_log(path).rows, strict=True):
        for name in TidyRow.__slots__:
            if name not in ("origin", "requests"):
                assert getattr(after, name) == getattr(before, name), name


HEADER = "id,model,gpu,engine,tp,request_rate,concurrency,ttft_mean_ms,tpot_mean_ms,notes\n"


def refused(tmp_path, line):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + line + "\n")
    with pytest.raises(DataError) as caught:
        read_log(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("r7,m,g,e,1,inf,8,nan,9,", ("r7", "ttft_mean_ms", "finite")),
        ("r7,m,g,e,1,inf,8,inf,9,", ("r7", "ttft_mean_ms", "finite")),
        ("r7,m,g,e,1,inf,8,-3,9,", ("r7", "ttft_mean_ms", "at least 0")),
        ("r7,m,g,e,1,inf,8,fast,9,", ("r7", "ttft_mean_ms", "expected a number")),
        ("r7,m,g,e,2.5,inf,8,1,9,", ("r7", "tp", "whole number")),
        ("r7,m,g,e,0,inf,8,1,9,", ("r7", "tp", "at least 1")),
        ("r7,m,g,e,1,0,8,1,9,", ("r7", "request_rate", "above 0")),
        ("r7,m,g,e,1,inf,1e400,1,9,", ("r7", "concurrency", "whole number")),
        ("r7,m,g,e,1,inf,8,1", ("line 2", "8 cells")),
    ],
)
def test_refusals_name_row_and_field(tmp_path, line, words):
    message = refused(tmp_path, line)
    for word in words:
        assert word in message


def test_rows_without_latency_are_kept_with_their_reason(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "r1,m,g,e,1,inf,8,,,\n,m,g,e,1,2.0,,5,6,\n")
    first, second = read_log(path).rows
    assert first.status is RowStatus.NO_LATENCY
    assert "neither TTFT nor TPOT" in first.reason
    assert (second.id, second.regime) == ("3", None)  # line number; nobody says what completed


def test_an_unreadable_cell_costs_its_row_not_the_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "r1,m,g,e,1,inf,many,1,1,\nr2,m,g,e,1,inf,8,1,1,\n")
    found = read_log(path)
    assert [row.id for row in found.rows] == ["r2"]
    assert "row left out" in found.warnings[0]
    assert "'r1'" in found.warnings[0]
    assert "concurrency is 'many'" in found.warnings[0]


def test_a_row_of_throughput_alone_can_be_compared(tmp_path):
    path = tmp_path / "t.csv"
    header = HEADER.replace("notes", "out_tok_throughput")
    path.write_text(header + "r1,m,g,e,1,inf,8,,,900\n")
    assert read_log(path).rows[0].status is RowStatus.USABLE


def test_unknown_regime_and_doubled_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(HEADER.replace("notes", "regime") + "r1,m,g,e,1,inf,8,1,1,sideways\n")
    found = read_log(path)
    assert found.rows[0].regime is Regime.CLOSED_LOOP
    assert "row 'r1': regime 'sideways' is none of" in found.warnings[0]
    path.write_text(HEADER.replace("engine", "gpu") + "r1,m,g,g,1,inf,8,1,1,\n")
    with pytest.raises(DataError, match="'gpu' appears twice"):
        read_log(path)


@pytest.mark.parametrize(
    ("rate", "cap", "throughput", "regime"),
    [
        (math.inf, None, 3.0, Regime.BURST),
        (math.inf, 8, 3.0, Regime.CLOSED_LOOP),
        (None, 8, 3.0, Regime.CLOSED_LOOP),
        (10.0, None, 9.9, Regime.OPEN_STEADY),
        (10.0, None, 9.0, Regime.OPEN_FINITE),
        (10.0, 64, 9.0, Regime.CLIENT_CAP),
        (10.0, 64, 9.9, Regime.OPEN_STEADY),
        (10.0, None, None, None),
        (None, None, 3.0, None),
    ],
)
def test_regimes(rate, cap, throughput, regime):
    assert regime_of(rate, cap, throughput) is regime


def test_overrides_change_the_regime_and_unknown_names_are_refused():
    path = FIXTURES / "aiperf-csv/summary.csv"
    (row,) = read_log(path, concurrency=4).rows
    assert (row.regime, row.arrivals) == (Regime.CLOSED_LOOP, "closed")
    with pytest.raises(InputError, match="no setting 'gpus' of a log row; nearest: gpu"):
        read_log(path, gpus="h100")
    with pytest.raises(DataError, match="tp is 'four'"):
        read_log(path, tp="four")


def test_folders_globs_and_unreadable_files(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.json", "deep/b.json"):
        (tmp_path / name).write_bytes((FIXTURES / "llmperf/summary.json").read_bytes())
    (tmp_path / "deep/c.json").write_text('{"something": "else"}')
    (tmp_path / ".hidden").write_text("{}")
    assert [p.name for p in find_logs([tmp_path])] == ["a.json", "b.json", "c.json"]
    assert [p.name for p in find_logs([tmp_path / "*.json", tmp_path / "a.json"])] == ["a.json"]
    reads = read_logs([tmp_path], gpu="g")
    assert [len(read.rows) for read in reads] == [1, 1, 0]
    assert "in none of the known formats" in reads[2].warnings[0]
    with pytest.raises(DataError, match="known formats"):
        read_logs([tmp_path / "deep/c.json"])
    with pytest.raises(DataError, match="no such file"):
        find_logs([tmp_path / "absent*.json"])


def test_a_table_that_is_almost_tidy_is_told_what_it_lacks(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("model,gpu,tp,concurrency\na,h100,1,8\n")
    with pytest.raises(DataError, match="lacks the columns request_rate, ttft_mean_ms or another"):
        read_log(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="in none of the known formats"):
        read_log(path)


def test_percentiles_out_of_order_are_named(tmp_path):
    fixture = FIXTURES / "tidy-csv/rows.csv"
    rows = list(csv.DictReader(io.StringIO(fixture.read_text())))
    rows[0] |= {"ttft_p50_ms": "100", "ttft_p90_ms": "90", "ttft_p99_ms": "200"}
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert any("P90 TTFT 90 ms is below P50 100 ms" in w for w in read_log(path).warnings)
    assert not any("is below P" in w for w in read_log(fixture).warnings)


@pytest.mark.parametrize(
    ("note", "found"),
    [
        ("500 prompts", {"num_prompts": 500}),
        ("500 requests", {"num_prompts": 500}),
        ("max_num_tokens=2048", {"max_num_batched_tokens": 2048}),
        ("chunked_context=True", {"chunked_prefill": True}),
        ("gpu_memory_utilization 0.95", {"gpu_memory_utilization": 0.95}),
        ("routing: K8s Service - Round Robin", {"routing": "K8s Service - Round Robin"}),
        ("routing policy random (stock service)", {"routing": "random"}),
        (
            "speculative eagle3 num_speculative_tokens 7",
            {"speculative_decoding": True, "draft_method": "eagle3", "draft_tokens": 7},
        ),
        ("speculative accept length 3.26", {"speculative_decoding": True, "accept_length": 3.26}),
        (
            "acceptance per position 0.6/0.3",
            {"speculative_decoding": True, "accepted_by_position": (0.6, 0.3)},
        ),
    ],
)
def test_settings_in_notes(note: str, found: dict[str, object]):
    assert settings_of_notes((note,), 8) == found
