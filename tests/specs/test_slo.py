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
     "ttft:500@p0", "ttft:500@p100", "itl:5"],
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
