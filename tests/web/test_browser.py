"""The page in a real Chromium: every panel, keyboard, history, phone, dark, audit, many users."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = Path(__file__).parent / "axe" / "axe.min.js"
PANELS = ("answer", "ranking", "tradeoffs", "load", "memory", "why")
WIDTHS = {"a phone": 360, "a tablet": 800, "a desk": 1440, "a wall": 3840}


@pytest.fixture
def tab(browser, served, question):
    """The page with its question answered."""
    found = browser.open(served.page(**question))
    found.answered()
    yield found
    assert found.problems == []
    found.close()


def search(tab) -> str:
    """Return the query in the address bar."""
    return str(tab.run("location.search"))


def test_every_panel_answers(tab) -> None:
    for name in PANELS:
        assert tab.run(f"document.querySelector('#{name}').dataset.stale === undefined"), name
        assert tab.run(f"document.querySelector('#{name}').innerText.length > 40"), name
    assert tab.run("document.querySelectorAll('#ranking tbody tr').length >= 1")
    assert "✓ simulated" in tab.run("document.querySelector('#ranking').innerText")
    assert tab.run("document.querySelectorAll('.picture svg').length") >= 14


def test_nothing_comes_from_elsewhere(tab, served) -> None:
    loaded = tab.run("performance.getEntriesByType('resource').map(r => r.name)")
    assert len(loaded) > 4
    assert all(name.startswith(served.url) for name in loaded)


def test_a_slider_moves_the_text_and_the_answer(tab) -> None:
    before = tab.run("document.querySelector('.headline').innerText")
    tab.run("document.querySelector('[data-part=tpot]').focus()")
    for _ in range(3):
        tab.press("ArrowRight")
    text = tab.run("document.getElementById('f-goodput').value")
    assert text.startswith("ttft:500 tpot:")
    assert text != "ttft:500 tpot:30"
    tab.answered()
    assert tab.run("document.querySelector('.headline').innerText") != before
    assert "goodput=ttft%3A500+tpot%3A" in search(tab)
    shell = tab.run("document.getElementById('shell').innerText")
    assert text in shell or text.replace(" ", "' '") in shell or text.split()[1] in shell


def test_the_url_is_the_problem(tab, browser) -> None:
    tab.type("#f-gpus", "2")
    tab.run("document.querySelector('#f-gpus').blur()")
    tab.until("location.search.includes('gpus=2')")
    tab.answered()
    again = browser.open(tab.run("location.href"))
    again.answered()
    read = "document.querySelector('#ranking').innerText.replaceAll(/\\s+/g, ' ')"
    assert again.run(read) == tab.run(read)
    assert again.run("document.getElementById('f-gpus').value") == "2"
    again.close()


def test_the_back_button_asks_the_former_question(tab) -> None:
    first = tab.run("document.querySelector('.headline').innerText")
    tab.type("#f-output-len", "300")
    tab.run("document.querySelector('#f-output-len').blur()")
    tab.until("location.search.includes('output-len=300')")
    tab.answered()
    assert tab.run("document.querySelector('.headline').innerText") != first
    tab.run("history.back()")
    tab.until("document.getElementById('f-output-len').value === '100'")
    tab.answered()
    assert tab.run("document.querySelector('.headline').innerText") == first


def test_what_is_wrong_is_beside_its_field_and_old_answers_are_grey(tab) -> None:
    tab.type("#f-hardware", "h100-sxn")
    tab.run("document.querySelector('#f-hardware').blur()")
    tab.until("document.getElementById('error-hardware').innerText.includes('nearest')")
    assert tab.run("document.getElementById('f-hardware').getAttribute('aria-invalid')") == "true"
    assert tab.run("document.querySelectorAll('#now .panel[data-stale]').length") >= len(PANELS)
    assert float(tab.run("getComputedStyle(document.querySelector('#answer')).opacity")) < 0.9
    tab.type("#f-hardware", "h100-sxm")
    tab.run("document.querySelector('#f-hardware').blur()")
    tab.answered()
    assert tab.run("document.getElementById('error-hardware').innerText") == ""
    assert tab.run("document.querySelectorAll('#answer[data-stale]').length") == 0


def test_the_keyboard_alone_reaches_everything(tab) -> None:
    tab.run("document.activeElement.blur()")
    seen = []
    for _ in range(400):
        tab.press("Tab")
        seen.append(
            tab.run(
                "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
                "return [e.tagName, e.id || e.className || e.textContent.trim().slice(0, 30),"
                " s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1]; })()"
            )
        )
        if seen[-1][0] == "BODY":
            break
    ids = [name for _, name, _ in seen]
    assert seen[0][1] == "skip"
    for wanted in ("f-model", "f-hardware", "f-gpus", "f-goodput", "toml", "file", "shell"):
        assert wanted in ids, wanted
    assert [s for s in seen if s[0] != "BODY" and not s[2]] == []
    order = [ids.index(name) for name in ("f-model", "f-hardware", "f-input-len", "f-goodput")]
    assert order == sorted(order)


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_it_fits_every_width(browser, served, question, width: int) -> None:
    tab = browser.open(served.page(**question), width=width, height=900)
    tab.answered()
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run(OVERPRINTED) == []
    assert tab.problems == []
    tab.close()


OVERPRINTED = """
[...document.querySelectorAll('.picture svg')].filter(s => s.checkVisibility()).flatMap(s => {
  const texts = [...s.querySelectorAll('text')];
  const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]);
  const frame = s.getBoundingClientRect();
  const out = boxes.filter(([_, b]) => b.left < frame.left - 1 || b.right > frame.right + 1)
    .map(([t]) => t + ' leaves its picture');
  boxes.forEach(([t, a], i) => boxes.slice(i + 1).forEach(([u, b]) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && down > 3) { out.push(t + ' | ' + u); }
  }));
  return out;
})
"""
"""Pairs of texts of a shown picture that overlap."""

AUDIT = """
axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes.length,
  v.nodes.slice(0, 4).map(n => n.html.slice(0, 160) + ' ' + n.failureSummary.slice(0, 200))]))
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_audit_finds_nothing_serious(
    browser, served, question, scheme: str, width: int
) -> None:
    tab = browser.open(served.page(**question), width=width, prefers_color_scheme=scheme)
    tab.answered()
    tab.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    tab.run(AXE.read_text(encoding="utf-8") + "; 0")
    found = tab.run(AUDIT)
    assert [v for v in found if v[0] in ("serious", "critical")] == []
    tab.close()


