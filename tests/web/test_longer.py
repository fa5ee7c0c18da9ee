"""Questions that wait for their button: answered, told how far they are, stopped."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from bestserve.web.longer import LONGER, day_of
from bestserve.web.panels import scaled
from bestserve.web.workers import Answers, Crew, Job, Message

FIXTURES = Path(__file__).parents[1] / "formats" / "fixtures"


def asked(client: TestClient, name: str, question: dict[str, str], **more: Any) -> str:
    """Return the stream of a long question."""
    own = {f"q-{key}": value for key, value in more.items() if key != "file"}
    files = {"q-file": more["file"]} if "file" in more else None
    return client.post(f"/long/{name}", data={**question, **own}, files=files).text


def test_the_map_says_who_wins_where(client: TestClient, question: dict[str, str]) -> None:
    text = asked(client, "map", question, first="workload.input_len=x0.5,x2", second="")
    assert 'hx-target="#result-map"' in text
    assert "Goodput of the leading strategies" in text
    assert "event: done" in text
    both = asked(client, "map", question, first="slo.ttft=x1,x2", second="slo.tpot=x1,x2")
    assert "Which strategy wins where" in both
    assert re.search(r"<text[^>]*>A \d", both)


def test_layouts_are_compared(client: TestClient, question: dict[str, str]) -> None:
    asks = {**question, "gpus": "2", "tensor-parallel-size": "1"}
    text = asked(client, "crossover", asks, figure="workload.output_len=x0.5,x4")
    assert "Goodput of the leading strategies" in text
    assert "wins at" in text


def test_what_is_no_figure_is_a_sentence(client: TestClient, question: dict[str, str]) -> None:
    text = asked(client, "map", question, first="workload.inputlen=x2")
    assert "unknown figure" in text
    assert 'role="alert"' in text


def test_a_day_is_planned(client: TestClient, question: dict[str, str]) -> None:
    load = b"start,request_rate\n0,1\n600,3\n1200,2\n"
    more = {"strategy": "1m-tp1", "objective": "gpu-hours", "file": ("load.csv", load)}
    text = asked(client, "day", {**question, "gpus": "2"}, **more)
    assert text.count("<figure") >= 3
    assert "GPU-hours" in text
    assert text.count("00:20") >= 1


def test_a_day_may_hold_as_a_whole_and_have_room(client: TestClient, question) -> None:
    load = ("load.csv", b"start,request_rate\n0,10\n600,120\n1200,20\n")
    hours = {}
    for over, headroom in (("window", "0"), ("day", "0"), ("window", "60")):
        more = {"strategy": "1m-tp1", "over": over, "headroom": headroom, "file": load}
        text = asked(client, "day", {**question, "gpus": "8"}, **more)
        hours[over, headroom] = float(re.search(r"1m-tp1: ([0-9.]+) GPU-hours", text)[1])
    assert hours["day", "0"] <= hours["window", "0"] < hours["window", "60"]
    text = asked(client, "day", question, over="<b>month", strategy="1m-tp1")
    assert "is none of window and day" in text
    assert "<b>" not in text


def test_a_day_of_its_own_rises_and_falls() -> None:
    rates = [float(line.partition(",")[2]) for line in day_of(10.0, 0.2).splitlines()[1:]]
    assert max(rates) == rates[15] == 10.0
    assert min(rates) == rates[3] == pytest.approx(2.0)


def test_a_fleet_of_two_kinds_is_planned(client: TestClient, question: dict[str, str]) -> None:
    text = asked(client, "fleet", question, gpus="h100-sxm:1 a100-80gb-sxm:1", rate="2")
    assert "no plan beats" in text
    assert "Pools of the plan" in text
    assert "Requests and pools" in text
    assert text.count("req/s</title></path>") >= 2


def test_a_log_is_compared(client: TestClient, question: dict[str, str]) -> None:
    log = (FIXTURES / "vllm-bench-serve" / "summary.json").read_bytes()
    text = asked(client, "log", question, file=("<b>../x.json", log))
    assert "Runs" in text
    assert "not in the catalogue: acme/small-7b" in text
    assert "<b>" not in text
    known = {"model": "meta-llama/Llama-3.1-8B", "gpu": "h100-sxm", "tp": "1", "engine": "vllm"}
    text = asked(client, "log", question, file=("x.json", log), **known)
    assert "TTFT: predicted against measured" in text
    assert "1 of 1 rows predicted" in text


@pytest.mark.parametrize("name", LONGER)
def test_a_question_about_nothing_says_so(client: TestClient, name: str) -> None:
    text = asked(client, name, {"model": "x"})
    assert "first mend what the form of the problem says" in text
    assert "event: done" in text


def test_no_log_and_a_broken_log_are_sentences(client: TestClient, question) -> None:
    assert "choose the log" in asked(client, "log", question)
    assert "role=" in asked(client, "log", question, file=("x.json", b"\x00\x01"))


def test_former_leaders_are_looked_at_first(client: TestClient, question) -> None:
    answer = client.get("/answers", params={**question, "keep": "1m-tp1 <b>x 2m-tp1 nonsense"}).text
    first, _, rest = answer.partition("event: found\ndata: glance")
    assert "first look" in first
    assert "2m-tp1" not in first.replace("2m-tp1 nonsense", "")
    assert "by formulas" in rest


def test_replicas_follow_the_gpus() -> None:
    assert scaled("2m-tp1", 5) == "5m-tp1"
    assert scaled("3p-tp2+2d-tp4", 28) == "6p-tp2+4d-tp4"
    assert scaled("x" * 400, 4) == ""


def test_a_slow_question_is_stopped_and_its_worker_answers_again(question) -> None:
    from bestserve.web.app import plain
    from bestserve.web.query import read_query

    problem = read_query(question.items()).problem
    assert problem is not None
    stated = plain(problem)

    async def story() -> tuple[list[Message], list[Message]]:
        crew = Crew(1, limit=120.0)
        await crew.start()
        try:
            slow = crew.ask(Job("uncertainty", stated))
            begun = [await anext(slow), await anext(slow)]
            await slow.aclose()
            again = [m async for m in crew.ask(Job("first", stated))]
        finally:
            await crew.stop()
        return begun, again

    begun, again = asyncio.run(story())
    assert all("progress" in m for m in begun)
    assert again[-1]["end"] == "answered"
    assert sum("part" in m for m in again) == 6


def test_what_takes_too_long_is_given_up(question) -> None:
    from bestserve.web.app import plain
    from bestserve.web.query import read_query

    problem = read_query(question.items()).problem
    assert problem is not None
    stated = plain(problem)

    async def story() -> list[Message]:
        crew = Crew(1, limit=0.01)
        await crew.start()
        try:
            return [m async for m in crew.ask(Job("uncertainty", stated))]
        finally:
            await crew.stop()

    assert asyncio.run(story())[-1]["error"].startswith("given up after")


def test_answers_are_kept_within_bounds() -> None:
    kept = Answers(limit=25)
    for key in "abc":
        kept.put(key, [{"part": key * 10}])
    assert kept.get("a") is None
    assert kept.get("c") == [{"part": "c" * 10}]
    assert kept.size <= 25
