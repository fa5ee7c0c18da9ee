"""The page as a client without a browser sees it: whole, streamed, escaped, within bounds."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

import bestserve as bs
from bestserve.lowering import lower
from bestserve.reporting.data import latency_charts
from bestserve.web import panels
from bestserve.web.safety import host_of, is_local

EVIL = "<script>alert('x')</script>"


class Outline(HTMLParser):
    """Elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag]


def events(text: str) -> list[tuple[str, str]]:
    """Return the names and data of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        name = next((x[7:] for x in lines if x.startswith("event: ")), "")
        data = "\n".join(x[6:] for x in lines if x.startswith("data: "))
        if lines:
            found.append((name, data))
    return found


@pytest.fixture(scope="module")
def streamed(client: TestClient, question) -> list[tuple[str, str]]:
    answer = client.get("/answers", params=question)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events(answer.text)


def test_panels_are_headed_while_they_wait_for_their_first_answer(client: TestClient) -> None:
    outline = Outline(client.get("/").text)
    sections = {a["id"]: a.get("aria-labelledby") for a in outline.of("section") if a.get("id")}
    headings = {a.get("id") for a in outline.of("h2")}
    for panel in ("answer", "ranking", "tradeoffs", "load", "memory", "why"):
        assert sections[panel] == f"h-{panel}"
        assert f"h-{panel}" in headings


def test_fields_of_speculation_and_images_have_a_group(client: TestClient) -> None:
    text = client.get("/").text
    for flag in ("speculative-config", "acceptance", "images-per-request", "layout"):
        assert f'id="f-{flag}"' in text, flag
    assert "Speculation and images" in text


def test_curves_are_evaluated_once_while_objectives_move() -> None:
    given = {
        "model": "meta-llama/Llama-3.1-8B",
        "hardware": "h100-sxm",
        "gpus": 1,
        "workload": bs.Workload(input_len=500, output_len=100),
    }
    loose, tight = (bs.Problem(**given, slo=f"ttft:500 tpot:{ms}") for ms in (30, 20))
    row = bs.rank(loose, verify=False).best
    panels.known_curve.cache_clear()
    charts = [
        latency_charts(lower(problem), [row], panels.curves_of(problem))
        for problem in (loose, tight)
    ]
    assert panels.known_curve.cache_info().misses == 1
    assert panels.known_curve.cache_info().hits == 1
    alone = latency_charts(lower(tight), [row])
    for chart, plain in zip(charts[1], alone, strict=True):
        assert chart.limits == plain.limits != charts[0][1].limits
        assert chart.series[0].y == pytest.approx(plain.series[0].y, rel=1e-3)


def test_formulas_answer_first_then_simulation(streamed: list[tuple[str, str]]) -> None:
    assert [data for name, data in streamed if name == "found"] == ["first", "confirmed"]
    assert streamed[-1][0] == "done"
    assert 'role="alert"' not in "".join(data for _, data in streamed)
    first = next(i for i, event in enumerate(streamed) if event == ("found", "first"))
    before = "".join(data for _, data in streamed[:first])
    after = "".join(data for _, data in streamed[first:])
    for panel in ("answer", "ranking", "tradeoffs", "load", "memory"):
        assert f'hx-target="#{panel}"' in before, panel
    assert "by formulas" in before
    assert "✓ simulated" not in before
    for panel in ("answer", "ranking", "tradeoffs", "why"):
        assert f'hx-target="#{panel}"' in after, panel
    assert "held to simulation" in after
    assert "✓ simulated" in after


def test_parts_show_figures_with_their_tables_and_units(streamed: list[tuple[str, str]]) -> None:
    text = "".join(data for _, data in streamed)
    outline = Outline(text)
    pictures = outline.of("svg")
    assert len(pictures) > 10
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in pictures)
    assert len(outline.of("table")) == len(outline.of("caption"))
    for words in ("req/s", "TTFT [ms]", "tokens/s", "memory [GB]", "objective 500 ms"):
        assert words in text, words


def test_no_style_and_no_script_stands_in_a_part(streamed: list[tuple[str, str]]) -> None:
    for tag, attributes in Outline("".join(data for _, data in streamed)).elements:
        assert tag != "script"
        assert not {"style", "onclick", "onload"} & attributes.keys()


def test_the_same_question_is_answered_from_what_is_known(
    client: TestClient, streamed, question
) -> None:
    again = events(client.get("/answers", params=question).text)
    assert [e for e in again if "#progress" not in e[1]] == [
        e for e in streamed if "#progress" not in e[1]
    ]


def test_what_is_wrong_ends_the_stream(client: TestClient, question) -> None:
    found = events(client.get("/answers", params={**question, "gpus": "many"}).text)
    assert found[-1][0] == "refused"
    assert 'hx-target="#error-gpus" hx-swap="innerHTML">&#39;many&#39;' in found[0][1]


def test_arrivals_that_no_formula_knows_are_simulated(client: TestClient, question) -> None:
    found = events(client.get("/answers", params={**question, "burstiness": "0.5"}).text)
    assert found[-1][0] == "done"
    text = "".join(data for _, data in found)
    assert 'role="alert"' not in text
    assert "held to simulation" in text


def test_nothing_feasible_is_an_answer(client: TestClient, question) -> None:
    asked = {**question, "goodput": "ttft:1 tpot:0.1s"}
    found = events(client.get("/answers", params=asked).text)
    assert found[-1][0] == "done"
    assert "no strategy is feasible" in "".join(data for _, data in found)


def test_the_page_stands_on_its_own(client: TestClient, question) -> None:
    answer = client.get("/", params=question)
    outline = Outline(answer.text)
    for name in ("src", "href", "action"):
        for _, attributes in outline.elements:
            assert not (attributes.get(name) or "/").startswith(("http", "//"))
    for tag, attributes in outline.elements:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "style"
    assert all("src" in a for a in outline.of("script"))
    ids = [a["id"] for _, a in outline.elements if "id" in a]
    assert len(ids) == len(set(ids))
    named = {a["for"] for a in outline.of("label") if "for" in a}
    controls = [a for t in ("input", "select") for a in outline.of(t)]
    for a in controls:
        assert a.get("type") in ("hidden", "range") or a["id"] in named, a
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for name in (a["src"] for a in outline.of("script")):
        assert client.get(str(name)).status_code == 200


def test_fields_hold_what_the_url_says(client: TestClient, question) -> None:
    page = client.get("/", params={**question, "joint": "yes", "precision": "fp8"}).text
    assert 'name="input-len" class="typed" value="lognormal:500,1"' in page
    assert "<option selected>fp8</option>" in page
    assert "bestserve rank --model meta-llama/Llama-3.1-8B" in page


def test_without_scripts_the_page_holds_the_answer(client: TestClient, question) -> None:
    page = client.get("/", params={**question, "now": "1"}).text
    assert '<section id="ranking"' in page
    assert "requests per second on 1 of 1 GPUs" in page
    assert "hx-partial" not in page


@pytest.mark.parametrize("field", ["model", "hardware", "engine", "input-len", "rest"])
def test_names_of_strangers_are_escaped(client: TestClient, field: str, question) -> None:
    written = json.dumps({EVIL: 1}) if field == "rest" else EVIL
    for path in ("/", "/answers"):
        text = client.get(path, params={**question, field: written}).text
        assert "<script>alert" not in text
        assert "alert(" in text
    kind = {"name": "<img src=x>", "share": 1, "input_len": 9, "output_len": 9}
    evil = json.dumps({"workload": {"classes": [kind]}})
    asked = {k: v for k, v in question.items() if not k.endswith("-len")}
    assert "<img" not in client.get("/answers", params={**asked, "rest": evil}).text


def test_a_problem_file_leads_to_its_url(client: TestClient, question) -> None:
    taken = client.get("/problem.toml", params=question)
    assert taken.headers["content-disposition"] == 'attachment; filename="problem.toml"'
    dropped = client.post(
        "/problem", files={"file": ("problem.toml", taken.content)}, follow_redirects=False
    )
    assert dropped.status_code == 303
    again = client.get("/problem.toml" + dropped.headers["location"].removeprefix("/"))
    assert again.content == taken.content


@pytest.mark.parametrize(("name", "content"), [
    ("problem.toml", b"not toml"),
    ("problem.yaml", b"a: &x [1]\nb: *x\n"),
    ("problem.json", b"[1, 2]"),
    ("problem.toml", b"\xff\xfe\x00"),
    ("problem.toml", b"x" * 400_000),
    (f"{EVIL}.toml", b'model = "x"'),
])  # fmt: skip
def test_a_file_that_is_no_problem_is_a_sentence(client, name: str, content: bytes) -> None:
    answer = client.post("/problem", files={"file": (name, content)})
    assert answer.status_code == 400
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(("headers", "status"), [
    ({}, 200),
    ({"host": "localhost:8265"}, 200),
    ({"host": "[::1]:8265"}, 200),
    ({"host": "evil.example"}, 421),
    ({"host": "127.0.0.1.evil.example:8265"}, 421),
    ({"host": ""}, 421),
    ({"origin": "http://127.0.0.1:8265"}, 200),
    ({"origin": "http://127.0.0.1:9999"}, 403),
    ({"origin": "https://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
])  # fmt: skip
def test_only_its_own_pages_ask(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.get("/ready", headers=headers).status_code == status


def test_requests_are_bounded(client: TestClient) -> None:
    assert client.get("/", params={"model": "x" * 40_000}).status_code == 414
    assert client.post("/problem", headers={"content-length": str(10**9)}).status_code == 413
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/SOURCES.md").status_code == 404
    assert client.post("/long/nothing", data={"gpus": "1"}).status_code == 404


def test_addresses_of_this_machine_are_told_from_others() -> None:
    assert [is_local(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "box")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert host_of("[::1]:80") == "::1"
    assert host_of("a]b") == ""


def test_vendored_scripts_are_those_of_the_list(root) -> None:
    import hashlib

    folder = root / "bestserve/data/web/static"
    listed = re.findall(r"`([\w.-]+\.js)`.*`([0-9a-f]{64})`", (folder / "SOURCES.md").read_text())
    assert len(listed) == 2
    for name, known in listed:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == known
