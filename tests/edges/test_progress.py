"""How long work takes is said: on a terminal as it goes, in a log now and then."""

from __future__ import annotations

import pytest

from bestserve.cli import talk


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(talk.time, "monotonic", lambda: now[0])
    return now


def test_a_log_hears_of_long_work_now_and_then(clock, capsys):
    with talk.progress("replaying") as say:
        for second in range(1, 101):
            clock[0] = float(second)
            say(f"{second} of 100 rows")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "replaying: 10 of 100 rows (10 %, about 90 s left), 10 s so far"
    assert [line.split()[1] for line in lines] == ["10", "20", "40", "80"]


def test_short_work_is_silent_in_a_log(clock, capsys):
    with talk.progress("ranking") as say:
        clock[0] = 9.0
        say("3 of 4")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("text", "said"), [
    ("1 of 4", " (25 %, about 300 s left)"), ("12/12 gemm", " (100 %, about 0 s left)"),
    ("simulating 2m-tp4", ""), ("0 of 9", ""), ("9 of 3", ""),
])  # fmt: skip
def test_the_rest_takes_as_long_as_what_was_done(text, said):
    expected = said.replace("300 s", "5 min")
    assert talk.remaining(text, 100.0) == expected
