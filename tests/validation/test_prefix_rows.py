"""The table of measured runs behind prefix caches: what it counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType

import pytest

from bestserve.readers.tidy import TidyRow
from bestserve.validation.comparison import RowComparison
from bestserve.validation.outcome import Outcome

Make = Callable[..., TidyRow]


@pytest.fixture(scope="module")
def rows(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("validation/prefix_rows.py")


def pair(make: Make, policy: str, measured: float, predicted: float, rate: float = 2.0):
    row = make(routing=policy, request_rate=rate, ttft_mean_ms=measured, source="s")
    return row, RowComparison(
        id="r",
        status=Outcome.PREDICTED,
        reason="",
        predicted={"ttft_mean_ms": predicted},
        measured={"ttft_mean_ms": measured},
    )


def test_pairs_of_policies_are_counted_where_they_differ(rows: ModuleType, make: Make) -> None:
    three = [
        pair(make, "precise", 100.0, 80.0),
        pair(make, "random", 300.0, 500.0),
        pair(make, "load", 320.0, 90.0),  # 7 % from random's: no order to be right about
    ]
    assert rows.order(three) == (2, 2)
    assert rows.order([*three, pair(make, "random", 100.0, 1.0, rate=9.0)]) == (2, 2)
    assert rows.order([three[0], pair(make, "load", 320.0, 60.0)]) == (0, 1)


def test_each_nth_rate_of_a_ladder_with_all_its_policies(rows: ModuleType, make: Make) -> None:
    ladder = [
        make(prefix_caching=True, prefix_groups=3, routing=policy, request_rate=float(rate))
        for rate in range(1, 7)
        for policy in ("random", "precise")
    ]
    kept = rows.chosen([*ladder, make()], 3)
    assert sorted({row.request_rate for row in kept}) == [1.0, 4.0]
    assert len(kept) == 4


def test_the_page_names_what_is_not_compared(rows: ModuleType, make: Make) -> None:
    refused = RowComparison(id="x", status=Outcome.NOT_MODELLED, reason="not stated how")
    text = rows.page([pair(make, "random", 100.0, 150.0), (make(source="s"), refused)])
    assert "| s | meta-llama/Llama-3.1-8B | 2 | 1 | 50 % (+50 %) |" in text
    assert "not stated how" in text


def test_gaps_between_lines_of_a_stream_tell_half_of_tpot(rows: ModuleType, make: Make) -> None:
    """A message is a line and an empty one: 11 ms between lines are 22 ms between tokens."""
    told, found = pair(make, "random", 1.0, 1.0)
    told = dataclasses.replace(told, notes=("source ITL mean 0.011 s, p50/p90 0.0000/0.022 s",))
    found = dataclasses.replace(found, predicted={"tpot_mean_ms": 24.2})
    stated = dataclasses.replace(told, notes=(), tpot_mean_ms=20.0)
    silent = dataclasses.replace(told, notes=(), tpot_mean_ms=None)
    errors = rows.tpot_errors([(told, found), (stated, found), (silent, found)])
    assert errors == pytest.approx([0.1, 0.21])