def test_dark_and_light_differ(browser, served, question) -> None:
    colours = []
    for scheme in ("light", "dark"):
        tab = browser.open(served.page(**question), prefers_color_scheme=scheme)
        colours.append(tab.run("getComputedStyle(document.body).backgroundColor"))
        tab.close()
    assert colours[0] != colours[1]


def test_reduced_motion_moves_nothing(browser, served, question) -> None:
    tab = browser.open(served.page(**question), prefers_reduced_motion="reduce")
    assert tab.run("getComputedStyle(document.querySelector('.panel')).transitionDuration") == "0s"
    tab.close()


def test_nothing_jumps_when_a_question_is_asked_again(tab) -> None:
    places = "[...document.querySelectorAll('#now .panel')].map(p => p.offsetTop)"
    tab.answered()
    before, last = tab.run(places), None
    while before != last:  # pictures of the last stage are still being laid out
        time.sleep(0.5)
        before, last = tab.run(places), before
    tab.type("#f-goodput", "ttft:505 tpot:30")
    tab.run("document.querySelector('#f-goodput').blur()")
    tab.until("document.querySelectorAll('#answer[data-stale]').length === 1")
    assert tab.run(places) == before
    tab.answered()


def test_it_prints(tab) -> None:
    import base64

    pdf = base64.b64decode(tab.send("Page.printToPDF")["data"])
    assert pdf[:5] == b"%PDF-"
    tab.send("Emulation.setEmulatedMedia", media="print")
    assert not tab.run("document.querySelector('#problem').checkVisibility()")
    assert tab.run("document.querySelector('#ranking').checkVisibility()")


def test_stop_leaves_what_is_old_grey(tab) -> None:
    tab.run("document.querySelector('#stop').hidden")
    tab.type("#f-model", "meta-llama/Llama-3.1-70B")
    tab.type("#f-gpus", "16")
    tab.run("document.querySelector('#f-gpus').blur()")
    tab.until("!document.querySelector('#stop').hidden")
    tab.run("document.querySelector('#stop').click()")
    tab.until("document.getElementById('status').textContent.startsWith('stopped')")
    assert tab.run("document.querySelectorAll('#now .panel[data-stale]').length") > 0


def stream(served, query):
    """Return the stream of a question's answers."""
    return urllib.request.urlopen(served.page(**query).replace("/?", "/answers?"), timeout=300)


def test_twenty_users_at_once(served, question) -> None:
    seconds: list[float] = []
    wrong: list[str] = []

    def ask(number: int) -> None:
        query = {**question, "goodput": f"ttft:{500 + number} tpot:30"}
        started = time.monotonic()
        with stream(served, query) as lines:
            for line in lines:
                if line == b"data: first\n":
                    seconds.append(time.monotonic() - started)
                    return
        wrong.append(str(number))

    users = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert wrong == []
    assert len(seconds) == 20
    print(json.dumps({"first answers of twenty users [s]": sorted(round(s, 2) for s in seconds)}))


def test_a_slow_question_keeps_no_other_waiting(served, question) -> None:
    slow = {**question, "model": "deepseek-ai/DeepSeek-V3", "hardware": "h200-sxm", "gpus": "128"}
    slow.pop("max-num-batched-tokens")
    asked = stream(served, slow)
    started = time.monotonic()
    quick = {**question, "goodput": "ttft:777 tpot:30"}
    with stream(served, quick) as lines:
        assert any(line == b"data: first\n" for line in lines)
    taken = time.monotonic() - started
    asked.close()
    assert taken < 30, taken


def test_a_killed_server_is_said_and_found_again(browser, served, question) -> None:
    tab = browser.open(served.page(**question))
    tab.answered()
    served.kill()
    tab.type("#f-gpus", "2")
    tab.run("document.querySelector('#f-gpus').blur()")
    tab.until("document.getElementById('status').textContent.includes('does not answer')")
    assert tab.run("document.querySelectorAll('#now .panel[data-stale]').length") >= len(PANELS)
    served.start()
    tab.answered(120)
    assert tab.run("document.querySelector('.headline').innerText").find("of 2 GPUs") > 0
    tab.close()
