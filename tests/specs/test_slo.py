"""Objectives as vLLM writes them."""

from __future__ import annotations

import pytest

from bestserve.errors import InputError
from bestserve.specs.slo import SLO, checked_table


def test_vllm_form_is_in_milliseconds():
    slo = SLO("ttft:1000 tpot:50", percentile=90)
    assert (slo.ttft, slo.tpot, slo.e2el) == (1.0, 0.05, None)
    target = slo.target()
    assert (target.ttft_percentile, target.tpot_percentile, target.joint) == (0.9, 0.9, False)


def test_units_and_percentiles_can_be_written_down():
    slo = SLO("ttft:0.5s@p99, tpot = 50ms, e2el:1min")
    assert (slo.ttft, slo.tpot, slo.e2el) == (0.5, 0.05, 60.0)
    assert slo.percentile_of("ttft") == 99
    assert slo.percentile_of("tpot") == 90


@pytest.mark.parametrize(
    "text",
    ["", "ttft", "ttft:", "ttft:abc", "ttft:-5", "ttft:0", "ttft:nan", "ttft:inf", "tfft:5",
     "ttft:5 ttft:6", "ttft:5parsec", "ttft:0.5", "tpot:.05",
     "ttft:500@p0", "ttft:500@p100", "itx:5",
     "deadline:50", "deadline:1000+50+5", "ttft:500+5", "stall:200", "fluidity:0.9",
     "fluidity:2 pace:50", "fluidity:x pace:50", "slack:20 ttft:500", "pace:50", "pace:50@p90",
     "e2el:1000+0.01", "deadline:1000+50 pace:60"],
)  # fmt: skip
def test_nonsense_is_refused_in_one_line(text):
    with pytest.raises(InputError) as error:
        SLO(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [{"percentile": 0}, {"percentile": 100}, {"attainment": 1.0}])
def test_shares_must_leave_room(values):
    with pytest.raises(InputError):
        SLO("ttft:500", **values)


def test_thresholds_are_seconds_or_text_with_a_unit():
    assert SLO(ttft="500ms", tpot=0.05) == SLO("ttft:500 tpot:50")
    for text in ("500", "", "5 parsec"):
        with pytest.raises(InputError):
            SLO(ttft=text)


@pytest.mark.parametrize(("metric", "value"), [("ttft", 500), ("tpot", 50.0), ("e2el", 30_000)])
def test_milliseconds_in_a_table_are_not_taken_for_seconds(metric, value):
    with pytest.raises(InputError, match=f'"{value:g}ms"'):
        checked_table({metric: value})
    assert checked_table({metric: value / 1e3})
    assert checked_table({metric: f"{value}s"})


def test_token_deadlines_count_from_their_own_first_or_from_ttft():
    own = SLO("deadline:1000+50 slack:200").target().tokens
    assert (own.first, own.pace, own.slack, own.asked) == (1.0, 0.05, 0.2, ("deadline",))
    beside = SLO("ttft:500@p99 deadline:50ms")
    assert (beside.target().tokens.first, beside.target().tokens.slack) == (0.5, 0.0)
    assert beside.target().asked == ("ttft", "deadline")
    assert SLO(deadline_first="1s", deadline="50ms", slack=0.2) == SLO("deadline:1000+50 slack:200")


def test_readers_take_the_pace_that_is_stated_nearest():
    assert SLO("tpot:40 stall:200").target().tokens.pace == 0.04
    assert SLO("ttft:900 tpot:40 deadline:60 stall:200").target().tokens.pace == 0.06
    assert SLO("tpot:40 stall:200 pace:100").target().tokens.pace == 0.1


def test_only_deadlines_have_a_formula():
    target = SLO("ttft:1000 deadline:50 stall:200 fluidity:0.9 itl:100@p99").target()
    assert target.asked == ("ttft", "deadline", "stall", "fluidity", "itl")
    assert target.without_formula == ("stall", "fluidity", "itl")
    assert [target.required(name) for name in target.asked] == [0.9, 0.9, 0.9, 0.9, 0.99]
    assert target.strictest == 0.99


def test_end_to_end_may_grow_with_the_length():
    slo = SLO("e2el:1000+50")
    assert (slo.e2el, slo.e2el_per_token, slo.target().e2el_per_token) == (1.0, 0.05, 0.05)
    assert str(slo) == "P90 E2EL ≤ 1000 ms + 50 ms a token"


def test_gaps_are_all_of_a_request_unless_a_share_is_stated():
    assert SLO("itl:100", joint=True).target().tokens.own_gaps == 1.0
    assert SLO("itl:100@p99", joint=True).target().tokens.own_gaps == 0.99


def test_a_pace_that_nothing_reads_is_refused():
    with pytest.raises(InputError, match="stall or fluidity"):
        SLO("ttft:500 pace:50")
