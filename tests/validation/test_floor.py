"""Rows that no hardware can have measured as they are described."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bestserve.readers.tidy import TidyRow
from bestserve.validation.calibrate import calibrate_rows
from bestserve.validation.compare import compare_row, compare_rows, comparison_of
from bestserve.validation.floor import CACHED, SPECULATED, floors, impossible
from bestserve.validation.replay import prepare, system_of

Make = Callable[..., TidyRow]


def reason(row: TidyRow) -> str:
    prepared = prepare(row)
    return impossible(prepared, system_of(prepared).lengths)


def test_plain_rows_are_possible(make: Make) -> None:
    assert reason(make()) == ""


def test_prompts_faster_than_the_peak_were_cached(make: Make) -> None:
    row = make(input_len_mean=30_000.0, ttft_mean_ms=100.0, tpot_mean_ms=60.0)
    assert reason(row) == CACHED


def test_tokens_faster_than_the_weights_were_speculated(make: Make) -> None:
    assert reason(make(tpot_mean_ms=3.0)) == SPECULATED  # 16 GB at 3.35 TB/s take 4.8 ms


def test_many_running_requests_raise_the_floor(make: Make) -> None:
    few = prepare(make(concurrency=1, tpot_mean_ms=9.0))
    many = prepare(make(concurrency=256, tpot_mean_ms=9.0))
    lengths = system_of(few).lengths
    assert floors(many, lengths)[1] > 1.5 * floors(few, lengths)[1]


def test_what_a_cache_held_is_not_computed(make: Make) -> None:
    import dataclasses

    prepared = prepare(make(input_len_mean=30_000.0, ttft_mean_ms=100.0, tpot_mean_ms=60.0))
    lengths = system_of(prepared).lengths
    held = dataclasses.replace(lengths, cached=lengths.inputs - 100.0)
    assert impossible(prepared, held) == ""


def test_such_rows_are_named_and_in_no_summary(make: Make) -> None:
    rows = [compare_row(make(id="good")), compare_row(make(id="odd", tpot_mean_ms=3.0))]
    answer = comparison_of(rows)
    assert answer.overall["tpot"].n == 1
    assert answer.predicted == 2
    assert "left out, odd: TPOT below" in answer.explain()


def test_equal_settings_share_a_prediction_not_a_doubt(make: Make) -> None:
    rows = compare_rows([make(id="good"), make(id="odd", tpot_mean_ms=3.0)], jobs=1)
    assert rows[0].predicted == rows[1].predicted
    assert [bool(row.impossible) for row in rows] == [False, True]


def test_such_rows_are_in_no_fit(make: Make) -> None:
    rows = [make(id=f"r{n}", concurrency=n) for n in (1, 4, 16)]
    fit = calibrate_rows([*rows, make(id="odd", tpot_mean_ms=3.0)], held_out=False)
    assert fit.runs == 3
    assert any("odd" in reason for reason in fit.skipped)


@pytest.mark.parametrize("met", [True, False])
def test_objectives_in_notes_are_scored(make: Make, met: bool) -> None:
    found = compare_row(make(notes=(f"SLA p99 TTFT<5000ms met={met}",)))
    assert found.objective == (True, met)
    assert compare_row(make()).objective is None


def test_a_client_cannot_have_more_in_flight_than_throughput_times_latency(make: Make) -> None:
    # 70 requests a second that take 0.2 + 99 · 0.06 s are 430 in flight
    fast = {"ttft_mean_ms": 200.0, "tpot_mean_ms": 60.0, "req_throughput": 70.0,
            "num_prompts": 8000}  # fmt: skip
    assert "430 requests, of 3,200" in reason(make(**fast, concurrency=3200))
    assert reason(make(**fast, concurrency=450)) == ""
    paced = make(**fast, concurrency=3200, request_rate=80.0)  # no cap holds this one back
    assert reason(paced) == ""
